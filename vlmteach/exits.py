"""How commands end: exit codes, and one line for what cannot be done."""

from __future__ import annotations

import os
import sys

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
    text = f"error: {' '.join(str(error).splitlines())}"
    # Names in it may be a stranger's: no escape sequence of theirs reaches the terminal.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    print("\n".join(filter(None, (shown, hint))), file=sys.stderr)
    return BAD_USE
