"""What a command writes, whatever the terminal's encoding."""

from __future__ import annotations

import sys
from contextlib import suppress


def escape_what_cannot_be_shown() -> None:
    """From here on, characters that standard output has no place for are written as escapes: an
    instance's key must not end the run that tells of it."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        with suppress(OSError, ValueError):  # one that cannot change any more stays as it is
            reconfigure(errors="backslashreplace")
