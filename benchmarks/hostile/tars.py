"""Hostile tars and sources of other kinds, as `list` and `pack` read them."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable

from benchmarks.hostile.plants import (
    END,
    GOOD,
    MINUS,
    SECRET,
    listed,
    member,
    no_secret,
    picture,
    sample,
)
from benchmarks.hostile.yard import Case, Command, Yard


def _tar(name: str, data: Callable[[], bytes], told: str, codes: tuple[int, ...] = (3,)) -> Case:
    return Case(
        part="tars", name=name, plant=lambda yard: listed(yard, data()), told=told, codes=codes
    )


def _text(key: str) -> bytes:
    return member(f"{key}.prompt.txt", b"Go.")


KINDS = {
    tarfile.SYMTYPE: "a symbolic link to",
    tarfile.LNKTYPE: "a hard link to",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.CHRTYPE: "a device",
}
TARS = (
    _tar("a dot in a key", lambda: sample("level_1.5") + END, r"level_1\.5", (0,)),
    _tar(
        "hard and symbolic links within the tar",
        lambda: (
            GOOD
            + _text("b")
            + member("b.first.png", kind=tarfile.LNKTYPE, link="a.first.png")
            + _text("c")
            + member("c.first.png", kind=tarfile.SYMTYPE, link="a.first.png")
            + END
        ),
        r"(?s)b\s.*image.*c\s.*image",
        (0,),
    ),
    _tar("two tars, one behind the other", lambda: GOOD + END + sample("b") + END, r"\bb\s", (0,)),
    *(
        _tar(
            f"{ending} in a picture's place",
            lambda e=ending: _text("b") + member(f"b.{e}", b"x") + END,
            rf"b\.{ending}|{ending}",
        )
        for ending in ("heic", "avif", "gif", "tif", "bmp", "first_frame.png")
    ),
    *(
        _tar(
            f"{KINDS[kind]} {link}".strip(),
            lambda k=kind, to=link: (
                GOOD + _text("b") + member("b.first.png", kind=k, link=to) + END
            ),
            told,
        )
        for kind, link, told in (
            (tarfile.SYMTYPE, "/etc/passwd", "leads out"),
            (tarfile.SYMTYPE, "../../../etc/passwd", "leads out"),
            (tarfile.LNKTYPE, "/etc/passwd", "leads out"),
            (tarfile.SYMTYPE, "b.first.png", "leads to itself"),
            (tarfile.SYMTYPE, "none", "not in the tar"),
            (tarfile.FIFOTYPE, "", "a pipe"),
            (tarfile.CHRTYPE, "", "a device"),
        )
    ),
    _tar(
        "a negative size", lambda: GOOD + member("b.first.png", size=MINUS) + END, "size of -1024"
    ),
    _tar(
        "a negative size in PAX",
        lambda: GOOD + member("b.first.png", pax={"size": "-3072"}) + END,
        "size of -3072",
    ),
    _tar(
        "a size of 8 GiB",
        lambda: GOOD + member("b.first.png", size=b"77777777777\0") + END,
        "more than there are",
    ),
    _tar(
        "a name of 3.5 GiB",
        lambda: GOOD + member("x", kind=tarfile.GNUTYPE_LONGNAME, size=b"33000000000\0") + END,
        "more than there are",
    ),
    _tar(
        "a PAX header of 1 MiB",
        lambda: GOOD + member("x", bytes(1 << 20), b"x") + END,
        "name or header of",
    ),
    _tar(
        "thousands of long names",
        lambda: GOOD + member("x", b"n" * 300, tarfile.GNUTYPE_LONGNAME) * 3000 + END,
        r"\ba\s",
        (0,),
    ),
    _tar("zeros without end", lambda: GOOD + bytes(64 << 20) + GOOD, "zeros in a row"),
    _tar("an escape in a key", lambda: sample("a\x1b]0;owned\x07\x1b[2J") + END, "a", (0, 3)),
    _tar(
        "line ends and direction marks in a key",
        lambda: sample("a\r\nerror: b\u202e") + END,
        "a",
        (0, 3),
    ),
    _tar("a key that climbs", lambda: sample("../../a") + END, "a", (0, 3)),
    _tar(
        "members named . and ..",
        lambda: member(".", b"x") + member("..", b"x") + GOOD + END,
        r"\ba\s",
        (0, 3),
    ),
    _tar("no tar at all", lambda: os.urandom(5000), "damaged|no tar|unreadable"),
    _tar("an empty file", lambda: b"", "no sample|empty|unreadable"),
    _tar("cut in a picture", lambda: sample("b") + GOOD[:-300], "cut|more than there are|damaged"),
)


def _compressed(yard: Yard) -> Command:
    data = gzip.compress(GOOD + member("c.bin", size=b"77777777777\0") + bytes(100 << 20), 1)
    return listed(yard, data, "data.tar.gz")


def _zip_in_gzip(yard: Yard) -> Command:
    return listed(yard, gzip.compress(GOOD)[:-50], "data.tar.gz")


def _source(name: str) -> Callable[[Yard], Command]:
    return lambda yard: ["vlmteach.instances", "list", name]


def _pipe(yard: Yard) -> Command:
    os.mkfifo(yard.work / "data.tar")
    return ["vlmteach.instances", "list", "data.tar"]


def _pipe_within(yard: Yard) -> Command:
    (yard.work / "loose").mkdir()
    os.mkfifo(yard.work / "loose/b.prompt.txt")
    (yard.work / "loose/a.prompt.txt").write_text("Go.")
    return ["vlmteach.instances", "list", "loose"]


def _loose_link(target: str, name: str = "a.first.png") -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        loose = yard.work / "loose"
        loose.mkdir()
        (yard.work / "secret.png").write_bytes(picture())
        (yard.work / "secrets").mkdir()
        (yard.work / "secrets/s.prompt.txt").write_text(SECRET)
        (loose / "a.prompt.txt").write_text("Go.")
        (loose / name).symlink_to(target)
        return ["vlmteach.instances", "list", "loose"]

    return plant


def _vbvr_link(target: str) -> Callable[[Yard], Command]:
    def plant(yard: Yard) -> Command:
        (yard.work / "secret.png").write_bytes(picture())
        folder = yard.work / "v/In-Domain_50/O-30_bookshelf_data-generator/00000"
        folder.mkdir(parents=True)
        (folder / "prompt.txt").write_text("Go.")
        (folder / "first_frame.png").symlink_to(target)
        return ["vlmteach.instances", "pack", "v", "out.tar"]

    return plant


SOURCES = (
    Case(
        part="tars",
        name="8 GiB of an ignored member, compressed",
        plant=_compressed,
        codes=(3,),
        told="more than",
    ),
    Case(
        part="tars",
        name="cut in its compression",
        plant=_zip_in_gzip,
        codes=(3,),
        told="cut|damaged|ended",
    ),
    Case(part="sources", name="a pipe", plant=_pipe, told="a pipe or a device"),
    Case(part="sources", name="/dev/zero", plant=_source("/dev/zero"), told="a pipe or a device"),
    Case(
        part="sources",
        name="a pipe in a folder",
        plant=_pipe_within,
        codes=(3,),
        told="a pipe or a device",
    ),
    Case(
        part="sources", name="{0..999999999}", plant=_source("s-{0..999999999}.tar"), told="names"
    ),
    Case(
        part="sources",
        name="thousands of braces",
        plant=_source("{a,b}" * 3000),
        told="brace|names|long",
    ),
    Case(
        part="sources",
        name="a URL",
        plant=_source("https://127.0.0.1:9/a.tar"),
        told="local|URL|no file",
    ),
    Case(
        part="sources",
        name="a command (pipe:)",
        plant=_source("pipe:touch owned"),
        told="local|pipe|no file",
    ),
    *(
        Case(
            part="links",
            name=f"a loose {name} to {target}",
            plant=_loose_link(target, name),
            codes=(0,) if target == "." else (3,),  # a circle holds nothing that is not seen
            told="1 used" if target == "." else "link|leads|outside",
        )
        for name, target in (
            ("a.first.png", "../secret.png"),
            ("a.first.png", "/etc/passwd"),
            ("b", "../secrets"),
            ("b", "."),
            ("a.first.png", "a.first.png"),
            ("b.prompt.txt", "/dev/zero"),
        )
    ),
    *(
        Case(
            part="links",
            name=f"VBVR's first frame to {target}",
            plant=_vbvr_link(target),
            codes=(3,),
            told="link|leads|outside",
            after=no_secret,
        )
        for target in ("../../../../secret.png", "/etc/passwd", "/dev/zero")
    ),
)


CASES = (*TARS, *SOURCES)
