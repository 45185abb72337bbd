"""Which clips a run will make: of a config alone, or of the instances of its sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vlmteach.config import Config
from vlmteach.instances import clip_spec, decode, read_samples
from vlmteach.types import ClipSpec, Instance


def clip_of(instance: Instance, config: Config, models: Any) -> ClipSpec:
    """The clip that a run makes of an instance."""
    facts = models.reasoner.facts
    return clip_spec(
        instance,
        config.clip,
        size_multiple=facts.size_multiple,
        temporal_stride=facts.temporal_stride,
    )


def clip_of_config(config: Config, models: Any) -> ClipSpec:
    """The clip of an instance that asks for no size: landscape."""
    return clip_of(Instance(key="plan", prompt="", first_frame=None, digest=""), config, models)


def clips_of(sources: Sequence[str], config: Config, models: Any) -> tuple[Counter[ClipSpec], int]:
    """How many instances make which clip, and how many samples will be refused; none of no source.

    Raises:
        ValueError: a source that cannot be read.
    """
    clips: Counter[ClipSpec] = Counter()
    refused = 0
    for raw in read_samples(sources) if sources else ():
        try:
            clips[clip_of(decode(raw), config, models)] += 1
        except ValueError:  # whatever is wrong with it, its row will say
            refused += 1
    return clips, refused
