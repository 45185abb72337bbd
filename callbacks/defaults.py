"""The callbacks of a fit, from its config: what the method needs, then the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl

from vlmteach.callbacks.best_adapter import BestAdapter
from vlmteach.callbacks.curves import Curves, Progress
from vlmteach.callbacks.gradient_health import GradientHealth
from vlmteach.callbacks.predictions import Predictions
from vlmteach.callbacks.step_cap import StepCap
from vlmteach.callbacks.stop_at_loss import StopAtLoss
from vlmteach.callbacks.stop_when_asked import StopWhenAsked
from vlmteach.classes import maker
from vlmteach.config import ClassConfig, FitConfig
from vlmteach.stops import Interruption
from vlmteach.types import Reading


@dataclass(frozen=True)
class FitCallbacks:
    """All callbacks of one fit; two of them are read when it has ended."""

    best: BestAdapter
    curves: Curves
    all: tuple[pl.Callback, ...]
    """In the order in which Lightning calls them: guard, stop, cap, keep, record, predictions, then
    others."""


def fit_callbacks(
    fit: FitConfig,
    tell: Callable[[Reading], None],
    more: Sequence[Callable[[], pl.Callback]] = (),
    predictions: Path | None = None,
    interruption: Interruption | None = None,
) -> FitCallbacks:
    """Fresh callbacks for one instance.

    Args:
        fit: threshold, cap, and which weights are kept.
        tell: called with each reading.
        more: make the user's own. They come last, so that they see the reading recorded, and may
            end the fit as ours do, with `pl_module.stop(reason)` in `on_before_backward`.
        predictions: the folder that the predictions of the readings are left in; None: nowhere.
        interruption: by which a person may end the fit.
    """
    best, curves = BestAdapter(fit.keep), Curves()
    ours = (
        GradientHealth(),
        StopAtLoss(fit.threshold),
        StepCap(fit.steps),
        *([] if interruption is None else [StopWhenAsked(interruption)]),
        best,
        curves,
        Progress(tell),
    )
    kept = () if predictions is None else (Predictions(predictions),)
    return FitCallbacks(best, curves, (*ours, *kept, *(make() for make in more)))


def callback_maker(spec: ClassConfig) -> Callable[[], pl.Callback]:
    """What makes a callback of the user's, a fresh one for each fit.

    Raises:
        ValueError: arguments that the class does not take; when called, a class that makes no
            Lightning callback.
    """
    make = maker(spec)

    def fresh() -> pl.Callback:
        made = make()
        if not isinstance(made, pl.Callback):
            raise ValueError(
                f"--callbacks: got {spec.class_path}, which makes a {type(made).__name__}, "
                "expected a subclass of lightning.pytorch.Callback"
            )
        return made

    return fresh
