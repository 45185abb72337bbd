"""Weights as first published, by diffusers' names: each tensor is used, or refused by name.

A pickle is read by torch's own reader that runs nothing and makes nothing but tensors. All files
are mapped into memory and not read until a tensor is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vlmteach.checkpoints.files import refuse_pointer
from vlmteach.reasoners.parts import wider

_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_WRAPPERS = {"_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod", "module"}
_ANCHOR = "patch_embedding.weight"
"""What stands before this name stands before all."""
_SCALES = ("scale_weight", "weight_scale")
_UNUSED = ("scale_input", "input_scale")
"""Scales of activations, which only arithmetic in fp8 needs."""
_FP8 = {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}
_FLOATS = {torch.float64, torch.float32, torch.bfloat16, torch.float16}


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight as the file has it, perhaps in fp8 with a scale."""

    key: str
    stored: Tensor
    scale: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The file's own; bfloat16 for fp8, in which nothing can be loaded."""
        return torch.bfloat16 if self.stored.dtype in _FP8 else self.stored.dtype

    def read(self) -> Tensor:
        """The weight, contiguous and of its own memory.

        Raises:
            ValueError: not all of it is finite.
        """
        wide = self.stored.to(wider(self.stored.dtype), copy=True)
        if self.scale is not None:
            wide *= self.scale.to(wide.dtype).view(-1, *[1] * (wide.ndim - 1))
        if not wide.isfinite().all():
            raise ValueError(
                f"weights: {self.key}: got values that are not finite, expected numbers; download "
                "the file again, or ask its author"
            )
        return wide.to(self.dtype).contiguous()


