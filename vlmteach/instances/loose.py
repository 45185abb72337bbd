"""Instances that lie in no tar: a prompt and perhaps a picture, a folder of pictures, lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.instances.decode import decode
from vlmteach.instances.sample import FIRST_FRAMES, LIMITS, RawSample
from vlmteach.text import decode_text, printable, read_file
from vlmteach.types import Instance

if TYPE_CHECKING:
    from PIL.Image import Image

KEY = "instance"
"""Key of an instance that is given none; seeds derive from it."""
LINES = "-"
"""The word that stands for standard input."""
_PICTURES = {Path(name).suffix for name in FIRST_FRAMES}
_TEXTS = (".txt", ".prompt.txt")
_OTHER_COLOURS = ("CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True, slots=True)
class Loose:
    """What to solve, not read yet."""

    key: str
    prompt: str
    image: Path | None

    def instance(self, goal: str | None = None, process: Sequence[str] = ()) -> Instance:
        """Read and checked; arguments as of `instance_of`."""
        return instance_of(self.prompt, self.image, goal=goal, process=process, key=self.key)


def instance_of(
    prompt: str,
    image: str | Path | Image | None = None,
    *,
    goal: str | None = None,
    process: Sequence[str] = (),
    key: str,
    seed: int | None = None,
) -> Instance:
    """The instance that a tar with these members would give.

    Args:
        prompt: the task.
        image: the first frame, PNG, JPEG or WebP, or a PIL image; None for text-to-video.
        goal: with `process`, the queries to ask.
        process: one to three.
        key: the instance's.
        seed: in place of the run's.

    Raises:
        ValueError: for a member that cannot be read or used, or one of goal and process alone.
    """
    if (goal is None) != (not process) or isinstance(process, str):
        raise ValueError(
            f"goal, process: got {goal!r} and {process!r}, expected a question and a list of one "
            "to three, or neither"
        )
    for name, given in (("prompt", prompt), ("key", key)):
        if not isinstance(given, str):
            raise ValueError(f"{name}: got {type(given).__name__}, expected a text")
    members = {"prompt.txt": prompt.encode()}
    if isinstance(image, str | Path):
        members["first.png"] = read_file(Path(image), LIMITS["first.png"])
    elif image is not None:
        members["first.png"] = _png(image)
    fields: dict[str, Any] = {} if seed is None else {"seed": index(seed)}
    if goal is not None:
        fields["queries"] = {"goal": goal, "process": list(process)}
    if fields:
        members["json"] = json.dumps(fields).encode()
    return decode(RawSample(key=key, source="", members=members))


def _png(image: Any) -> bytes:
    """A PIL image as the file it came from would be read: upright, in colours that PNG has."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise ValueError(
            f"image: got {type(image).__name__}, expected a path or a PIL image; "
            "PIL.Image.fromarray makes one of an array"
        )
    upright, data = ImageOps.exif_transpose(image), BytesIO()
    if upright.mode in _OTHER_COLOURS:
        upright = upright.convert("RGB")
    try:
        upright.save(data, "PNG")
    except (OSError, ValueError) as error:
        raise ValueError(f"image: got {error}, expected one of 8 bits; convert it") from error
    return data.getvalue()


def loose_of(
    words: Sequence[str], *, key: str | None, lines: Iterable[str]
) -> tuple[list[Loose], list[str]]:
    """What some words of a command line stand for.

    Args:
        words: `IMAGE PROMPT`, `PROMPT`, `IMAGE` with its text beside it, a folder of such, or "-".
        key: of the one instance; several have keys of their own. None: `KEY`.
        lines: read where the word is "-": `image<TAB>prompt`, or a prompt alone.

    Returns:
        At least one to solve, and the names in a folder that were left out: texts without a
        picture.

    Raises:
        ValueError: words that stand for nothing, a picture without a text, keys that meet.
    """
    if any(not word.strip() for word in words):
        raise ValueError("got an empty word, expected a prompt or a picture; is a variable unset?")
    several = words == [LINES] or (len(words) == 1 and Path(words[0]).is_dir())
    if several and key is not None:
        raise ValueError(
            f"--key: got {key!r} for several instances, expected none: a picture's name is its "
            "key; leave it out"
        )
    if words == [LINES]:
        return _of_lines(lines), []
    if several:
        return _of_folder(Path(words[0]))
    key = KEY if key is None else key
    match words:
        case [word] if _is_picture(Path(word)):
            return [Loose(key, _text_beside(Path(word)), _file(word))], []
        case [prompt]:
            return [Loose(key, prompt, None)], []
        case [image, prompt]:
            return [Loose(key, prompt, _file(image))], []
    raise ValueError(
        f"got {len(words)} words, expected IMAGE PROMPT, PROMPT, a folder or -; quote the prompt"
    )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _PICTURES and path.is_file()


def _file(name: str, where: str = "") -> Path:
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"{where}got {name!r}, expected a file that exists; name a picture")
    return path


def _text_beside(picture: Path) -> str:
    texts = [picture.with_suffix(ending) for ending in _TEXTS]
    path = next((text for text in texts if text.is_file()), None)
    if path is None:
        raise ValueError(
            f"{printable(str(picture))}: got no {printable(texts[0].name)} beside it, expected the "
            "task in it; write one"
        )
    data = read_file(path, LIMITS["prompt.txt"])
    try:
        return decode_text(data).strip()
    except ValueError as error:
        raise ValueError(f"{path}: got {error}, expected UTF-8 text; save it as UTF-8") from error


def _of_folder(folder: Path) -> tuple[list[Loose], list[str]]:
    found: dict[str, Loose] = {}
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in filter(_is_picture, files):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{printable(str(path))}: got a link out of the folder, expected a picture in it; "
                "copy it there"
            )
        if path.stem in found:
            raise ValueError(
                f"{printable(str(path))}: got the key {path.stem!r} again, first from "
                f"{found[path.stem].image}, expected each once; rename one"
            )
        found[path.stem] = Loose(path.stem, _text_beside(path), path)
    if not found:
        raise ValueError(
            f"{folder}: got no picture, expected PNG, JPEG or WebP files with name.txt beside "
            "them; samples with .prompt.txt members are for vlmteach fit --instances"
        )
    texts = {name + ending for name in found for ending in _TEXTS}
    left = [p.name for p in files if p.suffix.lower() == ".txt" and p.name not in texts]
    return list(found.values()), left


def _of_lines(lines: Iterable[str]) -> list[Loose]:
    """Keys are of what a line says, not of its number: the draws are the same in any order."""
    found: dict[str, int] = {}
    loose: list[Loose] = []
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix("\ufeff") if number == 1 else line  # as Windows' editors begin
        image, tab, prompt = line.strip("\r\n").rpartition("\t")
        if not prompt.strip():
            if not image.strip():
                continue
            raise ValueError(f"line {number}: got no prompt, expected image<TAB>prompt; write one")
        path = _file(image, f"line {number}: ") if tab else None
        named = "text" if path is None else path.stem
        key = f"{named}-{hashlib.sha256(prompt.strip().encode()).hexdigest()[:8]}"
        if key in found:
            raise ValueError(
                f"line {number}: got the picture's name and prompt of line {found[key]} again, "
                "expected each once; leave one out"
            )
        found[key] = number
        loose.append(Loose(key, prompt.strip(), path))
    if not loose:
        raise ValueError("-: got no line, expected image<TAB>prompt, or a prompt alone, a line")
    return loose
