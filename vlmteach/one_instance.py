"""`vlmteach solve` and `vlmteach apply`: one instance from the command line.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach import exits
from vlmteach.config import Config
from vlmteach.options import parse
from vlmteach.stops import Stopped, stoppable

if TYPE_CHECKING:
    from vlmteach.types import Reading


def solve_parser() -> argparse.ArgumentParser:
    """What to solve and where; every field of `Config` is an option beside these."""
    cli = _parser("solve", "Solves one instance and leaves its clip, adapter and records.")
    cli.add_argument("--goal", help="the goal query, with --process; default: the teacher's own")
    cli.add_argument(
        "--process", action="append", default=[], help="a process query; one to three times"
    )
    return cli


def apply_parser() -> argparse.ArgumentParser:
    """Which adapter to sample with, what and where."""
    cli = _parser("apply", "Samples one clip with an adapter that was kept; nothing is fitted.")
    cli.add_argument(
        "--adapter", type=Path, required=True, help="adapter.safetensors, as a fit leaves it"
    )
    cli.add_argument(
        "--candidate", type=int, default=0, help="which of the instance's noises (default: 0)"
    )
    return cli


def _parser(name: str, told: str) -> argparse.ArgumentParser:
    cli = argparse.ArgumentParser(
        prog=f"vlmteach {name}",
        description=told,
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
    return cli


def solve_command(words: Sequence[str]) -> int:
    """Runs `vlmteach solve`: 0 when the clip is made, 2 when it could not be.

    Raises:
        Stopped: when a signal asked for it; an exit with 128 and the signal's number.
    """

    def go(own: argparse.Namespace, config: Config) -> Path:
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
        return solved.folder

    return _run("solve", solve_parser(), words, go)


def apply_command(words: Sequence[str]) -> int:
    """Runs `vlmteach apply`: 0 when the clip is made, 2 when it could not be."""

    def go(own: argparse.Namespace, config: Config) -> Path:
        import vlmteach

        made = vlmteach.apply(
            vlmteach.load(config),
            own.adapter,
            own.prompt,
            own.image,
            candidate=own.candidate,
            out=own.out,
            key=own.key,
        )
        return made.folder

    return _run("apply", apply_parser(), words, go)


def _tell(reading: Reading) -> None:
    """One line that is written over on a terminal, and a line each elsewhere."""
    end = "\r" if sys.stderr.isatty() else "\n"
    told = f"update {reading.step}  loss {reading.loss:.4f}"
    print(told.ljust(40), end=end, file=sys.stderr, flush=True)


def _run(
    name: str,
    cli: argparse.ArgumentParser,
    words: Sequence[str],
    go: Callable[[argparse.Namespace, Config], Path],
) -> int:
    try:
        with stoppable():
            own, config = parse(cli, words)
            _refuse_lost(own)
            print(go(own, config) / "clip.mp4")
    except Stopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        raise
    except (ValueError, OSError) as error:
        return exits.refused(error, f"(vlmteach {name} --help lists the options)")
    return 0


def _refuse_lost(own: argparse.Namespace) -> None:
    """Files that are not there are told before models are loaded."""
    for given in (own.image, getattr(own, "adapter", None)):
        if given is not None and not Path(given).is_file():
            raise ValueError(f"got {str(given)!r}, expected a file that exists")
