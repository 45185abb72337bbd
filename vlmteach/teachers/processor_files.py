"""The files an official processor is made of, read without it: its classes need torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlmteach.teachers.pixels import PatchSpec


def patch_specs(checkpoint: str | Path) -> tuple[PatchSpec, PatchSpec]:
    """What a checkpoint does with images and with videos.

    A checkpoint without video_preprocessor_config.json (Qwen2.5-VL's) treats both alike.

    Args:
        checkpoint: a local folder or a hub id.

    Raises:
        ValueError: no preprocessor_config.json, or a file that lacks a field.
    """
    image = read(checkpoint, "preprocessor_config.json")
    if image is None:
        raise ValueError(
            f"teacher {checkpoint}: got no preprocessor_config.json, expected the file of a "
            "Qwen-VL checkpoint; save the processor beside the weights"
        )
    video = read(checkpoint, "video_preprocessor_config.json") or image
    return _patch_spec(checkpoint, image), _patch_spec(checkpoint, video)


def chat_template(checkpoint: str | Path, tokenizer: Any) -> str:
    """The chat template, sought where the official processor seeks it.

    Args:
        checkpoint: a local folder or a hub id.
        tokenizer: of the same checkpoint, as transformers loads it.

    Raises:
        ValueError: the checkpoint has none.
    """
    if (jinja := read(checkpoint, "chat_template.jinja")) is not None:
        return jinja
    if (legacy := read(checkpoint, "chat_template.json")) is not None:
        return json.loads(legacy)["chat_template"]
    if isinstance(tokenizer.chat_template, str):
        return tokenizer.chat_template
    raise ValueError(
        f"teacher {checkpoint}: got no chat template, expected chat_template.jinja, "
        "chat_template.json or one in tokenizer_config.json"
    )


def _patch_spec(checkpoint: str | Path, text: str) -> PatchSpec:
    content = json.loads(text)
    size = content.get("size") or {}
    try:
        return PatchSpec(
            patch=content["patch_size"],
            merge=content["merge_size"],
            temporal=content["temporal_patch_size"],
            mean=tuple(content["image_mean"]),
            std=tuple(content["image_std"]),
            min_pixels=content.get("min_pixels") or size["shortest_edge"],
            max_pixels=content.get("max_pixels") or size["longest_edge"],
        )
    except KeyError as error:
        raise ValueError(
            f"teacher {checkpoint}: got no field {error} in the preprocessor file, expected "
            "patch_size, merge_size, temporal_patch_size, image_mean, image_std and a size; is "
            "this a Qwen-VL checkpoint?"
        ) from None


def read(checkpoint: str | Path, name: str) -> str | None:
    """Text of one file of a local folder or hub checkpoint; None where it has none."""
    from transformers.utils.hub import cached_file

    path = cached_file(str(checkpoint), name, _raise_exceptions_for_missing_entries=False)
    return None if path is None else Path(path).read_text(encoding="utf-8")
