"""Lightning callbacks of the micro-fit: stop, cap, guard, keep, record."""

from vlmteach.callbacks.best_adapter import BestAdapter
from vlmteach.callbacks.curves import Curves, Progress
from vlmteach.callbacks.defaults import FitCallbacks, callback_maker, fit_callbacks
from vlmteach.callbacks.gradient_health import GradientHealth
from vlmteach.callbacks.predictions import PredictionIndex, Predictions
from vlmteach.callbacks.step_cap import StepCap
from vlmteach.callbacks.stop_at_loss import StopAtLoss
from vlmteach.callbacks.stop_when_asked import StopWhenAsked

__all__ = [
    "BestAdapter",
    "Curves",
    "FitCallbacks",
    "GradientHealth",
    "PredictionIndex",
    "Predictions",
    "Progress",
    "StepCap",
    "StopAtLoss",
    "StopWhenAsked",
    "callback_maker",
    "fit_callbacks",
]
