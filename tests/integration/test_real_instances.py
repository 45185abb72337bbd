"""Real VBVR instances through the method, in this process: what must hold after any fit."""

import json
import weakref
from pathlib import Path

import pytest
import torch

from vlmteach import models
from vlmteach.config import (
    ClipConfig,
    Config,
    FitConfig,
    LoraConfig,
    QueryConfig,
    ReasonerConfig,
    TeacherConfig,
)
from vlmteach.instances import decode, pack, read_samples
from vlmteach.methods import MicroFitMethod, Resources, carry_out
from vlmteach.micro_fit import MicroFit
from vlmteach.video import read_video

DATA = Path(__file__).parent.parent / "data" / "vbvr"
CONFIG = Config(
    clip=ClipConfig(frames=9, fps=8.0, max_pixels=64 * 64),
    reasoner=ReasonerConfig(dtype="float32"),
    teacher=TeacherConfig(dtype="float32", frames=8),
    lora=LoraConfig(rank=4),
    query=QueryConfig(source="generic"),  # a random teacher writes for long, and nothing of use
    fit=FitConfig(steps=6, learning_rate=1e-2),
)


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    tar = tmp_path_factory.mktemp("vbvr") / "vbvr.tar"
    packed = pack(DATA, tar)
    assert len(packed.keys) == 4
    assert not packed.refused
    return [decode(raw) for raw in read_samples([str(tar)])]


@pytest.fixture(scope="module")
def loaded():
    return models.load(CONFIG, torch.device("cpu"))


def fitted(config, loaded, instance, folder):
    resources = Resources(config, loaded, {})
    return carry_out(MicroFitMethod(resources), resources, instance, folder)


def state(module):
    return {n: p.clone() for n, p in module.named_parameters() if ".lora_" not in n}


@pytest.fixture(scope="module")
def solved(instances, loaded, tmp_path_factory):
    """Every instance solved in one process; the base weights before and after."""
    frozen = [loaded.reasoner.network, loaded.reasoner.vae, loaded.teacher.network]
    frozen += [loaded.decoder.network, loaded.reasoner.text_encoder]
    before = [state(module) for module in frozen]
    records = {}
    for instance in instances:
        folder = tmp_path_factory.mktemp("solved")
        outcome = fitted(CONFIG, loaded, instance, folder)
        records[instance.key] = (outcome, folder)
    return records, before, [state(module) for module in frozen]


def test_the_loss_falls_on_every_real_instance(solved):
    for outcome, folder in solved[0].values():
        assert outcome.kept_loss < outcome.first_loss - 0.1
        readings = json.loads((folder / "fit.json").read_text())["readings"]
        assert outcome.kept_loss == min(reading["loss"] for reading in readings)


def test_base_weights_are_bitwise_unchanged_and_nothing_frozen_trains(solved, loaded):
    _, before, after = solved
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)
    parts = (loaded.reasoner.network, loaded.reasoner.vae, loaded.teacher.network)
    trainable = {n for part in parts for n, p in part.named_parameters() if p.requires_grad}
    assert len(trainable) == len(loaded.lora.parameters)
    assert all(".lora_" in name for name in trainable)


def test_the_base_video_is_what_a_model_without_adapter_makes(solved, loaded, instances):
    """`base.mp4` was written with an adapter attached, after other fits: a fresh load agrees."""
    fresh = models.load(CONFIG, torch.device("cpu"))
    instance = instances[-1]
    _, folder = solved[0][instance.key]
    again = folder / "again"
    again.mkdir(exist_ok=True)
    fitted(CONFIG, fresh, instance, again)
    for name in ("base.mp4", "clip.mp4", "adapter.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_clip_of_a_fit_that_made_no_update_is_the_base_video(instances, loaded, tmp_path):
    config = Config(**{**CONFIG.__dict__, "fit": FitConfig(threshold=100.0)})
    outcome = fitted(config, loaded, instances[0], tmp_path)
    assert (outcome.steps, outcome.stop_reason) == (0, "threshold")
    assert (tmp_path / "base.mp4").read_bytes() == (tmp_path / "clip.mp4").read_bytes()


@pytest.mark.parametrize("gradient", ["last", "full", 1])
def test_other_gradient_modes_learn_too(gradient, instances, loaded, tmp_path):
    fit = FitConfig(steps=4, learning_rate=1e-2, gradient=gradient)
    config = Config(**{**CONFIG.__dict__, "fit": fit})
    outcome = fitted(config, loaded, instances[0], tmp_path)
    assert outcome.kept_loss is not None
    assert outcome.first_loss is not None
    assert outcome.kept_loss < outcome.first_loss


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_checkpointing_changes_no_bit(instances, solved, loaded, tmp_path, mode):
    models.recompute(loaded, mode)
    try:
        fitted(CONFIG, loaded, instances[0], tmp_path)
    finally:
        models.recompute(loaded, "none")
    _, folder = solved[0][instances[0].key]
    name = "adapter.safetensors"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((tmp_path / "fit.json").read_text())["checkpointing"] == mode


def test_out_of_memory_is_tried_once_more_with_less_and_leaves_no_trace(
    instances, solved, loaded, tmp_path, monkeypatch, capsys
):
    backward, modes, held, first = MicroFit.backward, [], [], []

    def short(self, loss, *_, **__):
        modes.append(models.checkpointing_of(loaded))
        if self.updates == 2 and modes[-1] == "none":
            backward(self, loss, retain_graph=True)  # gradients, which the next fit must not see
            held.append(weakref.ref(loss))
            first.append(self)
            raise torch.OutOfMemoryError("no room")
        assert not any(graph() for graph in held)
        assert all(f.watched is f.prediction is f.of_base is None for f in first)
        assert not any(each.prefixes for each in first)
        backward(self, loss)

    monkeypatch.setattr(MicroFit, "backward", short)
    try:
        outcome = fitted(CONFIG, loaded, instances[0], tmp_path)
    finally:
        models.recompute(loaded, "none")
    assert modes == ["none"] * 3 + ["selective"] * 6 + ["selective"]
    _, folder = solved[0][instances[0].key]
    for name in ("adapter.safetensors", "clip.mp4"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    record = json.loads((tmp_path / "fit.json").read_text())
    assert (record["checkpointing"], record["ran_out_of_memory"]) == ("selective", "none")
    assert outcome.ran_out_of_memory == "none"
    assert "out of memory with fit.checkpointing none; once more with selective" in (
        capsys.readouterr().err
    )


def test_out_of_memory_with_the_cheapest_plan_is_an_error(instances, loaded, tmp_path, monkeypatch):
    def short(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(MicroFit, "backward", short)
    models.recompute(loaded, "full")
    try:
        with pytest.raises(torch.OutOfMemoryError):
            fitted(CONFIG, loaded, instances[0], tmp_path)
    finally:
        models.recompute(loaded, "none")


def test_first_frame_of_the_clip_is_the_condition(solved, instances):
    """The known first frame is imposed: the video starts at the picture, up to codec and VAE."""
    differences = {}
    for instance in instances:
        _, folder = solved[0][instance.key]
        base, _ = read_video(folder / "base.mp4")
        clip, _ = read_video(folder / "clip.mp4")
        differences[instance.key] = (base[0].float() - clip[0].float()).abs().mean().item()
        assert (base[1:].float() - clip[1:].float()).abs().mean() > 1
    assert max(differences.values()) < 2, json.dumps(differences)
