"""Samples and the prompts that come after them: looked at, and nobody's yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from vlmteach.instances.decode import prompt_of
from vlmteach.instances.sample import InstanceError, RawSample

FOR_EACH_RANK, MOST = 16, 64
"""Samples looked at before their turn: the other ranks will take most of them."""
MOST_BYTES = 64 << 20
"""Of samples held at once beside the one in hand; a sample may bring a large picture."""


def how_many(device: str, ranks: int) -> int:
    """Samples that a rank looks at before their turn, so that their prompts share a loan.

    See `Reasoner.encode`. None on the CPU, where no encoder is lent.

    Args:
        device: the type of the rank's.
        ranks: that take from the same samples.
    """
    return 0 if device == "cpu" else min(FOR_EACH_RANK * ranks, MOST)


def read_ahead(
    samples: Iterable[RawSample], count: int
) -> Iterator[tuple[RawSample, tuple[str, ...]]]:
    """Each sample, with the prompts of up to `count` that follow it.

    A follower that has no readable prompt is passed over: it is refused in its own turn.

    Args:
        samples: read no further than is needed.
        count: at least 0; fewer where they are large.
    """
    source = iter(samples)
    held: deque[tuple[RawSample, str | None]] = deque()
    size = 0
    while True:
        while len(held) <= count and (not held or size < MOST_BYTES):
            raw = next(source, None)
            if raw is None:
                break
            held.append((raw, _readable(raw)))
            size += _size(raw)
        if not held:
            return
        raw, _ = held.popleft()
        size -= _size(raw)
        yield raw, tuple(prompt for _, prompt in held if prompt is not None)


def _readable(raw: RawSample) -> str | None:
    try:
        return prompt_of(raw)
    except InstanceError:
        return None


def _size(raw: RawSample) -> int:
    return sum(map(len, raw.members.values()))
