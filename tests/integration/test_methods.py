"""The methods share instances, noise and accounting."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch

from vlmteach import clip_writer, guard, models
from vlmteach.config import (
    ClassConfig,
    ClipConfig,
    Config,
    FitConfig,
    LoraConfig,
    PassAtNConfig,
    PromptRewriteConfig,
    QueryConfig,
    ReasonerConfig,
    RunConfig,
    TeacherConfig,
)
from vlmteach.guard import guard_of_files, read_guard
from vlmteach.instances import decode, pack, read_samples
from vlmteach.methods import METHODS, Resources, carry_out, load_method
from vlmteach.methods.base import SURROGATE, Work
from vlmteach.video import read_video, to_uint8, write_video

DATA = Path(__file__).parent.parent / "data" / "vbvr"
RUNGS = 4
CONFIG = Config(
    clip=ClipConfig(frames=5, fps=8.0, max_pixels=64 * 64),
    reasoner=ReasonerConfig(dtype="float32"),
    teacher=TeacherConfig(dtype="float32", frames=4),
    query=QueryConfig(source="generic"),
    lora=LoraConfig(rank=2),
    fit=FitConfig(steps=3, learning_rate=1e-2),
    pass_at_n=PassAtNConfig(candidates=3),
)
NO_UPDATE = replace(CONFIG.fit, steps=0)


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    tar = tmp_path_factory.mktemp("methods") / "data.tar"
    pack(DATA, tar)
    return [decode(raw) for raw in read_samples([str(tar)])]


@pytest.fixture(scope="module")
def loaded():
    return models.load(CONFIG, torch.device("cpu"))


@pytest.fixture
def solve(loaded, instances, tmp_path):
    def run(name, *, instance=instances[0], folder="out", told=None, **changes):
        config = replace(CONFIG, **changes)
        out = tmp_path / folder
        out.mkdir(exist_ok=True)

        def tell(reading):
            if told is not None and reading is not None:
                told.append(reading)

        resources = Resources(config, loaded, {})
        method = load_method(name, resources)
        return carry_out(method, resources, instance, out, tell=tell), out

    return run


def test_every_method_names_itself():
    names = {"micro_fit", "base", "pass_at_n", "prompt_rewrite", "video_tpo", "vlm_solver"}
    assert set(METHODS) == names


def test_base_is_the_base_video_of_the_micro_fit_and_candidate_0(solve):
    base, plain = solve("base", folder="base")
    _, fitted = solve("micro_fit", folder="teacher")
    _, best = solve("pass_at_n", folder="pass_at_n")
    video = (plain / "clip.mp4").read_bytes()
    assert video == (fitted / "base.mp4").read_bytes()
    assert video == (best / "candidate_0.mp4").read_bytes()
    assert {p.name for p in plain.iterdir()} == {"clip.mp4"}
    assert base.compute.reasoner_forwards == RUNGS
    assert (base.compute.reasoner_backwards, base.compute.teacher_calls) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "climbs", "saved"),
    [
        ({}, False, 2),
        ({"gradient": 1}, False, 4),
        ({"gradient": "full"}, False, 8),
        ({"noises": 3}, False, 2),
        ({"keep": "last"}, False, 2),
        ({"keep": "last"}, True, 1),  # the last weights are not the best
        ({}, True, 2),  # the fresh adapter is
        ({"rewrite_prompt": True}, False, 1),  # the base video is of the instance's own prompt
    ],
)
def test_what_a_fit_has_predicted_is_not_computed_again(solve, monkeypatch, changes, climbs, saved):
    optimizer = ClassConfig(class_path="torch.optim.AdamW", init_args={"maximize": climbs})
    told = {
        "fit": replace(CONFIG.fit, steps=2, **changes),
        "optimizer": optimizer,
        "prompt_rewrite": PromptRewriteConfig(max_replies=1),
    }
    ours, out = solve("micro_fit", folder="ours", **told)
    plain = Work.sample
    monkeypatch.setattr(Work, "sample", lambda work, problem, name, **_: plain(work, problem, name))
    theirs, whole = solve("micro_fit", folder="theirs", **told)
    for name in ("adapter.safetensors", "clip.mp4", "base.mp4"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert theirs.compute.reasoner_forwards - ours.compute.reasoner_forwards == saved
    assert ours.kept_step == (0 if climbs and saved == 2 else 2)


@pytest.mark.parametrize("name", ["micro_fit", "pass_at_n"])
def test_a_teacher_s_budget_spares_the_decoder_too(solve, loaded, monkeypatch, name):
    """One that is not reached changes no bit; frames beyond it are neither decoded nor shown."""
    files = ("clip.mp4", "adapter.safetensors")[: 2 if name == "micro_fit" else 1]
    decoded, shown = [], []
    decode, log_p_yes = loaded.decoder.decode, loaded.teacher.log_p_yes

    def noted(z0, frames=None):
        decoded.append(frames)
        return decode(z0, frames)

    def watched(frames, prepared):
        shown.append(len(frames))
        return log_p_yes(frames, prepared)

    monkeypatch.setattr(loaded.decoder, "decode", noted)
    monkeypatch.setattr(loaded.teacher, "log_p_yes", watched)
    made = {}
    for budget in (None, 8, 4):  # four tokens for each two frames
        monkeypatch.setattr(loaded.teacher, "_budget", budget)
        decoded.clear()
        shown.clear()
        _, out = solve(name, folder=str(budget))
        made[budget] = [(out / file).read_bytes() for file in files]
        count = 2 if budget == 4 else 4
        assert set(shown) == {count}
        if name == "micro_fit":
            assert set(map(tuple, decoded)) == {(0, 4) if budget == 4 else (0, 1, 3, 4)}
    assert made[8] == made[None]
    if name == "micro_fit":
        assert made[4] != made[None]


@pytest.mark.parametrize(
    ("word", "told"), [("full", "full"), (True, "full"), (False, None), ("none", None)]
)
def test_a_base_video_where_one_is_wanted(solve, word, told):
    outcome, out = solve("micro_fit", fit=NO_UPDATE, run=RunConfig(base_video=word))
    assert outcome.base_video == told
    assert (out / "base.mp4").exists() == (told is not None)
    if told:
        assert (out / "base.mp4").read_bytes() == (out / "clip.mp4").read_bytes()


def test_a_base_video_of_the_surrogate_runs_no_vae_and_says_so(solve, loaded, monkeypatch):
    decoded = []
    plain = loaded.reasoner.decode
    monkeypatch.setattr(loaded.reasoner, "decode", lambda z0: decoded.append(z0) or plain(z0))
    changes = {"fit": NO_UPDATE, "run": RunConfig(base_video="surrogate")}
    outcome, out = solve("micro_fit", **changes)
    assert outcome.base_video == "surrogate"
    assert read_guard(out) is None  # no match for comparing pixels
    ((z0),) = decoded  # of the clip, which without an update is the base's
    write_video(out / "light.mp4", to_uint8(loaded.decoder.decode(z0)), 8.0)
    assert torch.equal(read_video(out / "base.mp4")[0], read_video(out / "light.mp4")[0])
    comments = {}
    for name in ("base", "clip"):
        with av.open(str(out / f"{name}.mp4")) as container:
            comments[name] = container.metadata.get("comment")
    assert comments == {"base": SURROGATE, "clip": None}


def test_the_base_video_is_encoded_beside_the_sampling_of_the_clip(solve, monkeypatch):
    """It is not written before the clip is sampled, and is there when the method returns."""
    sampled = threading.Event()
    plain = Work.write_clip

    def slow(path, *arguments):
        if path.stem == "base":
            assert sampled.wait(60)
        write_video(path, *arguments)

    def told(work, frames, name, *comment):
        if name == "clip":
            assert not (work.folder / "base.mp4").exists()
            sampled.set()
        plain(work, frames, name, *comment)

    monkeypatch.setattr(clip_writer, "write_video", slow)
    monkeypatch.setattr(Work, "write_clip", told)
    _, out = solve("micro_fit")
    assert (out / "base.mp4").exists()
    assert (out / "clip.mp4").exists()
    assert json.loads((out / "fit.json").read_text())["seconds"]["write"] > 0


@pytest.mark.parametrize(
    ("method", "clip"),
    [("base", "clip"), ("micro_fit", "base"), ("pass_at_n", "candidate_2")],
)
def test_a_clip_that_cannot_be_written_is_the_instances_error(solve, monkeypatch, method, clip):
    def full(path, *arguments):
        if path.stem == clip:
            raise OSError(28, "No space left on device")
        write_video(path, *arguments)

    monkeypatch.setattr(clip_writer, "write_video", full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left"):
        solve(method, fit=replace(CONFIG.fit, steps=0))
    assert threading.active_count() == threads


def test_pass_at_n_keeps_the_candidate_with_the_lowest_loss(solve):
    told = []
    outcome, out = solve("pass_at_n", told=told)
    kept = json.loads((out / "candidates.json").read_text())
    losses = [reading["loss"] for reading in kept["candidates"]]
    assert len(set(losses)) == 3
    assert kept["picked"] == outcome.candidate == losses.index(min(losses))
    assert outcome.kept_loss == min(losses)
    assert outcome.first_loss == losses[0]
    picked = (out / f"candidate_{outcome.candidate}.mp4").read_bytes()
    assert picked == (out / "clip.mp4").read_bytes()
    assert [reading.loss for reading in told] == losses
    assert outcome.compute.reasoner_forwards == 3 * RUNGS
    assert outcome.compute.teacher_calls == 3


def test_candidates_do_not_depend_on_how_many_there_are(solve):
    _, three = solve("pass_at_n", folder="three")
    _, two = solve("pass_at_n", folder="two", pass_at_n=PassAtNConfig(candidates=2))
    for number in range(2):
        name = f"candidate_{number}.mp4"
        assert (three / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize(("gradient", "per_reading"), [("first", 1), ("full", RUNGS), (1, 2)])
def test_micro_fit_counts_every_pass(solve, gradient, per_reading):
    fit = replace(CONFIG.fit, gradient=gradient)
    outcome, _ = solve("micro_fit", fit=fit)
    compute = outcome.compute
    assert outcome.steps == 3
    # One reading more than there are updates, and of base video and clip what no reading was.
    assert compute.reasoner_forwards == 4 * per_reading + 2 * (RUNGS - per_reading)
    assert compute.reasoner_backwards == 3 * (RUNGS if gradient == "full" else 1)
    assert compute.teacher_calls == 4


def test_micro_fit_from_the_best_of_some_noises(solve):
    one, _ = solve("micro_fit", folder="one")
    best, out = solve("micro_fit", folder="best", fit=replace(CONFIG.fit, noises=3))
    assert best.candidate > 0  # for this instance; else the test below compares equals
    assert best.first_loss is not None
    assert one.first_loss is not None
    assert best.first_loss < one.first_loss
    assert best.compute.reasoner_forwards == one.compute.reasoner_forwards + 3
    assert best.compute.teacher_calls == one.compute.teacher_calls + 3
    assert (out / "fit.json").exists()
    assert read_guard(out) is None  # its base video is of the instance's own noise


def test_a_fit_leaves_how_its_clip_looks_beside_its_base(solve):
    outcome, out = solve("micro_fit")
    kept = read_guard(out)
    assert kept is not None
    assert kept.guard == guard_of_files(out / "base.mp4", out / "clip.mp4")
    said = {
        reading["step"]: min(reading["p_yes"])
        for reading in json.loads((out / "fit.json").read_text())["readings"]
    }
    assert outcome.kept_step is not None
    assert (kept.before, kept.after) == (said[0], said[outcome.kept_step])
    _, out = solve("micro_fit", folder="no base", run=RunConfig(base_video="none"))
    assert read_guard(out) is None


def test_clips_that_cannot_be_measured_take_nothing_from_the_fit(solve, monkeypatch):
    _, whole = solve("micro_fit", folder="whole")

    def refuse(*_):
        raise ValueError("no clip")

    monkeypatch.setattr(guard, "guard_of_files", refuse)
    _, without = solve("micro_fit", folder="without")
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in without.iterdir()} == names - {"guard.json"}
    for name in ("adapter.safetensors", "clip.mp4", "base.mp4"):
        assert (whole / name).read_bytes() == (without / name).read_bytes()


@pytest.mark.parametrize(("ask", "count"), [("goal", 1), ("process", 3), ("both", 4)])
def test_one_role_can_be_left_out(solve, ask, count):
    _, out = solve("micro_fit", query=QueryConfig(source="generic", ask=ask))
    record = json.loads((out / "fit.json").read_text())
    assert [len(reading["p_yes"]) for reading in record["readings"]] == [count] * 4
    assert {q["role"] for q in record["queries"]["queries"]} <= (
        {"goal", "process"} if ask == "both" else {ask}
    )
    kept = json.loads((out / "queries.json").read_text())
    assert kept["goal"]
    assert len(kept["process"]) == 3


def test_a_method_leaves_no_trace_in_the_next(solve, instances):
    _, first = solve("micro_fit", folder="first")
    solve("pass_at_n", folder="between", instance=instances[1])
    solve("base", folder="between", instance=instances[2])
    _, again = solve("micro_fit", folder="again")
    for name in ("adapter.safetensors", "clip.mp4", "base.mp4"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
