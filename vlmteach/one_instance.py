"""`vlmteach solve`: one instance from the command line.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach import exits
from vlmteach.options import parse
from vlmteach.stops import Stopped, stoppable

if TYPE_CHECKING:
    from vlmteach.types import Reading


def solve_parser() -> argparse.ArgumentParser:
    """What to solve and where; every field of `Config` is an option beside these."""
    cli = argparse.ArgumentParser(
        prog="vlmteach solve",
        description="Solves one instance and leaves its clip, adapter and records.",
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    cli.add_argument("image", nargs="?", metavar="IMAGE", help="first frame; none for text alone")
    cli.add_argument("prompt", metavar="PROMPT", help="the task")
    cli.add_argument("--out", type=Path, required=True, help="a new folder for its files")
    cli.add_argument(
        "--key",
        default="instance",
        help="all draws derive from it and run.seed (default: %(default)s)",
    )
    cli.add_argument("--goal", help="the goal query, with --process; default: the teacher's own")
    cli.add_argument(
        "--process", action="append", default=[], help="a process query; one to three times"
    )
    return cli


def solve_command(words: Sequence[str]) -> int:
    """Runs `vlmteach solve`: 0 when the clip is made, 2 when it could not be.

    Raises:
        Stopped: when a signal asked for it; an exit with 128 and the signal's number.
    """
    try:
        with stoppable():
            own, config = parse(solve_parser(), words)
            if own.image is not None and not Path(own.image).is_file():
                raise ValueError(f"got {own.image!r}, expected a file that exists")
            import vlmteach

            solved = vlmteach.solve(
                vlmteach.load(config),
                own.prompt,
                own.image,
                goal=own.goal,
                process=own.process,
                out=own.out,
                key=own.key,
                tell=_tell,
            )
            print(file=sys.stderr)
            for query in solved.queries:
                print(f"{query.role}: {query.text}")
            print(solved.folder / "clip.mp4")
    except Stopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        raise
    except (ValueError, OSError) as error:
        return exits.refused(error, "(vlmteach solve --help lists the options)")
    return 0


def _tell(reading: Reading) -> None:
    """One line that is written over on a terminal, and a line each elsewhere."""
    end = "\r" if sys.stderr.isatty() else "\n"
    told = f"update {reading.step}  loss {reading.loss:.4f}"
    print(told.ljust(40), end=end, file=sys.stderr, flush=True)
