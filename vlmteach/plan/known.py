"""What the configs of real checkpoints say, for those that a preset names and nobody has here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmteach.builtin.paths import builtin_path
from vlmteach.families import REASONERS, TEACHERS

ARCHITECTURES = Path(__file__).parent / "architectures"
WAN = "wan22_ti2v_5b"
HUNYUAN = "hunyuan15_480p_i2v"
REAL = {
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": WAN,
    "yetter-ai/Wan2.2-TI2V-5B-Turbo-Diffusers": WAN,
    "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers": WAN,
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": "wan22_i2v_a14b",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3_vl_4b",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl_8b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl_7b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3_8b",
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_step_distilled": HUNYUAN,
}
"""Checkpoints that presets name -> the architecture they share. HunyuanVideo-1.5's encoders are, as
its makers say, those of Qwen2.5-VL-7B, of byt5-small with the tokens of Glyph-SDXL-v2, and SigLIP's
of 384 pixels."""
_MARKS = (
    ("model_index.json", *(f"{p}/config.json" for p in ("transformer", "vae", "text_encoder"))),
    ("config.json", "tokenizer_config.json"),
)
"""What a reasoner's folder has, and a teacher's: with less, a plan cannot be made of it."""


def architecture(checkpoint: str) -> dict[str, Any]:
    """What the configs of a checkpoint say, by name of the part or of the field.

    Raises:
        ValueError: for a checkpoint whose architecture is not known here.
    """
    if checkpoint not in REAL:
        raise ValueError(
            f"checkpoint: got {checkpoint!r}, expected one of {', '.join(REAL)}; take a preset "
            "that names real checkpoints, or add the architecture to vlmteach/plan/architectures"
        )
    return json.loads((ARCHITECTURES / f"{REAL[checkpoint]}.json").read_text(encoding="utf-8"))


def in_hub_cache(checkpoint: str) -> Path | None:
    """The folder in the Hub cache of a checkpoint whose configs lie there; asks nobody."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for names in _MARKS:
        try:
            found = [try_to_load_from_cache(checkpoint, name) for name in names]
        except HFValidationError:  # a path, not a hub id
            return None
        if all(isinstance(path, str) for path in found):
            return Path(str(found[0])).parent
    return None


def write_known(
    checkpoint: str, family: str, folder: Path, *, changes: Mapping[str, Any] | None = None
) -> Path | None:
    """The small files of a checkpoint that is known by name, written into a folder.

    Tokenizers, chat templates and preprocessors are those of the family's random checkpoint, which
    have the real layout, and about as many tokens for a question.

    Args:
        checkpoint: a name of `REAL`.
        family: its family's.
        folder: where a folder of its own is made.
        changes: part or field -> entries in place of the real ones, for another size.

    Returns:
        The folder; None where checkpoint or family are not known.
    """
    if checkpoint not in REAL or family not in (*REASONERS, *TEACHERS):
        return None
    real, like = architecture(checkpoint), builtin_path(f"random/{family}")
    real = {name: _merged(entry, (changes or {}).get(name)) for name, entry in real.items()}
    target = folder / REAL[checkpoint]
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(like, target, ignore=weights, dirs_exist_ok=True)
    if "model_type" in real:  # a network alone
        stated = _read(target / "config.json")
        ids = {name: value for name, value in stated.items() if name.endswith("_token_id")}
        _write(target / "config.json", real | ids)
        _set_tile(target / "preprocessor_config.json", real["vision_config"].get("image_size"))
        return target
    parts = {**real, "transformer_2": real["transformer"]}  # two experts share one architecture
    for part, entries in parts.items():
        if (path := target / part / "config.json").exists():
            named = {n: v for n, v in _read(path).items() if n in ("_class_name", "model_type")}
            _write(path, named | entries)
    image = real.get("image_encoder", {}).get("image_size")
    _set_tile(target / "feature_extractor" / "preprocessor_config.json", image and [image, image])
    return target


def _merged(entry: Any, changes: Any) -> Any:
    return entry if changes is None else {**entry, **changes}


def _set_tile(path: Path, size: list[int] | None) -> None:
    """Writes the vision tower's tile into a preprocessor's file, where both are."""
    if size is not None and path.exists():
        height, width = size
        _write(path, {**_read(path), "size": {"height": height, "width": width}})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
