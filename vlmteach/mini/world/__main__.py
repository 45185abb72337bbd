"""`python -m vlmteach.mini.world`: export tasks, print what cheats get, draw contact sheets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vlmteach import exits
from vlmteach.mini.world.types import SPLITS


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; 0 all good, 2 the command is wrong."""
    parser = argparse.ArgumentParser(prog="python -m vlmteach.mini.world", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write a WebDataset tar of instances")
    exporting.add_argument("out", metavar="OUT.tar", type=Path)
    exporting.add_argument("--seed", type=int, default=0, help="of the choice of tasks")
    exporting.add_argument("--queries", action="store_true", help="the samples bring their queries")
    cheating = commands.add_parser("table", help="print the scores of the truth and of cheats")
    drawing = commands.add_parser("sheets", help="draw a contact sheet per family")
    drawing.add_argument("out", metavar="FOLDER", type=Path)
    for command, default in ((exporting, 52), (cheating, 50), (drawing, 4)):
        command.add_argument("--split", choices=SPLITS, default="test")
        per = "instances in all" if command is exporting else "tasks per family"
        command.add_argument("--n", type=int, default=default, help=f"{per} (default {default})")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError) as error:
        return exits.refused(error)


def _run(options: argparse.Namespace) -> int:
    if options.n < 1:
        raise ValueError(f"--n: got {options.n}, expected at least 1")
    if options.command == "table":
        from vlmteach.mini.world.cheats import table

        print(table(options.split, options.n))
    elif options.command == "sheets":
        from vlmteach.mini.world.sheets import draw_sheets

        draw_sheets(options.out, options.split, options.n)
    else:
        from vlmteach.instances.write import write_tar
        from vlmteach.mini.world.export import export

        samples = export(options.split, options.n, options.seed, queries=options.queries)
        packed = write_tar(samples, options.out)
        for error in packed.refused:
            print(error, file=sys.stderr)
        print(f"{len(packed.keys)} written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
