"""The miniature world: symbolic video tasks of 9 frames of 32 x 32 pixels, and rules that score.

`make` gives a task, `perform` draws it carried out with given flaws, `score` reads a video's worth
off its pixels, `export` writes tasks as WebDataset samples.
"""

from vlmteach.mini.world.cheats import CHEATS, table
from vlmteach.mini.world.details import detail_words, detailed, details
from vlmteach.mini.world.draw import COLOURS, SHAPES
from vlmteach.mini.world.export import export
from vlmteach.mini.world.scene import Task
from vlmteach.mini.world.scoring import (
    GOAL_POWER,
    PART_POWER,
    STRICT_GOAL,
    STRICT_PART,
    answers,
    score,
)
from vlmteach.mini.world.tasks import cue, families, family, make, perform, task_of
from vlmteach.mini.world.types import (
    CATEGORIES,
    FPS,
    FRAMES,
    PERFECT,
    SIZE,
    SPLITS,
    Execution,
    Family,
    Score,
    Split,
)
from vlmteach.mini.world.words import tokens, vocabulary

__all__ = [
    "CATEGORIES",
    "CHEATS",
    "COLOURS",
    "FPS",
    "FRAMES",
    "GOAL_POWER",
    "PART_POWER",
    "PERFECT",
    "SHAPES",
    "SIZE",
    "SPLITS",
    "STRICT_GOAL",
    "STRICT_PART",
    "Execution",
    "Family",
    "Score",
    "Split",
    "Task",
    "answers",
    "cue",
    "detail_words",
    "detailed",
    "details",
    "export",
    "families",
    "family",
    "make",
    "perform",
    "score",
    "table",
    "task_of",
    "tokens",
    "vocabulary",
]