def read_weights(files: Sequence[Path], entry: str | None) -> dict[str, Tensor]:
    """All tensors of the files, wrappers' names taken out of theirs.

    Args:
        files: one pickle or safetensors file, or all shards of one.
        entry: which of several sets of weights in a pickle, such as `generator_ema`.

    Raises:
        ValueError: a file that cannot be read or holds more than weights, several sets of weights
            and no word of which, or one name twice.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        for key, tensor in _read(file, entry).items():
            name = ".".join(word for word in key.split(".") if word not in _WRAPPERS)
            if name in tensors:
                raise ValueError(
                    f"weights: got {name} twice, the second in {str(file)!r}, expected each weight "
                    "once; name one model's file or all its shards"
                )
            tensors[name] = tensor.detach()
    return tensors


def place_weights(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    originals: Mapping[str, tuple[str, ...]],
) -> dict[str, Weight]:
    """diffusers' name of each parameter -> its weight.

    Args:
        tensors: from `read_weights`; named as the original is or as diffusers does.
        shapes: of the network's parameters.
        originals: the original's name of a layer -> diffusers' name, as `wan_names` gives it.

    Raises:
        ValueError: a tensor without a place, a parameter without a tensor, or a shape that differs.
    """
    anchors = [key.removesuffix(_ANCHOR) for key in tensors if key.endswith(_ANCHOR)]
    if len(anchors) != 1:
        raise ValueError(
            f"weights: got {len(anchors)} tensors named {_ANCHOR} among {len(tensors)} "
            f"({', '.join(sorted(tensors)[:3])}, ...), expected the one of a Wan transformer; take "
            "the file of its weights alone"
        )
    (prefix,) = anchors
    ours = {name: name for name in shapes}
    theirs = {
        f"{original}{ending}": f"{layer}{ending}"
        for original, (layer,) in originals.items()
        for ending in (".weight", ".bias", "")
        if f"{layer}{ending}" in shapes
    }
    tried = [_under(tensors, prefix, names) for names in (theirs, ours)]
    placed, strangers = min(tried, key=lambda found: len(found[1]))
    missing = sorted(shapes.keys() - placed.keys())
    for got, keys in (("with {} that have no place", strangers), ("without {}", missing)):
        if keys:
            named = f"{len(keys)} of {len(tensors if keys is strangers else shapes)} tensors"
            raise ValueError(
                f"weights: got a file {got.format(named)} ({', '.join(keys[:3])}), expected "
                "exactly those of the base's transformer; take the base that it was trained from, "
                "and all its shards where there are several"
            )
    for name, weight in placed.items():
        if tuple(weight.stored.shape) != shapes[name]:
            raise ValueError(
                f"weights: {weight.key}: got shape {list(weight.stored.shape)}, expected "
                f"{list(shapes[name])} of the base's {name}; take the base it was trained from"
            )
        kind = weight.stored.dtype, weight.stored.layout, weight.stored.device.type
        if kind not in {(dtype, torch.strided, "cpu") for dtype in (*_FP8, *_FLOATS)}:
            raise ValueError(
                f"weights: {weight.key}: got {', '.join(map(str, kind))}, expected float or fp8 "
                "numbers, all of them; take a file that is not quantised further"
            )
        scale = weight.scale
        if scale is not None and scale.numel() not in (1, shapes[name][0]):
            raise ValueError(
                f"weights: {weight.key}: got a scale of shape {list(scale.shape)}, expected one "
                "number, or one a row; take a file in float or in fp8 scaled so"
            )
    return placed


def _under(
    tensors: Mapping[str, Tensor], prefix: str, names: Mapping[str, str]
) -> tuple[dict[str, Weight], list[str]]:
    """The weights that this naming has a place for, and the keys that are left over."""
    placed: dict[str, Weight] = {}
    scales: dict[str, Tensor] = {}
    strangers = []
    for key, tensor in sorted(tensors.items()):
        name = key.removeprefix(prefix)
        if not key.startswith(prefix):
            strangers.append(key)
        elif name in names:
            placed[names[name]] = Weight(key, tensor)
        elif name != "scaled_fp8":  # ComfyUI's mark of a file that has scales
            layer, _, ending = name.rpartition(".")
            weight = names.get(f"{layer}.weight", "")
            if weight and ending in _SCALES and weight not in scales:
                scales[weight] = tensor
            elif not (weight and (ending in _UNUSED or _says_fp8(ending, tensor))):
                strangers.append(key)
    for name in scales.keys() & placed.keys():
        placed[name] = replace(placed[name], scale=scales[name])
    return placed, strangers


def _says_fp8(ending: str, tensor: Tensor) -> bool:
    """Whether it is ComfyUI's note, as JSON in bytes, that a layer is in fp8."""
    if ending != "comfy_quant" or tensor.dtype != torch.uint8:
        return False
    try:
        return str(json.loads(bytes(tensor.tolist()))["format"]).startswith("float8")
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _read(file: Path, entry: str | None) -> dict[str, Tensor]:
    refuse_pointer(file)
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as reader:
                return {key: reader.get_tensor(key) for key in reader.keys()}  # noqa: SIM118
        if file.suffix not in _PICKLES:
            raise ValueError(f"its ending is none of .safetensors, {', '.join(_PICKLES)}")
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a broken pickle can make anything of it
        told = str(error)
        forbidden = re.search(r"GLOBAL (\S+)", told)
        what = f"it holds {forbidden[1]}" if forbidden else (told.strip() or repr(error))
        raise ValueError(
            f"weights: got {str(file)!r}, which cannot be read safely ({what.splitlines()[0]}), "
            "expected tensors by name and nothing else; download it again, or ask its author for "
            "safetensors"
        ) from error
    return _chosen(file, held, entry)


def _chosen(file: Path, held: Any, entry: str | None) -> dict[str, Tensor]:
    """The set of weights that is asked for, or the only one."""
    sets = dict(_sets(held, ""))
    if entry is not None and entry in sets:
        return sets[entry]
    if entry is None and len(sets) == 1:
        return next(iter(sets.values()))
    raise ValueError(
        f"weights: got {str(file)!r} with the sets of weights {', '.join(sorted(sets)) or '(none)'}"
        f"{'' if entry is None else f' and --entry {entry}'}, expected one to be named; add "
        "--entry and its name"
    )


def _sets(held: Any, path: str, depth: int = 3) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Dicts of tensors by name, a few levels down: path of keys -> dict."""
    if not (depth and isinstance(held, Mapping) and all(isinstance(key, str) for key in held)):
        return
    if tensors := {key: value for key, value in held.items() if isinstance(value, Tensor)}:
        yield path or "(top)", tensors
    for key, value in held.items():
        yield from _sets(value, f"{path}.{key}" if path else key, depth - 1)
