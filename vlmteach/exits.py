"""How commands end: exit codes, and one line for what cannot be done."""

from __future__ import annotations

import os
import sys

from vlmteach.text import printable

BAD_USE = 2
SOME_FAILED = 3


def refused(error: Exception, hint: str = "") -> int:
    """Tells why a command could not be carried out; called where the error is caught.

    With `VLMTEACH_DEBUG` set the error goes on instead, with its traceback.

    Args:
        error: its text is the line.
        hint: a line below it.

    Returns:
        The exit code, 2.
    """
    if os.environ.get("VLMTEACH_DEBUG"):
        raise error
    shown = printable(f"error: {' '.join(str(error).splitlines())}")  # names may be a stranger's
    print("\n".join(filter(None, (shown, hint))), file=sys.stderr)
    return BAD_USE
