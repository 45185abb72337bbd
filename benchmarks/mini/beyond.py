"""What stands in no paper, tried on the miniature by the doors that any user has.

The classes that `benchmarks/mini/beyond.yaml` names: averages of an adapter's weights, starting
from adapters that another setting left, a second teacher, and a second decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from safetensors.torch import load_file, save_file

from vlmteach.adapter_notes import ADAPTER
from vlmteach.config import TeacherConfig
from vlmteach.methods.micro_fit import MicroFitMethod
from vlmteach.reward import Loss, Prepared, TeacherReward, Watched
from vlmteach.teachers.loading import load_teacher

if TYPE_CHECKING:
    from torch import Tensor

    from vlmteach.methods.base import Resources, Work
    from vlmteach.micro_fit import MicroFit
    from vlmteach.problem import Problem
    from vlmteach.types import QuerySet


def instance_folder(trainer: pl.Trainer) -> Path:
    """Of the instance that is being fitted: a fit's Trainer has its place in a folder there."""
    return Path(trainer.default_root_dir).parent


class Averages(pl.Callback):
    """Leaves exponential moving averages of the weights beside the adapter; the fit is untouched.

    Of the weights after each update, without those before the first:
    sum_i d^(n-i) w_i / sum_i d^(n-i). A and B are averaged each for itself.

    Args:
        decays: d, each in [0, 1); one file `average-<d>.safetensors` for each.
    """

    def __init__(self, decays: Sequence[float] = (0.5, 0.8)) -> None:
        self.decays = tuple(decays)
        self.sums: dict[float, Tensor] = {}
        self.weights = dict.fromkeys(self.decays, 0.0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the weights, where this step has made an update."""
        if trainer.should_stop:
            return
        flat = pl_module.models.lora.flat
        for decay in self.decays:
            before = self.sums.get(decay, torch.zeros_like(flat))
            self.sums[decay] = decay * before + flat
            self.weights[decay] = decay * self.weights[decay] + 1

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Writes the averages; a fit without an update leaves the fresh adapter."""
        lora = pl_module.models.lora
        kept = lora.snapshot()
        for decay in self.decays:
            lora.load(self.sums[decay] / self.weights[decay] if self.sums else kept)
            state = {f"transformer.{name}": matrix for name, matrix in lora.state_dict().items()}
            save_file(state, instance_folder(trainer) / f"average-{decay:g}.safetensors")
        lora.load(kept)


class Kept(pl.Callback):
    """Starts from what another setting of the sweep left of the same instance.

    Args:
        setting: folder of that setting.
        scale: of the update.
        file: in the instance's folder.
    """

    def __init__(self, setting: str, scale: float = 1.0, file: str = ADAPTER) -> None:
        self.setting, self.scale, self.file = setting, scale, file

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Loads it before the first reading."""
        here = instance_folder(trainer)
        folder = here.parents[2] / self.setting / here.parent.name / here.name
        pl_module.models.lora.load_file(folder / self.file, self.scale)


class FamilyMean(pl.Callback):
    """Starts from the mean update of the family's other instances in another setting of the sweep,
    or in a run beside it; of whichever split.

    The mean of their B A, cut to the adapter's rank: A gets the leading right singular vectors, as
    rows of length 1/sqrt(3) such as random ones have.

    Args:
        setting: folder of that setting; `../memory` is a folder beside the sweep's.
    """

    def __init__(self, setting: str) -> None:
        self.setting = setting

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Loads it before the first reading.

        Raises:
            ValueError: the setting left nothing of others of the family.
        """
        here, lora = instance_folder(trainer), pl_module.models.lora
        _, family, _ = here.name.split("__")
        run = here.parents[2] / self.setting / here.parent.name
        folders = sorted(run.glob(f"*__{family}__*"))
        others = [load_file(f / ADAPTER) for f in folders if f.name != here.name]
        if not others:
            raise ValueError(
                f"FamilyMean: got no adapter of others of the family in {run}, expected at least "
                "one; run that setting first, on several tasks of each family"
            )
        weights = lora.snapshot()
        places = {slot.name: slot for slot in lora.slots}
        for name, slot in places.items():
            if slot.is_b:
                continue
            of_b = places[name.replace(".lora_A.", ".lora_B.")]
            a, b = mean_update(others, f"transformer.{name}", lora.rank)
            for matrix, at in ((a, slot), (b / (lora.alpha / lora.rank), of_b)):
                weights[at.offset : at.offset + matrix.numel()] = matrix.flatten().to(weights)
        lora.load(weights)


def mean_update(
    adapters: Sequence[dict[str, Tensor]], name: str, rank: int
) -> tuple[Tensor, Tensor]:
    """The mean of B A of some adapters, cut to a rank: (A [rank, in], B [out, rank]).

    Args:
        adapters: by name, alpha / r folded into B.
        name: of the matrix A.
        rank: at most that of all adapters together.
    """
    downs = torch.cat([each[name] for each in adapters]).double()
    ups = torch.cat([each[name.replace("lora_A", "lora_B")] for each in adapters], 1).double()
    left, values, right = torch.linalg.svd(ups @ downs / len(adapters), full_matrices=False)
    length = 1 / math.sqrt(3)
    return right[:rank] * length, left[:, :rank] * (values[:rank] / length)


class SecondTeacher:
    """Another teacher's log P("Yes") of the same queries.

    Args:
        checkpoint: of the teacher.
        family: its own.
        frames: it watches at most.
        frame_pixels: of a frame at most.
    """

    shifts = True

    def __init__(
        self,
        checkpoint: str,
        family: str = "qwen3_vl",
        frames: int = 9,
        frame_pixels: int = 1024,
    ) -> None:
        self.settings = TeacherConfig(
            family=family,
            checkpoint=checkpoint,
            dtype="float32",
            frames=frames,
            frame_pixels=frame_pixels,
        )
        self.reward: TeacherReward | None = None

    def prepare(self, watched: Watched) -> Prepared:
        """Tokens and positions of the queries; the teacher is loaded for the first instance."""
        if self.reward is None:
            self.reward = TeacherReward(load_teacher(self.settings, watched.device, False))
        return self.reward.prepare(watched)

    def scores(self, frames: Tensor, prepared: Prepared) -> Tensor:
        """log P("Yes") per query, [Q]."""
        assert self.reward is not None, "prepared before"
        return self.reward.scores(frames, prepared)


class TwoDecoders(MicroFitMethod):
    """The micro-fit, each loss the mean of the losses of two decoders' pixels: the reward path's
    own and the reasoner's full one. Their shift is the same."""

    name = "two_decoders"

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self.full = resources.models.reasoner.full_decoder(checkpointing=False)

    def _module(self, work: Work, problem: Problem, queries: QuerySet) -> MicroFit:
        module = super()._module(work, problem, queries)

        def forward(shift: tuple[float, float] = (0.0, 0.0)) -> Loss:
            z0 = module.predict()
            pixels = [
                decoder.decode(z0, problem.frames) for decoder in (module.models.decoder, self.full)
            ]
            module.watched = pixels[0].detach()
            return mean_loss([module.objective(each, shift) for each in pixels])

        module.forward = forward
        return module


def mean_loss(losses: Sequence[Loss]) -> Loss:
    """The mean of losses of the same terms; of the teacher's answers, the mean logarithm."""
    told = [loss.log_p_yes for loss in losses]
    return Loss(
        total=torch.stack([loss.total for loss in losses]).mean(),
        shares={
            name: torch.stack([loss.shares[name] for loss in losses]).mean()
            for name in losses[0].shares
        },
        log_p_yes=None
        if told[0] is None
        else torch.stack([each for each in told if each is not None]).mean(0),
    )
