"""A judge on this machine: a vision-language model of transformers, decoded greedily."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.judges.base import JudgeError, Reply, Turn
from vlmteach.checkpoints.find import refuse_code
from vlmteach.checkpoints.weights import refuse_not_finite, refuse_unused, tensors

if TYPE_CHECKING:
    import torch

MAX_NEW_TOKENS = 2048


def model_types(folder: Path) -> list[str]:
    """The model types a checkpoint's config names: of the whole and of its parts.

    Raises:
        ValueError: no config that can be read, or one that names no model type.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"judge: got {folder}, whose config.json cannot be read ({error}), expected a folder "
            "as save_pretrained writes it"
        ) from error
    found = list(_types(config))
    if not found:
        raise ValueError(f"judge: got {path} without a model_type, expected one")
    return found


def _types(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("model_type"), str):
            yield config["model_type"]
        for value in config.values():
            yield from _types(value)


def weights_digest(folder: Path) -> str:
    """sha256 over config.json and the safetensors files, by name and content."""
    digest = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class LocalJudge:
    """A checkpoint that `AutoModelForImageTextToText` and `AutoProcessor` load: safetensors only,
    no remote code, nothing fetched.

    Args:
        folder: as `save_pretrained` writes it.
        device: where the model lives.

    Raises:
        ValueError: a folder without safetensors, of a kind that transformers does not know as
            image-text-to-text, or whose processor needs a package that is not installed.
    """

    def __init__(self, folder: Path, *, device: torch.device | str) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if not any(folder.glob("*.safetensors")):
            raise ValueError(f"judge: got {folder}, expected a folder with safetensors weights")
        where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        refuse_code(folder)
        tensors(folder)
        try:
            self._processor = AutoProcessor.from_pretrained(folder, **where)
            load: Any = AutoModelForImageTextToText.from_pretrained
            loaded = load(
                folder,
                use_safetensors=True,
                dtype=torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16,
                output_loading_info=True,
                **where,
            )
        except MemoryError:
            raise
        except Exception as error:  # whatever a broken checkpoint makes transformers raise
            said = " ".join(str(error).split())
            raise ValueError(
                f"judge: got {folder}, which transformers does not load "
                f"({type(error).__name__}: {said}), expected an image-text-to-text checkpoint "
                "with its processor; a processor that needs torchvision needs it installed"
            ) from error
        network, report = loaded
        refuse_unused(folder, {"missing_keys": report["missing_keys"]})
        refuse_not_finite(folder, network.named_parameters())
        self._model: Any = network
        self._model.eval().requires_grad_(False).to(device)
        self.name = f"{folder.resolve().name} (local, {weights_digest(folder)[:12]})"

    def reply(self, turns: tuple[Turn, ...]) -> Reply:
        """See `Judge.reply`."""
        import torch

        messages = [{"role": t.role, "content": [_part(part) for part in t.parts]} for t in turns]
        try:
            inputs = self._processor.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(self._model.device, self._model.dtype)
            with torch.no_grad():
                ids = self._model.generate(
                    **inputs, do_sample=False, num_beams=1, max_new_tokens=MAX_NEW_TOKENS
                )
        # A template without a system turn, a prompt that holds an image token, not enough memory:
        # a checkpoint's template and processor raise what they like, and another video may do.
        except Exception as error:
            raise JudgeError(f"{type(error).__name__}: {error}") from error
        asked = inputs["input_ids"].shape[1]
        text = self._processor.batch_decode(ids[:, asked:], skip_special_tokens=True)[0]
        return Reply(
            text, tokens={"prompt_tokens": asked, "completion_tokens": len(ids[0]) - asked}
        )


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image", "image": part}
