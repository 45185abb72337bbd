from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.loaders.peft import PeftAdapterMixin
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.mini import beyond
from vlmteach.lora import InstanceLora
from vlmteach.reward import Loss, TeacherReward, Watched
from vlmteach.types import Query


class Net(nn.Module, PeftAdapterMixin):
    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(6, 5)
        self.to_k = nn.Linear(5, 4)


@pytest.fixture
def fit() -> Any:
    """What a callback is shown of a fit's module."""
    net = Net().requires_grad_(False)
    lora = InstanceLora(net, rank=2, alpha=4.0, targets=["to_q", "to_k"])
    lora.reset(torch.Generator().manual_seed(0))
    return SimpleNamespace(models=SimpleNamespace(lora=lora))


def trainer_in(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(default_root_dir=str(folder / "trainer"), should_stop=False)


def drawn(lora: InstanceLora, seed: int) -> Tensor:
    return torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(seed))


def leave(lora: InstanceLora, weights: Tensor, folder: Path, name: str) -> None:
    """An adapter's file, as a fit leaves it; the adapter is then as it was."""
    kept = lora.snapshot()
    lora.load(weights)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"transformer.{k}": v for k, v in lora.state_dict().items()}, folder / name)
    lora.load(kept)


def updates(lora: InstanceLora) -> dict[str, Tensor]:
    """Layer -> alpha / r B A."""
    state = lora.state_dict()
    layers = {name.rpartition(".lora_")[0] for name in state}
    return {n: state[f"{n}.lora_B.weight"] @ state[f"{n}.lora_A.weight"] for n in layers}


def test_averages_are_those_of_their_formula_and_leave_the_fit_alone(fit: Any, tmp_path: Path):
    lora, trainer = fit.models.lora, trainer_in(tmp_path)
    averages = beyond.Averages((0.0, 0.5))
    for seed in (1, 2, 3):
        lora.load(drawn(lora, seed))
        averages.on_train_batch_end(trainer, fit, None, None, 0)
    trainer.should_stop = True  # the last reading, without an update
    averages.on_train_batch_end(trainer, fit, None, None, 0)
    lora.load(best := drawn(lora, 9))
    averages.on_fit_end(trainer, fit)
    assert torch.equal(lora.flat, best)
    for decay, expected in (
        (0, drawn(lora, 3)),
        (0.5, (drawn(lora, 1) / 4 + drawn(lora, 2) / 2 + drawn(lora, 3)) / 1.75),
    ):
        lora.load_file(tmp_path / f"average-{decay}.safetensors")
        torch.testing.assert_close(lora.flat, expected)


def test_averages_of_no_update_are_the_adapter_as_it_stands(fit: Any, tmp_path: Path):
    lora = fit.models.lora
    fresh = lora.snapshot()
    beyond.Averages((0.8,)).on_fit_end(trainer_in(tmp_path), fit)
    lora.load_file(tmp_path / "average-0.8.safetensors")
    assert torch.equal(lora.flat, fresh)


def test_kept_starts_from_the_same_instance_of_another_setting(fit: Any, tmp_path: Path):
    lora = fit.models.lora
    leave(lora, drawn(lora, 1), tmp_path / "one" / "seed0" / "a__b__1", "x.safetensors")
    trainer = trainer_in(tmp_path / "other" / "seed0" / "a__b__1")
    beyond.Kept("one", 1.0, "x.safetensors").on_fit_start(trainer, fit)
    assert torch.equal(lora.flat, drawn(lora, 1))
    whole = updates(lora)
    beyond.Kept("one", 0.5, "x.safetensors").on_fit_start(trainer, fit)
    for layer, update in updates(lora).items():
        torch.testing.assert_close(update, whole[layer] / 2)


def test_the_family_s_mean_is_that_of_the_others(fit: Any, tmp_path: Path):
    lora = fit.models.lora
    run = tmp_path / "one" / "seed0"
    for name, seed in (("t__fly__1", 1), ("t__fly__2", 2), ("t__flyer__3", 3), ("t__run__4", 4)):
        leave(lora, drawn(lora, seed), run / name, "adapter.safetensors")
    lora.load(drawn(lora, 2))
    expected = updates(lora)
    trainer = trainer_in(tmp_path / "other" / "seed0" / "t__fly__1")
    beyond.FamilyMean("one").on_fit_start(trainer, fit)
    for layer, update in updates(lora).items():  # of one other, nothing is cut
        torch.testing.assert_close(update, expected[layer], atol=1e-5, rtol=1e-5)
    rows = [m for n, m in lora.state_dict().items() if "lora_A" in n]
    for matrix in rows:
        torch.testing.assert_close(matrix.norm(dim=1), torch.full((2,), 1 / math.sqrt(3)))
    alone = trainer_in(tmp_path / "other" / "seed0" / "t__run__4")
    with pytest.raises(ValueError, match=r"FamilyMean: got no adapter of others"):
        beyond.FamilyMean("one").on_fit_start(alone, fit)


