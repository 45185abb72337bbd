"""vlmteach: a frozen vision-language teacher makes a frozen video model reason better at test time.

After "VLMs are Good Teachers for Video Reasoning via Adaptive Test-Time Optimization"
(arXiv 2606.02564). From Python:

    models = vlmteach.load("mini")
    solved = vlmteach.solve(models, "Push the red box onto the target.", "first.png")
    solved

Nothing heavy is imported before one of the five names is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmteach.entrance import apply, load, read, run, solve

__version__ = "0.1.0"
__all__ = ["apply", "load", "read", "run", "solve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlmteach import entrance

    return getattr(entrance, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
