"""`python -m vlmteach.fit`: takes instances through the micro-fit and leaves videos and records.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from vlmteach.config import Config

PRESETS = Path(__file__).parent / "configs"
DEFAULT_PRESET = "random"
EXIT_BAD_USE = 2
EXIT_SOME_FAILED = 3


def preset_path(name: str) -> Path:
    """A preset's name or a YAML file -> the file.

    Raises:
        ValueError: when it is neither.
    """
    if (preset := PRESETS / f"{name}.yaml").is_file():
        return preset
    if (path := Path(name)).is_file():
        return path
    known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
    raise ValueError(f"--config: got {name!r}, expected a YAML file or a preset's name: {known}")


def parser() -> Any:
    """The command line: what to run and where, then every field of `Config`."""
    from jsonargparse import ActionConfigFile, ArgumentParser  # pyright: ignore[reportPrivateImportUsage]

    cli = ArgumentParser(prog="python -m vlmteach.fit", description=__doc__, exit_on_error=False)
    cli.add_argument(
        "--instances",
        type=str,
        required=True,
        nargs="+",
        help="tar files, brace patterns such as shard-{000..003}.tar, or folders",
    )
    cli.add_argument(
        "--out",
        type=Path | None,
        default=None,
        help="output folder; the same command in the same folder does only what is missing "
        "(default: runs/ and the name of the first source)",
    )
    cli.add_argument(
        "--config",
        action=ActionConfigFile,
        help=f"a preset's name or a YAML file (default: {DEFAULT_PRESET}); options after it win",
    )
    cli.add_argument(
        "--queries",
        type=Path | None,
        default=None,
        help='JSONL with {"key", "goal", "process"} per line: used instead of the teacher\'s own',
    )
    cli.add_argument(
        "--devices",
        type=int | None,
        default=None,
        help="processes per machine, one device each (default: every GPU, or one CPU process)",
    )
    cli.add_argument("--num_nodes", type=int | None, default=None, help="machines (default: 1)")
    cli.add_argument(
        "--accelerator",
        type=Literal["auto", "cpu", "gpu"],
        default="auto",
        help="auto takes GPUs where there are any",
    )
    cli.add_class_arguments(Config)
    return cli


def presets_first(argv: Sequence[str]) -> list[str]:
    """Moves `--config` to the front, presets resolved to files: other options win wherever they
    stand, and without `--config` the embedded default is taken."""
    chosen, rest = [], []
    words = iter(argv)
    for word in words:
        if word == "--config":
            chosen.append(next(words, ""))
        elif word.startswith("--config="):
            chosen.append(word.removeprefix("--config="))
        else:
            rest.append(word)
    front = [
        part for name in chosen or [DEFAULT_PRESET] for part in ("--config", str(preset_path(name)))
    ]
    return front + rest


def default_out(sources: Sequence[str]) -> Path:
    """`runs/` and the first source's name without its ending."""
    return Path("runs") / (Path(sources[0]).name.split(".")[0] or "fit")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What happened to each instance, one line each."""
    lines = [("instance", "stop", "updates", "loss before", "loss kept", "seconds")]
    for row in rows:
        if row["status"] == "error":
            lines.append((row["key"], "error: " + row["error"].splitlines()[0], "", "", "", ""))
            continue
        before, kept = (
            "-" if row[name] is None else f"{row[name]:.4f}" for name in ("first_loss", "kept_loss")
        )
        stop, steps = row["stop_reason"] or row["method"], str(row["steps"])
        seconds = f"{row['compute']['seconds']:.1f}"
        lines.append((row["key"], stop, steps, before, kept, seconds))
    shown = [line for line in lines if not line[1].startswith("error: ")]
    widths = [max(len(line[column]) for line in shown) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column >= 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line and runs it.

    Returns:
        0 when every instance has its result, 3 when some have an error row or none, 2 when the
        run could not start.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        cli = parser()
        arguments = cli.instantiate(cli.parse_args(presets_first(argv)))
        return run(arguments)
    except (ValueError, argparse.ArgumentError) as error:
        if os.environ.get("VLMTEACH_DEBUG"):
            raise
        print(f"error: {error}\n(python -m vlmteach.fit --help lists the options)", file=sys.stderr)
        return EXIT_BAD_USE


def run(arguments: Any) -> int:
    """Runs a parsed command line; imports the heavy part."""
    import torch

    from vlmteach.runner import Job
    from vlmteach.runner import run as run_job
    from vlmteach.world import global_rank, world

    on_gpu = arguments.accelerator != "cpu" and torch.cuda.is_available()
    if arguments.accelerator == "gpu" and not on_gpu:
        raise ValueError(
            "--accelerator: got gpu, expected one that torch can see; use cpu, or install a torch "
            "built for this machine's driver"
        )
    job = Job(
        config=Config(**{field.name: getattr(arguments, field.name) for field in fields(Config)}),
        sources=tuple(arguments.instances),
        out=arguments.out or default_out(arguments.instances),
        queries=arguments.queries,
    )
    shape = world(
        arguments.devices, arguments.num_nodes, torch.cuda.device_count() if on_gpu else 0
    )
    rows, left = run_job(job, accelerator="gpu" if on_gpu else "cpu", shape=shape)
    failed = sum(row["status"] == "error" for row in rows)
    if global_rank() == 0:
        print(table(rows))
        print(f"{len(rows) - failed} done, {failed} failed, {left} left; results in {job.out}")
    return EXIT_SOME_FAILED if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
