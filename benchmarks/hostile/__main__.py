"""Hostile input of every kind, given to the real commands: what came back, in how many seconds.

    python -m benchmarks.hostile --out runs/hostile
    python -m benchmarks.hostile --out runs/hostile --only pickle "symbolic link"

Each case plants a small input in an empty folder with a home of its own and gives a command there.
Nothing that the input brings may be executed, nothing may hang or end in a traceback, nothing may
be written outside the output, and the exit code and the words must be those that the case expects.
Most commands run as forks of one process that has everything imported; the imports' seconds are
told apart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.hostile import checkpoints, commands, folders, samples, tables, tars
from benchmarks.hostile.yard import Case, Outcome, Yard, try_case
from vlmteach.builtin.paths import builtin_path
from vlmteach.record import write_json

CASES: tuple[Case, ...] = (
    *(*tars.CASES, *tables.CASES, *samples.CASES),
    *(*checkpoints.CASES, *folders.CASES, *commands.CASES),
)
_HEAVY = ("runner", "micro_fit", "methods", "reasoners.wan", "decoders.taehv", "teachers.qwen_vl")
_WIDEST = 150


def sums(found: Sequence[Outcome]) -> dict[str, int | float]:
    """What counts, over all cases."""
    return {
        "cases": len(found),
        "executed": sum(one.executed for one in found),
        "hangs": sum(one.hung for one in found),
        "tracebacks": sum(one.traceback for one in found),
        "written outside": sum(bool(one.outside) for one in found),
        "other than expected": sum(bool(one.other) for one in found),
        "longest, s": round(max((one.seconds for one in found), default=0.0), 1),
    }


def table(found: Sequence[Outcome]) -> str:
    """One line a case, and the sums, in Markdown."""
    lines = ["| part | input | exit | s | of work | what was told | wrong |", "|---" * 7 + "|"]
    for one in found:
        wrong = [name for name in ("executed", "hung", "traceback") if getattr(one, name)]
        wrong += [f"outside: {name}" for name in one.outside] + one.other
        told = one.told if len(one.told) <= _WIDEST else f"{one.told[:_WIDEST]}..."
        times, name = (f"{one.seconds:.1f}", f"{one.cpu:.1f}"), one.name + " (cold)" * one.cold
        cells = (one.part, name, one.code, *times, told, "; ".join(wrong))
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", ", ".join(f"{name} {n}" for name, n in sums(found).items())])


def tried(cases: Sequence[Case], place: Path) -> tuple[float, list[Outcome]]:
    """Seconds that all imports take, and what came back of each case."""
    yard = Yard(place / "yard", place / "cache")
    yard.clear()
    os.environ.update(yard.environment())
    begun = time.monotonic()
    for module in _HEAVY:
        import_module(f"vlmteach.{module}")
    imports = time.monotonic() - begun
    for name in checkpoints.BUILTINS:
        builtin_path(name)
    found = []
    for number, case in enumerate(cases, 1):
        found.append(try_case(case, yard))
        mark = "WRONG" if found[-1].wrong else "right"
        print(f"{number}/{len(cases)} {mark} {case.part}: {case.name}", file=sys.stderr)
    return imports, found


def main() -> int:
    """Tries the cases, prints the table; returns 1 when anything was wrong."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("--out", type=Path, required=True, help="where hostile.json goes")
    cli.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name or part has it")
    asked = cli.parse_args()
    chosen = [
        case
        for case in CASES
        if not asked.only or any(word in f"{case.part} {case.name}" for word in asked.only)
    ]
    asked.out.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        imports, found = tried(chosen, place)
    finally:
        shutil.rmtree(place)
    write_json(
        asked.out / "hostile.json",
        {"imports": imports, "sums": sums(found), "cases": [asdict(one) for one in found]},
    )
    print(table(found), f"imports, once: {imports:.1f} s", sep="\n")
    return 1 if any(one.wrong for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
