"""The settings of the methods beside the micro-fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


def check(ok: bool, name: str, got: object, expected: str) -> None:
    """Refuses a setting.

    Raises:
        ValueError: not ok.
    """
    if not ok:
        raise ValueError(f"{name}: got {got!r}, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class PassAtNConfig:
    """Best-of-N: N full samples from N noises, of which one is picked."""

    candidates: int = 5
    """N."""
    selector: Literal["teacher", "vlm_pick", "oracle"] = "teacher"
    """Who picks. `teacher`: the loss of the queries on each clip, as the micro-fit has it.
    `vlm_pick`: the teacher sees all clips at once and names one. `oracle`: the benchmark's score,
    afterwards, among all that are kept; until then the clip is candidate 0."""
    rewrite_prompt: bool = False
    """Sample the prompt as `prompt_rewrite` writes it, for the selector to judge by the task's own:
    the match of equal compute for `fit.rewrite_prompt`."""

    def __post_init__(self) -> None:
        check(self.candidates >= 1, "pass_at_n.candidates", self.candidates, "at least 1")


@dataclass(frozen=True, kw_only=True)
class PromptRewriteConfig:
    """Prompt rewriting: the teacher rewrites the prompt once, then one plain sample."""

    max_replies: int = 3
    """Times the teacher is asked before the instance's own prompt is used."""

    def __post_init__(self) -> None:
        check(self.max_replies >= 1, "prompt_rewrite.max_replies", self.max_replies, "at least 1")


@dataclass(frozen=True, kw_only=True)
class VideoTPOConfig:
    """VideoTPO (arXiv 2511.13704): two clips compared, the prompt improved, one final clip."""

    rounds: int = 1
    """Improvements of the prompt, each from two new clips; 1 as the costs in the paper say."""
    max_replies: int = 3
    """Times the teacher is asked for an improved prompt before the last one stands."""

    def __post_init__(self) -> None:
        check(self.rounds >= 1, "video_tpo.rounds", self.rounds, "at least 1")
        check(self.max_replies >= 1, "video_tpo.max_replies", self.max_replies, "at least 1")


@dataclass(frozen=True, kw_only=True)
class VLMSolverConfig:
    """A chain of clips, planned and verified by the teacher (CollabVR, arXiv 2605.08735)."""

    segments: int = 3
    """Clips in the chain at most."""
    tries: int = 3
    """Clips made for one segment before the chain ends without it."""

    def __post_init__(self) -> None:
        check(self.segments >= 1, "vlm_solver.segments", self.segments, "at least 1")
        check(self.tries >= 1, "vlm_solver.tries", self.tries, "at least 1")
