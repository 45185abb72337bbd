"""Whole runs with code from outside, which the command knows by its class paths alone."""

import gc
import json
import os

import pytest
import torch
from safetensors.torch import load_file

from tests.plugins.toy_reasoner import ToyReasoner
from tests.plugins.toy_teacher import QUERIES
from vlmteach import fit
from vlmteach.video import read_video


@pytest.fixture
def process_left_as_it_was():
    """The command sets its process up for itself; here it runs in that of the tests."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    environment = dict(os.environ)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    gc.unfreeze()
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]


@pytest.mark.usefixtures("process_left_as_it_was")
@pytest.mark.parametrize("decoder", ["full", "tests.plugins.toy_decoder.LoadedToyDecoder"])
def test_the_toys_are_fitted_as_any_family(tmp_path, write_tar, sample, decoder):
    toy = tmp_path / "toy.safetensors"
    ToyReasoner.save(toy)
    tar = write_tar(tmp_path / "data.tar", [sample(0), sample(1)])
    words = {
        "--config": "random",
        "--instances": tar,
        "--out": tmp_path / "out",
        "--accelerator": "cpu",
        "--wandb.mode": "disabled",
        "--clip.frames": 5,
        "--clip.max_pixels": 1024,
        "--reasoner.family": "tests.plugins.toy_reasoner.ToyReasoner",
        "--reasoner.checkpoint": toy,
        "--decoder.family": decoder,
        "--decoder.checkpoint": toy,
        "--teacher.family": "tests.plugins.toy_teacher.ToyTeacher",
        "--teacher.checkpoint": tmp_path,
        "--fit.steps": 5,
        "--fit.threshold": 0,
    }
    assert fit.main([str(word) for pair in words.items() for word in pair]) == 0
    done = sorted((tmp_path / "out").glob("*/done.json"))
    assert len(done) == 2
    for folder in (path.parent for path in done):
        record = json.loads((folder / "fit.json").read_text())
        assert record["teacher_layout"] == "toy: mean colours"
        assert record["queries"]["source"] == "teacher"
        asked = [query["text"] for query in record["queries"]["queries"]]
        assert asked == [QUERIES["goal"], *QUERIES["process"]]
        losses = [reading["loss"] for reading in record["readings"]]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0] - 1e-3
        adapter = load_file(folder / "adapter.safetensors")
        assert {key.split(".lora_")[0] for key in adapter} == {
            f"transformer.{block}.{layer}" for block in ("look", "hear") for layer in "qkvo"
        }
        assert any(v.abs().max() > 0 for k, v in adapter.items() if "lora_B" in k)
        assert (folder / "clip.mp4").read_bytes() != (folder / "base.mp4").read_bytes()


@pytest.fixture
def run(tmp_path, write_tar, sample):
    """The fit command on two samples with the random models; each instance's folder and record."""
    tar = write_tar(tmp_path / "data.tar", [sample(0), sample(1)])

    def go(*words, out="out", expect=0):
        given = ["--instances", tar, "--out", tmp_path / out, "--config", "random"]
        given += ["--accelerator", "cpu", "--wandb.mode", "disabled", "--query.source", "generic"]
        given += ["--clip.frames", 5, "--clip.max_pixels", 1024, "--teacher.frames", 4]
        given += ["--lora.rank", 2, "--fit.steps", 4, "--fit.threshold", 0]
        assert fit.main([str(word) for word in [*given, *words]]) == expect
        folders = sorted(path.parent for path in (tmp_path / out).glob("*/done.json"))
        return [(folder, json.loads((folder / "done.json").read_text())) for folder in folders]

    return go


def readings(folder):
    return json.loads((folder / "fit.json").read_text())["readings"]


@pytest.mark.usefixtures("process_left_as_it_was")
def test_a_reward_is_summed_with_the_teacher_s_and_its_share_is_kept(run):
    bright = "tests.plugins.toy_reward.Bright"
    found = run("--reward", bright, "--reward.weight", 0.2, "--reward.floor", 0.01)
    assert len(found) == 2
    for folder, _ in found:
        for reading in readings(folder):
            shares = reading["shares"]
            assert set(shares) == {"teacher", "Bright"}
            assert reading["loss"] == pytest.approx(sum(shares.values()), rel=1e-6)
            assert len(reading["p_yes"]) == 4


