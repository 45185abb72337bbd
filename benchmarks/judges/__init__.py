"""Judges: models that are shown material and asked about it, and that are never the teacher."""

from benchmarks.judges.base import Judge, JudgeError, Reply, Turn, UnusableJudgeError

__all__ = ["Judge", "JudgeError", "Reply", "Turn", "UnusableJudgeError"]
