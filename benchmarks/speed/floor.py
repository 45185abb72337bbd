"""`python -m benchmarks.speed.floor`: the operations of one update and of one generation, counted.

Each part of a preset runs at full size on the meta device, forward and, where the method does it,
backward. What is counted must be done however good the kernels are, so at a GPU's measured rate of
matrix products it gives a time that nothing can go below without changing what is computed. (The
VAE computes in float32, at a lower rate: its times are low even for a floor.)

    python -m benchmarks.speed.floor --config paper
    python -m benchmarks.speed.floor --config wan22-turbo --clip.frames 49 --json floor.json

Every option of `vlmteach.fit` is understood.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.speed.operations import H200_RATE, PAPER_RATIO, count, markdown
from vlmteach import exits


def parser() -> argparse.ArgumentParser:
    """The command's own options; those of `vlmteach.fit` may follow."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.floor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    cli.add_argument("--config", default="paper", help="a preset that names real checkpoints")
    cli.add_argument("--rate", type=float, default=H200_RATE, help="TFLOP/s (default: %(default)s)")
    cli.add_argument("--json", type=Path, help="also write the counts to this file")
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    """Counts and prints the table; returns the exit code."""
    from benchmarks.speed.case import read_command

    try:
        own, config = read_command(parser(), argv)
        floor = count(own.config, config, own.rate)
    except (ValueError, argparse.ArgumentError) as error:
        return exits.refused(error)
    print(markdown(floor))
    if own.json is not None:
        content = asdict(floor) | {"ratio": floor.ratio, "paper_ratio": PAPER_RATIO}
        own.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
