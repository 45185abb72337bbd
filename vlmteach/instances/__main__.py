"""`python -m vlmteach.instances`: pack a data set into a tar, or list what a tar holds."""

from __future__ import annotations

import argparse
import os
import sys

from vlmteach import exits
from vlmteach.stops import stoppable
from vlmteach.text import printable

REFUSED = 3
"""Exit status when something was refused; what was good has been written or listed."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; 0 all good, 2 the command itself is wrong, 3 samples were refused."""
    parser = argparse.ArgumentParser(prog="python -m vlmteach.instances", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser(
        "pack",
        help="write a WebDataset tar",
        description="Writes the good samples of SOURCE to OUT and lists the others on stderr. "
        "Exit status 3 when some were refused.",
    )
    packing.add_argument(
        "source",
        metavar="SOURCE",
        help="VBVR tree, tar or VBVR-Bench.json; RULER's data.jsonl, its folder or its Parquet "
        "file; .csv, .jsonl, .json or .parquet with the columns prompt, image, key, frames, "
        "fps, height, width, seed, task, category, split, goal, process (only prompt is required)",
    )
    packing.add_argument("out", metavar="OUT.tar", help="the tar to write")
    packing.add_argument("--format", choices=("auto", "vbvr", "ruler", "table"), default="auto")
    listing = commands.add_parser(
        "list",
        help="show keys and sizes",
        description="One line a sample: key, bytes, image or text, and the held-out members; on "
        "stderr what was refused, and the members seen, used and ignored.",
    )
    listing.add_argument("sources", nargs="+", metavar="SOURCE", help="tars, patterns or folders")
    options = parser.parse_args(arguments)
    try:
        with stoppable():  # a tar that is being written goes with its writer
            if options.command == "pack":
                return _pack(options.source, options.out, options.format)
            return _list(options.sources)
    except BrokenPipeError:  # `list ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        return exits.refused(error)


def _pack(source: str, out: str, format: str) -> int:
    from vlmteach.instances.pack import pack

    packed = pack(source, out, format)  # type: ignore[arg-type]  # argparse checked the choice
    for error in packed.refused:
        print(error, file=sys.stderr)
    if not packed.keys and not packed.refused:
        print(f"{source}: got no sample, expected at least one", file=sys.stderr)
        return REFUSED
    written = f"{len(packed.keys)} written to {out}" if packed.keys else "nothing written"
    print(f"{written}, {len(packed.refused)} refused")
    print(packed.tally.told(), file=sys.stderr)
    return REFUSED if packed.refused else 0


def _list(sources: list[str]) -> int:
    from vlmteach.instances.files import expand_sources
    from vlmteach.instances.read import gather
    from vlmteach.instances.sample import FIRST_FRAMES, HELD_OUT
    from vlmteach.instances.tally import Tally

    tally = Tally()
    refused = 0
    for group in gather(expand_sources(sources), frozenset(), tally):
        if group.problem:
            refused += 1
            print(group.problem, file=sys.stderr)
            continue
        kind = "image" if group.entries.keys() & set(FIRST_FRAMES) else "text"
        held_out = ",".join(sorted(group.entries.keys() & HELD_OUT)) or "-"
        size = sum(entry.size for entry in group.entries.values())
        print(printable(group.key), size, kind, held_out, sep="\t")
    print(tally.told(), file=sys.stderr)
    return REFUSED if refused else 0


if __name__ == "__main__":
    sys.exit(main())
