"""Python's garbage collector, called less often for the span of a command.

A command makes a million objects while it imports and loads, all of which stay: the collector looks
at them again and again, for a tenth of the time to the first instance. What dies later is found by
reference counts, and cycles of finished fits by the runner, which collects after each instance.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 50_000
"""New objects between two collections of the youngest; Python's own number is 700 to 2,000."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Collections of the youngest objects are rare in a `with`; as before afterwards."""
    before = gc.get_threshold()
    gc.set_threshold(max(_OBJECTS, before[0]) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
