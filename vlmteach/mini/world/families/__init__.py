"""All families, in the order of their categories."""

from __future__ import annotations

from vlmteach.mini.world.families import (
    abstraction,
    knowledge,
    perception,
    spatiality,
    transformation,
)

BUILDERS = (
    *abstraction.BUILDERS,
    *knowledge.BUILDERS,
    *perception.BUILDERS,
    *spatiality.BUILDERS,
    *transformation.BUILDERS,
)
