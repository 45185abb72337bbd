"""Local files only: which ones a source names, and what lies in them, one entry at a time.

webdataset's own opener is not used: it runs what follows `pipe:` in a shell, fetches addresses,
and reads every member whole before anyone can look at its size. The format is the same; the tests
read our tars with webdataset and its tars with ours.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlmteach.instances.sample import shown
from vlmteach.instances.tar import BrokenSourceError, Tar, open_tar
from vlmteach.text import open_regular, told

TARS = (".tar", ".tar.gz", ".tgz")
MOST_NAMES = 100_000
"""Names that one range of a brace pattern may stand for."""
MOST_BRACES = 64
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}")


class BrokenEntryError(BrokenSourceError):
    """A file of a folder that cannot be read; the others are as good as ever."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a tar or a folder, or what stands in the place of one."""

    name: str
    """Path within the tar or folder, with "/"; a linked folder's ends in one."""
    size: int
    read: Callable[[], bytes]
    """Works while the source is open. Raises BrokenSourceError."""
    at: int = 0
    """Where its bytes begin in a tar."""
    fault: str = ""
    """Why it cannot be read: a device, a link that leads out of the source."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open tar or folder."""

    entries: Callable[[], Iterator[Entry]]
    """The files of a tar (in its order) or of a folder (sorted), nothing read yet; another pass
    each time. Raises BrokenSourceError after the entries before a fault."""
    forward: bool = False
    """Whether reading backwards means starting over."""


def expand_sources(sources: str | Sequence[str]) -> list[Path]:
    """The tars and folders that sources name, in order.

    A source is a tar, a folder of tars, or a folder of loose files; several are given as a list or
    with commas, and brace patterns are expanded (`train-{000..003}.tar`). A folder with tars in it
    stands for these, by name, and then for loose samples beside them; one without, for its loose
    files.

    Raises:
        ValueError: no source, one that does not exist or stands twice, or one that is not a local
            path. `pipe:` and addresses are never opened, nor are pipes and devices.
    """
    texts = [sources] if isinstance(sources, str) else [str(source) for source in sources]
    paths: list[Path] = []
    for text in texts:
        for name in _names(text):
            path = Path(name)
            if not path.is_dir() and not path.is_file():
                raise ValueError(
                    f"instances: got {path}, a pipe or a device, expected a tar or a folder; save "
                    "it as a file"
                )
            paths.extend(_tars_and_loose(path) if path.is_dir() else [path])
    if not paths:
        raise ValueError("instances: got no source, expected a tar or a folder")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ValueError(f"instances: got {path} twice, expected every source once")
        seen.add(path.resolve())
    return paths


def _tars_and_loose(folder: Path) -> list[Path]:
    try:
        tars = sorted(path for path in folder.iterdir() if is_tar(path))
    except OSError as error:
        raise ValueError(
            f"instances: got {folder} ({error.strerror}), expected a folder that can be read"
        ) from error
    for tar in tars:
        if tar.is_symlink():
            try:
                inside(folder, tar)
            except ValueError as error:
                raise ValueError(
                    f"instances: got {error}, expected tars of the folder's own; name this one "
                    "itself"
                ) from error
    walk = os.walk(folder) if tars else ()
    loose = any(name.lower().endswith(".prompt.txt") for _, _, names in walk for name in names)
    return [*tars, folder] if loose or not tars else tars


def is_tar(path: Path) -> bool:
    """Whether a path has a tar's ending and is no folder; hidden files (`._a.tar`) are none."""
    name = path.name.lower()
    return name.endswith(TARS) and not name.startswith(".") and not path.is_dir()


def _names(text: str) -> Iterator[str]:
    from braceexpand import braceexpand

    try:
        exists = Path(text).exists()
    except (OSError, ValueError):  # longer than a path can be, or with a NUL
        exists = False
    if exists:  # a path may hold commas and braces of its own
        yield text
        return
    for start, end in _RANGE.findall(text):
        if len(start + end) > 40 or abs(int(end) - int(start)) >= MOST_NAMES:
            raise ValueError(
                f"instances: got a range {{{start[:20]}..{end[:20]}}}, expected one of at most "
                f"{MOST_NAMES} names; give it in parts"
            )
    for piece in _split_commas(text):
        if piece.count("{") > MOST_BRACES:
            raise ValueError(
                f"instances: got {shown(piece)}, expected at most {MOST_BRACES} braces; name fewer "
                "sources at once"
            )
        for name in braceexpand(piece):
            yield _checked(name)


def _checked(name: str) -> str:
    try:
        exists = Path(name).exists()
    except (OSError, ValueError):
        exists = False
    if exists:
        return name
    if _SCHEME.match(name):
        raise ValueError(
            f"instances: got {shown(name, 200)}, expected a local tar or folder; only local files "
            "are opened, so fetch it first"
        )
    raise ValueError(f"instances: got {shown(name, 200)}, expected a tar or folder that exists")


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


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Opens a tar or a folder.

    Raises:
        BrokenSourceError: neither, or a tar that cannot be opened.
    """
    if path.is_dir():
        yield Source(partial(_folder_entries, path))
        return
    with open_tar(path) as tar:
        yield Source(partial(_tar_entries, tar), forward=tar.compressed)


def _tar_entries(tar: Tar) -> Iterator[Entry]:
    for member in tar.members():
        try:
            file = tar.resolve(member)
        except BrokenSourceError:
            raise
        except ValueError as error:
            yield Entry(member.name, 0, bytes, fault=str(error))
        else:
            yield Entry(member.name, file.size, partial(tar.read, file), at=file.offset)


def _folder_entries(folder: Path) -> Iterator[Entry]:
    """Hidden folders are passed over. A linked folder is not followed: inside the source, its files
    are met under their own names; a link that leads out is an entry with a fault."""
    closed: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=closed.append):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if not Path(root, name).is_symlink()]
        for name in sorted({*visible, *names} - set(folders)):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix() + ("/" if name in visible else "")
            try:
                real = inside(folder, path) if path.is_symlink() else path
                found = real.stat()
                if not stat.S_ISREG(found.st_mode) and name not in visible:
                    raise ValueError("a pipe or a device")
            except (OSError, ValueError) as error:
                yield Entry(relative, 0, bytes, fault=told(error))
            else:
                if name not in visible:
                    yield Entry(relative, found.st_size, partial(_read, real, found.st_size))
    for error in closed:
        yield Entry(os.path.relpath(error.filename, folder) + "/", 0, bytes, fault=told(error))


def _read(path: Path, size: int) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(size + 1)
    except (OSError, ValueError) as error:
        raise BrokenEntryError(f"{path}: {told(error)}") from error
    if len(data) != size:
        raise BrokenEntryError(f"{path}: changed while it was read")
    return data


def inside(root: Path, path: Path) -> Path:
    """A path that a data set names, with its links followed, below the data set's own folder.

    A folder in the cache of the Hugging Face hub is made of links to the `blobs` beside its
    `snapshots`; these count as inside.

    Raises:
        ValueError: it leads out of the folder, by "..", as an absolute path or through a link.
    """
    try:
        real, home = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise ValueError(f"{shown(str(path))}, a link that leads to itself") from error
    cached = (f.parent.parent / "blobs" for f in (home, *home.parents) if _is_snapshot(f))
    if not any(real.is_relative_to(within) for within in (home, *cached)):
        named = path.relative_to(root) if path.is_relative_to(root) else path
        raise ValueError(f"{shown(str(named))}, which leads out of {root}")
    return real


def _is_snapshot(folder: Path) -> bool:
    return folder.parent.name == "snapshots"
