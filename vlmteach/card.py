"""The model card of one adapter, from the notes in its file: huggingface_hub's own class.

Whatever the notes say is a stranger's: it stands in code, where markdown and HTML mean nothing, or
in the card's YAML, which its own writer quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmteach.adapter_notes import ADAPTER, COMFYUI, shortened
from vlmteach.rows import CLIP
from vlmteach.text import printable

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

KNOWN = {
    "apache-2.0",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-sa-4.0",
    "mit",
    "openrail",
}
"""Licences that the hub knows by these names; any other is `other` there, with a name."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{1,60}")

_TEXT = """\
# An adapter of one instance

<Gallery />

A LoRA that vlmteach fitted at test time to this prompt, its first frame if it has one, and one
noise: a frozen vision-language model was asked the queries below about the clip, and the updates
followed the gradient of its "Yes" ([arXiv 2606.02564](https://arxiv.org/abs/2606.02564)). It is no
model for other prompts.

{prompt}

## Queries
{queries}

## The fit
| | |
|---|---|
{rows}

## Use
In diffusers, sampled as the base is:
```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{base}")
pipe.{network}.load_lora_adapter("{place}", weight_name="{adapter}", prefix="transformer")
```
In ComfyUI: `{comfyui}` in `models/loras`, loaded with LoraLoaderModelOnly at strength 1{expert}.
{distilled}
alpha / rank is folded into the matrices B of both files: scale 1 is the adapter as it was kept, 0
the base model.

## Licence
The adapter derives from its base and inherits its licence.
"""


def card_of(notes: Mapping[str, str], place: str, licence: str | None = None) -> ModelCard:
    """The card of an adapter.

    Args:
        notes: of its file.
        place: where diffusers will find it: a repository of the hub, or a folder.
        licence: in place of the one that the notes tell.

    Raises:
        ValueError: no licence is known, or one that is no licence's name.
    """
    from huggingface_hub import ModelCard, ModelCardData

    told = {name.removeprefix("vlmteach."): text for name, text in notes.items()}
    licence = licence or told.get("base_licence")
    if licence is None or not _LICENCE.fullmatch(licence):
        raise ValueError(
            f"licence: got {licence!r} for the base "
            f"{printable(shortened(told.get('base', '?'), 100))}, expected its name on the hub, "
            "such as apache-2.0; give it with --licence"
        )
    base, image = told.get("base", ""), told.get("image") == "true"
    on_hub = _HUB_ID.fullmatch(base) is not None
    prompt = told.get("prompt", "")
    data = ModelCardData(
        license=licence if licence in KNOWN else "other",
        license_name=None if licence in KNOWN else licence,
        base_model=base if on_hub else None,
        library_name="diffusers",
        pipeline_tag="image-to-video" if image else "text-to-video",
        tags=["lora", "template:diffusion-lora", "vlmteach"],
        widget=[{"text": prompt or "-", "output": {"url": CLIP}}],
    )
    low = told.get("base_part") == "low_noise"
    fused = told.get("distillation_lora")
    text = _TEXT.format(
        prompt=_block(prompt),
        queries=_block("\n".join(f"{q['role']}: {q['text']}" for q in _queries(told))),
        rows="\n".join(f"| {name} | {_code(text)} |" for name, text in _rows(told)),
        base=base if on_hub else "path/to/the/base",
        network="transformer_2" if low else "transformer",
        place=place if _HUB_ID.fullmatch(place) else "path/to/this/folder",
        adapter=ADAPTER,
        comfyui=COMFYUI,
        expert=f", on the expert {_code(told['base_part'])}" if "base_part" in told else "",
        distilled=f"Fuse the distillation LoRA {_code(fused)} first.\n" if fused else "",
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _queries(told: Mapping[str, str]) -> list[dict[str, str]]:
    try:
        queries: Any = json.loads(told.get("queries", "[]"))
        return [
            {name: shortened(str(query[name])) for name in ("role", "text")} for query in queries
        ]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _rows(told: Mapping[str, str]) -> list[tuple[str, str]]:
    names = {
        "base": "base",
        "base_sha256": "sha256 of its files",
        "base_part": "expert",
        "distillation_lora": "distillation LoRA under it",
        "ladder": "timesteps",
        "clip": "frames, height, width, fps",
        "lora": "LoRA",
        "steps": "updates",
        "stop_reason": "ended by",
        "first_loss": "loss before",
        "kept_loss": "loss kept",
        "key": "key",
        "seed": "seed",
        "versions": "versions",
    }
    return [(shown, told[name]) for name, shown in names.items() if name in told]


def _code(text: str) -> str:
    """A text as code within a line, of a table too."""
    plain = printable(shortened(text, 300)).replace("`", "'").replace("|", "/")
    return f"`{plain or '-'}`"


def _block(text: str) -> str:
    """A text as a block of code, with a fence that it cannot close."""
    lines = [printable(line) for line in shortened(text).splitlines()]
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *lines, fence])
