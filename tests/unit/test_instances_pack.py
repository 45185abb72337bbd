"""Importers and the packer: the known trees and tables in, one tar out."""

import base64
import io
import json
import subprocess
import sys
import tarfile
from typing import Literal

import pytest
from PIL import Image

from vlmteach.instances import decode, pack, read_held_out, read_samples
from vlmteach.instances.__main__ import main
from vlmteach.instances.sample import LIMITS

OFFICIAL = "In-Domain_50/O-47_sliding_puzzle_data-generator/00000"


def picture(colour="red", format="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format)
    return buffer.getvalue()


PNG = picture()
FILES = {
    "first_frame.png": PNG,
    "prompt.txt": b"Slide it.\n",
    "final_frame.png": picture("blue"),
    "ground_truth.mp4": b"mp4",
}


def plant(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def plant_tar(path, files, mode: Literal["w", "w:gz"] = "w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def packed(tmp_path, source, **options):
    out = tmp_path / "out.tar"
    report = pack(source, out, **options)
    instances = [decode(raw) for raw in read_samples(str(out))] if report.keys else []
    return {i.key: i for i in instances}, [str(error) for error in report.refused]


def test_the_official_tree(tmp_path):
    plant(tmp_path / "in" / OFFICIAL)
    plant(tmp_path / "in" / "Out-of-Domain_50/G-1_x_data-generator/00003")
    found, refused = packed(tmp_path, tmp_path / "in")
    assert list(found) == [OFFICIAL, "Out-of-Domain_50/G-1_x_data-generator/00003"]
    assert refused == []
    instance = found[OFFICIAL]
    assert instance.prompt == "Slide it."
    assert instance.task == "O-47_sliding_puzzle_data-generator"
    assert instance.split == "In-Domain_50"
    assert instance.category == "Abstraction"  # the benchmark's, since no index states one
    held = next(read_held_out(str(tmp_path / "out.tar")))
    assert held.final_png == FILES["final_frame.png"]
    assert held.ground_truth_mp4 == b"mp4"


def test_raw_generator_output_with_metadata(tmp_path):
    name = "O-30_bookshelf_data-generator"
    folder = tmp_path / "in" / name / "bookshelf_task" / "bookshelf_00000000"
    plant(folder, {**FILES, "metadata.json": b'{"seed": 42}'})
    for source in (tmp_path / "in", tmp_path / "in" / name):
        found, _ = packed(tmp_path, source)
        assert list(found) == [f"{name}/bookshelf_00000000"]
        assert found[f"{name}/bookshelf_00000000"].task == name
    held = next(read_held_out(str(tmp_path / "out.tar")))
    assert held.meta == {"seed": 42}


def test_a_tree_that_names_no_generator_keeps_its_paths(tmp_path):
    plant(tmp_path / "in" / "chess_task" / "chess_0001")
    found, _ = packed(tmp_path, tmp_path / "in")
    assert list(found) == ["chess_task/chess_0001"]


def test_the_collection_as_folders_and_as_archives(tmp_path):
    name = "G-5_y_data-generator"
    plant(tmp_path / "folders" / "questions" / name / "y_task" / "y_00000001")
    inside = {f"y_task/y_00000001/{file}": data for file, data in FILES.items()}
    plant_tar(tmp_path / "bare" / "questions" / f"{name}.tar.gz", inside)
    nested = {f"./{name}/{file}": data for file, data in inside.items()}
    plant_tar(tmp_path / "nested" / "questions" / f"{name}.tar.gz", nested)
    outs = []
    for shape in ("folders", "bare", "nested"):
        found, refused = packed(tmp_path, tmp_path / shape)
        assert list(found) == [f"{name}/y_00000001"]
        assert refused == []
        outs.append((tmp_path / "out.tar").read_bytes())
    assert outs[0] == outs[1] == outs[2]
    found, _ = packed(tmp_path, tmp_path / "bare" / "questions" / f"{name}.tar.gz")
    assert list(found) == [f"{name}/y_00000001"]


def test_the_pro_tree_with_its_video_folder(tmp_path):
    files = {f"video/{name}": data for name, data in FILES.items()}
    plant(tmp_path / "in" / OFFICIAL, {**files, "metadata.json": b"{}"})
    found, _ = packed(tmp_path, tmp_path / "in")
    assert list(found) == [OFFICIAL]
    assert next(read_held_out(str(tmp_path / "out.tar"))).meta == {}


def shaped(root, shape, files):
    """One sample of the sliding puzzle in each of VBVR's shapes; returns the source to pack."""
    name = "O-47_sliding_puzzle_data-generator"
    inside = f"sliding_puzzle_task/sliding_puzzle_{7:08d}"
    if shape == "official":
        plant(root / OFFICIAL, files)
    elif shape == "indexed":
        given = {n: d for n, d in files.items() if n not in ("first_frame.png", "prompt.txt")}
        plant(root / OFFICIAL, given)
        row = {
            **{"prompt": files["prompt.txt"].decode(), "final_frame_path": OFFICIAL + "/none.png"},
            "first_image": base64.b64encode(files["first_frame.png"]).decode(),
            "first_frame_path": f"{OFFICIAL}/first_frame.png",
            "ground_truth_video_path": f"{OFFICIAL}/ground_truth.mp4",
        }
        (root / "VBVR-Bench.json").write_text(json.dumps([row]))
    elif shape == "raw":
        plant(root / name / inside, files)
    elif shape == "collection":
        plant(root / "questions" / name / inside, files)
    elif shape == "archive":
        entries = {f"{name}/{inside}/{n}": data for n, data in files.items()}
        plant_tar(root / "questions" / f"{name}.tar.gz", entries)
    else:
        plant(root / OFFICIAL, {f"video/{n}": data for n, data in files.items()})
        (root / OFFICIAL / "metadata.json").write_text('{"solution": "held out"}')
    return root


SHAPES = ("official", "indexed", "raw", "collection", "archive", "pro")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_tells_task_category_and_where_it_belongs(tmp_path, shape):
    (instance,) = packed(tmp_path, shaped(tmp_path / "in", shape, FILES))[0].values()
    assert instance.task == "O-47_sliding_puzzle_data-generator"
    assert instance.category == "Abstraction"
    raw = shape in ("raw", "collection", "archive")
    assert instance.split == (None if raw else "In-Domain_50")
    assert instance.key == (f"{instance.task}/sliding_puzzle_00000007" if raw else OFFICIAL)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_held_out_changes_nothing_that_generation_sees(tmp_path, shape):
    """Two samples that differ in their solution alone are the same instance, digest and all."""
    secret = {**FILES, "final_frame.png": picture("green"), "ground_truth.mp4": b"SECRET"}
    secret["metadata.json"] = b'{"solution": "SECRET"}'
    digests = set()
    for name, files in (("plain", FILES), ("secret", secret)):
        found, refused = packed(tmp_path, shaped(tmp_path / name, shape, files))
        assert not refused
        digests |= {instance.digest for instance in found.values()}
        for raw in read_samples(str(tmp_path / "out.tar")):
            assert set(raw.members) == {"prompt.txt", "first.png", "json"}
            assert b"SECRET" not in b"".join(raw.members.values())
        assert next(read_held_out(str(tmp_path / "out.tar"))).ground_truth_mp4
    assert len(digests) == 1


def test_an_archive_is_read_and_never_unpacked(tmp_path, monkeypatch):
    """Links that lead out and members larger than allowed are refused; nothing is written."""
    monkeypatch.setitem(LIMITS, "gt.mp4", 100)
    path = tmp_path / "in.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for folder in ("good", "large", "linked"):
            for name, data in FILES.items():
                info = tarfile.TarInfo(f"{folder}/{name}")
                if folder == "linked" and name == "prompt.txt":
                    info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
                    data = b""
                if folder == "large" and name == "ground_truth.mp4":
                    data = bytes(101)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    found, refused = packed(tmp_path, path)
    assert list(found) == ["good"]
    assert len(refused) == 2
    assert any("sample linked: prompt.txt: got a link" in text for text in refused)
    assert any("sample large: gt.mp4: got 101 bytes, expected at most 100" in t for t in refused)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.tar.gz", "out.tar"]


def test_members_of_a_sample_may_lie_apart_in_an_archive(tmp_path):
    names = [("a", n) for n in FILES] + [("b", n) for n in FILES]
    names.sort(key=lambda pair: pair[1])
    plant_tar(tmp_path / "in.tar", {f"{d}/{n}": FILES[n] for d, n in names}, "w")
    found, refused = packed(tmp_path, tmp_path / "in.tar")
    assert sorted(found) == ["a", "b"]
    assert refused == []


def test_paths_that_climb_out_of_an_archive_are_refused(tmp_path):
    files = {f"../evil/{name}": data for name, data in FILES.items()}
    files |= {f"/abs/{name}": data for name, data in FILES.items()}
    files |= {f"good/{name}": data for name, data in FILES.items()}
    plant_tar(tmp_path / "in.tar.gz", files)
    before = sorted(p.name for p in tmp_path.iterdir())
    found, refused = packed(tmp_path, tmp_path / "in.tar.gz")
    assert list(found) == ["good"]
    assert len(refused) == 2 * len(FILES)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*before, "out.tar"]


def test_an_incomplete_or_broken_sample_is_named_and_the_rest_written(tmp_path):
    plant(tmp_path / "in" / "t_task" / "a")
    plant(tmp_path / "in" / "t_task" / "b", {**FILES, "first_frame.png": b"junk"})
    plant(tmp_path / "in" / "t_task" / "c", {"first_frame.png": PNG})
    plant(tmp_path / "in" / "docs", {"prompt.txt": b"not a sample"})
    (tmp_path / "in" / "bad.tar").write_bytes(b"junk")
    found, refused = packed(tmp_path, tmp_path / "in")
    assert list(found) == ["t_task/a"]
    assert len(refused) == 3
    assert any("t_task/b: first.png: got" in text for text in refused)
    assert any("t_task/c: prompt.txt: got no such file" in text for text in refused)
    assert any("bad.tar: tar: got" in text for text in refused)


def test_the_index_fills_in_what_the_tree_lacks(tmp_path):
    root = tmp_path / "in"
    plant(root / OFFICIAL)
    other = "Out-of-Domain_50/G-1_x_data-generator/00001"
    plant(root / other, {"ground_truth.mp4": b"gt"})
    row = {
        "first_image": base64.b64encode(PNG).decode(),
        "prompt": "From the index.",
        "category": "Perception",
    }
    rows = [
        {
            **row,
            "first_frame_path": f"{key}/first_frame.png",
            "ground_truth_video_path": f"{key}/ground_truth.mp4",
            "final_frame_path": f"{key}/final_frame.png",
        }
        for key in (OFFICIAL, other)
    ]
    escape = {**rows[0], "ground_truth_video_path": "../../secret.mp4"}
    (root / "VBVR-Bench.json").write_text(json.dumps([*rows, escape, {"prompt": 3}]))
    for source in (root, root / "VBVR-Bench.json"):
        found, refused = packed(tmp_path, source)
        assert list(found) == [OFFICIAL, other]
        assert found[OFFICIAL].prompt == "Slide it."
        assert found[other].prompt == "From the index."
        assert found[other].category == "Perception"
        assert len(refused) == 2
        assert "leads out of" in refused[0]
    held = {h.key: h for h in read_held_out(str(tmp_path / "out.tar"))}
    assert held[other].ground_truth_mp4 == b"gt"
    assert held[other].final_png is None


def test_links_out_of_the_folder_are_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    plant(tmp_path / "in")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "t.jsonl").write_text('{"prompt": "Go", "image": "link.png"}')
    found, refused = packed(tmp_path, tmp_path / "in" / "t.jsonl")
    assert not found
    assert "leads out of" in refused[0]


def test_same_source_same_bytes_readable_by_webdataset(tmp_path):
    from webdataset.compat import WebDataset

    plant(tmp_path / "in" / OFFICIAL)
    pack(tmp_path / "in", tmp_path / "a.tar")
    for file in (tmp_path / "in" / OFFICIAL).iterdir():
        file.touch()
    pack(tmp_path / "in", tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    (theirs,) = WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False)
    assert theirs["__key__"] == OFFICIAL
    assert theirs["prompt.txt"] == FILES["prompt.txt"]
    assert theirs["gt.mp4"] == b"mp4"


def test_nothing_good_writes_no_tar(tmp_path):
    plant(tmp_path / "in" / "x", {"first_frame.png": PNG})
    assert main(["pack", str(tmp_path / "in"), str(tmp_path / "out.tar")]) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_the_command_packs_lists_and_reports(tmp_path, capsys):
    out = str(tmp_path / "out.tar")
    plant(tmp_path / "in" / "t_task" / "a")
    assert main(["pack", str(tmp_path / "in"), out]) == 0
    assert capsys.readouterr().out == f"1 written to {out}, 0 refused\n"
    assert main(["list", out]) == 0
    assert capsys.readouterr().out.split("\t")[::2] == ["t_task/a", "image"]
    plant(tmp_path / "in" / "t_task" / "b", {"first_frame.png": PNG})
    assert main(["pack", str(tmp_path / "in"), out]) == 3
    said = capsys.readouterr()
    assert said.out == f"1 written to {out}, 1 refused\n"
    assert "t_task/b: prompt.txt" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "nowhere", "out.tar"], "expected a file or folder that exists"),
        (["pack", ".", "out.zip"], "expected a name ending in .tar"),
        (["pack", "data.txt", "out.tar"], ".parquet"),
        (["list", "pipe:true"], "only local files"),
    ],
)
def test_a_wrong_command_says_so(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").touch()
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help_and_reading_import_nothing_heavy():
    code = (
        "import sys, vlmteach.instances.__main__, vlmteach.instances\n"
        "heavy = {'torch', 'webdataset', 'PIL', 'numpy', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
