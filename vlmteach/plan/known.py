"""What the configs of real checkpoints say, for those that a preset names and nobody has here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from vlmteach.builtin.paths import builtin_path

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
"""Checkpoints that presets name -> the architecture they share."""
_LIKE = {"wan": "random/wan", "qwen3_vl": "random/qwen3_vl", "qwen2_5_vl": "random/qwen2_5_vl"}
"""Family -> the builtin whose tokenizer and small files stand in for the real one's: they have the
real layout, and about as many tokens for a question."""

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


def write_known(checkpoint: str, family: str, folder: Path) -> Path | None:
    """The small files of a checkpoint that is known by name, written into a folder.

    Returns:
        The folder; None where checkpoint or family are not known well enough.
    """
    if checkpoint not in REAL or family not in _LIKE:
        return None
    real, like = architecture(checkpoint), builtin_path(_LIKE[family])
    target = folder / REAL[checkpoint]
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(like, target, ignore=weights, dirs_exist_ok=True)
    if "model_type" in real:
        stated = json.loads((like / "config.json").read_text(encoding="utf-8"))
        ids = {name: value for name, value in stated.items() if name.endswith("_token_id")}
        _write(target / "config.json", real | ids)
    for part in ("transformer", "vae", "text_encoder"):
        if part in real:
            stated = json.loads((like / part / "config.json").read_text(encoding="utf-8"))
            own = {n: v for n, v in stated.items() if n in ("_class_name", "model_type")}
            _write(target / part / "config.json", own | real[part])
    return target


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
