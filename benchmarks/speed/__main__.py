"""`python -m benchmarks.speed`: what an update costs, and what each choice in it is worth.

Every comparison times its alternatives in one process, in turn, after a warm-up: medians,
quartiles, and the ratio to the first alternative round by round.

    python -m benchmarks.speed
    python -m benchmarks.speed --config paper --full-size --out runs/speed
    python -m benchmarks.speed --config wan22-turbo --against practice

The first takes the embedded random models. With `--full-size` a preset's models are built with
random weights on the device: nothing is downloaded, and the work is that of the real ones. Every
option of `vlmteach.fit` is understood.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach import exits

if TYPE_CHECKING:
    from vlmteach.config import Config


def parser() -> argparse.ArgumentParser:
    """The command's own options; those of `vlmteach.fit` may follow."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    cli.add_argument("--config", default="random", help="a preset (default: %(default)s)")
    cli.add_argument(
        "--against",
        choices=["practice"],
        help="an update as public trainers write it beside ours, lever by lever, on middling models"
        " on the CPU; with --full-size only counted (give --config wan22-turbo)",
    )
    cli.add_argument(
        "--full-size",
        action="store_true",
        help="build the preset's models with random weights instead of loading checkpoints",
    )
    cli.add_argument("--repeats", type=int, default=9, help="rounds (default: %(default)s)")
    cli.add_argument("--out", type=Path, help="folder for speed.json and speed.md")
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    """Times the cases and prints the tables; returns the exit code."""
    from benchmarks.speed.case import read_command

    try:
        own, config = read_command(parser(), argv)
        (against_practice if own.against else run)(own, config)
    except (ValueError, argparse.ArgumentError) as error:
        return exits.refused(error)
    return 0


def against_practice(own: Any, config: Config) -> None:
    """An update as it is practised beside ours; prints as it goes."""
    from benchmarks.speed.practice_report import report
    from vlmteach.kernels import settled

    parts = [f"`{' '.join(['python -m benchmarks.speed', *sys.argv[1:]])}`"]
    print(parts[0], flush=True)
    with settled(config.run):
        for part in report(config, own.repeats, full_size=own.full_size):
            parts.append(part)
            print(f"\n{part}", flush=True)
    if own.out is not None:
        own.out.mkdir(parents=True, exist_ok=True)
        (own.out / "practice.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def run(own: Any, config: Config) -> None:
    """Measures a parsed command line and prints as it goes."""
    import torch

    from benchmarks.speed import full_size
    from benchmarks.speed.comparisons import markdown, measure
    from vlmteach import models as real
    from vlmteach.kernels import settle

    settle(config.run)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    models = (full_size.build if own.full_size else real.load)(config, device)
    facts = {
        "command": " ".join(["python -m benchmarks.speed", *sys.argv[1:]]),
        "preset": own.config,
        "full_size": own.full_size,
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {config.run.threads} thread",
        "torch": torch.__version__,
        "clock": "wall" if on_gpu else "processor",
        "repeats": own.repeats,
    }
    parts = ["; ".join(f"{name} {value}" for name, value in facts.items())]
    print(parts[0], flush=True)
    results = {}
    for title, timings in measure(models, config, own.repeats):
        parts.append(markdown(title, timings, on_gpu))
        print(f"\n{parts[-1]}", flush=True)
        results[title] = [asdict(timing) for timing in timings]
    if own.out is not None:
        own.out.mkdir(parents=True, exist_ok=True)
        content = json.dumps({**facts, "comparisons": results}, indent=1)
        (own.out / "speed.json").write_text(content + "\n", encoding="utf-8")
        (own.out / "speed.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
