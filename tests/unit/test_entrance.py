"""The five names: one instance as the commands solve it, applied again, runs, rows, a page."""

import gc
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import vlmteach
from vlmteach.adapter_notes import Base, read_notes
from vlmteach.builtin.paths import builtin_path
from vlmteach.entrance import config_of
from vlmteach.micro_fit import MicroFit
from vlmteach.record import read_json, write_json
from vlmteach.report.index import read_index
from vlmteach.solved import Made, Solved
from vlmteach.types import Compute, Outcome, Query, Reading

OPTIONS = {
    "clip.frames": 5,
    "clip.max_pixels": 1024,
    "teacher.frames": 4,
    "lora.rank": 2,
    "fit.steps": 2,
    "fit.shift": 0.05,
    "query.source": "generic",
    "wandb.mode": "disabled",
}
PROMPT = "Move the ball <b>to</b> the right."
KEY = "move/ball"


@pytest.fixture(scope="module")
def models():
    return vlmteach.load("random", OPTIONS, device="cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "first.png"
    picture = Image.new("RGB", (96, 96), "white")
    picture.paste("red", (10, 30, 34, 54))
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def solved(models, image, tmp_path_factory):
    told = []
    out = tmp_path_factory.mktemp("solve") / "one"
    made = vlmteach.solve(models, PROMPT, image, key=KEY, out=out, tell=told.append)
    assert tuple(told) == made.readings
    return made


@pytest.fixture(scope="module")
def rows(image, tmp_path_factory):
    """Of a run on a tar with the same sample."""
    place = tmp_path_factory.mktemp("run")
    members = {"prompt.txt": PROMPT.encode(), "first.png": image.read_bytes()}
    data = place / "data"
    for name, content in members.items():
        path = data / f"{KEY}.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return vlmteach.run(data, "random", place / "out", OPTIONS)


def files(folder):
    return {n: (folder / n).read_bytes() for n in ("adapter.safetensors", "clip.mp4", "base.mp4")}


def test_nothing_heavy_is_imported_before_a_name_is_used():
    probe = (
        "import sys, types, vlmteach\n"
        "assert set(vlmteach.__all__) <= set(dir(vlmteach))\n"
        "print(sorted({'torch', 'yaml', 'numpy', 'vlmteach.entrance'} & set(sys.modules)))\n"
        "sys.modules['vlmteach.entrance'] = types.SimpleNamespace(load='there')\n"
        "assert vlmteach.load == 'there'\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_five_names_are_functions_and_no_room_takes_one():
    assert all(callable(getattr(vlmteach, name)) for name in vlmteach.__all__)
    rooms = {module.name for module in pkgutil.iter_modules(vlmteach.__path__)}
    assert not rooms & set(vlmteach.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = vlmteach.train  # pyright: ignore[reportAttributeAccessIssue]


def test_a_solve_and_a_run_give_the_same_bits(solved, rows):
    (row,) = rows
    assert files(Path(row["folder"])) == files(solved.folder)
    assert row["digest"] == solved.outcome.digest


def test_a_solve_tells_what_its_files_hold(solved):
    assert solved.frames.dtype == torch.uint8
    assert solved.frames.shape == (5, 32, 32, 3) == solved.base.shape
    assert solved.fps == 8.0
    assert solved.queries[0].role == "goal"
    fit = read_json(solved.folder / "fit.json")
    assert [reading.loss for reading in solved.readings] == [r["loss"] for r in fit["readings"]]
    assert read_json(solved.folder / "done.json")["steps"] == solved.outcome.steps == 2


def test_an_adapter_applied_to_its_instance_is_its_clip(models, solved, image):
    made = vlmteach.apply(models, solved.folder / "adapter.safetensors", PROMPT, image, key=KEY)
    assert torch.equal(made.frames, solved.frames)
    assert not torch.equal(made.frames, solved.base)


def test_an_adapter_applied_at_scale_0_is_the_base_and_at_1_the_clip(models, solved, image):
    def clip(scale):
        made = vlmteach.apply(models, solved.folder, PROMPT, image, key=KEY, scale=scale)
        return (made.folder / "clip.mp4").read_bytes()

    assert clip(0.0) == (solved.folder / "base.mp4").read_bytes()
    assert clip(1.0) == (solved.folder / "clip.mp4").read_bytes()
    assert clip(0.5) not in (clip(0.0), clip(1.0))
    with pytest.raises(ValueError, match="scale: got nan"):
        clip(float("nan"))


def test_an_adapter_of_another_checkpoint_is_told_and_applied(models, solved, image):
    other = replace(models, models=replace(models.models, base=Base("other", "e" * 64)))
    with pytest.warns(UserWarning, match="made for builtin:random/wan .* and other"):
        made = vlmteach.apply(other, solved.folder, PROMPT, image, key=KEY)
    assert torch.equal(made.frames, solved.frames)


def test_what_an_adapter_was_made_for_is_told_by_content(models, solved, tmp_path):
    notes = read_notes(solved.folder / "adapter.safetensors")
    base = models.models.base
    assert (base.name, base.licence) == ("builtin:random/wan", "apache-2.0")
    assert notes["vlmteach.base_sha256"] == base.digest
    assert notes["vlmteach.prompt"] == PROMPT
    shutil.copytree(builtin_path("random/wan"), tmp_path / "mine")
    options = OPTIONS | {"reasoner.checkpoint": str(tmp_path / "mine")}
    copy = vlmteach.load("random", options | {"reasoner.licence": "mit"}, device="cpu").models.base
    assert copy == Base("mine", base.digest, None, "mit")
    options["reasoner.distillation_lora"] = str(solved.folder / "adapter.safetensors")
    fused = vlmteach.load("random", options, device="cpu").models.base
    assert fused.licence is None
    assert fused.digest not in (None, base.digest)


def test_the_noise_of_the_fit_is_the_adapter_s_own(models, image):
    several = replace(models.config, fit=replace(models.config.fit, noises=3))
    chosen = replace(models, config=several)
    fits = ((key, vlmteach.solve(chosen, PROMPT, image, key=key)) for key in map(str, range(9)))
    key, fitted = next((key, made) for key, made in fits if made.outcome.candidate)
    again = vlmteach.apply(models, fitted.folder, PROMPT, image, key=key)
    assert torch.equal(again.frames, fitted.frames)
    assert again.outcome.candidate == fitted.outcome.candidate


def test_a_pil_image_gives_the_instance_of_its_pixels(models, solved, image):
    with Image.open(image) as picture:
        again = vlmteach.solve(models, PROMPT, picture, key=KEY)
    name = "adapter.safetensors"
    assert (again.folder / name).read_bytes() == (solved.folder / name).read_bytes()


def test_another_seed_or_key_is_another_adapter(models, solved, image):
    for changed in ({"seed": 3}, {"key": "other"}):
        again = vlmteach.solve(models, PROMPT, image, **{"key": KEY, **changed})
        assert not torch.equal(again.frames, solved.frames)


def test_queries_and_method_of_ones_own(models, image):
    options = {"goal": "Is it right?", "process": ["Is it smooth?"]}
    made = vlmteach.solve(models, PROMPT, image, **options)
    assert [q.text for q in made.queries] == ["Is it right?", "Is it smooth?"]
    assert made.outcome.query_source == "sample"
    plain = vlmteach.solve(models, PROMPT, image, method="base")
    assert (plain.readings, plain.base) == ((), None)
    assert plain.outcome.method == "base"


def test_text_alone(models):
    assert vlmteach.solve(models, PROMPT, method="base").frames.shape[0] == 5


def test_a_temporary_folder_goes_with_the_result(models):
    made = vlmteach.solve(models, PROMPT, method="base")
    folder = made.folder
    assert (folder / "clip.mp4").exists()
    del made
    assert not folder.exists()


@pytest.mark.parametrize("deterministic", [False, True])
def test_torch_is_left_as_it_was(models, deterministic):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(deterministic)
    try:
        vlmteach.solve(models, PROMPT, method="base")
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:  # the process is shared with other tests, which may have set either
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": " "}, "expected a prompt"),
        ({"goal": "Is it?"}, "a list of one to three, or neither"),
        ({"goal": "Is it?", "process": "Is it?"}, "a list of one to three, or neither"),
        ({"seed": -1}, "json: seed"),
        ({"method": "nothing"}, "nothing"),
    ],
)
def test_an_instance_that_does_not_fit_is_refused(models, given, told):
    with pytest.raises(ValueError, match="got") as refusal:
        vlmteach.solve(models, **{"prompt": PROMPT, **given})
    assert told in str(refusal.value)


def test_a_folder_with_a_clip_is_left_alone(models, solved):
    with pytest.raises(ValueError, match="holds a clip, expected a new folder"):
        vlmteach.solve(models, PROMPT, out=solved.folder)


def test_options_are_words_or_names():
    words = config_of("random", ["--fit.steps", "3", "--reward", "m.A", "--reward.k", "2"])
    names = {"fit.steps": 3, "reward": [{"class_path": "m.A", "init_args": {"k": 2}}]}
    assert config_of("random", names) == words
    assert config_of(words, ()) is words
    with pytest.raises(ValueError, match="beside a Config"):
        config_of(words, {"fit.steps": 3})
    with pytest.raises(ValueError, match="a list of words"):
        config_of("random", "--fit.steps=3")


def test_what_cannot_be_loaded_is_refused_before_it_is():
    with pytest.raises(ValueError, match="got no module 'nowhere'"):
        vlmteach.load("random", {"callbacks": "nowhere.Mine"})


def test_rows_are_read_with_their_scores(rows):
    (row,) = rows
    assert (row["key"], row["status"], row["steps"]) == (KEY, "done", 2)
    out = Path(row["folder"]).parent
    write_json(out / "move__ball" / "score.json", {"overall": 0.5})
    assert vlmteach.read(out) == [{**row, "score": {"overall": 0.5}}]
    (out / "move__ball" / "score.json").unlink()
    with pytest.raises(ValueError, match=r"got no results\.jsonl"):
        vlmteach.read(out / "move__ball")


def test_a_run_leaves_no_mark_of_a_launch(rows):
    assert not {"LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"} & set(os.environ)


def test_the_page_shows_loss_queries_and_both_clips(solved):
    page = solved._repr_html_()
    assert page.count("data:video/mp4;base64,") == 2
    assert "<polyline" in page
    assert page.count("<tr>") == 1 + len(solved.queries)
    assert "<b>to</b>" not in page
    assert "&lt;b&gt;to&lt;/b&gt;" in page
    assert len(repr(solved)) < 2000


def test_everything_a_stranger_wrote_is_escaped(tmp_path):
    bad = "<script>alert('x')</script>"
    frames = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    made = Solved(
        prompt=bad,
        frames=frames,
        fps=4.0,
        folder=tmp_path,
        base=None,
        queries=(Query(bad, "goal"), Query("Is it?", "process")),
        readings=(Reading(0, float("nan"), (0.5,)), Reading(1, 1.0, (0.25,))),
        outcome=Outcome(
            key="k",
            digest="d",
            method=bad,
            seed=0,
            compute=Compute(1.0, 1, 0, 0, 0.1),
            kept_step=1,
            steps=1,
        ),
    )
    page = made._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3
    assert "<polyline" not in page  # one finite loss makes no curve
    assert ">0.250<" in page
    alone = Made(prompt=bad, frames=frames, fps=4.0, folder=tmp_path, outcome=made.outcome)
    assert "<script" not in alone._repr_html_()


def test_a_finished_fit_holds_nothing(models, image, tmp_path):
    vlmteach.solve(models, PROMPT, image, out=tmp_path / "one")
    assert not [each for each in gc.get_objects() if isinstance(each, MicroFit)]


def test_rows_with_odd_ends_of_lines_are_read(tmp_path):
    rows = [{"key": "a", "error": "x\u2028y\x85z"}, {"key": "b"}]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (tmp_path / "results.jsonl").write_text("".join(lines), "utf-8")
    assert [row["key"] for row in vlmteach.read(tmp_path)] == ["a", "b"]
    sweep = {"setting": "a\u2028b", "seed": 0, "folder": "x"}
    (tmp_path / "runs.jsonl").write_text(json.dumps(sweep, ensure_ascii=False) + "\n", "utf-8")
    assert read_index(tmp_path) == [sweep]
    (tmp_path / "runs.jsonl").unlink()
    (tmp_path / "runs.jsonl").mkdir()
    assert read_index(tmp_path) == []