def test_a_mean_is_cut_to_its_leading_directions(fit: Any, tmp_path: Path):
    lora = fit.models.lora
    files = []
    for seed in (1, 2):
        leave(lora, drawn(lora, seed), tmp_path / str(seed), "adapter.safetensors")
        files.append(load_file(tmp_path / str(seed) / "adapter.safetensors"))
    name = "transformer.to_q.lora_A.weight"
    products = [f[name.replace("_A", "_B")] @ f[name] for f in files]
    mean = torch.stack(products).double().mean(0)
    whole = beyond.mean_update(files, name, 4)
    torch.testing.assert_close(whole[1] @ whole[0], mean, atol=1e-6, rtol=1e-6)
    a, b = beyond.mean_update(files, name, 2)
    lost = torch.linalg.svdvals(mean)[2:].square().sum().sqrt()
    torch.testing.assert_close((mean - b @ a).norm(), lost, atol=1e-6, rtol=1e-6)


def test_a_second_teacher_says_what_it_says_as_the_first():
    queries = (Query(text="Is the red disc at the right?", role="goal"),)
    watched = Watched(
        key="a", prompt="p", first_frame=None, queries=queries, times=(0.0, 0.5), height=32,
        width=32, device=torch.device("cpu"), base=lambda: torch.zeros(2, 3, 32, 32),
    )  # fmt: skip
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    second = beyond.SecondTeacher("builtin:mini/judge")
    prepared = second.prepare(watched)
    loaded = second.reward
    assert loaded is not None
    first = TeacherReward(loaded.teacher)
    with torch.no_grad():
        says = second.scores(frames, prepared)
        assert torch.equal(says, first.scores(frames, first.prepare(watched)))
    second.prepare(watched)
    assert second.reward is loaded  # not loaded again
    assert prepared.roles == ("goal",)
    assert says.shape == (1,)


def test_the_mean_of_losses_is_of_every_part():
    losses = [
        Loss(torch.tensor(a), {"teacher": torch.tensor(a - 1), "keep": torch.tensor(1.0)}, told)
        for a, told in ((2.0, torch.tensor([-1.0, -3.0])), (4.0, torch.tensor([-2.0, -5.0])))
    ]
    mean = beyond.mean_loss(losses)
    assert mean.total.item() == 3
    assert {name: share.item() for name, share in mean.shares.items()} == {"teacher": 2, "keep": 1}
    assert mean.log_p_yes is not None
    assert mean.log_p_yes.tolist() == [-1.5, -4.0]
    silent = beyond.mean_loss([Loss(torch.tensor(1.0), {}, None)])
    assert silent.log_p_yes is None


def test_two_decoders_are_asked_of_one_prediction(monkeypatch: pytest.MonkeyPatch):
    predicted, asked = [], []

    def objective(pixels: Tensor, shift: tuple[float, float]) -> Loss:
        asked.append(shift)
        return Loss(pixels.sum(), {}, pixels.flatten())

    def predict() -> Tensor:
        predicted.append(1)
        return torch.ones(1)

    def decoder(factor: float) -> Any:
        return SimpleNamespace(decode=lambda z0, frames: factor * z0 + frames)

    module = SimpleNamespace(
        predict=predict, models=SimpleNamespace(decoder=decoder(2)), objective=objective
    )
    monkeypatch.setattr(beyond.MicroFitMethod, "_module", lambda *_: module)
    method = beyond.TwoDecoders.__new__(beyond.TwoDecoders)
    method.full = decoder(4)
    made: Any = method._module(Any, SimpleNamespace(frames=1), Any)  # type: ignore[arg-type]
    loss = made.forward((0.1, 0.2))
    assert loss.total.item() == 4  # (2 + 1 + 4 + 1) / 2
    assert made.watched.item() == 3
    assert asked == [(0.1, 0.2)] * 2
    assert len(predicted) == 1
