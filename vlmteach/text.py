"""Files and texts of unknown origin: read with a bound, decoded, and fit for a terminal."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BOMS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LONGEST_LINE = 16 * 2**20
"""Characters of a line in a table."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to read; never waits for one that has no end or no writer.

    Raises:
        OSError: it cannot be opened.
        ValueError: a folder, a pipe or a device.
    """
    # A pipe without a writer would block right here.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(handle, "rb")
    os.close(handle)
    got = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
    raise ValueError(f"{path}: got {got}, expected a file; name one, or save it as one")


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a file.

    Args:
        limit: bytes at most.

    Raises:
        ValueError: it cannot be read, is no regular file, or is larger.
    """
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ValueError(
            f"{path}: got {told(error)!r}, expected a file that can be read"
        ) from error
    if len(data) > limit:
        raise ValueError(f"{path}: got more than {limit} bytes, expected at most that; divide it")
    return data


def decode_text(data: bytes) -> str:
    """Text in UTF-8, with or without its mark (BOM), or in UTF-16 or UTF-32 with theirs.

    Raises:
        ValueError: none of these.
    """
    text = data.decode(_encoding(data))
    if "\0" in text:
        raise ValueError("NUL characters, as in UTF-16 without its mark")
    return text


def _encoding(start: bytes) -> str:
    return next((name for mark, name in _BOMS if start.startswith(mark)), "utf-8")


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends; bytes that are no UTF-8 become surrogates.

    Raises:
        OSError: it cannot be read.
        ValueError: no regular file, a line over `LONGEST_LINE`, or broken UTF-16.
    """
    with open_regular(path) as file:
        encoding = _encoding(file.read(4))
        file.seek(0)
        with io.TextIOWrapper(file, encoding, "surrogateescape", newline="") as text:
            while line := text.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"a line of more than {LONGEST_LINE} characters")
                yield line


def printable(text: str) -> str:
    """A text on one line without what could steer a terminal: odd characters as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def folder(text: str) -> Path:
    """A folder as a command line names it; an empty word is no working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "got an empty word, expected a folder; is a variable unset?"
        )
    return Path(text)


def told(error: Exception) -> str:
    """What an error says, without number and path where it comes from the system."""
    return getattr(error, "strerror", None) or str(error)
