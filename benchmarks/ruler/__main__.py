"""RULER-Bench: the clips of finished runs into its layout, before a judge, into its tables.

    python -m vlmteach.instances pack RULER-Bench/ ruler.tar
    python -m benchmarks.ruler export --instances ruler.tar --out videos \\
        base=runs/base ours=runs/ours
    python -m benchmarks.ruler judge --instances ruler.tar --videos videos --rows rows.jsonl \\
        --endpoint https://api.openai.com/v1 --model gpt-4.1 --key-env OPENAI_API_KEY
    python -m benchmarks.ruler report --instances ruler.tar --videos videos --rows rows.jsonl \\
        --out report
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vlmteach import exits

if TYPE_CHECKING:
    from benchmarks.judges import Judge
    from benchmarks.ruler.export import Exported

INCOMPLETE = 3
"""Exit status when something is missing or was given up; 2 when the command itself is wrong."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.ruler",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = cli.add_subparsers(dest="command", required=True)

    exporting = commands.add_parser("export", help="write <out>/<model>/<task_name>/<index>.mp4")
    exporting.add_argument("--out", type=Path, required=True)
    exporting.add_argument(
        "--fps",
        type=float,
        help="rate the files say, frames untouched. The judge looks at two frames a second of what "
        "a file says: at a lower rate it sees more frames. Default: each clip's own, real time",
    )
    exporting.add_argument("runs", nargs="+", metavar="MODEL=RUN", help="a name and a run's folder")

    judging = commands.add_parser("judge", help="have every video judged; resumable")
    judging.add_argument("--videos", type=Path, required=True, help="what export wrote")
    judging.add_argument("--rows", type=Path, required=True, help="JSON lines, appended to")
    judging.add_argument("--endpoint", metavar="URL", help="base address, OpenAI-compatible")
    judging.add_argument("--model", metavar="NAME", help="the model's name at the endpoint")
    judging.add_argument(
        "--key-env", metavar="VARIABLE", help="environment variable with the key; else none is sent"
    )
    judging.add_argument(
        "--no-temperature",
        action="store_true",
        help="send no temperature: reasoning models (o3) refuse 0",
    )
    judging.add_argument("--concurrency", type=int, default=4, help="calls in the air at once")
    judging.add_argument(
        "--local", type=Path, metavar="FOLDER", help="a transformers checkpoint instead"
    )

    reporting = commands.add_parser("report", help="aggregates as Markdown and JSON")
    reporting.add_argument("--videos", type=Path, required=True)
    reporting.add_argument("--rows", type=Path, required=True)
    reporting.add_argument(
        "--out", type=Path, required=True, help="gets report.md, report.json and table.json"
    )
    reporting.add_argument(
        "--missing",
        choices=("refuse", "leave-out"),
        default="refuse",
        help="what to do where videos have no verdict",
    )
    for command in (exporting, judging, reporting):
        command.add_argument(
            "--instances", nargs="+", required=True, metavar="TAR", help="the packed benchmark"
        )
    return cli


def _export(options: argparse.Namespace) -> int:
    from benchmarks.ruler.export import export
    from benchmarks.ruler.items import check_model, read_items

    if options.fps is not None and not 0 < options.fps <= 1000:
        raise ValueError(f"--fps: got {options.fps}, expected above 0, to 1000")
    runs = [run.partition("=")[::2] for run in options.runs]
    names = [check_model(name) for name, _ in runs]
    if len(set(names)) < len(names) or not all(run for _, run in runs):
        raise ValueError(
            f"MODEL=RUN: got {options.runs}, expected every name once, each with a run"
        )
    for name, run in runs:
        folder = export(read_items(options.instances), Path(run), options.out, name, options.fps)
        print(f"{run} -> {folder}")
    return 0


def _judge(options: argparse.Namespace) -> int:
    from benchmarks.ruler.export import read_exported
    from benchmarks.ruler.items import read_items
    from benchmarks.ruler.judging import Judging
    from benchmarks.ruler.rows import RowsFile

    if options.concurrency < 1:
        raise ValueError(f"--concurrency: got {options.concurrency}, expected at least 1")
    models = read_exported(options.videos)
    judge = make_judge(options, models)
    with RowsFile(options.rows) as rows:
        judging = Judging(judge, rows, concurrency=1 if options.local else options.concurrency)
        tally = judging.run(lambda: read_items(options.instances), models)
    for video in tally.missing:
        print(f"{video}: missing", file=sys.stderr)
    print(
        f"judge {judge.name}: {tally.judged} judged, {tally.known} known from before, "
        f"{tally.failed} failed, {len(tally.missing)} missing"
    )
    return INCOMPLETE if tally.failed or tally.missing else 0


def make_judge(options: argparse.Namespace, models: list[Exported]) -> Judge:
    """The judge that the options name, of another family than every model's teacher.

    Raises:
        ValueError: options that do not go together, a judge that is kin to a teacher, a key that
            is not there.
    """
    from benchmarks.judges.family import refuse_kin, refuse_kin_by_name

    endpoint = (options.endpoint, options.model, options.key_env)
    if options.local is not None:
        if any(endpoint) or options.no_temperature:
            raise ValueError(
                "judge: got --local and an endpoint's options, expected one of the two"
            )
        from benchmarks.judges.local import LocalJudge, model_types

        types = model_types(options.local)
        for model in models:
            refuse_kin(str(options.local), types, model.teacher)
        import torch

        return LocalJudge(options.local, device="cuda" if torch.cuda.is_available() else "cpu")
    if not (options.endpoint and options.model):
        raise ValueError("judge: got neither, expected --endpoint and --model, or --local FOLDER")
    from benchmarks.judges.endpoint import EndpointJudge

    for model in models:
        refuse_kin_by_name(options.model, options.model, model.teacher)
    key = None
    if options.key_env is not None and not (key := os.environ.get(options.key_env)):
        raise ValueError(
            f"--key-env {options.key_env}: got no such variable, expected one that holds the key"
        )
    return EndpointJudge(
        options.endpoint, options.model, key=key, temperature=not options.no_temperature
    )


def _report(options: argparse.Namespace) -> int:
    from benchmarks.ruler.export import read_exported
    from benchmarks.ruler.items import read_items
    from benchmarks.ruler.report import render, report, table
    from benchmarks.ruler.rows import read_rows
    from vlmteach.record import write_json, write_text

    items = [item.without_images() for item in read_items(options.instances)]
    models, rows = read_exported(options.videos), read_rows(options.rows)
    sections = report(items, models, rows, leave_out=options.missing == "leave-out")
    text = render(sections)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "report.json", sections)
    write_json(options.out / "table.json", table(items, models, rows, sections))
    write_text(options.out / "report.md", text)
    print(text)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand."""
    options = parser().parse_args(arguments)
    command = {"export": _export, "judge": _judge, "report": _report}[options.command]
    from benchmarks.ruler.export import IncompleteError

    try:
        return command(options)
    except IncompleteError as error:
        print(f"error: {error}", file=sys.stderr)
        return INCOMPLETE
    except (ValueError, OSError) as error:
        return exits.refused(error)


if __name__ == "__main__":
    sys.exit(main())
