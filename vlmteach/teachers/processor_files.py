"""The files an official processor is made of, read without it: its classes need torchvision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vlmteach.checkpoints.files import CheckpointError, read_json, read_text
from vlmteach.teachers.pixels import PatchSpec


def preprocessors(checkpoint: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a checkpoint's files say of images and of videos.

    Sought where transformers seeks it: nested in processor_config.json, as transformers 5 saves
    it, or in a file of its own, or for videos in the images' file.

    Args:
        checkpoint: a local folder or a hub id.

    Raises:
        CheckpointError: there is nothing on images, or a file that cannot be read.
    """
    nested = _content(checkpoint, "processor_config.json")
    image = nested.get("image_processor") or _content(checkpoint, "preprocessor_config.json")
    video = nested.get("video_processor") or _content(checkpoint, "video_preprocessor_config.json")
    if not image or not isinstance(image, dict):
        raise CheckpointError(
            f"teacher {checkpoint}: got no preprocessor_config.json, nor an image_processor in "
            "processor_config.json, expected what the checkpoint's processor does with images; "
            "save the processor beside the weights"
        )
    return image, video if isinstance(video, dict) and video else image


def patch_specs(checkpoint: str | Path) -> tuple[PatchSpec, PatchSpec]:
    """What a Qwen-VL checkpoint does with images and with videos.

    Args:
        checkpoint: a local folder or a hub id.

    Raises:
        CheckpointError: no preprocessor file, or one that lacks a field or holds no sizes.
    """
    image, video = preprocessors(checkpoint)
    return _patch_spec(checkpoint, image), _patch_spec(checkpoint, video)


def whole(value: Any) -> int:
    """A size as a file states it.

    Raises:
        ValueError: it is no whole number from 1 to 2^31.
    """
    if not isinstance(value, int) or not 1 <= value <= 2**31:
        raise ValueError(f"{str(value)[:40]} where a size should be")
    return value


def colour(values: Any, least: float = -math.inf) -> tuple[float, ...]:
    """A mean or a deviation of three colours.

    Raises:
        ValueError: it is not three finite numbers above `least`.
    """
    numbers = tuple(values) if isinstance(values, list | tuple) else ()
    fits = [isinstance(x, int | float) and math.isfinite(x) and x > least for x in numbers]
    if len(fits) != 3 or not all(fits):
        raise ValueError(f"{str(values)[:40]} where three numbers should be")
    return numbers


def _patch_spec(checkpoint: str | Path, content: dict[str, Any]) -> PatchSpec:
    size = content.get("size") or {}
    try:
        return PatchSpec(
            patch=whole(content["patch_size"]),
            merge=whole(content["merge_size"]),
            temporal=whole(content["temporal_patch_size"]),
            mean=colour(content["image_mean"]),
            std=colour(content["image_std"], least=0),
            min_pixels=whole(content.get("min_pixels") or size["shortest_edge"]),
            max_pixels=whole(content.get("max_pixels") or size["longest_edge"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        got = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"teacher {checkpoint}: got {got} in the preprocessor file, expected patch_size, "
            "merge_size, temporal_patch_size, image_mean, image_std and a size; is this a Qwen-VL "
            "checkpoint?"
        ) from None


def _content(checkpoint: str | Path, name: str) -> dict[str, Any]:
    path = local_file(checkpoint, name)
    return {} if path is None else read_json(path) or {}


def read(checkpoint: str | Path, name: str) -> str | None:
    """Text of one file of a local folder or hub checkpoint; None where it has none."""
    path = local_file(checkpoint, name)
    return None if path is None else read_text(path)


def local_file(checkpoint: str | Path, name: str) -> Path | None:
    """Where one file of a local folder or hub checkpoint lies; None where it has none."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint) / name
    from transformers.utils.hub import cached_file

    path = cached_file(str(checkpoint), name, _raise_exceptions_for_missing_entries=False)
    return None if path is None else Path(path)
