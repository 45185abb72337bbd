"""What is compared of an update: alternatives by title, and their timings as tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from benchmarks.speed.timing import Case, Timing
    from vlmteach.config import Config
    from vlmteach.micro_fit import MicroFit
    from vlmteach.models import Models

UPDATES = 8
"""Updates of the micro-fit that is run with and without a Trainer."""


def updater(module: MicroFit) -> Callable[[], None]:
    """One update on a micro-fit without a Trainer: forward, backward, optimiser."""
    optimizer = module.configure_optimizers()

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        module().total.backward()
        optimizer.step()

    return update


def gradient_of(run: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Forward and backward of one part."""
    return lambda: run().sum().backward()


def comparisons(models: Models, config: Config) -> Iterator[tuple[str, list[Case]]]:
    """Everything that is compared: a title, and the alternatives, the first of them the measure."""
    import torch
    from peft.tuners.lora import Linear

    from benchmarks.speed.case import (
        asked_one_by_one,
        micro_fit_of,
        problem_of,
        questions_of,
        recompute_activations,
    )
    from benchmarks.speed.timing import Case
    from vlmteach.kernels import settle
    from vlmteach.low_rank import LowRankLinear
    from vlmteach.problem import sample

    problem, decoder, teacher = problem_of(models, config), models.decoder, models.teacher
    module = micro_fit_of(models, config, problem)
    update = updater(module)
    recompute_activations(models, config.fit.checkpointing != "none")

    yield (
        "One update against one generation",
        [
            Case("generation", lambda: sample(models, problem)),
            Case("update", update),
        ],
    )
    with torch.no_grad():
        latents = module.predict()
        frames = decoder.decode(latents, problem.frames)
    z0, seen = latents.requires_grad_(), frames.requires_grad_()
    questions = questions_of(models, problem)
    separate = asked_one_by_one(models, problem)
    yield (
        "Queries",
        [
            Case("in one pass", gradient_of(lambda: teacher.log_p_yes(seen, questions))),
            Case("one pass each", gradient_of(lambda: teacher.log_p_yes(seen, separate))),
        ],
    )
    watched = list(problem.frames)
    yield (
        "Surrogate decoder",
        [
            Case(f"{len(watched)} frames", gradient_of(lambda: decoder.decode(z0, watched))),
            Case("whole clip", gradient_of(lambda: decoder.decode(z0)[watched])),
        ],
    )
    kept, again = (models.reasoner.full_decoder(checkpointing=on) for on in (False, True))
    yield (
        "Decoder",
        [
            Case("surrogate", gradient_of(lambda: decoder.decode(z0, watched))),
            Case("full", gradient_of(lambda: kept.decode(z0, watched))),
            Case("full, recomputed", gradient_of(lambda: again.decode(z0, watched))),
        ],
    )
    by_rung = {
        mode: updater(micro_fit_of(models, config, problem, gradient=mode))
        for mode in ("first", "last", "full")
    }
    yield (
        "Rung that carries the gradient",
        [Case(mode, run) for mode, run in by_rung.items()],
    )
    yield (
        "Activations",
        [
            Case("kept", update, before=lambda: recompute_activations(models, False)),
            Case("recomputed", update, before=lambda: recompute_activations(models, True)),
        ],
    )
    recompute_activations(models, config.fit.checkpointing != "none")
    ours = LowRankLinear.forward
    yield (
        "Adapter's layers",
        [
            Case("one product", update, before=lambda: _compute_layers(ours)),
            Case("by peft", update, before=lambda: _compute_layers(Linear.forward)),
        ],
    )
    _compute_layers(ours)
    exact, free = (replace(config.run, deterministic=on) for on in (True, False))
    yield (
        "Kernels",
        [
            Case("free", update, before=lambda: settle(free)),
            Case("deterministic", update, before=lambda: settle(exact)),
        ],
    )
    settle(config.run)
    yield "Adapter", [Case("update", update), Case("reset", lambda: _reset(models))]
    yield (
        f"Micro-fit of {UPDATES} updates",
        [
            Case("bare loop", lambda: _loop(module), before=lambda: _reset(models)),
            Case(
                "Trainer",
                lambda: _train(micro_fit_of(models, config, problem)),
                before=lambda: _reset(models),
            ),
        ],
    )


def _compute_layers(forward: Any) -> None:
    """Has the adapter's layers computed by this method from here on."""
    from vlmteach.low_rank import LowRankLinear

    LowRankLinear.forward = forward


def _reset(models: Models) -> None:
    from vlmteach.problem import reset

    reset(models, seed=0, key="benchmark")


def _loop(module: MicroFit) -> None:
    """As many updates and readings as `_train`'s."""
    update = updater(module)
    for _ in range(UPDATES):
        update()
    module()


def _train(module: MicroFit) -> None:
    """A micro-fit as the method runs it, from Trainer to callbacks, but for the early stop."""
    from vlmteach import micro_fit
    from vlmteach.callbacks import fit_callbacks
    from vlmteach.config import FitConfig

    fit = FitConfig(steps=UPDATES, threshold=0.0)
    callbacks = fit_callbacks(fit, lambda reading: None)
    nowhere = Path(os.devnull)
    micro_fit.fit(module, steps=UPDATES, callbacks=callbacks.all, logger=None, folder=nowhere)
    assert module.updates == UPDATES, module.stop_reason


def measure(models: Models, config: Config, repeats: int) -> Iterator[tuple[str, list[Timing]]]:
    """Runs the comparisons one after the other, each from a fresh adapter."""
    from benchmarks.speed.case import frozen_of
    from benchmarks.speed.timing import compare

    frozen = frozen_of(models)
    for title, cases in comparisons(models, config):
        _reset(models)
        device = models.reasoner.device
        yield title, compare(cases, repeats=repeats, device=device, frozen=frozen)


def markdown(title: str, timings: Sequence[Timing], on_gpu: bool) -> str:
    """One comparison as a table."""
    memory = "peak GiB" if on_gpu else "kept MiB"
    lines = [
        f"| {title} | median ms | quartiles | ratio | {memory} |",
        "|---|---:|---:|---:|---:|",
    ]
    for timing in timings:
        if timing.memory_mib is None:
            lines.append(f"| {timing.name} | out of memory | | | |")
            continue
        low, high = timing.quartiles()
        ratio = f"{timing.ratio(timings[0]):.3f}" if timings[0].milliseconds else ""
        amount = timing.memory_mib / (1024 if on_gpu else 1)
        lines.append(
            f"| {timing.name} | {timing.median:.2f} | {low:.2f} to {high:.2f} | {ratio} "
            f"| {amount:.1f} |"
        )
    return "\n".join(lines)
