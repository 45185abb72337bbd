"""Any supported source into one tar."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vlmteach.instances.files import is_tar
from vlmteach.instances.ruler import NAME as RULER_NAME
from vlmteach.instances.ruler import import_ruler, is_ruler
from vlmteach.instances.table import import_table
from vlmteach.instances.tally import Tally
from vlmteach.instances.vbvr import INDEX, import_vbvr
from vlmteach.instances.write import Packed, write_tar

Format = Literal["auto", "vbvr", "ruler", "table"]
_IMPORTERS = {
    "vbvr": import_vbvr,
    "ruler": lambda source, _: import_ruler(source),
    "table": lambda source, _: import_table(source),
}


def pack(source: str | Path, out: str | Path, format: Format = "auto") -> Packed:
    """Imports a source and writes its good samples as a WebDataset tar.

    Args:
        source: a VBVR tree, tar or index; RULER's `data.jsonl`, its folder or its Parquet file; a
            CSV, JSON or Parquet table.
        out: the tar; replaced if it exists.
        format: what the source is; `auto` looks.

    Raises:
        ValueError: a source that does not exist or is none of these.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise ValueError(f"SOURCE: got {source}, expected a file or folder that exists")
    if out.suffix != ".tar" or not out.parent.is_dir():
        raise ValueError(f"OUT: got {out}, expected a name ending in .tar in a folder that exists")
    importer = _IMPORTERS[_detect(source) if format == "auto" else format]
    tally = Tally()
    return write_tar(importer(source, tally), out, tally)


def _detect(source: Path) -> str:
    name = source.name.lower()
    if source.is_dir():
        return "ruler" if (source / RULER_NAME).is_file() else "vbvr"
    if name.endswith(".csv"):
        return "table"
    if source.name == INDEX or is_tar(source):
        return "vbvr"
    if name.endswith((".jsonl", ".json", ".parquet")):
        return "ruler" if is_ruler(source) else "table"
    raise ValueError(
        f"SOURCE: got {source}, expected a folder, a tar, .csv, .jsonl, .json, .parquet or "
        f"{INDEX}; save it as one of these"
    )
