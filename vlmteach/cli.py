"""`vlmteach`: one command with the others below it.

Nothing heavy is imported here; each command imports what it needs once it is named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from vlmteach import exits
from vlmteach.garbage import few_collections
from vlmteach.streams import escape_what_cannot_be_shown

Run = Callable[[list[str]], int]


def _fit(words: list[str]) -> int:
    from vlmteach.fit import main

    return main(words)


def _solve(words: list[str]) -> int:
    from vlmteach.one_instance import solve_command

    return solve_command(words)


def _apply(words: list[str]) -> int:
    from vlmteach.applying import main

    return main(words)


def _card(words: list[str]) -> int:
    from vlmteach.push import card_command

    return card_command(words)


def _push(words: list[str]) -> int:
    from vlmteach.push import push_command

    return push_command(words)


def _report(words: list[str]) -> int:
    from vlmteach.report.__main__ import main

    return main(words)


def _plan(words: list[str]) -> int:
    from vlmteach.plan.command import main

    return main(words)


def _dashboard(words: list[str]) -> int:
    from vlmteach.dashboard import main

    return main(words)


def _pack(words: list[str]) -> int:
    from vlmteach.instances.__main__ import main

    return main(["pack", *words])


def _list(words: list[str]) -> int:
    from vlmteach.instances.__main__ import main

    return main(["list", *words])


def _convert(words: list[str]) -> int:
    from vlmteach.convert import main

    return main(words)


COMMANDS: dict[str, tuple[str, Run]] = {
    "fit": ("take the instances of tars or folders through the micro-fit", _fit),
    "plan": ("say what a run will hold and take, before it starts", _plan),
    "solve": ("solve one instance: an image and a prompt, or a prompt alone", _solve),
    "report": ("write or serve the page of a run or a sweep, or compare several", _report),
    "dashboard": ("lay out a W&B workspace for the curves and clips of a project", _dashboard),
    "apply": (
        "sample with adapters that were kept, at any scale, seed and prompt",
        _apply,
    ),
    "card": ("write the model card of an adapter", _card),
    "push": ("share an adapter on the Hugging Face hub", _push),
    "convert": ("make a folder that can be loaded of weights as first published", _convert),
    "pack": ("write a data set into a WebDataset tar", _pack),
    "list": ("show keys and sizes of the samples of a tar or folder", _list),
}
"""Name -> what it does, and what runs it."""


def help_text() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<10}{told}" for name, (told, _) in COMMANDS.items()]
    return "\n".join(
        ["usage: vlmteach COMMAND ...", "", *lines, "", "vlmteach COMMAND --help lists its options"]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names.

    Returns:
        Its exit status; 0 for help, 2 for a command that does not exist.
    """
    name, *rest = (sys.argv[1:] if words is None else list(words)) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"vlmteach: got {name!r}, expected one of {known}; see --help", file=sys.stderr)
        return exits.BAD_USE
    with suppress(FileNotFoundError):  # a folder that was deleted
        # As under `python -m`: classes of the user's own lie there.
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    escape_what_cannot_be_shown()
    with few_collections():
        return COMMANDS[name][1](rest)
