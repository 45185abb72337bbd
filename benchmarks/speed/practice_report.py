"""An update as it is practised beside ours: what each way costs, and the tables of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.speed.practice import (
    MIDDLING,
    Update,
    Way,
    built,
    check_equal,
    middling,
    ways,
)

if TYPE_CHECKING:
    from vlmteach.config import Config


@dataclass(slots=True)
class Found:
    """What one way costs."""

    way: str
    tflop: float
    """Forward, backward, and what is recomputed."""
    kept_mib: float
    """What the forward pass keeps; of a recomputed block, its input only."""
    kept_all_mib: float
    """The same where nothing is recomputed: like for like over the ways."""
    milliseconds: float | None = None
    """Processor time, median; None where it is only counted."""


def count(config: Config, several: Sequence[Way], *, full_size: bool) -> list[Found]:
    """The ways' counts on the meta device."""
    import torch

    from vlmteach.plan.count import IntegersStayReal

    rows, update = [], None
    for way in several:
        with IntegersStayReal():
            update = Update(way, config, torch.device("meta"), full_size=full_size, like=update)
        rows.append(Found(way.name, *update.counted()))
    return rows


def shares(config: Config, *, full_size: bool) -> dict[str, float]:
    """Of a forward pass's operations, by part: the reasoner, the watched frames, the queries."""
    import torch

    from vlmteach.plan.count import IntegersStayReal, flops

    packed = next(way for way in ways() if way.own_layer)
    with IntegersStayReal():
        update = Update(packed, config, torch.device("meta"), full_size=full_size)
    models, frames = update.models, list(update.problem.frames)
    z0 = torch.empty(update.problem.noise.z1.shape, device="meta")
    clip = update.problem.clip
    seen = torch.empty(len(frames), 3, clip.height, clip.width, device="meta")
    parts: dict[str, Callable[[], Any]] = {
        "reasoner": lambda: models.reasoner.velocity(z0, 1.0, update.problem.condition),
        "decoder": lambda: models.decoder.decode(z0, frames),
        "teacher": lambda: models.teacher.log_p_yes(seen, update.questions),
        "VAE": lambda: models.reasoner.decode(z0),
    }
    with torch.no_grad():
        counts = {name: flops(run)[0] for name, run in parts.items()}
    return {name: value / counts["reasoner"] for name, value in counts.items()}


def timed(updates: Sequence[Update], repeats: int) -> list[float]:
    """Milliseconds of processor time of each update, median."""
    import torch

    from benchmarks.speed.timing import Case, compare

    cases = [Case(update.way.name, update) for update in updates]
    return [each.median for each in compare(cases, repeats=repeats, device=torch.device("cpu"))]


def markdown(found: Sequence[Found]) -> str:
    """One row a way; ratios are to ours, the last."""
    ours = found[-1]
    timed = ours.milliseconds is not None
    head = "| way | TFLOP | x ours | kept, MiB | x ours | kept without recomputing | x ours |"
    head += " ms | x ours |" if timed else ""
    lines = [head, "|---|" + "---:|" * (8 if timed else 6)]
    for row in found:
        cells = [row.way, f"{row.tflop:.4g}", f"{row.tflop / ours.tflop:.2f}"]
        cells += [f"{row.kept_mib:.1f}", f"{row.kept_mib / ours.kept_mib:.2f}"]
        cells += [f"{row.kept_all_mib:.1f}", f"{row.kept_all_mib / ours.kept_all_mib:.2f}"]
        if row.milliseconds is not None and ours.milliseconds is not None:
            ratio = row.milliseconds / ours.milliseconds
            cells += [f"{row.milliseconds:.0f}", f"{ratio:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(config: Config, repeats: int, *, full_size: bool) -> Iterator[str]:
    """The tables, as they come.

    Args:
        config: a preset of Wan2.2-TI2V-5B and Qwen3-VL.
        repeats: rounds of the clock.
        full_size: only count, on the meta device, at the preset's own size.

    Raises:
        ValueError: a preset of other families.
    """
    families = config.reasoner.family, config.teacher.family
    if families != ("wan", "qwen3_vl"):
        raise ValueError(
            f"--against practice: got the families {' and '.join(families)}, expected wan and "
            "qwen3_vl, whose shares the middling models have; take --config wan22-turbo"
        )
    from vlmteach.plan.known import architecture

    if config.lora.blocks is None:
        stated = architecture(config.reasoner.checkpoint)["transformer"]["num_layers"]
        depth = stated if full_size else MIDDLING["transformer"]["num_layers"]
        config = replace(config, lora=replace(config.lora, blocks=max(depth // 6, 1)))
    with TemporaryDirectory(prefix="vlmteach-speed-") as folder:
        sized = config if full_size else middling(config, Path(folder))
        yield from _told(sized, repeats, full_size=full_size)


def _told(config: Config, repeats: int, *, full_size: bool) -> Iterator[str]:
    reached = shares(config, full_size=full_size)
    said = ", ".join(f"{name} {value:.3f}" for name, value in reached.items())
    yield f"Forward operations over the reasoner's: {said}. Last blocks: {config.lora.blocks}."
    if full_size:
        yield markdown(count(config, ways(), full_size=True))
        return
    updates = built(config)
    equal = check_equal(updates)
    lines = ["| same as the way above it | loss off by | gradient off by |", "|---|---:|---:|"]
    lines += [f"| {name} | {off:.1e} | {turned:.1e} |" for name, off, turned in equal]
    yield "\n".join(lines)
    found = count(config, ways(), full_size=False)
    for row, milliseconds in zip(found, timed(updates, repeats), strict=True):
        row.milliseconds = milliseconds
    yield markdown(found)
