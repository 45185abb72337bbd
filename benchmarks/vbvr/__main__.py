"""VBVR-Bench: finished runs into the tree its EvalKit reads, scored by it, reported.

    python -m benchmarks.vbvr export --run runs/ours --instances data.tar --out videos \\
        --model ours --method-rows static end_jump
    python -m benchmarks.vbvr score --kit VBVR-EvalKit --python kit-env/bin/python \\
        --videos videos --model ours static end_jump --data VBVR-Bench-Data --out scores
    python -m benchmarks.vbvr report scores

For samples in another shape than the official tree, `tree` makes the data tree to score against.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vlmteach import exits

INCOMPLETE = 3
"""Exit status when a row is an error, or a model has no mean."""
SPLITS = ("In-Domain_50", "Out-of-Domain_50")
ROWS = ("static", "end_jump")


def parser() -> argparse.ArgumentParser:
    """The command line; nothing heavy is imported for it."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.vbvr",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = cli.add_subparsers(dest="command", required=True)

    instances = argparse.ArgumentParser(add_help=False)
    instances.add_argument("--instances", nargs="+", required=True, help="as given to vlmteach.fit")
    instances.add_argument("--out", type=Path, required=True, help="folder to write into")
    instances.add_argument(
        "--split-name",
        choices=SPLITS,
        help="for samples that state no split, of a task that is none of the benchmark's hundred",
    )

    exporting = commands.add_parser(
        "export",
        parents=[instances],
        help="write a run's clips as the EvalKit reads them",
        description="Writes OUT/MODEL/<split>/<task>/<5 digits>.mp4 and the manifest "
        "OUT/MODEL.json. An incomplete run, or a folder with other files in it, is refused.",
    )
    exporting.add_argument("--run", type=Path, required=True, help="--out of vlmteach.fit")
    exporting.add_argument("--model", help="folder name for the run's clips")
    exporting.add_argument(
        "--method-rows",
        nargs="+",
        choices=ROWS,
        default=[],
        help="also write these as models, in the size, length and frame rate of the run's clips: "
        "the first frame throughout; the first frame and then at once the last",
    )

    commands.add_parser(
        "tree",
        parents=[instances],
        help="write instances with their ground truth as the official data tree",
    )

    scoring = commands.add_parser(
        "score",
        help="score models with an EvalKit checkout, in a process of its own",
        description="Scores the ground truth first, and nothing when that fails. The same command "
        f"does what is missing. Exit status {INCOMPLETE} when a row is an error.",
    )
    scoring.add_argument("--kit", type=Path, required=True, help="checkout of VBVR-EvalKit")
    scoring.add_argument(
        "--python", default=sys.executable, help="interpreter with the kit's OpenCV, below 5"
    )
    scoring.add_argument("--videos", type=Path, required=True, help="--out of export")
    scoring.add_argument("--model", nargs="+", required=True, help="folders in it")
    scoring.add_argument("--data", type=Path, required=True, help="official data tree")
    scoring.add_argument("--out", type=Path, required=True, help="folder for rows")

    reporting = commands.add_parser(
        "report", help="write report.md and report.json from the rows of score"
    )
    reporting.add_argument("scores", type=Path, help="--out of score")
    return cli


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; 0 all good, 2 it could not be done, 3 some rows are errors."""
    options = parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (ValueError, OSError) as error:
        return exits.refused(error)


def _export(options: argparse.Namespace) -> int:
    from benchmarks.vbvr.export import export

    if options.model is None and not options.method_rows:
        raise ValueError("export: got neither --model nor --method-rows, expected one of them")
    told = export(
        options.run,
        options.instances,
        options.out,
        options.model,
        rows=options.method_rows,
        split_name=options.split_name,
    )
    print("\n".join(told))
    return 0


def _tree(options: argparse.Namespace) -> int:
    from benchmarks.vbvr.tree import write_tree

    written = write_tree(options.instances, options.out, options.split_name)
    print(f"{written} samples in {options.out}")
    return 0


def _score(options: argparse.Namespace) -> int:
    from benchmarks.vbvr.score import score

    errors = score(
        options.kit, options.python, options.videos, options.model, options.data, options.out
    )
    print(f"{errors} errors; python -m benchmarks.vbvr report {options.out}")
    return INCOMPLETE if errors else 0


def _report(options: argparse.Namespace) -> int:
    from benchmarks.vbvr.report import report

    text, without_mean = report(options.scores)
    print(text)
    return INCOMPLETE if without_mean else 0


_COMMANDS = {"export": _export, "tree": _tree, "score": _score, "report": _report}

if __name__ == "__main__":
    sys.exit(main())
