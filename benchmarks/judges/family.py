"""A judge is not of the teacher's family: it would share the faults that the fit has learned from.

Family means lineage. Where a vision-language model is built on another family's language model it
belongs to both, and two models that share one of them are kin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_BUILT_ON = {"internvl": {"qwen"}}
"""Families whose name does not tell: InternVL3 and 3.5 carry Qwen2.5 and Qwen3."""


def lineage(family: str) -> set[str]:
    """The lineages of a family or model type: `qwen3_vl` -> {"qwen"}."""
    stem = re.match(r"[a-z]*", family.lower())
    word = stem.group() if stem else ""
    return {word} | _BUILT_ON.get(word, set()) if word else set()


def refuse_kin(judge: str, families: Iterable[str], teacher: str) -> None:
    """Refuses a judge by the model types its config names.

    Args:
        judge: its name, for the message.
        families: the model types of all its parts, e.g. `llava` and `llama`.
        teacher: the teacher's family, e.g. `qwen3_vl`.

    Raises:
        ValueError: they share a lineage.
    """
    for family in families:
        _refuse(judge, lineage(family) & lineage(teacher), teacher)


def refuse_kin_by_name(judge: str, model: str, teacher: str) -> None:
    """Refuses a judge by what its name says, which is all that is known of a model elsewhere.

    Raises:
        ValueError: the name holds a word of the teacher's lineage: `Qwen/Qwen2.5-VL-72B` and
            `llava-qwen` with a teacher of the family `qwen3_vl`.
    """
    told = re.sub(r"[^a-z]", "", model.lower())
    words = lineage(teacher) | {word for word, on in _BUILT_ON.items() if on & lineage(teacher)}
    _refuse(judge, {word for word in words if word in told}, teacher)


def _refuse(judge: str, shared: set[str], teacher: str) -> None:
    if shared:
        raise ValueError(
            f"judge: got {judge}, which is of the family {min(shared)!r} like the teacher "
            f"{teacher!r}, expected another family; take another judge for all the runs that are "
            "to be compared"
        )
