"""All that the tests know of a family, one file each: `<kind>_<family>.py` holds its `CASE`.

A small checkpoint for the contract tests, and what the full-size one is expected to be. The files
are found by name; `tests/house/test_families.py` holds them to the package's tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

Accepts = Literal["image", "text", "both"]


@dataclass(frozen=True, kw_only=True)
class FullSize:
    """Parameters of a reasoner's parts at full size, and the layers its adapter sits on."""

    transformer: int
    vae: int
    surrogate: int
    """Of the TAEHV that presets take for this VAE."""
    adapter: int
    """Of the adapter on `attention`, per rank."""
    layers: set[str]
    """That carry the adapter on `attention`."""


@dataclass(frozen=True, kw_only=True)
class ReasonerCase:
    save: Callable[[Path, Accepts], None]
    """Writes a small random checkpoint that accepts this."""
    full_decoder: Callable[[], Any]
    """A small decoder of the class that `full_decoder` gives, whose pixels saturate."""
    full_size: FullSize
    on_meta: Callable[[Any, list[str]], None]
    """Given pytest's monkeypatch and a list: puts the parts of full size on the meta device where
    the loader would read a checkpoint, and writes fused LoRA files to the list."""
    fused: Callable[[str], list[str]]
    """`distillation_lora` of the config -> the files that are fused."""
    reads: int = 0
    """How often the host waits for the device in one evaluation, at most."""


@dataclass(frozen=True, kw_only=True)
class TeacherCase:
    save: Callable[[Path], None]
    """Writes a small random checkpoint."""
    full_size: dict[str, int]
    """File of `benchmarks/speed/architectures` -> parameters."""
    reads: int
    """How often the host waits for the device in one update, at most: the small one's passes over
    three frames, forward, recomputed and backward."""


@dataclass(frozen=True, kw_only=True)
class DecoderCase:
    small: dict[str, Callable[[Path], Any]]
    """Name -> a small random decoder, made in a folder; its pixels saturate."""


def cases(kind: Literal["reasoner", "teacher", "decoder"]) -> dict[str, Any]:
    """Family -> its case."""
    found = sorted(Path(__file__).parent.glob(f"{kind}_*.py"))
    return {
        path.stem.removeprefix(f"{kind}_"): import_module(f"{__name__}.{path.stem}").CASE
        for path in found
    }
