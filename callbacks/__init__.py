"""Lightning callbacks of the micro-fit: stop, cap, guard, keep, record."""

from vlmteach.callbacks.best_adapter import BestAdapter
from vlmteach.callbacks.curves import Curves, Progress
from vlmteach.callbacks.gradient_health import GradientHealth
from vlmteach.callbacks.step_cap import StepCap
from vlmteach.callbacks.stop_at_loss import StopAtLoss

__all__ = ["BestAdapter", "Curves", "GradientHealth", "Progress", "StepCap", "StopAtLoss"]
