"""A plan: what a run holds and takes on a device, by phase, and the checkpointing it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from vlmteach.config import Config
from vlmteach.plan.cost import Cost
from vlmteach.plan.counted import Counted, Update, hollow_models
from vlmteach.plan.rates import Device
from vlmteach.queries import MAX_NEW_TOKENS
from vlmteach.recompute import MODES, Checkpointing
from vlmteach.rollout import gradient_span
from vlmteach.types import ClipSpec

SPARE = 0.06
"""Share of a device's memory that is left to what is not counted: the CUDA context, the kernels'
own workspaces, what lies unused between tensors."""
_COPIES = 5
"""The adapter, its gradient, AdamW's two moments, and the best weights seen."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of work on an instance."""

    name: str
    times: int
    """An instance, at most."""
    flop: float
    """Once."""
    moved: float
    peak: float
    """Bytes at most, all that is resident included."""
    seconds: float
    """Once: the longer of computing and moving at the device's rates; kernels reach less."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of one instance of one clip size."""

    clip: ClipSpec
    device: Device
    parts: dict[str, float]
    """Part -> bytes, on the device but where the name says otherwise."""
    phases: tuple[Phase, ...]
    checkpointing: Checkpointing
    """As chosen, or as the config has it."""
    is_chosen: bool
    is_tiled: bool
    """Whether the VAE decodes in overlapping tiles, as a run does where the whole does not fit."""
    peaks: dict[Checkpointing, float]
    """Mode -> bytes at most in an update."""

    @property
    def resident(self) -> float:
        """Bytes on the device whatever is done."""
        return _resident(self.parts)

    @property
    def seconds(self) -> float:
        """Of one instance that takes every update it may."""
        return sum(phase.times * phase.seconds for phase in self.phases)

    @property
    def peak(self) -> float:
        """Bytes at most in any phase."""
        return max(phase.peak for phase in self.phases)

    def phase(self, name: str) -> Phase:
        """One of the phases, by its name."""
        return next(phase for phase in self.phases if phase.name == name)

    @property
    def fits(self) -> bool:
        """Whether that is what the device has, with some to spare."""
        return self.peak <= (1 - SPARE) * self.device.memory


def plan(counted: Counted, device: Device) -> Plan:
    """The plan of one instance, whose method is taken to be the micro-fit.

    Args:
        counted: the run and the clip; counting takes seconds, and reads no weight.
        device: from `vlmteach.plan.rates.device_of`; the plan is of one of the processes that
            share it.

    Raises:
        ValueError: a clip the reasoner cannot make.
    """
    config, models = counted.config, counted.models
    device = device.shared_by(config.run.instances_at_once)
    parts = parts_of(models, device)
    resident = _resident(parts)
    asked = config.fit.checkpointing
    modes: tuple[Checkpointing, ...] = MODES if asked == "auto" else (cast(Checkpointing, asked),)
    updates: dict[Checkpointing, Update] = {each: counted.update(each) for each in modes}
    peaks: dict[Checkpointing, float] = {m: resident + each.peak for m, each in updates.items()}
    room = (1 - SPARE) * device.memory
    fitting: list[Checkpointing] = [each for each in modes if peaks[each] <= room]
    mode = fitting[0] if fitting else modes[-1]
    whole = counted.decode()
    is_tiled = resident + whole.peak > room
    decoded = counted.decode(tiled=True) if is_tiled else whole
    phases = _phases(counted, updates[mode], decoded, parts, device)
    return Plan(counted.clip, device, parts, phases, mode, asked == "auto", is_tiled, peaks)


def parts_of(models: Any, device: Device) -> dict[str, float]:
    """Bytes of the weights of each part, and of what learns."""
    reasoner, decoder, teacher = models.reasoner, models.decoder, models.teacher
    where = "" if device.shares_host else " (host)"
    own = getattr(decoder, "network", None)
    adapter = models.lora.flat.numel() * models.lora.flat.element_size()
    return {
        "reasoner": _bytes(reasoner.networks) - adapter,
        f"text encoder{where}": _bytes(reasoner.encoders),
        "VAE": _bytes([reasoner.vae]),
        "decoder": 0 if own is None else _bytes([own]),
        "teacher": _bytes([teacher.network]),
        "adapter, optimiser": _COPIES * adapter,
    }


