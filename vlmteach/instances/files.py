"""Local files only: which ones a source names, and what lies in them, one entry at a time.

webdataset's own opener is not used: it runs what follows `pipe:` in a shell, fetches addresses,
and reads every member whole before anyone can look at its size. The format is the same; the tests
read our tars with webdataset and its tars with ours.
"""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TARS = (".tar", ".tar.gz", ".tgz")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BLOCK = 512


class BrokenSourceError(ValueError):
    """A file that stopped making sense; what came before was good."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file of a tar or a folder; `read` works until the next entry is asked for."""

    name: str
    """Path within the tar or folder, with "/"."""
    size: int
    read: Callable[[], bytes]


def expand_sources(sources: str | Sequence[str]) -> list[Path]:
    """The tars and folders that sources name, in order.

    A source is a tar, a folder of tars, or a folder of loose files; several are given as a list or
    with commas, and brace patterns are expanded (`train-{000..003}.tar`). A folder with tars in it
    stands for these, by name; one without stands for its loose files.

    Raises:
        ValueError: no source, one that does not exist or stands twice, or one that is not a local
            path. `pipe:` and addresses are never opened.
    """
    texts = [sources] if isinstance(sources, str) else [str(source) for source in sources]
    paths: list[Path] = []
    for text in texts:
        for name in _names(text):
            path = Path(name)
            tars = sorted(p for p in path.iterdir() if is_tar(p)) if path.is_dir() else []
            paths.extend(tars or [path])
    if not paths:
        raise ValueError("instances: got no source, expected a tar or a folder")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ValueError(f"instances: got {path} twice, expected every source once")
        seen.add(path.resolve())
    return paths


def is_tar(path: Path) -> bool:
    """Whether a path is a file with a tar's ending."""
    return path.name.lower().endswith(TARS) and path.is_file()


def _names(text: str) -> Iterator[str]:
    from braceexpand import braceexpand

    if Path(text).exists():  # a path may hold commas and braces of its own
        yield text
        return
    for piece in _split_commas(text):
        for name in braceexpand(piece):
            if Path(name).exists():
                yield name
            elif _SCHEME.match(name):
                raise ValueError(
                    f"instances: got {name}, expected a local tar or folder; only local files are "
                    "opened, so fetch it first"
                )
            else:
                raise ValueError(f"instances: got {name}, expected a tar or folder that exists")


def _split_commas(text: str) -> list[str]:
    """Splits at commas outside of braces."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece.strip() for piece in pieces if piece.strip()]


def entries(source: Path) -> Iterator[Entry]:
    """The regular files of a tar (in its order) or of a folder (sorted), nothing read yet.

    Links and devices in a tar are passed over, and so are hidden files of a folder.

    Raises:
        BrokenSourceError: not a tar, or one cut off or damaged in the middle; after the entries
            before the damage.
    """
    return _folder_entries(source) if source.is_dir() else _tar_entries(source)


def _folder_entries(folder: Path) -> Iterator[Entry]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                relative = path.relative_to(folder).as_posix()
                yield Entry(relative, path.stat().st_size, _reading(path, path.read_bytes))


def _tar_entries(path: Path) -> Iterator[Entry]:
    with _damage_of(path):
        tar = tarfile.open(path)  # noqa: SIM115 (closed below, and by the collector)
    with tar:
        while True:
            with _damage_of(path):
                info = tar.next()
            if info is None:
                break
            tar.members = []  # type: ignore[attr-defined]  # one header at a time in memory
            if info.isreg():
                yield Entry(info.name, info.size, _reading(path, _tar_read(tar, info)))
        with _damage_of(path):
            # tarfile takes a damaged header for the end; a whole tar ends in a block of zeros.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)  # type: ignore[attr-defined]
            if tar.fileobj.read(_BLOCK) != bytes(_BLOCK):
                raise BrokenSourceError(f"{path}: damaged or cut off after {tar.offset} bytes")


def _tar_read(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        file = tar.extractfile(info)
        assert file is not None  # a regular file
        return file.read()

    return read


def _reading(path: Path, read: Callable[[], bytes]) -> Callable[[], bytes]:
    def guarded() -> bytes:
        with _damage_of(path):
            return read()

    return guarded


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenSourceError:
        raise
    # ValueError and OverflowError: header fields that are not the numbers they should be.
    except (
        *(tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError),
        *(ValueError, OverflowError),
    ) as error:
        raise BrokenSourceError(f"{path}: {error}") from error
