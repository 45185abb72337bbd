"""The operations of one update and of one generation, part by part, and their table.

Each part of a preset runs at full size on the meta device, forward and, where the method does it,
backward. (The VAE computes in float32, at a lower rate than the one stated: its times are low even
for a floor.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmteach.config import Config

TERA = 1e12
H200_RATE = 790.0
"""TFLOP/s of large bf16 matrix products, as measured on an H200."""
PAPER_RATIO = (69 - 14) / 16 / 14
"""One update over one generation in the paper: 69 s with 16 updates, 14 s without (Table 1)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One part of the work."""

    stage: str
    """`update`, `generation`, `once` per instance, or `instead`: what an alternative would take."""
    part: str
    tflop: float
    moved_tb: float
    """TB that its kernels read and write, each by itself."""
    kept_gib: float | None = None
    """What a forward pass keeps for its backward pass, models left out."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The counts of one preset."""

    preset: str
    clip: str
    rows: tuple[Row, ...]
    rate: float
    """TFLOP/s."""

    def total(self, stage: str) -> float:
        """TFLOP of a stage."""
        return sum(row.tflop for row in self.rows if row.stage == stage)

    @property
    def ratio(self) -> float:
        """One update over one generation."""
        return self.total("update") / self.total("generation")


def count(preset: str, config: Config, rate: float) -> Floor:
    """Counts one update, one generation and their alternatives.

    Raises:
        ValueError: for a preset whose checkpoints' architecture is not known.
    """
    import torch

    from benchmarks.speed import full_size
    from benchmarks.speed.case import (
        QUERIES,
        asked_one_by_one,
        frozen_of,
        micro_fit_of,
        problem_of,
        questions_of,
        recompute_activations,
    )
    from benchmarks.speed.timing import kept_for_backward
    from vlmteach.plan.count import IntegersStayReal
    from vlmteach.plan.counted import META
    from vlmteach.rollout import sample_latents

    models = full_size.build(config, META)
    with IntegersStayReal():
        module = micro_fit_of(models, config, problem_of(models, config))
        questions = questions_of(models, module.problem)
        separate = asked_one_by_one(models, module.problem)
    problem = module.problem
    reasoner, decoder, teacher = models.reasoner, models.decoder, models.teacher
    frozen = frozen_of(models)
    rows: list[Row] = []

    def add(stage: str, part: str, run: Callable[[], Any]) -> Any:
        counted, moved, result = _counted(run)
        rows.append(Row(stage, part, counted, moved))
        return result

    def both(stage: str, part: str, run: Callable[[], torch.Tensor]) -> torch.Tensor:
        forward, moved, (kept, output) = _counted(lambda: kept_for_backward(run, frozen))
        backward, moved_back, _ = _counted(output.sum().backward)
        again = moved_again = 0.0
        if stage == "update" and config.fit.checkpointing != "none":
            recompute_activations(models, True)
            first, _, (kept, repeated) = _counted(lambda: kept_for_backward(run, frozen))
            again, moved_again, _ = _counted(repeated.sum().backward)
            assert first == forward
            recompute_activations(models, False)
        rows.append(Row(stage, f"{part}, forward", forward, moved, kept / 2**30))
        rows.append(Row(stage, f"{part}, backward", backward, moved_back))
        if again > backward:
            row = (again - backward, moved_again - moved_back)
            rows.append(Row(stage, f"{part}, recomputed", *row))
        return output

    with torch.no_grad():
        add("once", "reasoner, prefix of the updates included", module.predict)
    latents = both("update", "reasoner", module.predict)
    z0 = torch.empty_like(latents, requires_grad=True)
    frames = list(problem.frames)
    pixels = both("update", f"decoder, {len(frames)} frames", lambda: decoder.decode(z0, frames))
    seen = torch.empty_like(pixels, requires_grad=True)
    queries = len(QUERIES)
    both(
        "update",
        f"teacher, {queries} queries in one pass",
        lambda: teacher.log_p_yes(seen, questions),
    )
    with torch.no_grad():
        add(
            "generation",
            f"reasoner, {len(problem.ladder)} evaluations",
            lambda: sample_latents(reasoner, problem.condition, problem.noise, problem.ladder),
        )
        add("generation", "VAE, whole clip", lambda: reasoner.decode(z0))
    _count_encoding(reasoner, problem.clip, rows)
    both("instead", f"teacher, {queries} passes", lambda: teacher.log_p_yes(seen, separate))
    both("instead", "decoder, whole clip", lambda: decoder.decode(z0))
    clip = problem.clip
    return Floor(preset, f"{clip.frames} x {clip.height} x {clip.width}", tuple(rows), rate)


def _count_encoding(reasoner: Any, clip: Any, rows: list[Row]) -> None:
    from PIL import Image

    from benchmarks.speed.case import PROMPT

    image = Image.new("RGB", (clip.width, clip.height))
    facts = reasoner.facts
    text = moved = 0.0
    if facts.accepts_text_only:
        text, moved, _ = _counted(lambda: reasoner.encode(PROMPT, None, clip))
    if not facts.accepts_image:
        rows.append(Row("once", "text encoder", text, moved))
        return
    with_image, moved_both, _ = _counted(lambda: reasoner.encode(PROMPT, image, clip))
    if not facts.accepts_text_only:
        rows.append(Row("once", "text encoder and VAE, first frame", with_image, moved_both))
        return
    rows.append(Row("once", "text encoder", text, moved))
    rows.append(Row("once", "VAE, first frame", with_image - text, moved_both - moved))


def _counted(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """TFLOP and TB of a call on meta tensors, and its result."""
    from vlmteach.plan.count import Traffic, flops

    with Traffic() as traffic:
        counted, result = flops(run)
    return counted / TERA, traffic.bytes / TERA, result


def markdown(floor: Floor) -> str:
    """The table that a README shows."""
    lines = [
        f"`{floor.preset}`, clip {floor.clip}, at {floor.rate:g} TFLOP/s:",
        "",
        "| | part | TFLOP | share | s | moved, TB | kept, GiB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for stage in ("update", "generation", "once", "instead"):
        total = floor.total(stage)
        for row in floor.rows:
            if row.stage == stage:
                share = f"{row.tflop / total:.1%}" if stage in ("update", "generation") else ""
                lines.append(_line(row, share, floor.rate))
        if stage in ("update", "generation"):
            rows = [row for row in floor.rows if row.stage == stage]
            kept = sum(row.kept_gib or 0 for row in rows) or None
            moved = sum(row.moved_tb for row in rows)
            lines.append(_line(Row(stage, "**all**", total, moved, kept), "100%", floor.rate))
    lines += [
        "",
        f"One update is {floor.ratio:.3f} of one generation; by the paper's clock, "
        f"{PAPER_RATIO:.4f}.",
    ]
    return "\n".join(lines)


def _line(row: Row, share: str, rate: float) -> str:
    kept = "" if row.kept_gib is None else f"{row.kept_gib:.1f}"
    seconds, moved = f"{row.tflop / rate:.4f}", f"{row.moved_tb:.3f}"
    cells = (row.stage, row.part, f"{row.tflop:.2f}", share, seconds, moved, kept)
    return f"| {' | '.join(cells)} |"
