"""Tables as rows: CSV with a header, one JSON object a line, or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmteach.instances.sample import InstanceError, shown, size_refusal


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
            path = inside(root, str(name))
            if not path.is_file():
                raise ValueError(f"{shown(name)}, which is no file")
            too_large = size_refusal(self.key, self.source, member, path.stat().st_size)
            if too_large:
                raise too_large
            return path.read_bytes()
        except InstanceError:
            raise
        except (OSError, ValueError) as error:
            raise self.refusal(
                column, str(error), f"an image below {root}", "correct the path"
            ) from error


def csv_rows(table: Path) -> Iterator[Row | InstanceError]:
    """The rows of a CSV file (UTF-8); a cell is text, an empty one is left out."""
    where = Row(table.name, str(table), {})
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="")
        try:
            for number, cells in enumerate(reader):
                row = Row(f"{number:05d}", f"{table}: line {reader.line_num}", {})
                row.cells = {name: text for name, text in cells.items() if text not in (None, "")}
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            yield where.refusal("file", str(error), "CSV in UTF-8", "save it again")


def json_rows(table: Path) -> Iterator[Row | InstanceError]:
    """The rows of a JSON-lines file; empty lines are passed over, nulls left out."""
    with table.open("rb") as file:
        number = 0
        for line, data in enumerate(file, start=1):
            if not data.strip():
                continue
            row = Row(f"{number:05d}", f"{table}: line {line}", {})
            number += 1
            try:
                cells = json.loads(data)
                if not isinstance(cells, dict):
                    raise ValueError(shown(cells))
            except (ValueError, RecursionError) as error:
                yield row.refusal("line", str(error), "a JSON object", "repair the line")
                continue
            row.cells = {name: value for name, value in cells.items() if value is not None}
            yield row


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
                    # A column of numbers has no other empty cell than NaN, as pandas writes it.
                    row.cells = {
                        name: value
                        for name, value in cells.items()
                        if value is not None and value == value
                    }
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


def inside(root: Path, relative: str) -> Path:
    """A path that a data set names, below its own folder.

    Raises:
        ValueError: it leads out of the folder, by "..", as an absolute path or through a link.
    """
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{shown(relative)}, which leads out of {root}")
    return path
