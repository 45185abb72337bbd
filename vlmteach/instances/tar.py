"""Tar archives, header by header: no number in one is believed, and what is skipped is not read.

The interpreter's own reader goes in circles over a negative size, reads extension headers whole
whatever their size, and takes a second archive behind the first for nothing.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vlmteach.text import open_regular, printable, told

KIB, MIB = 2**10, 2**20
LONGEST_EXTENSION = 256 * KIB
"""Bytes of a long name or a PAX header."""
EXPANSION, SLACK = 200, 256 * MIB
"""What a compressed tar may hold: `EXPANSION` times its own bytes and `SLACK`."""
PADDING = 4 * MIB
"""Zeros at most between the archives of a file, and behind the last."""
HOPS = 16
"""Links that may lead to each other."""
_BLOCK = tarfile.BLOCKSIZE
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_NAMES = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_EXTENSIONS = {*_PAX, *_NAMES, tarfile.XGLTYPE}
_WITHOUT_DATA = {
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
}


class BrokenSourceError(ValueError):
    """A file that stopped making sense; what came before was good."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive, or what its header makes of it."""

    name: str
    type: bytes
    """As in the header; `REGTYPE` for every regular file."""
    offset: int
    """Of its data."""
    size: int
    target: str
    """Of a link."""


