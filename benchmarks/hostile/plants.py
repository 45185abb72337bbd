"""What cases plant: tars with any header, pictures, checkpoints, code that leaves a canary."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.faults import OPTIONS, write_instances
from benchmarks.hostile.yard import Command, Yard
from vlmteach.builtin.paths import builtin_path

END = bytes(1024)
"""Of a tar."""
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4096\n"


def picture() -> bytes:
    """A red PNG."""
    data = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(data, "PNG")
    return data.getvalue()


MINUS = (-1024 % 256**12).to_bytes(12, "big")
"""A negative size in GNU's binary form."""
SECRET = "root:x:0:0"
"""What stands in a file that no sample may take."""


def no_secret(yard: Yard) -> str:
    """Whether a secret was packed, in words."""
    tar = yard.work / "out.tar"
    return "a secret was packed" if tar.exists() and SECRET.encode() in tar.read_bytes() else ""


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels, by its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def member(
    name: str,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    *,
    link: str = "",
    size: bytes | None = None,
    pax: dict[str, str] | None = None,
) -> bytes:
    """A member's blocks with a valid checksum.

    Args:
        name: of the member.
        data: its content.
        kind: its type.
        link: where it leads.
        size: 12 bytes that stand where the size belongs, whatever they say.
        pax: fields of a header before it.
    """
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    info.pax_headers = pax or {}
    blocks = bytearray(info.tobuf(tarfile.PAX_FORMAT))
    if size is not None:
        start = len(blocks) - 512
        blocks[start + 124 : start + 136] = size
        blocks[start + 148 : start + 156] = b" " * 8
        blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks) + data + bytes(-len(data) % 512)


def sample(key: str, **files: bytes) -> bytes:
    """A good sample's members; others of its members by keyword."""
    own = {"prompt.txt": b"Move the square.", "first.png": picture()}
    own |= {name.replace("_", "."): data for name, data in files.items()}
    return b"".join(member(f"{key}.{name}", data) for name, data in own.items())


GOOD = sample("a")


def listed(yard: Yard, data: bytes, name: str = "data.tar") -> Command:
    """`vlmteach list` of a tar of these bytes."""
    (yard.work / name).write_bytes(data)
    return ["vlmteach.instances", "list", name]


def packed(yard: Yard, text: str | bytes, name: str = "data.csv") -> Command:
    """`vlmteach pack` of a table of this text, beside a picture."""
    (yard.work / "a.png").write_bytes(picture())
    (yard.work / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return ["vlmteach.instances", "pack", name, "out.tar"]


def fitted(yard: Yard, *words: str, data: bytes | None = None) -> Command:
    """`vlmteach.fit` of two good instances, or of a tar of these bytes."""
    if data is None:
        write_instances(yard.work / "data.tar", 2)
    else:
        (yard.work / "data.tar").write_bytes(data)
    own = ["--fit.steps=1", "--instances", "data.tar", "--out", "out"]
    return ["vlmteach.fit", *OPTIONS, *own, *words]


KEY = "move__ball_0"
"""The folder of the first of the two good instances."""


def checkpoint(yard: Yard, part: str) -> Path:
    """A copy of the small random teacher, reasoner or decoder, to be spoilt."""
    name = {"teacher": "qwen3_vl", "reasoner": "wan", "decoder": "taehv.safetensors"}[part]
    source, target = builtin_path(f"random/{name}"), yard.work / part
    if source.is_dir():
        return Path(shutil.copytree(source, target))
    return Path(shutil.copy(source, target.with_suffix(source.suffix)))


def fitted_with(yard: Yard, part: str, *words: str) -> Command:
    """`vlmteach.fit` with the copy that `checkpoint` made."""
    name = "./decoder.safetensors" if part == "decoder" else f"./{part}"
    return fitted(yard, f"--{part}.checkpoint={name}", *words)


def change(path: Path, **fields: Any) -> None:
    """Lays fields over a JSON file, a dict over a dict; writes one where there is none."""
    content = json.loads(path.read_text()) if path.exists() else {}
    for name, value in fields.items():
        both = isinstance(value, dict) and isinstance(content.get(name), dict)
        content[name] = {**content[name], **value} if both else value
    path.write_text(json.dumps(content))


def code(yard: Yard) -> str:
    """Python that leaves the canary."""
    return f"open({str(yard.canary)!r}, 'w').close()\n"


def python_yaml(yard: Yard) -> str:
    """YAML that leaves the canary where a loader makes objects."""
    return f'run: !!python/object/apply:exec ["{code(yard).strip()}"]\n'


def pickled(source: str) -> bytes:
    """A pickle that executes some Python, in the form of Python's protocol 0."""
    text = source.strip().encode("unicode_escape")
    return b"cbuiltins\nexec\n(V" + text + b"\ntR."


class Evil:
    """Leaves the canary when it is unpickled."""

    def __init__(self, yard: Yard) -> None:
        self.code = code(yard)

    def __reduce__(self) -> Any:
        return exec, (self.code,)
