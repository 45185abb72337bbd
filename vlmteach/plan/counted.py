"""The work on one clip, counted on the meta device: each part's bytes, and the cost of each pass.

A stack of equal blocks is counted at two depths and drawn out to its own, which is exact; a clip's
frames in the VAE at three lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmteach.builtin.taehv import FULL_WIDTHS, save_random_taehv
from vlmteach.checkpoints.hollow import hollow
from vlmteach.config import Config
from vlmteach.families import DECODERS, FULL, REASONERS, TEACHERS
from vlmteach.frames import watched_frames
from vlmteach.models import Models, load, recompute
from vlmteach.plan.cost import Cost, Pass, at, both_ways, measured, only
from vlmteach.plan.count import IntegersStayReal
from vlmteach.plan.known import in_hub_cache, write_known
from vlmteach.prefix import Prefix
from vlmteach.recompute import Checkpointing
from vlmteach.rollout import gradient_span
from vlmteach.types import ClipSpec

META = torch.device("meta")
PROMPT = "Move the yellow ball along the corridor until it lies on the red square."
QUERY = "Is the yellow ball on the red square at the end of the video?"


def hollow_models(config: Config, device: torch.device = META) -> Models:
    """A run's models without weights: from configs on disk, or those of a known checkpoint.

    Args:
        config: of the run.
        device: of the networks, whose weights are as their classes begin; encoders are on the meta
            device whatever it is.

    Raises:
        ValueError: a checkpoint of which no config is here, or a family of the user's own.
    """
    tables = {"reasoner": REASONERS, "decoder": (*DECODERS, FULL), "teacher": TEACHERS}
    for part, table in tables.items():
        family = getattr(config, part).family
        if family not in table:
            raise ValueError(
                f"{part}.family: got {family!r}, expected one of {', '.join(table)}; a class of "
                "your own cannot be planned, as only it knows how to build itself without weights"
            )
    with TemporaryDirectory(prefix="vlmteach-plan-") as scratch, hollow(device):
        return load(_on_disk(config, Path(scratch)), device)


def _on_disk(config: Config, folder: Path) -> Config:
    """The config with checkpoints that are here, written from what is known where they are not."""
    reasoner, decoder, teacher = config.reasoner, config.decoder, config.teacher
    reasoner = replace(reasoner, checkpoint=_place(reasoner, folder), distillation_lora=None)
    teacher = replace(teacher, checkpoint=_place(teacher, folder))
    file = Path(decoder.checkpoint or "")
    if not file.exists() and (variant := file.stem) in FULL_WIDTHS:
        made = folder / file.name
        save_random_taehv(made, variant=variant, widths=FULL_WIDTHS[variant])
        decoder = replace(decoder, checkpoint=str(made))
    fit = replace(config.fit, checkpointing="none")
    return replace(config, reasoner=reasoner, decoder=decoder, teacher=teacher, fit=fit)


def _place(part: Any, folder: Path) -> str:
    checkpoint = part.checkpoint
    if checkpoint.startswith("builtin:") or Path(checkpoint).expanduser().exists():
        return checkpoint
    known = in_hub_cache(checkpoint) or write_known(checkpoint, part.family, folder)
    if known is None:
        raise ValueError(
            f"checkpoint: got {checkpoint!r}, which is not on this disk and not known by name, "
            "expected a folder; its configs are enough: hf download "
            f"{checkpoint} --include '*.json' '*.jinja' '*.txt' --local-dir DIR, and name DIR"
        )
    return str(known)


@dataclass(frozen=True, slots=True)
class Update:
    """One update in one mode: its three parts, forward and backward."""

    reasoner: tuple[Pass, ...]
    """Of the rungs that carry gradient."""
    before: tuple[Cost, ...]
    """Of the rungs before them, without gradient."""
    decoder: Pass
    teacher: Pass

    @property
    def peak(self) -> float:
        """Bytes at most, without what is resident."""
        above, most = 0.0, max((cost.peak for cost in self.before), default=0.0)
        stack = (*self.reasoner, self.decoder, self.teacher)
        for each in stack:
            most = max(most, above + each.forward.peak, above + each.backward.peak)
            above += each.forward.kept
        return most

    @property
    def kept(self) -> float:
        """Bytes kept for the backward pass."""
        return sum(p.forward.kept for p in (*self.reasoner, self.decoder, self.teacher))


class Counted:
    """The passes of a run on one clip size, each counted once, when it is asked for.

    Args:
        models: on the meta device.
        config: of the run.
        clip: whose size and length are counted.
    """

    def __init__(self, models: Models, config: Config, clip: ClipSpec) -> None:
        self.models, self.config, self.clip = models, config, clip
        self.shape = models.reasoner.latent_shape(clip)
        for each in ("decode", "update", "read_one_frame"):
            setattr(self, each, cache(getattr(self, each)))
        shown = (clip.frames, config.teacher.frames, clip.height, clip.width)
        self.frames = watched_frames(models.teacher, *shown)

    @cached_property
    def encode(self) -> Cost:
        """Prompt and first frame."""
        return self._encoded[0]

    @cached_property
    def _encoded(self) -> tuple[Cost, Any]:
        image = Image.new("RGB", (self.clip.width, self.clip.height))
        given = image if self.models.reasoner.facts.accepts_image else None
        return measured(lambda: self.models.reasoner.encode(PROMPT, given, self.clip))

    def decode(self, *, tiled: bool = False) -> Cost:
        """The clip by the standard VAE.

        Args:
            tiled: in overlapping tiles, as it is where the whole picture does not fit.
        """
        reasoner: Any = self.models.reasoner
        length, vae = self.shape[2], reasoner.vae
        sizes = [length] if length <= 5 else [3, 4, 5]
        costs = []
        vae.use_tiling = tiled
        try:
            for size in sizes:
                z0 = torch.empty(*self.shape[:2], size, *self.shape[3:], device=META)
                costs.append(measured(lambda z0=z0: self.models.reasoner.decode(z0))[0])
        finally:
            vae.use_tiling = False
        return at(costs, sizes, length)

    @cached_property
    def sample_rung(self) -> Cost:
        """One evaluation of the network without gradient."""
        return self._no_grad(self._blocks - self._adapted, self._adapted)

    @property
    def has_prefix(self) -> bool:
        """Whether the first rung's constant part is computed once, and so apart."""
        return gradient_span(self.config.fit.gradient, len(self.config.reasoner.ladder))[1] == 0

    @cached_property
    def _blocks(self) -> int:
        stack: Any = self.models.reasoner.network.get_submodule(str(self.models.reasoner.blocks))
        return len(stack)

    @cached_property
    def _adapted(self) -> int:
        below = f"{self.models.reasoner.blocks}."
        names = [slot.name for slot in self.models.lora.slots]
        first = min(int(name.removeprefix(below).partition(".")[0]) for name in names)
        return self._blocks - first

    def _at_depth(self, run: Callable[[int], Any], base: int, adapted: int) -> Any:
        """A pass at a depth, from those of two and three adapted blocks and of one beneath them."""
        _ = self._encoded  # now, so that no pass counts it as its own
        depths = [adapted] if adapted <= 3 else [2, 3]
        found = []
        for depth in depths:
            with only(self.models.reasoner.network, self._stack, range(self._blocks)[-depth:]):
                found.append(run(0))
        whole = _mapped(lambda *costs: at(costs, depths, adapted), *found)
        if not base:
            return whole
        first = self._blocks - self._adapted - 1
        numbers = [first, *range(self._blocks)[-depths[0] :]]
        with only(self.models.reasoner.network, self._stack, numbers):
            deeper = run(1)
        return _mapped(lambda w, a, b: _deeper(w, a, b, base), whole, found[0], deeper)

    @property
    def _stack(self) -> str:
        return str(self.models.reasoner.blocks)

    def _velocity(self) -> Tensor:
        z = torch.empty(self.shape, device=META)
        sigma = self.config.reasoner.ladder[self._rung] / 1000
        return self.models.reasoner.velocity(z, sigma, self._encoded[1])

    @property
    def _rung(self) -> int:
        """One that the adapter's own network evaluates."""
        return gradient_span(self.config.fit.gradient, len(self.config.reasoner.ladder))[0]

    @torch.no_grad()
    def _no_grad(self, base: int, adapted: int) -> Cost:
        return self._at_depth(lambda _: measured(self._velocity)[0], base, adapted)

    def _from_prefix(self, _: int) -> Pass:
        reasoner = self.models.reasoner
        prefix = Prefix(reasoner.network, self._stack, 0)
        z = torch.empty(self.shape, device=META)
        sigma = self.config.reasoner.ladder[self._rung] / 1000

        def run() -> Tensor:
            return z - sigma * prefix.velocity(reasoner, z, sigma, self._encoded[1])

        with torch.no_grad(), IntegersStayReal():
            run()
        return self._both_ways(run)

    def _both_ways(self, run: Callable[[], Tensor]) -> Pass:
        for parameter in self.models.lora.parameters:
            parameter.grad = None  # as before every update
        return both_ways(run)

    def update(self, mode: Checkpointing) -> Update:
        """One update."""
        recompute(self.models, mode)
        last, first = gradient_span(self.config.fit.gradient, len(self.config.reasoner.ladder))
        base, adapted = self._blocks - self._adapted, self._adapted
        passes, before = [], []
        for rung in range(last + 1):
            if rung < first:
                before.append(self.sample_rung)
            elif rung == 0:
                passes.append(self._at_depth(self._from_prefix, 0, adapted))
            else:
                run = lambda _: self._both_ways(self._velocity)  # noqa: E731
                passes.append(self._at_depth(run, base, adapted))
        return Update(tuple(passes), tuple(before), self._decoder(), self._teacher())

    def _decoder(self) -> Pass:
        z0 = torch.empty(self.shape, device=META, requires_grad=True)
        return both_ways(lambda: self.models.decoder.decode(z0, self.frames))

    def _teacher(self) -> Pass:
        queries = 1 + self.config.query.max_process
        return self._asked(self.frames, queries, both_ways)

    def read_one_frame(self) -> Cost:
        """What the teacher does before it writes the first word about a first frame."""
        with torch.no_grad():
            return self._asked([0], 1, lambda run: measured(run)[0])

    def _asked(self, frames: Any, queries: int, how: Callable[[Any], Any]) -> Any:
        teacher: Any = self.models.teacher
        height, width = self.clip.height, self.clip.width
        times = [frame / self.clip.fps for frame in frames]
        with IntegersStayReal():
            asked = teacher.prepare([QUERY] * queries, times, height, width)
        shape = (len(frames), 3, height, width)
        pixels = torch.empty(shape, device=META, requires_grad=torch.is_grad_enabled())
        name, depth = longest_stack(teacher.network)
        depths = [depth] if depth <= 5 else [4, 5]  # Qwen3-VL's first three are told more
        found = []
        for each in depths:
            with only(teacher.network, name, range(each)):
                found.append(how(lambda: teacher.log_p_yes(pixels, asked)))
        return _mapped(lambda *costs: at(costs, depths, depth), *found)


def longest_stack(network: nn.Module) -> tuple[str, int]:
    """Name and length of the list of blocks that holds the most numbers: the language model's."""
    lists = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.ModuleList)]
    name, stack = max(lists, key=lambda each: sum(p.numel() for p in each[1].parameters()))
    return name, len(stack)


def _mapped(of: Callable[..., Cost], *found: Any) -> Any:
    """Costs to a cost, forward and backward passes each by themselves."""
    if isinstance(found[0], Cost):
        return of(*found)
    return Pass(of(*(p.forward for p in found)), of(*(p.backward for p in found)))


def _deeper(whole: Cost, without: Cost, one: Cost, count: int) -> Cost:
    """A pass with `count` more blocks beneath, of which one makes `without` into `one`."""
    ends = (whole, without, one)
    values = [tuple(getattr(c, n) for c in ends) for n in ("flop", "moved", "peak", "kept")]
    return Cost(*(w + count * (b - a) for w, a, b in values))
