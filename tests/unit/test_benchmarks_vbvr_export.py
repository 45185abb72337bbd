"""Runs into the benchmark's tree: complete or refused, square or cut, the same bytes again."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.vbvr.clips import probe
from benchmarks.vbvr.export import changed, export
from benchmarks.vbvr.tree import write_tree
from vlmteach.instances import decode, fit_first_frame, pack, read_samples
from vlmteach.ledger import folder_name
from vlmteach.rows import COSTS
from vlmteach.types import ClipSpec
from vlmteach.video import read_video, write_video

SLIDING = "In-Domain_50/O-47_sliding_puzzle_data-generator"
CIRCLES = "Out-of-Domain_50/G-174_arrange_circles_by_circumference_data-generator"
PLACES = (f"{SLIDING}/00000", f"{SLIDING}/00001", f"{CIRCLES}/00000")


def picture(colour, size=(64, 64)):
    image = Image.new("RGB", size, colour)
    image.paste((20, 20, 20), (8, 8, 24, 24))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def bench(tmp_path):
    """A packed official tree of three samples and a run that finished all of them."""
    for n, place in enumerate(PLACES):
        folder = tmp_path / "tree" / place
        folder.mkdir(parents=True)
        (folder / "first_frame.png").write_bytes(picture("white"))
        (folder / "final_frame.png").write_bytes(picture("red"))
        (folder / "ground_truth.mp4").write_bytes(b"truth")
        (folder / "prompt.txt").write_text(f"Solve {n}.")
    return Resources(tmp_path)


class Resources:
    def __init__(self, root):
        self.root, self.run, self.out = root, root / "run", root / "videos"
        self.tar = root / "data.tar"
        self.pack()
        self.run.mkdir()
        (self.run / "config.yaml").write_text("method: micro_fit\n")
        self.finish(160, 160)

    def pack(self):
        assert not pack(self.root / "tree", self.tar).refused

    def folder(self, key):
        return self.run / folder_name(key)

    def finish(self, height, width, frames=5):
        """What `vlmteach.fit` leaves: the framed first frame with a blue square that moves."""
        for raw in read_samples(str(self.tar)):
            instance = decode(raw)
            assert instance.first_frame is not None
            spec = ClipSpec(frames, height, width, 8.0)
            still = np.array(fit_first_frame(instance.first_frame, spec))
            clip = np.stack([still] * frames)
            for t in range(frames):
                clip[t, height // 2 : height // 2 + 8, width // 2 : width // 2 + 8 * t] = (
                    0,
                    0,
                    255,
                )
            folder = self.folder(raw.key)
            folder.mkdir(exist_ok=True)
            write_video(folder / "clip.mp4", clip, 8.0)
            done = {
                **{"key": raw.key, "digest": instance.digest, "method": "micro_fit", "seed": 3},
                **{"steps": 2, "compute": {"seconds": 1.5, "reasoner_forwards": 4}},
            }
            (folder / "done.json").write_text(json.dumps(done))

    def export(self, model="ours", **options):
        return export(self.run, [str(self.tar)], self.out, model, **options)

    def files(self, model="ours"):
        folder = self.out / model
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())

    def manifest(self, model="ours"):
        return json.loads((self.out / f"{model}.json").read_text())


def test_a_finished_run_is_written_as_the_kit_reads_it(bench):
    bench.export()
    assert bench.files() == sorted(f"{place}.mp4" for place in PLACES)
    for place in PLACES:
        out = bench.out / "ours" / f"{place}.mp4"
        assert probe(out).pixels == "yuv420p"
        # Already what the benchmark takes: not encoded a second time.
        assert out.read_bytes() == (bench.folder(place) / "clip.mp4").read_bytes()


def test_the_manifest_tells_what_was_made_and_how(bench):
    bench.export()
    manifest = bench.manifest()
    assert [entry["path"] for entry in manifest["videos"]] == [f"{place}.mp4" for place in PLACES]
    assert not changed(bench.out, "ours")
    entry = manifest["videos"][0]
    assert (entry["frames"], entry["height"], entry["width"], entry["fps"]) == (5, 160, 160, 8.0)
    cost = {"seed": 3, "steps": 2, "seconds": 1.5, "reasoner_forwards": 4}
    assert entry["cost"] == dict.fromkeys(COSTS) | cost
    assert manifest["fps"] == [8.0]
    assert manifest["run"]["config"] == {"method": "micro_fit"}
    assert manifest["run"]["methods"] == ["micro_fit"]
    assert set(manifest["versions"]) == {"vlmteach", "av", "torch"}
    assert str(bench.root) not in (bench.out / "ours.json").read_text()
    (bench.out / "ours" / entry["path"]).write_bytes(b"other")
    assert changed(bench.out, "ours") == [entry["path"]]


def test_an_incomplete_run_is_refused_and_nothing_written(bench):
    (bench.folder(PLACES[0]) / "done.json").unlink()
    error = {"error": "ValueError: too bad\nmore"}
    (bench.folder(PLACES[1]) / "error.json").write_text(json.dumps(error))
    (bench.folder(PLACES[2]) / "clip.mp4").unlink()
    with pytest.raises(ValueError, match="got 3 instances without a clip") as refusal:
        bench.export()
    for place, why in zip(PLACES, ("no result", "too bad", "no clip.mp4"), strict=True):
        assert f"{place}: " in str(refusal.value)
        assert why in str(refusal.value)
    assert not bench.out.exists()


def test_a_clip_of_an_older_instance_is_refused(bench):
    (bench.root / "tree" / PLACES[1] / "prompt.txt").write_text("Solve something else.")
    bench.pack()
    with pytest.raises(ValueError, match="another version of the instance"):
        bench.export()


def test_what_belongs_to_no_instance_is_refused(bench):
    stray = bench.out / "ours" / SLIDING / "00007.mp4"
    stray.parent.mkdir(parents=True)
    stray.touch()
    with pytest.raises(ValueError, match=r"got 1 files that belong to no sample[\s\S]*00007.mp4"):
        bench.export()
    assert bench.files() == [f"{SLIDING}/00007.mp4"]  # refused before anything was written


def test_the_same_again_does_nothing_and_repairs_what_was_lost(bench):
    bench.export()
    paths = [bench.out / "ours" / f"{place}.mp4" for place in PLACES]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in paths]
    assert bench.export() == ["ours: 3 videos were there already"]
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in paths] == before
    paths[0].write_bytes(b"damaged")
    paths[1].unlink()
    bench.export()
    assert [path.read_bytes() for path in paths] == [data for _, data in before]


def test_a_model_of_other_clips_is_not_overwritten(bench):
    bench.export()
    kept = bench.manifest()
    bench.finish(128, 128)
    with pytest.raises(ValueError, match="a model of other clips"):
        bench.export()
    assert bench.manifest() == kept
    bench.export("second")
    assert bench.manifest("second")["sha256"] != kept["sha256"]


def test_a_framed_clip_is_cut_back_to_the_picture(bench):
    bench.finish(160, 288)  # 64 x 64 pictures: 64 pixels of border on either side
    bench.export(rows=["static"])
    for model in ("ours", "static"):
        frames, _ = read_video(bench.out / model / f"{PLACES[0]}.mp4")
        assert frames.shape == (5, 160, 160, 3)
        assert bench.manifest(model)["videos"][0]["cut_to"] == [64, 0, 224, 160]
    frames, _ = read_video(bench.out / "ours" / f"{PLACES[0]}.mp4")
    whole, _ = read_video(bench.folder(PLACES[0]) / "clip.mp4")
    difference = frames.float() - whole[:, :, 64:224].float()
    assert difference.abs().mean() < 1  # encoded twice
    assert frames[0, 40, 40].max() < 60  # the dark square, where it stands in the picture


def test_small_clips_are_enlarged_by_a_whole_factor(bench):
    bench.finish(48, 48)
    before = probe(bench.folder(PLACES[0]) / "clip.mp4")
    bench.export()
    out = bench.out / "ours" / f"{PLACES[0]}.mp4"
    assert (before.pixels, probe(out).pixels) == ("yuv444p", "yuv420p")
    small, _ = read_video(bench.folder(PLACES[0]) / "clip.mp4")
    large, fps = read_video(out)
    assert (large.shape, fps) == ((5, 144, 144, 3), 8.0)
    back = large[:, 1::3, 1::3].float()
    assert (back - small.float()).abs().mean() < 1.5


def test_rows_go_through_the_same_path(bench):
    bench.export(rows=["static", "end_jump"])
    for row, last in (("static", (255, 255, 255)), ("end_jump", (255, 0, 0))):
        assert bench.files(row) == bench.files("ours")
        frames, fps = read_video(bench.out / row / f"{PLACES[0]}.mp4")
        assert (frames.shape, fps) == ((5, 160, 160, 3), 8.0)
        corner = frames[:, 120:, 120:].float().mean((1, 2))
        assert (corner[0] - 255).abs().max() < 6
        for t in range(1, 5):
            assert (corner[t] - torch.tensor(last)).abs().max() < 6
        assert bench.manifest(row)["row"] == row
        assert bench.manifest(row)["run"] is None
    assert bench.export("second", rows=["static"])[1] == "static: 3 videos were there already"


def test_the_jump_needs_the_held_out_frame(bench):
    (bench.root / "tree" / PLACES[2] / "final_frame.png").unlink()
    bench.pack()
    with pytest.raises(ValueError, match=f"1 instances without a final[\\s\\S]*{CIRCLES}"):
        bench.export(rows=["end_jump"])
    assert not bench.out.exists()


@pytest.mark.parametrize("model", ["../up", "a/b", "", "static", ".hidden"])
def test_a_models_name_is_a_plain_folder(bench, model):
    with pytest.raises(ValueError, match="--model: got"):
        bench.export(model)


def test_an_export_that_was_interrupted_is_taken_up(bench, monkeypatch):
    from benchmarks.vbvr import export as module

    write, seen = module.write_clip, []

    def interrupted(*arguments):
        if seen:
            raise KeyboardInterrupt
        seen.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(module, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.export()
    assert len(bench.files()) == 1
    assert not (bench.out / "ours.json").exists()
    monkeypatch.undo()
    bench.export()
    assert bench.files() == sorted(f"{place}.mp4" for place in PLACES)


def test_a_tar_becomes_the_official_tree_again(bench):
    out = bench.root / "official"
    assert write_tree([str(bench.tar)], out) == 3
    for place in PLACES:
        for path in (bench.root / "tree" / place).iterdir():
            assert (out / place / path.name).read_bytes() == path.read_bytes()
    (out / PLACES[0] / "extra.txt").touch()
    with pytest.raises(ValueError, match=r"extra.txt"):
        write_tree([str(bench.tar)], out)


def test_a_tree_needs_the_truth_of_every_sample(bench):
    (bench.root / "tree" / PLACES[1] / "ground_truth.mp4").unlink()
    bench.pack()
    with pytest.raises(ValueError, match=f"got 1 without first frame[\\s\\S]*{PLACES[1]}"):
        write_tree([str(bench.tar)], bench.root / "official")
    assert not (bench.root / "official").exists()