@pytest.mark.usefixtures("process_left_as_it_was")
def test_a_reward_alone_is_climbed_without_asking_the_teacher(run):
    found = run("--reward=tests.plugins.toy_reward.Bright", "--fit.teacher_weight=0")
    for folder, done in found:
        told = readings(folder)
        assert told[-1]["loss"] < told[0]["loss"]
        assert all(reading["p_yes"] == [] for reading in told)
        assert done["compute"]["teacher_calls"] == 0
        assert done["kept_loss"] < done["first_loss"]


@pytest.mark.usefixtures("process_left_as_it_was")
def test_keep_holds_the_fitted_clip_near_the_base_s(run):
    free = run("--fit.steps", 8)
    held = run("--fit.steps", 8, "--fit.keep_weight", 200, out="held")

    def drift(folder):
        base, clip = (read_video(folder / f"{name}.mp4")[0].float() for name in ("base", "clip"))
        return (clip - base).abs().mean().item()

    for (one, _), (other, _) in zip(free, held, strict=True):
        assert drift(other) < 0.7 * drift(one)
        first = readings(other)[0]["shares"]
        assert first["keep"] == 0  # before any update the prediction is the base's


@pytest.mark.usefixtures("process_left_as_it_was")
def test_optimiser_schedule_and_callback_by_class_path(run):
    found = run(
        *("--optimizer", "torch.optim.SGD", "--optimizer.momentum", 0.5),
        *("--scheduler", "torch.optim.lr_scheduler.ConstantLR", "--scheduler.factor", 1e-9),
        *("--callbacks", "tests.plugins.toy_callback.Patience", "--callbacks.updates", 2),
    )
    for _, done in found:
        # With hardly any rate the loss stands still, and the callback's reason ends the fit.
        assert done["stop_reason"] == "patience"
        assert done["steps"] <= 3
    plain = run(*("--optimizer", "torch.optim.SGD", "--optimizer.momentum", 0.5), out="plain")
    losses = [reading["loss"] for reading in readings(plain[0][0])]
    assert losses[-1] != losses[0]


@pytest.mark.usefixtures("process_left_as_it_was")
def test_a_method_from_outside_is_run_and_counted(run):
    found = run("--method", "tests.plugins.toy_method.FirstYes")
    for folder, done in found:
        assert done["method"] == "first_yes"
        assert done["compute"]["teacher_calls"] == 3
        assert done["candidate"] == 2
        assert (folder / "clip.mp4").exists()


@pytest.mark.usefixtures("process_left_as_it_was")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--reward no_such_module.Clip", "got no module 'no_such_module'"),
        ("--reward tests.plugins.toy_reward.Dark", "got a module without 'Dark'"),
        ("--reward tests.plugins.toy_reward.Bright --reward.ceiling 2", "'ceiling'"),
        ("--callbacks tests.plugins.toy_callback.Patience --callbacks.updates many", "updates"),
        ("--optimizer torch.optim.SGD --optimizer.beta 2", "'beta'"),
        ("--scheduler torch.optim.lr_scheduler.StepLR", "got no 'step_size'"),
        ("--method tests.plugins.toy_method.Nothing", "got a module without 'Nothing'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_loaded(
    run, words, message, monkeypatch, capsys, tmp_path
):
    from vlmteach import models

    monkeypatch.setattr(models, "load", None)
    run(*words.split(), expect=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_benchmark_from_outside_scores_a_run_that_the_table_reads(run, process_left_as_it_was):
    import tests.plugins.toy_benchmark as toy
    from benchmarks.table.rows import read_rows

    found = run("--fit.steps", 0)
    assert toy.score(found[0][0].parent) == 2
    rows = read_rows(found[0][0].parent)
    assert [row["key"] for row in rows] == [done["key"] for _, done in found]
    assert all(0 < row["moved"] < 1 for row in rows)