class Tar:
    """An open archive, or several one behind the other; made by `open_tar`.

    Args:
        file: its bytes, decompressed.
        raw: the file as it lies on disk.
    """

    def __init__(self, path: Path, file: IO[bytes], raw: IO[bytes]) -> None:
        self.path = path
        self.compressed = file is not raw
        """Whether reading backwards means starting over."""
        self._file, self._raw = file, raw
        self._state = _state(raw)
        self._bound = self._state[0] * EXPANSION + SLACK if self.compressed else self._state[0]
        self._index: dict[str, Member] | None = None

    def members(self) -> Iterator[Member]:
        """All members but folders, in order.

        Raises:
            BrokenSourceError: damaged, cut off, or changed while it was read; after the members
                before the fault.
        """
        at, zeros, extra = 0, 0, {}
        while True:
            block = self._take(at, _BLOCK)
            if zeros and not block.strip(b"\0"):
                if not block:
                    self._check()
                    return
            elif len(block) < _BLOCK:
                raise self._broken(f"cut off after {at + len(block)} bytes")
            at += len(block)
            if not block.strip(b"\0"):
                zeros += len(block)
                if zeros > PADDING:
                    raise self._broken(f"more than {PADDING} zeros in a row before byte {at}")
                continue
            zeros = 0
            info, size = self._header(block, at - _BLOCK, extra)
            stored = 0 if info.type in _WITHOUT_DATA else size
            more = 482  # where a sparse file's header says that its map goes on
            while info.type == tarfile.GNUTYPE_SPARSE and block[more]:
                block, more = self._take(at, _BLOCK), 504
                at += len(block)
                if len(block) < _BLOCK:
                    raise self._broken(f"cut off after {at} bytes")
            if at + stored > self._bound:
                raise self._broken(
                    f"member {printable(info.name)!r} of {size} bytes at byte {at}, more than "
                    f"{'it may hold' if self.compressed else 'there are'}"
                )
            data, at = at, at + -(-stored // _BLOCK) * _BLOCK
            if info.type in _EXTENSIONS:
                extra |= self._extension(info, data)
                continue
            sparse = info.type == tarfile.GNUTYPE_SPARSE or "sparse" in extra
            if not info.isdir():
                yield Member(
                    name=extra.get("path", info.name),
                    type=tarfile.GNUTYPE_SPARSE if sparse else _type(info),
                    offset=data,
                    size=size,
                    target=extra.get("linkpath", info.linkname),
                )
            extra = {}

    def resolve(self, member: Member) -> Member:
        """The regular file that a member is or leads to.

        Raises:
            ValueError: it is none, or leads out of the archive; says what was got.
        """
        found = member
        for _ in range(HOPS):
            if found.type == tarfile.REGTYPE:
                return found
            if found.type not in (tarfile.LNKTYPE, tarfile.SYMTYPE):
                raise ValueError("a device, a pipe or a sparse file")
            if self.compressed:
                raise ValueError("a link in a compressed tar, which is not read twice")
            target = found.target
            if found.type == tarfile.SYMTYPE:
                target = posixpath.join(posixpath.dirname(found.name), target)
            target = posixpath.normpath(target)
            told = printable(found.target)
            if target.startswith(("/", "../")) or target == "..":
                raise ValueError(f"a link to {told!r}, which leads out of the tar")
            if self._index is None:
                self._index = {}
                with suppress(BrokenSourceError):  # whoever asked meets the fault as well
                    for each in self.members():
                        self._index[posixpath.normpath(each.name)] = each
            if target not in self._index:
                raise ValueError(f"a link to {told!r}, which is not in the tar")
            found = self._index[target]
        raise ValueError("a link that leads to itself")

    def read(self, member: Member) -> bytes:
        """The bytes of a regular file.

        Raises:
            BrokenSourceError: it was cut or changed since it was opened.
        """
        data = self._take(member.offset, member.size)
        self._check()
        if len(data) < member.size:
            raise self._broken(f"cut off after {member.offset + len(data)} bytes")
        return data

    def _check(self) -> None:
        if _state(self._raw) != self._state:
            raise self._broken("changed while it was read")

    def _header(self, block: bytes, at: int, extra: dict[str, str]) -> tuple[tarfile.TarInfo, int]:
        """A header and the size of what it stands before."""
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            size = info.size if info.type in _EXTENSIONS else int(extra.get("size", info.size))
            if size < 0:
                raise ValueError(f"a size of {size}")
        except (tarfile.TarError, ValueError) as error:
            raise self._broken(f"damaged at byte {at} ({error})") from error
        return info, size

    def _extension(self, info: tarfile.TarInfo, at: int) -> dict[str, str]:
        """What a header of type `_EXTENSIONS` says of the member behind it."""
        if info.size > LONGEST_EXTENSION:
            raise self._broken(f"a name or header of {info.size} bytes at byte {at}")
        payload = self._take(at, info.size)
        if info.type in _NAMES:
            text = payload.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            return {_NAMES[info.type]: text}
        try:
            return _pax(payload) if info.type in _PAX else {}
        except ValueError as error:
            raise self._broken(f"a damaged header at byte {at} ({error})") from error

    def _take(self, at: int, size: int) -> bytes:
        with _damage_of(self.path):
            self._file.seek(at)
            return self._file.read(size)

    def _broken(self, got: str) -> BrokenSourceError:
        return BrokenSourceError(f"{self.path}: {got}")


@contextmanager
def open_tar(path: Path) -> Iterator[Tar]:
    """Opens a tar, plain or compressed by gzip, bzip2 or xz.

    Raises:
        BrokenSourceError: it cannot be opened, or is no regular file.
    """
    with _damage_of(path):
        raw = open_regular(path)
    with raw:
        start = raw.read(_BLOCK)
        raw.seek(0)
        magic = next((magic for magic in _OPENERS if start.startswith(magic)), b"")
        # A member's name may begin like a compressed file.
        opener: Any = None if _is_header(start) else _OPENERS.get(magic)
        if opener is None:
            yield Tar(path, raw, raw)
        else:
            with opener(raw, "rb") as file:
                yield Tar(path, file, raw)


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise BrokenSourceError(f"{path}: {told(error).removeprefix(f'{path}: ')}") from error


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _state(file: IO[bytes]) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _type(info: tarfile.TarInfo) -> bytes:
    """What is neither a link nor special is a file, as POSIX has it of unknown types."""
    return info.type if info.type in _WITHOUT_DATA else tarfile.REGTYPE


def _pax(payload: bytes) -> dict[str, str]:
    """The fields of a PAX header that matter here. Raises ValueError."""
    found = {}
    while payload.strip(b"\0"):
        length, _, _ = payload.partition(b" ")
        if int(length) <= len(length):
            raise ValueError(f"a record of {int(length)} bytes")
        record, payload = payload[: int(length)], payload[int(length) :]
        name, _, value = record[len(length) + 1 : -1].partition(b"=")
        if name.startswith(b"GNU.sparse."):
            found["sparse"] = "yes"
        if name in (b"path", b"linkpath", b"size", b"GNU.sparse.name"):
            key = name.removeprefix(b"GNU.sparse.").replace(b"name", b"path").decode()
            found[key] = value.decode("utf-8", "surrogateescape")
    return found
