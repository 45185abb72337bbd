"""`python -m vlmteach.fit`: takes instances through the micro-fit and leaves videos and records.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach import exits
from vlmteach.builtin.paths import source_path
from vlmteach.config import Config
from vlmteach.launch import commanded, find_launch
from vlmteach.options import parse
from vlmteach.stops import Stopped
from vlmteach.table import errors, table
from vlmteach.text import folder

if TYPE_CHECKING:
    from vlmteach.job import Job
    from vlmteach.launch import Launch
    from vlmteach.mini.rule_scores import RuleScores


def parser() -> argparse.ArgumentParser:
    """What to run and where; every field of `Config` is an option beside these."""
    cli = argparse.ArgumentParser(
        prog="python -m vlmteach.fit",
        description=__doc__,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    cli.add_argument(
        "--instances",
        required=True,
        nargs="+",
        help="tar files, brace patterns such as shard-{000..003}.tar, or folders; builtin:demo.tar "
        "is a dozen tasks of the miniature",
    )
    cli.add_argument(
        "--out",
        type=folder,
        help="output folder; the same command in the same folder does only what is missing "
        "(default: runs/ and the name of the first source)",
    )
    cli.add_argument(
        "--queries",
        type=Path,
        help='JSONL with {"key", "goal", "process"} per line: used instead of the teacher\'s own',
    )
    cli.add_argument(
        "--devices",
        type=int,
        help="processes per machine, one device each (default: every GPU, or one CPU process)",
    )
    cli.add_argument("--num_nodes", type=int, help="machines (default: 1)")
    cli.add_argument(
        "--accelerator",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="auto takes GPUs where there are any",
    )
    cli.add_argument(
        "--plan",
        action="store_true",
        help="print what the run will hold and take on the device at hand, and end; no weight is "
        "read (vlmteach plan has more options)",
    )
    cli.add_argument(
        "--quiet", action="store_true", help="tell errors and the last line, and nothing else"
    )
    return cli


def default_out(sources: Sequence[str]) -> Path:
    """`runs/` and the first source's name without its ending."""
    return Path("runs") / (Path(sources[0]).name.split(".")[0] or "fit")


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line and runs it.

    Returns:
        0 when every instance has its result, 3 when some have an error row or none, 2 when the
        run could not start, or could not write.

    Raises:
        Stopped: when a signal asked for it; an exit with 128 and the signal's number.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        with commanded():
            arguments, config = parse(parser(), argv)
            if arguments.plan:
                from vlmteach.plan.command import told

                device = "cuda" if arguments.accelerator == "gpu" else str(arguments.accelerator)
                text, fits = told(config, arguments.instances, device)
                print(text)
                return 0 if fits else exits.SOME_FAILED
            return run(arguments, config)
    except (ValueError, OSError) as error:
        return exits.refused(error, "(python -m vlmteach.fit --help lists the options)")


def job(arguments: argparse.Namespace, config: Config) -> Job:
    """What a parsed command line asks for."""
    from vlmteach.job import Job

    sources = tuple(source_path(name) for name in arguments.instances)
    return Job(
        config=config,
        sources=sources,
        out=arguments.out or default_out(sources),
        queries=arguments.queries,
    )


def machine(arguments: argparse.Namespace, config: Config) -> tuple[str, Launch]:
    """The accelerator, `cpu` or `gpu`, and the shape of the launch a parsed command line runs on.

    Raises:
        ValueError: for a GPU that is not there, or a shape that contradicts the launcher.
    """
    import torch

    on_gpu = arguments.accelerator != "cpu" and torch.cuda.is_available()
    if arguments.accelerator == "gpu" and not on_gpu:
        raise ValueError(
            "--accelerator: got gpu, expected one that torch can see; use cpu, or install a torch "
            "built for this machine's driver"
        )
    accelerators = torch.cuda.device_count() if on_gpu else 0
    return "gpu" if on_gpu else "cpu", launch_of(arguments, config, accelerators)


def launch_of(arguments: argparse.Namespace, config: Config, accelerators: int) -> Launch:
    """The launch that a parsed command line is part of, see `find_launch`."""
    return find_launch(
        arguments.devices,
        arguments.num_nodes,
        accelerators,
        at_once=config.run.instances_at_once,
    )


def run(arguments: argparse.Namespace, config: Config) -> int:
    """Runs a parsed command line; imports the heavy part once nothing can be refused without it."""
    asked = job(arguments, config)
    # As on a CPU: what the launcher says can be told before torch says which GPUs there are.
    launch_of(arguments, config, accelerators=0)
    asked.check()

    from vlmteach.report import PAGE
    from vlmteach.runner import run as run_job
    from vlmteach.tracking import told_of_runs

    accelerator, shape = machine(arguments, config)
    try:
        rows, left = run_job(asked, accelerator=accelerator, shape=shape, quiet=arguments.quiet)
    except Stopped:
        if shape.rank == 0:
            told_of(asked)
        raise
    failed = sum(row.get("status") == "error" for row in rows)
    if shape.rank == 0:
        scores = told_of(asked)
        for part in (errors(rows),) if arguments.quiet else (table(rows, scores), errors(rows)):
            if part:
                print(part, end="\n\n")
        print(f"{len(rows) - failed} done, {failed} failed, {left} left; results in {asked.out}")
        if not arguments.quiet:
            if (asked.out / PAGE).exists():
                print(f"page: {asked.out / PAGE}")
            if told := told_of_runs(asked.out):
                print(told)
    return exits.SOME_FAILED if failed or left else 0


def told_of(asked: Job) -> Mapping[str, RuleScores]:
    """Writes what a run's folder tells of its results: scores, table and page.

    Returns:
        Instance key -> what the rules say of it; empty where that failed, which undoes no result.
    """
    from vlmteach.mini.rule_scores import rule_scores
    from vlmteach.report import PAGE, write_report
    from vlmteach.rows import write_table

    scores: Mapping[str, RuleScores] = {}
    with _spared("the scores by the rules do not"):
        scores = rule_scores(asked.sources, asked.out)
    with _spared("table.json does not"):
        write_table(asked.out)
    with _spared(f"{PAGE} does not"):
        write_report([asked.out])
    return scores


@contextmanager
def _spared(told: str) -> Iterator[None]:
    """What fails in a `with`, of whatever class, undoes no result and hinders nothing after it."""
    try:
        yield
    except Exception as error:
        exits.refused(error, f"(the results stand, and results.jsonl; {told})")


if __name__ == "__main__":
    sys.exit(main())
