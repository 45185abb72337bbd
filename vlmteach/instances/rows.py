"""Tables as rows: CSV with a header, JSON objects (one a line, or an array), or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmteach.instances.files import inside
from vlmteach.instances.sample import LIMITS, InstanceError, is_image, shown, size_refusal
from vlmteach.text import decode_text, read_file, text_lines, told

LARGEST_ARRAY = 512 * 2**20
"""Bytes of a JSON file that is read whole."""


@dataclass(slots=True)
class Row:
    """A row of a table and where it stands."""

    key: str
    source: str
    cells: dict[str, Any]

    def refusal(self, field: str, got: str, expected: str, remedy: str) -> InstanceError:
        """A refusal of this row, to be raised or kept."""
        return InstanceError(
            key=self.key, source=self.source, field=field, got=got, expected=expected, remedy=remedy
        )

    def prompt(self) -> bytes:
        """The prompt in UTF-8. Raises InstanceError."""
        prompt = self.cells.get("prompt")
        try:
            if isinstance(prompt, str):
                return prompt.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
            pass
        raise self.refusal("prompt", shown(prompt), "text", "write one")

    def image(self, column: str, member: str, root: Path) -> bytes | None:
        """The bytes of the file that a column names below `root`; None for an empty cell.

        A cell may hold the image itself, as in the hub's Parquet files: {"bytes": ...}.

        Raises:
            InstanceError: no such file, one too large for the member, or one outside of `root`.
        """
        name = self.cells.get(column)
        if isinstance(name, dict):
            if isinstance(data := name.get("bytes"), bytes):
                if too_large := size_refusal(self.key, self.source, member, len(data)):
                    raise too_large
                return data
            name = name.get("path")
        if name in (None, ""):
            return None
        try:
            path = inside(root, root / str(name))
            if not path.is_file():
                raise ValueError(f"{shown(name)}, which is no file")
            too_large = size_refusal(self.key, self.source, member, path.stat().st_size)
            if too_large:
                raise too_large
            return read_file(path, LIMITS[member])
        except InstanceError:
            raise
        except (OSError, ValueError) as error:
            raise self.refusal(
                column, str(error), f"an image below {root}", "correct the path"
            ) from error


def csv_rows(table: Path) -> Iterator[Row | InstanceError]:
    """The rows of a CSV file; a cell is text, an empty one is left out.

    A quote that is opened and never closed would swallow the rows behind it: a record over several
    lines that look like rows of their own is refused, and so is one with more or fewer cells than
    the header has.
    """
    where = Row(table.name, str(table), {})
    taken: list[str] = []  # the lines of the record under way

    def lines() -> Iterator[str]:
        for line in text_lines(table):
            taken.append(line)
            yield line

    reader = csv.reader(lines(), strict=True)
    header: list[str] = []
    number = 0
    while True:
        taken.clear()
        start, fault, cells = reader.line_num + 1, "", []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = str(error)
        except (OSError, ValueError) as error:
            at = f"{told(error)} at line {reader.line_num + 1}"
            yield where.refusal("file", at, "CSV in UTF-8", "save it again")
            return
        if not header:
            header = cells
            if fault or len({*header}) < len([name for name in header if name]):
                got = fault or f"a column twice in {shown(header)}"
                yield where.refusal("header", got, "a name for each column", "correct it")
                return
            continue
        if not cells and not fault:
            continue
        lines_told = f"lines {start} to {reader.line_num}" if len(taken) > 1 else f"line {start}"
        row = Row(f"{number:05d}", f"{table}: {lines_told}", {})
        number += 1
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if not fault and len(cells) != len(header):
            fault = f"{len(cells)} cells where the header has {len(header)}"
        if fault or _swallows(taken, header):
            yield row.refusal(
                "row",
                fault or "lines that look like rows of their own inside a quoted cell",
                "a row, with cells that hold commas or quotes in quotes",
                'close the quotes, and write a quote within them twice ("")',
            )
        elif not _is_utf8("".join(cells)):
            yield row.refusal("row", "a byte that is none", "UTF-8", "save the table as UTF-8")
        else:
            row.cells = {name: c for name, c in zip(header, cells, strict=True) if c != ""}
            yield row


def _swallows(lines: list[str], header: list[str]) -> bool:
    """Whether a record of several lines holds other rows."""
    if len(lines) == 1 or len(header) == 1:
        return False
    rows = [line.replace('"', "").rstrip("\r\n").split(",") for line in lines]
    alike = [len(row) == len(header) for row in rows]
    if "image" not in header:
        return all(alike)
    column = header.index("image")
    return any(ok and is_image(row[column]) for ok, row in zip(alike[:-1], rows, strict=False))


def _is_utf8(text: str) -> bool:
    """Whether all bytes that it was read from were; the others have become surrogates."""
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def json_rows(table: Path) -> Iterator[Row | InstanceError]:
    """The rows of a file of JSON objects, one a line or all in an array; nulls are left out."""
    number = 0
    try:
        for line, text in enumerate(text_lines(table), start=1):
            if number == 0 and text.lstrip("\ufeff \t\r\n").startswith("["):
                yield from _array_rows(table)
                return
            if text.strip():
                row = Row(f"{number:05d}", f"{table}: line {line}", {})
                number += 1
                yield _json_row(row, text)
    except (OSError, ValueError) as error:
        where = Row(table.name, f"{table}: after row {number}", {})
        yield where.refusal("file", told(error), "JSON lines in UTF-8", "save it again")


def _array_rows(table: Path) -> Iterator[Row | InstanceError]:
    try:
        found = json.loads(decode_text(read_file(table, LARGEST_ARRAY)))
        if not isinstance(found, list):
            raise ValueError(shown(found))
    except (ValueError, RecursionError) as error:
        where = Row(table.name, str(table), {})
        yield where.refusal("file", str(error), "a JSON array of objects", "repair it")
        return
    for number, cells in enumerate(found):
        yield _json_row(Row(f"{number:05d}", f"{table}: entry {number}", {}), cells)


def _json_row(row: Row, given: Any) -> Row | InstanceError:
    try:
        if isinstance(given, str):
            if not _is_utf8(given):
                raise ValueError("a byte that is no UTF-8")
            given = json.loads(given)
        if not isinstance(given, dict):
            raise ValueError(shown(given))
    except (ValueError, RecursionError) as error:
        return row.refusal("line", str(error), "a JSON object", "repair the line")
    # A column of numbers has no other empty cell than NaN, as pandas writes it.
    row.cells = {name: v for name, v in given.items() if v is not None and v == v}
    return row


def parquet_rows(table: Path) -> Iterator[Row | InstanceError]:
    """The rows of a Parquet file, nulls left out.

    Raises:
        ValueError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"SOURCE: got {table}, expected pyarrow to read it with; "
            "pip install 'vlmteach[benchmarks]'"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(table) as file:
            for batch in file.iter_batches(batch_size=16):
                for cells in batch.to_pylist():
                    row = Row(f"{number:05d}", f"{table}: row {number + 1}", {})
                    number += 1
                    row.cells = {name: v for name, v in cells.items() if v is not None and v == v}
                    odd = [name for name, value in row.cells.items() if not _is_plain(value)]
                    yield row if not odd else row.refusal(
                        odd[0], shown(row.cells[odd[0]]), "text, a number, a list or an image",
                        "convert the column",
                    )  # fmt: skip
    except (pyarrow.ArrowException, OSError) as error:
        where = Row(table.name, f"{table}: after row {number}", {})
        yield where.refusal("file", str(error), "a Parquet file", "fetch it again")


def _is_plain(value: Any) -> bool:
    """Whether JSON could have said it, or it is an image as the hub embeds it."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return set(value) == {"bytes", "path"} or all(_is_plain(item) for item in value.values())
    return value is None or isinstance(value, str | int | float)


def json_or_parquet_rows(table: Path) -> Iterator[Row | InstanceError]:
    """The rows of a file, by its ending."""
    return parquet_rows(table) if table.suffix.lower() == ".parquet" else json_rows(table)