def _bytes(networks: Iterable[nn.Module]) -> int:
    return sum(
        tensor.numel() * tensor.element_size()
        for network in networks
        for tensor in (*network.parameters(), *network.buffers())
    )


def _resident(parts: dict[str, float]) -> float:
    return sum(size for name, size in parts.items() if not name.endswith("(host)"))


def _phases(
    counted: Counted, update: Update, decoded: Cost, parts: dict[str, float], device: Device
) -> tuple[Phase, ...]:
    config, resident = counted.config, _resident(parts)
    lent = sum(size for name, size in parts.items() if name.endswith("(host)"))
    adapter = parts["adapter, optimiser"] / _COPIES
    rungs = len(config.reasoner.ladder)
    of = {"reasoner": config.reasoner.dtype, "vae": config.reasoner.vae_dtype}
    of |= {"decoder": config.decoder.dtype, "teacher": config.teacher.dtype}

    def seconds(cost: Cost, part: str) -> float:
        return max(cost.flop / device.flops[of[part]], cost.moved / device.copy)

    def phase(name: str, times: int, done: list[tuple[Cost, str]], peak: float) -> Phase:
        flop, moved = sum(c.flop for c, _ in done), sum(c.moved for c, _ in done)
        took = sum(seconds(cost, part) for cost, part in done)
        return Phase(name, times, flop, moved, resident + peak, took)

    phases = [phase("encode", 1, [(counted.encode, "reasoner")], lent + counted.encode.peak)]
    if config.query.source == "teacher":
        read = counted.read_one_frame()
        # Each further word reads all of the teacher's weights once.
        word = Cost(0, parts["teacher"] * MAX_NEW_TOKENS, 0, 0)
        done = [(read, "teacher"), (word, "teacher")]
        phases.append(phase("write queries", 1, done, read.peak))
    forward = [(cost, "reasoner") for cost in update.before]
    forward += [(each.forward, "reasoner") for each in update.reasoner]
    forward += [(update.decoder.forward, "decoder"), (update.teacher.forward, "teacher")]
    backward = [(each.backward, "reasoner") for each in update.reasoner]
    backward += [(update.decoder.backward, "decoder"), (update.teacher.backward, "teacher")]
    if counted.has_prefix:
        rung = counted.sample_rung
        phases.append(phase("prefix", config.fit.noises, [(rung, "reasoner")], rung.peak))
    if config.lora.init == "gradient":
        phases.append(phase("start of the adapter", 1, forward + backward, update.peak))
    phases.append(phase("update", config.fit.steps, forward + backward, update.peak))
    readings = config.fit.noises if config.fit.noises > 1 else 0
    phases.append(phase("reading", 1 + readings, forward, update.peak))
    last, _ = gradient_span(config.fit.gradient, rungs)
    # The rungs up to the last that is watched are predicted already, by fit and reading.
    sampled = [(counted.sample_rung, "reasoner")] * (rungs - 1 - last)
    whole = [*sampled, (decoded, "vae")]
    peak = max(counted.sample_rung.peak, decoded.peak)
    phases.append(phase("sampling", 1, whole, peak))
    if config.run.base_video == "surrogate":  # the surrogate's own work is small
        phases.append(phase("sampling of the base", 1, sampled, peak))
    elif config.run.base_video == "full":
        phases.append(phase("sampling of the base", 1, whole, peak))
    written = Cost(0, 2 * adapter, adapter, adapter)
    phases.append(phase("export", 1, [(written, "reasoner")], written.peak))
    return tuple(phases)


def chosen(config: Config, device: torch.device) -> Checkpointing:
    """What `fit.checkpointing: auto` stands for on a device, for clips as the config has them.

    Raises:
        ValueError: for models that cannot be planned.
    """
    from vlmteach.plan.clips import clip_of_config
    from vlmteach.plan.rates import measure

    models = hollow_models(config)
    clip = clip_of_config(config, models)
    return plan(Counted(models, config, clip), measure(device)).checkpointing
