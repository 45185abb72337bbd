"""`python -m benchmarks.gpu --out DIR`: what a CUDA machine does with this code, in ten minutes.

The miniature on the device and on the CPU (loss, gradient, prediction), the same instance twice
(same bits, and what deterministic kernels cost), then presets at full size with random weights: the
update's memory beside what is counted, update and generation beside the floor, and a profile; at
last the miniature's tasks one at a time and four at once (`run.instances_at_once`). Nothing is
downloaded. Leaves `gpu.json`, dated, `gpu.md` and a profile in DIR.

    python -m benchmarks.gpu --out runs/gpu
    python -m benchmarks.gpu --out runs/gpu --presets wan22-turbo --minutes 5

A section that fails leaves its error in its place, the others go on, and the exit code is 3. What
does not fit into memory or the time that is left is skipped with a word. Every option of
`vlmteach.fit` is understood and laid over each full-size preset.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vlmteach import exits

PRESETS = ("wan22-turbo", "wan22-qwen25", "wan22-internvl", "hunyuan15", "paper", "wan22-a14b")


def parser() -> argparse.ArgumentParser:
    """The command's own options; those of `vlmteach.fit` may follow."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    cli.add_argument("--out", type=Path, required=True, help="folder for what is found")
    cli.add_argument("--device", default="cuda", help="(default: %(default)s)")
    cli.add_argument(
        "--presets", nargs="+", default=PRESETS, metavar="PRESET", help="at full size, in order"
    )
    cli.add_argument("--minutes", type=float, default=10.0, help="at most (default: %(default)s)")
    cli.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sections and writes what they found; returns the exit code."""
    own, others = parser().parse_known_args(argv)
    try:
        import torch

        from benchmarks.gpu.report import Report
        from benchmarks.gpu.sections import sections
        from vlmteach.options import read_config

        device = torch.device(own.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "--device: got cuda, expected a device that torch finds here; install a CUDA build "
                "of torch, or give --device cpu"
            )
        if own.minutes <= 0 or own.repeats < 1:
            raise ValueError("--minutes, --repeats: expected numbers above 0")
        configs = {name: read_config(["--config", name, *others]) for name in own.presets}
        report = Report(own.out, device, minutes=own.minutes, words=sys.argv[1:])
        for name, run in sections(configs, device, own.repeats, report):
            report.take(name, run)
    except (ValueError, argparse.ArgumentError) as error:
        return exits.refused(error)
    return exits.SOME_FAILED if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
