"""Where fits lose what they are after, family by family, from traced runs.

    python -m benchmarks.mini.diagnose runs/diagnose

Reads `trace.json` of every instance of a sweep whose settings have `RuleTrace` (see `trace.py`).
Four questions, each with its columns, at the reading that was kept unless said otherwise:

- Is there a gradient? Its norm at the first update.
- Does the loss fall where the rules do not rise? Loss first and kept; goal first and kept.
- Is what the teacher is shown what would be delivered? Goal and least part of the surrogate's
  frames, of the same prediction through the VAE, and of the delivered clip.
- Was it passed by? The share of fits in which some reading would have delivered a strict success,
  beside the share whose kept reading does, and the share of stops at the threshold that do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.mini.trace import DELIVERED, PREDICTED, SHOWN, TRACE
from vlmteach import exits
from vlmteach.ledger import DONE
from vlmteach.mini import world
from vlmteach.record import read_json

COLUMNS = (
    "n", "gradient", "loss, first", "loss, kept", "goal, first", "goal shown", "goal predicted",
    "goal delivered", "part shown", "part predicted", "part delivered", "strict shown",
    "strict delivered", "strict ever", "stops", "stops right",
)  # fmt: skip


def traces(run: Path) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """(family, result, trace) of every traced instance of a run's folder."""
    for file in sorted(run.glob(f"*/{TRACE}")):
        family = file.parent.name.split("__")[1]
        yield family, read_json(file.parent / DONE), read_json(file)


def facts(result: dict[str, Any], trace: list[dict[str, Any]]) -> dict[str, float | None]:
    """What one fit has to say, by column; None where the question does not arise."""
    kept = min(trace, key=lambda reading: reading["loss"])
    stopped = result["stop_reason"] == "threshold"
    return {
        "n": None,
        "gradient": trace[0].get("gradient_norm"),
        "loss, first": trace[0]["loss"],
        "loss, kept": kept["loss"],
        "goal, first": trace[0][DELIVERED]["goal"],
        "goal shown": kept[SHOWN]["goal"],
        "goal predicted": kept[PREDICTED]["goal"],
        "goal delivered": kept[DELIVERED]["goal"],
        "part shown": min(kept[SHOWN]["parts"]),
        "part predicted": min(kept[PREDICTED]["parts"]),
        "part delivered": min(kept[DELIVERED]["parts"]),
        "strict shown": kept[SHOWN]["strict"],
        "strict delivered": kept[DELIVERED]["strict"],
        "strict ever": any(reading[DELIVERED]["strict"] for reading in trace),
        "stops": stopped,
        "stops right": kept[DELIVERED]["strict"] if stopped else None,
    }


def table(run: Path) -> str:
    """Markdown of a run: a row per family, and one of all.

    Raises:
        ValueError: nothing was traced there.
    """
    found: dict[str, list[dict[str, float | None]]] = {}
    for family, result, trace in traces(run):
        found.setdefault(family, []).append(facts(result, trace))
    if not found:
        raise ValueError(
            f"{run}: got no {TRACE}, expected a run with the callback "
            "benchmarks.mini.trace.RuleTrace; see benchmarks/mini/diagnose.yaml"
        )
    names = [item.name for item in world.families() if item.name in found]
    rows = [(name, found[name]) for name in names]
    rows.append(("all", [one for name in names for one in found[name]]))
    lines = [f"| family | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    lines += [f"| {name} | {' | '.join(_cells(fits))} |" for name, fits in rows]
    return "\n".join(lines)


def _cells(fits: list[dict[str, float | None]]) -> Iterator[str]:
    yield str(len(fits))
    for column in COLUMNS[1:]:
        values = [float(fit[column]) for fit in fits if fit[column] is not None]  # pyright: ignore
        yield f"{sum(values) / len(values):.3f}" if values else "-"


def main() -> int:
    """Prints a table per traced run; returns the exit code."""
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini.diagnose", description=__doc__)
    cli.add_argument("runs", type=Path, help="a sweep's folder")
    runs = cli.parse_args().runs
    try:
        folders = sorted({file.parents[1] for file in runs.glob(f"*/*/*/{TRACE}")})
        if not folders:
            table(runs)
        for folder in folders:
            print(f"## {folder.parent.name}, {folder.name}\n\n{table(folder)}\n")
    except (ValueError, OSError) as error:
        return exits.refused(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
