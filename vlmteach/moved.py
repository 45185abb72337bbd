"""Commands of earlier versions, which say where they have gone."""

from __future__ import annotations

import sys
from typing import NoReturn


def refuse(old: str, new: str) -> NoReturn:
    """Ends the process, exit code 2, with the command's new spelling."""
    print(f"error: got `python -m {old}`, which moved, expected `python -m {new}`", file=sys.stderr)
    raise SystemExit(2)
