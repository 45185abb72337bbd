"""A raw sample to an Instance, every field checked. The samples may be a stranger's."""

from __future__ import annotations

import hashlib
import json
import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

from vlmteach.instances.sample import (
    FIRST_FRAMES,
    MAX_PIXELS,
    InstanceError,
    RawSample,
    shown,
)
from vlmteach.text import decode_text
from vlmteach.types import Instance, Query
from vlmteach.video import FASTEST, SLOWEST

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_INTEGERS = {"frames": (1, 10_000), "height": (1, 8192), "width": (1, 8192), "seed": (0, 2**63 - 1)}
_NAMES = ("task", "category", "split")
FIELDS = ("fps", "queries", *_INTEGERS, *_NAMES)
"""What `<key>.json` may hold."""


def decode(raw: RawSample) -> Instance:
    """Decodes and checks one sample.

    The prompt is UTF-8 (or UTF-16 with its mark), stripped. The first frame is PNG, JPEG or WebP by
    its content, turned upright by its EXIF orientation and made RGB; transparent pixels are laid
    over white; of an animation, the first picture counts.

    Raises:
        InstanceError: the sample's problem, or the first fault found.
    """
    if raw.problem is not None:
        raise raw.problem
    check = _Check(raw)
    prompt = check.prompt()
    name = _first_frame_member(raw)
    return Instance(
        key=raw.key,
        prompt=prompt,
        first_frame=decode_image(raw, name) if name else None,
        digest=content_digest(raw),
        **check.fields(),
    )


def prompt_of(raw: RawSample) -> str:
    """The prompt that `decode` gives the instance, without looking at the rest.

    Raises:
        InstanceError: the sample's problem, or no readable prompt.
    """
    if raw.problem is not None:
        raise raw.problem
    return _Check(raw).prompt()


def _first_frame_member(raw: RawSample) -> str | None:
    return next((member for member in FIRST_FRAMES if member in raw.members), None)


def content_digest(raw: RawSample) -> str:
    """The digest that `decode` gives the instance, without decoding its image.

    sha256 over the prompt, the first frame's encoded bytes and the JSON fields' bytes, each
    behind its length; nothing for a member that is absent.

    Raises:
        InstanceError: the sample has no readable prompt.
    """
    image = raw.members.get(_first_frame_member(raw) or "", b"")
    digest = hashlib.sha256()
    for part in (_Check(raw).prompt().encode(), image, raw.members.get("json", b"")):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def decode_image(raw: RawSample, name: str) -> Image:
    """A member as an RGB image, its header checked before its pixels are decoded.

    Raises:
        InstanceError: not a PNG, JPEG or WebP of 8 bits a channel, damaged, or too many pixels.
    """
    from PIL import Image, ImageOps

    refusal = _Check(raw).refusal
    try:
        # Reads the header only.
        image = Image.open(BytesIO(raw.members[name]), formats=("PNG", "JPEG", "WEBP"))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise refusal(
                name, f"{width}x{height}", f"at most {MAX_PIXELS} pixels", "scale it down"
            )
        if image.mode not in _MODES:
            raise refusal(
                name, f"pixels of mode {image.mode}", "8 bits a channel", "save it as 8-bit RGB"
            )
        image.load()
        return _flatten(ImageOps.exif_transpose(image))
    except InstanceError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged files
        raise refusal(
            name, shown(error), "a PNG, JPEG or WebP image", "save the image again"
        ) from error


class _Check:
    """Reads the members of one sample, and refuses them by name."""

    def __init__(self, raw: RawSample) -> None:
        self.raw = raw

    def refusal(self, field: str, got: str, expected: str, remedy: str) -> InstanceError:
        return InstanceError(
            key=self.raw.key,
            source=self.raw.source,
            field=field,
            got=got,
            expected=expected,
            remedy=remedy,
        )

    def prompt(self) -> str:
        data = self.raw.members.get("prompt.txt")
        if data is None:
            got = f"only {sorted(self.raw.members)}" if self.raw.members else "no member"
            raise self.refusal("prompt.txt", got, "a prompt", "add <key>.prompt.txt")
        try:
            text = decode_text(data).strip()
        except ValueError as error:
            raise self.refusal(
                "prompt.txt", str(error), "UTF-8 text", "save the file as UTF-8"
            ) from error
        if not text:
            raise self.refusal("prompt.txt", "no text", "a prompt", "write one")
        return text

    def fields(self) -> dict[str, Any]:
        data = self.raw.members.get("json")
        if data is None:
            return {}
        try:
            given = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.refusal("json", str(error), "a JSON object", "repair it") from error
        if not isinstance(given, dict):
            raise self.refusal("json", shown(given), "a JSON object", "put the fields in {}")
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in FIELDS:
                raise self.refusal(
                    f"json: {shown(name)}", "an unknown field", ", ".join(FIELDS), "rename it"
                )
        if ("height" in given) != ("width" in given):
            raise self.refusal("json: height, width", "one of them", "both or neither", "add it")
        return {name: self._field(name, value) for name, value in given.items()}

    def _field(self, name: str, value: Any) -> Any:
        if name in _INTEGERS:
            low, high = _INTEGERS[name]
            if type(value) is int and low <= value <= high:
                return value
            raise self.refusal(f"json: {name}", shown(value), f"{low} to {high}", "correct it")
        if name == "fps":
            number = type(value) in (int, float) and math.isfinite(value)
            if number and SLOWEST <= value <= FASTEST:
                return float(value)
            expected = f"{SLOWEST} to {FASTEST}"
            raise self.refusal("json: fps", shown(value), expected, "correct it")
        if name in _NAMES:
            return self._text(name, value, 200)
        return self._queries(value)

    def _queries(self, value: Any) -> tuple[Query, ...]:
        form = '{"goal": question, "process": [one to three questions]}'
        if not isinstance(value, dict) or set(value) != {"goal", "process"}:
            raise self.refusal("json: queries", shown(value), form, "give both, or no queries")
        process = value["process"]
        if not isinstance(process, list) or not 1 <= len(process) <= 3:
            raise self.refusal("json: queries.process", shown(process), form, "give one to three")
        goal = Query(self._text("queries.goal", value["goal"], 1000), "goal")
        return (
            goal,
            *(Query(self._text("queries.process", text, 1000), "process") for text in process),
        )

    def _text(self, name: str, value: Any, longest: int) -> str:
        if isinstance(value, str) and 0 < len(value.strip()) <= longest:
            try:
                value.encode()  # JSON can spell half a surrogate pair, which no file can hold
                return value.strip()
            except UnicodeEncodeError:
                pass
        raise self.refusal(
            f"json: {name}", shown(value), f"text of 1 to {longest} characters", "correct it"
        )


def _flatten(image: Image) -> Image:
    """RGB, transparent pixels laid over white."""
    from PIL import Image as images

    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = images.new("RGBA", image.size, "white")
        image = images.alpha_composite(white, image)
    return image.convert("RGB")
