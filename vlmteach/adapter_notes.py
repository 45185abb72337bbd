"""What an adapter's file says of itself: the strings in the header of its safetensors.

Three vocabularies side by side: our own (`vlmteach.*`); `modelspec.*` of Stability AI's ModelSpec
1.0.0 and kohya's `ss_*`, which tools for LoRA files show. No note says how the file is to be
scaled: alpha / r is folded into B (`vlmteach.lora`), so a reader that takes alpha = r is right.
diffusers would take `lora_adapter_metadata` over the shapes, and some loaders a plain `alpha`:
neither is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vlmteach.types import Query, Role

if TYPE_CHECKING:
    from vlmteach.config import Config
    from vlmteach.types import FitRecord

ADAPTER, COMFYUI = "adapter.safetensors", "adapter.comfyui.safetensors"
"""In an instance's folder."""
FORMAT = "1"
"""Of `vlmteach.*`; another number, another meaning."""
MOST_QUERIES = 4
"""Of a fit: one goal, three process (Eq. 3)."""
LONGEST = 2000
"""Characters of a text in a note; what is longer is cut, and ends in "...". """


@dataclass(frozen=True, slots=True)
class Base:
    """The checkpoint that adapters are made for."""

    name: str = ""
    """A hub id, `builtin:NAME`, or the last part of a local path: the rest is nobody's business."""
    digest: str | None = None
    """Of its files, and of the distillation LoRA's where one is fused; None where it has none."""
    part: str | None = None
    """Of several networks, the one that carries the adapter."""
    licence: str | None = None
    """As the hub names licences; None where the config does not say."""


def notes_of(
    config: Config,
    base: Base,
    record: FitRecord,
    *,
    prompt: str,
    told: str | None,
    candidate: int,
    image: bool,
) -> dict[str, str]:
    """What is to be said of a fit's adapter; the same fit gives the same notes.

    So no date, no seconds, no path.

    Args:
        config: of the run.
        base: the reasoner's checkpoint.
        record: of the fit.
        prompt: the instance's.
        told: what the reasoner was told instead of it, if anything.
        candidate: which of the instance's noises it was fitted on.
        image: whether the clip begins with a given frame.
    """
    clip, fused = record.clip, config.reasoner.distillation_lora
    queries = [{"role": q.role, "text": shortened(q.text)} for q in record.queries.queries]
    lora = {"rank": config.lora.rank, "alpha": config.lora.alpha, "alpha_folded": True}
    own = {
        "format": FORMAT,
        "base": base.name,
        "base_sha256": base.digest,
        "base_part": base.part,
        "base_licence": base.licence,
        "distillation_lora": None if fused is None else shortened(Path(fused).name, 200),
        "family": config.reasoner.family,
        "ladder": json.dumps(config.reasoner.ladder),
        "lora": json.dumps(lora | {"targets": config.lora.targets, "blocks": config.lora.blocks}),
        "prompt": shortened(prompt),
        "prompt_told": None if told is None else shortened(told),
        "image": str(image).lower(),
        "queries": json.dumps(queries),
        "clip": json.dumps([clip.frames, clip.height, clip.width, clip.fps]),
        "key": shortened(record.key),
        "seed": record.seed,
        "candidate": candidate,
        "steps": record.steps,
        "kept_step": record.kept_step,
        "stop_reason": shortened(record.stop_reason),
        "first_loss": record.readings[0].loss,
        "kept_loss": record.kept_loss,
        "versions": json.dumps(record.versions, sort_keys=True),
    }
    architecture = f"{config.reasoner.family.rpartition('.')[2]}/lora"
    shown = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture,
        "modelspec.title": shortened(f"vlmteach {record.key}", 200),
        "modelspec.description": shortened(prompt),
        "modelspec.usage_hint": "Made for one prompt and first frame; strength 1.",
        "modelspec.resolution": f"{clip.width}x{clip.height}",
        "modelspec.license": base.licence,
        "ss_base_model_version": architecture.removesuffix("/lora"),
        "ss_sd_model_name": base.name,
        "ss_output_name": shortened(record.key, 200),
        "ss_steps": record.steps,
        "ss_seed": record.seed,
    }
    named = {f"vlmteach.{name}": value for name, value in own.items()} | shown
    return {"format": "pt"} | {
        name: str(value) for name, value in named.items() if value is not None
    }


def shortened(text: str, longest: int = LONGEST) -> str:
    """A stranger's text, no longer than that, in characters that UTF-8 has."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def noted(data: bytes, notes: Mapping[str, str], implementation: str) -> bytes:
    """A safetensors file's bytes with notes in its header; the tensors' stay as they are.

    Here and not by safetensors' own writer, which puts them in another order each time. Added are
    the notes that follow from the tensors: their digest, and the rank where all have one.

    Args:
        data: a file without notes.
        notes: name -> text.
        implementation: whose names the tensors have (`modelspec.implementation`).
    """
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:start])
    ranks = {each["shape"][0] for name, each in tensors.items() if ".lora_A." in name}
    told = dict(notes) | {
        "modelspec.implementation": implementation,
        "modelspec.hash_sha256": f"0x{hashlib.sha256(data[start:]).hexdigest()}",
    }
    if len(ranks) == 1:
        rank = str(*ranks)
        told |= {"ss_network_dim": rank, "ss_network_alpha": rank}
    header = {"__metadata__": dict(sorted(told.items())), **tensors}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def read_notes(path: Path) -> dict[str, str]:
    """The notes of an adapter's file; none in one that has none, as earlier versions left it.

    Raises:
        ValueError: not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path}: got {error}, expected an adapter as a fit leaves it in adapter.safetensors"
        ) from error


def candidate_of(notes: Mapping[str, str]) -> int:
    """Which of its instance's noises an adapter was fitted on; the first where nothing is said.

    Raises:
        ValueError: something else than a number is said.
    """
    told = notes.get("vlmteach.candidate", "0")
    if not (told.isascii() and told.isdigit() and len(told) < 10):
        raise ValueError(
            f"vlmteach.candidate: got {told[:40]!r} in the adapter's notes, expected a whole "
            "number; give one with --candidate"
        )
    return int(told)


def queries_of(notes: Mapping[str, str]) -> tuple[Query, ...]:
    """The queries of an adapter's fit; none where the notes tell none, or not all of each."""
    try:
        told = json.loads(notes.get("vlmteach.queries", "[]"))
        queries = tuple(Query(**each) for each in told)
    except (ValueError, TypeError, RecursionError):
        return ()
    whole = all(
        isinstance(query.text, str) and len(query.text) < LONGEST and query.role in get_args(Role)
        for query in queries
    )
    return queries if whole and len(queries) <= MOST_QUERIES else ()


def other_base(notes: Mapping[str, str], base: Base) -> str | None:
    """In a line, how the checkpoint that an adapter was made for differs from one at hand.

    None where it does not, or where one of both has no digest.
    """
    made_for = notes.get("vlmteach.base_sha256"), notes.get("vlmteach.base_part")
    if made_for[0] is None or base.digest is None or made_for == (base.digest, base.part):
        return None

    def named(name: str, digest: str, part: str | None) -> str:
        return f"{shortened(name, 200)} ({', '.join(filter(None, (part, digest[:12])))})"

    theirs = named(notes.get("vlmteach.base", "?"), made_for[0], made_for[1])
    return f"it was made for {theirs}, and {named(base.name, base.digest, base.part)} is loaded"
