"""`vlmteach solve`: one instance from the command line, or a few that lie in no tar.

    vlmteach solve maze.png "Move the ball to the red square" --out out
    vlmteach solve pictures/ --out out          # name.txt beside each picture
    vlmteach solve - --out out                  # a line each: picture, tab, prompt; or a prompt

Nothing heavy is imported before all that can be refused without it has been.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach import exits
from vlmteach.config import Config
from vlmteach.editing import edited, editor
from vlmteach.instances import RawSample
from vlmteach.instances.loose import KEY, Loose, loose_of
from vlmteach.job import Job, check_folder
from vlmteach.ledger import DONE, ERROR, Ledger, folder_name
from vlmteach.options import parse, split
from vlmteach.report.build import PAGE
from vlmteach.results import collect, keep_error, make_room
from vlmteach.rows import CLIP, read_row
from vlmteach.shown import FitLine
from vlmteach.stops import Interruption, Stopped, stoppable
from vlmteach.text import folder, printable

if TYPE_CHECKING:
    from vlmteach.entrance import Loaded
    from vlmteach.solved import Solved
    from vlmteach.types import Instance, QuerySet

INTERRUPTED = 128 + signal.SIGINT
_MINIATURE = "builtin:mini/"


def solve_parser() -> argparse.ArgumentParser:
    """What to solve and where; every field of `Config` is an option beside these."""
    cli = argparse.ArgumentParser(
        prog="vlmteach solve",
        usage="vlmteach solve [IMAGE] PROMPT --out DIR [options]\n"
        "       vlmteach solve FOLDER --out DIR [options]\n"
        "       vlmteach solve - --out DIR [options]",
        description="Solves an instance, or a few, and leaves clips, adapters and records.",
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    cli.add_argument(
        "words",
        nargs="+",
        metavar="[IMAGE] PROMPT",
        help="first frame (none: text alone) and the task; or a folder of pictures with name.txt "
        "beside each; or - for lines of standard input, image<TAB>prompt or a prompt alone",
    )
    cli.add_argument(
        "--out",
        type=folder,
        required=True,
        help="output folder; what is solved there is not solved again",
    )
    cli.add_argument(
        "--key",
        help=f"of one instance: all draws derive from it and run.seed (default: {KEY}); a "
        "folder's instances have the pictures' names",
    )
    cli.add_argument("--goal", help="the goal query, with --process; default: the teacher's own")
    cli.add_argument(
        "--process", action="append", default=[], help="a process query; one to three times"
    )
    cli.add_argument(
        "--edit-queries",
        action="store_true",
        help="open the queries in $EDITOR before they are fitted to",
    )
    cli.add_argument(
        "--plan",
        action="store_true",
        help="print what the fits will hold and take on the device at hand, and end; no weight is "
        "read",
    )
    cli.add_argument(
        "--quiet", action="store_true", help="tell errors and the last lines, and nothing else"
    )
    return cli


def solve_command(words: Sequence[str]) -> int:
    """Runs `vlmteach solve`.

    Returns:
        0 when every clip is made, 2 when the one could not be or nothing could start, 3 when some
        of several could not, 130 when Ctrl-C ended a fit early and its clip is made all the same.

    Raises:
        Stopped: when a signal asked for it; an exit with 128 and the signal's number.
    """
    interruption = Interruption()
    try:
        with stoppable(interruption):
            own, config = parse(solve_parser(), words)
            given = {name for name, _ in split(words)[1]}
            asked = _Asked(own, config, is_chosen="config" in given)
            asked.check()
            return asked.plan() if own.plan else asked.solve(interruption)
    except Stopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        raise
    except (ValueError, OSError) as error:
        return exits.refused(error, "(vlmteach solve --help lists the options)")


@dataclass
class _Asked:
    """What one command was asked to do."""

    own: argparse.Namespace
    config: Config
    is_chosen: bool
    """Whether the user named the config."""

    def __post_init__(self) -> None:
        self.editor = editor() if self.own.edit_queries else None
        check_folder(self.own.out)
        self.loose, left_out = loose_of(self.own.words, key=self.own.key, lines=sys.stdin)
        if left_out:
            self._say(f"left out, as no picture has the name: {', '.join(left_out)}")
        self.job = Job(self.config, (), self.own.out)

    def check(self) -> None:
        """Refuses what can be refused before models, and what they need, are imported."""
        self.job.binding.check()
        self.left: list[Loose] = []
        for each in self.loose:
            instance = self._instance(each)
            if self._is_solved(each, instance):
                continue
            self.left.append(each)
            told = doubt(self.config, instance)
            if told is None:
                continue
            told = f"{each.image or each.key}: {told}"
            if not self.is_chosen:
                raise ValueError(
                    f"{told}; real pictures need a preset such as --config wan22-turbo and a GPU "
                    "of 80 GB (--config random tries the path without either); --config mini goes "
                    "on with the miniature all the same"
                )
            self._say(f"warning: {told}; what comes is not worth looking at")

    def plan(self) -> int:
        """Tells what is left to solve will cost; 3 where it does not fit."""
        from vlmteach.plan.command import told

        instances = [self._instance(each) for each in self.left]
        text, fits = told(self.config, (), "auto", instances)
        print(text)
        return 0 if fits else exits.SOME_FAILED

    def solve(self, interruption: Interruption) -> int:
        """Solves what is not solved yet, one after the other."""
        failed = bool(self.left) and self._solve_left(interruption)
        for each in self.loose:
            clip = self._folder(each) / CLIP
            if clip.exists():
                print(clip)
        if (page := self.own.out / PAGE).exists():
            print(page)
        return INTERRUPTED if interruption.is_asked else exits.SOME_FAILED if failed else 0

    def _solve_left(self, interruption: Interruption) -> bool:
        """Whether some could not be solved."""
        from vlmteach.entrance import load
        from vlmteach.report import write_report

        models = load(self.config)
        ledger = Ledger(self.own.out, launch="solve", max_deaths=1)
        self.job.binding.bind(ledger, [each.key for each in self.loose])
        failed = False
        try:
            for each in self.left:
                try:
                    self._solve_one(models, each, interruption)
                except Exception as error:
                    if len(self.loose) == 1:
                        raise
                    failed = True
                    keep_error(self._folder(each), RawSample(each.key, str(each.image)), error)
                    exits.refused(error, f"({printable(each.key)} was not solved)")
                if interruption.is_asked:
                    break
        finally:
            self.job.binding.release(ledger)
            files = (path for name in (DONE, ERROR) for path in self.own.out.glob(f"*/{name}"))
            collect(self.own.out, list({row["key"] for f in files if (row := read_row(f))}))
        try:
            write_report([self.own.out])
        except Exception as error:  # what is told of results does not undo them
            exits.refused(error, f"(the results stand; {PAGE} does not)")
        return failed

    def _solve_one(self, models: Loaded, each: Loose, interruption: Interruption) -> None:
        from vlmteach.entrance import solve_one

        is_fit = self.config.method == "micro_fit"
        line = FitLine(self.config.fit.steps if is_fit else None)

        def review(queries: QuerySet) -> QuerySet:
            if self.editor is not None:
                queries = edited(queries, self.editor)
            line.queries = queries.asked(self.config.query.ask).queries
            self._say(f"queries ({queries.source}):")
            for query in line.queries:
                self._say(f"  {query.role}: {query.text}")
            if is_fit:
                self._say(cost(self.config))
            return queries

        instance = self._instance(each)
        self._say(f"{each.key}: {' '.join(instance.prompt.split())}")
        folder = self._folder(each)
        make_room(folder)
        (folder / CLIP).unlink(missing_ok=True)  # of one that was stopped before its result was
        try:
            solved = solve_one(
                models,
                instance,
                out=folder,
                tell=None if self.own.quiet else line.read,
                review=review,
                interruption=interruption,
            )
        finally:
            line.close()
        self._say(outcome(solved))

    def _is_solved(self, each: Loose, instance: Instance) -> bool:
        """Whether the folder holds this instance's result.

        Raises:
            ValueError: it holds another's of the same key.
        """
        row = read_row(self._folder(each) / DONE)
        if row is None:
            return False
        if row["digest"] == instance.digest:
            return True
        raise ValueError(
            f"--out {self.own.out}: got the result of another prompt, picture or queries under "
            f"the key {each.key!r}, expected none; name another folder, or give --key"
        )

    def _instance(self, each: Loose) -> Instance:
        return each.instance(self.own.goal, self.own.process)

    def _folder(self, each: Loose) -> Path:
        return self.own.out / folder_name(each.key)

    def _say(self, text: str) -> None:
        """A line of what goes on; the results themselves are on standard output."""
        if not self.own.quiet:
            print(printable(text), file=sys.stderr, flush=True)


def doubt(config: Config, instance: Instance) -> str | None:
    """Why an instance is none for the models of a config, where that can be told: the miniature
    knows nothing but its worlds."""
    if not (config.reasoner.checkpoint or "").startswith(_MINIATURE):
        return None
    from vlmteach.mini.pictures import can_be_world

    first = instance.first_frame
    if first is not None and can_be_world(first):
        return None
    got = "text alone" if first is None else f"a picture of {first.width} x {first.height}"
    return (
        f"got {got}, expected a world of the miniature, which knows symbolic pictures of 32 x 32 "
        "pixels only (vlmteach/mini/README.md)"
    )


def cost(config: Config) -> str:
    """What a fit takes at most, before it starts; its time is told from its first updates on."""
    base = "" if config.run.base_video == "none" else ", and the base's"
    return (
        f"at most {config.fit.steps} updates, fewer once the loss is {config.fit.threshold:g}; "
        f"then the clip{base} (--plan tells memory and time)"
    )


def outcome(solved: Solved) -> str:
    """How one instance ended, on a line."""
    made = solved.outcome
    losses = [f"{loss:.3f}" for loss in (made.first_loss, made.kept_loss) if loss is not None]
    told = [f"loss {' -> '.join(losses)}"] if losses else []
    if made.stop_reason is not None:
        told.append(f"{made.steps} updates, those up to {made.kept_step} kept ({made.stop_reason})")
    return ", ".join([*told, f"{made.compute.seconds:.1f} s"])
