"""Labels from a person: on the terminal, or in a CSV file that is written and read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.audit.cases import LABELS, Case, Label
from vlmteach.record import write_text
from vlmteach.text import text_lines

FIELDS = ("case", "label", "why")
_TYPED: dict[str, Label] = {typed: word for word in LABELS for typed in (word, word[0])}


def read_labels(path: Path, count: int) -> dict[int, tuple[Label, str]]:
    """The labels a person has filled in: number of the case -> (label, reason).

    Args:
        path: as `write_labels` left it, with or without labels.
        count: cases it was written for.

    Raises:
        ValueError: names the file and the line, what was got and what was expected.
    """
    labels: dict[int, tuple[Label, str]] = {}
    reader = csv.DictReader(text_lines(path), strict=True)
    try:
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(
                f"{path}: got the columns {reader.fieldnames}, expected {','.join(FIELDS)}"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            number, word = (row["case"] or "").strip(), (row["label"] or "").strip().lower()
            if not (number.isascii() and number.isdigit() and 1 <= int(number) <= count):
                raise ValueError(
                    f"{where}: got case {number!r}, expected 1 to {count} as in audit.md"
                )
            if not word:
                continue
            if word not in LABELS:
                raise ValueError(f"{where}: got label {word!r}, expected one of {LABELS} or none")
            labels[int(number)] = (word, (row["why"] or "").strip())
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise ValueError(f"{where}: got {error}, expected CSV; close the quotes") from error
    return labels


def write_labels(path: Path, cases: Sequence[Case]) -> None:
    """Writes the file to fill in; labels that are known stand in it.

    Cases go by number: texts of instances are strangers' and stay out of a spreadsheet.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for number, case in enumerate(cases, 1):
        ours = case.by == "person"
        writer.writerow([number, case.label if ours else "", case.why if ours else ""])
    write_text(path, text.getvalue())


def ask(
    cases: Sequence[Case],
    shown: Callable[[int, Case], str],
    keep: Callable[[], None],
    read: Callable[[str], str] = input,
) -> None:
    """Asks on the terminal for every label that is missing.

    Args:
        cases: all of them.
        shown: number and case -> its text.
        keep: called after each label, to save it.
        read: prompt -> what was typed.
    """
    for number, case in enumerate(cases, 1):
        if case.label is not None:
            continue
        print(shown(number, case))
        while True:
            try:
                typed = read("[q]uery, [p]erception, [n]either, [s]kip or [e]nd? ").strip().lower()
            except EOFError:
                return
            if typed in ("e", "end"):
                return
            if typed in ("s", "skip"):
                break
            if word := _TYPED.get(typed):
                case.label, case.by = word, "person"
                keep()
                break
