"""Somebody's LoRA file, fused into a network: each of its tensors is used, or refused by name.

diffusers' own loader is not used: it leaves out differences of norms, of modulations and of biases
without a low-rank part, and fails on some of the spellings that are in use.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vlmteach.reasoners.parts import layers_of, wider

_REMEDY = "take a safetensors LoRA made for this model"
_PEFT = "base_model.model."
_PREFIXES = (
    _PEFT,
    "model.",
    "diffusion_model.",
    "transformer.",
    "lora_unet__",
    "lora_unet_",
    "dit.",
)
_ADAPTER = r"(?:\.(?!(?:weight|bias|alpha)$)(?P<adapter>[^.]+))?"
_ROLES = {
    role: re.compile(rf"(?P<layer>.+?){ending}")
    for role, ending in {
        "down": rf"\.lora(?:_A|_down|\.down|_linear_layer\.down){_ADAPTER}(?:\.weight)?",
        "up": rf"\.lora(?:_B|_up|\.up|_linear_layer\.up){_ADAPTER}(?:\.weight)?",
        "up_bias": rf"\.lora(?:_B|_up){_ADAPTER}\.bias",
        "alpha": r"\.alpha",
        "diff": r"\.diff",
        "diff_b": r"\.diff_b",
        "diff_m": r"\.diff_m",
    }.items()
}


@dataclass(frozen=True, slots=True)
class _Layer:
    """What the file holds of one layer."""

    name: str
    """As the file has it."""
    holds: tuple[str, ...]
    """The network's layers that it is, one under another where there are several."""
    keys: dict[str, str] = field(default_factory=dict)
    """Role -> key."""


def fuse_lora(
    network: nn.Module, file: str | Path, originals: Mapping[str, tuple[str, ...]]
) -> None:
    """Adds a LoRA file to a network's weights, each sum in float32 and rounded once.

    A file names layers as diffusers does or as the original model does, never both ways, behind any
    prefix in use. It may hold low-rank pairs with their alpha and bias, and whole differences of
    weights (`.diff`), biases (`.diff_b`) and modulations (`.diff_m`). Where no alpha is given for a
    layer, what diffusers or peft noted of it counts, and else 1.

    Args:
        network: a diffusers model, on the CPU.
        file: a local safetensors file.
        originals: the original's name of a layer -> diffusers' names of what it holds.

    Raises:
        ValueError: for a file of which not every tensor has its place, its other half and a fitting
            shape: half a distillation would sample wrongly in silence. Nothing is changed then,
            unless a value turns out not to be finite.
    """
    path = Path(file).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(
            f"distillation_lora: got {str(file)!r}, expected an existing .safetensors file; "
            f"{_REMEDY}"
        )
    try:
        with safe_open(path, framework="pt") as reader:
            _File(path, reader).fuse(network, originals)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"distillation_lora: got {str(file)!r}, which is no safetensors file ({error}); "
            f"download it again, or {_REMEDY}"
        ) from error


class _File:
    def __init__(self, path: Path, reader: Any) -> None:
        self._path, self._reader = path, reader
        self._keys: list[str] = sorted(reader.keys())
        self._notes = self._read_notes()

    def _refuse(self, got: str, expected: str) -> NoReturn:
        raise ValueError(
            f"distillation_lora: got {str(self._path)!r} with {got}, expected {expected}; {_REMEDY}"
        )

    def _refuse_tensors(self, keys: list[str], what: str, expected: str) -> NoReturn:
        named = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        self._refuse(f"{len(keys)} of {len(self._keys)} tensors {what} ({named})", expected)

    def fuse(self, network: nn.Module, originals: Mapping[str, tuple[str, ...]]) -> None:
        """See `fuse_lora`: all is planned from the file's header before a weight is touched."""
        if not self._keys:
            self._refuse("no tensors", "a LoRA")
        shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
        planned: dict[str, tuple[str, Callable[[], Tensor]]] = {}
        for layer in self._layers(shapes, originals):
            for name, key, change in self._changes(layer, shapes):
                if name in planned:
                    twice = [planned[name][0], key]
                    self._refuse_tensors(twice, f"for the same {name}", "one change of each")
                planned[name] = key, change
        changed = False
        for name, (_, change) in planned.items():
            weight = network.get_parameter(name)
            delta = change()
            changed |= bool(delta.any())
            weight.data.copy_(weight.data.to(wider(weight.dtype)) + delta)
        if not changed:
            self._refuse("changes that are all zero", "a LoRA that was trained")

    def _layers(
        self, shapes: Mapping[str, object], originals: Mapping[str, tuple[str, ...]]
    ) -> list[_Layer]:
        """What the file holds, by layer, under the one naming that has a place for all of it."""
        ours = {layer: (layer,) for layer in layers_of(shapes)}
        tried = [self._under(names) for names in (ours, originals)]
        layers, strangers = min(tried, key=lambda found: len(found[1]))
        if strangers:
            what = "that have no place here"
            if unknown := [k for k in strangers if re.search(r"dora_|magnitude", k)]:
                strangers, what = unknown, "of DoRA, which is not read"
            self._refuse_tensors(
                strangers,
                what,
                "all named like transformer.blocks.0.attn1.to_q.lora_A.weight or like "
                "diffusion_model.blocks.0.self_attn.q.lora_A.weight",
            )
        return layers

    def _under(self, names: Mapping[str, tuple[str, ...]]) -> tuple[list[_Layer], list[str]]:
        """The file's layers in this naming, and the keys it has no place for."""
        flat = {name.replace(".", "_"): name for name in names}
        layers: dict[str, _Layer] = {}
        adapters: dict[str, str] = {}
        strangers = []
        for key in self._keys:
            bare = key
            for prefix in _PREFIXES:
                bare = bare.removeprefix(prefix)
            found = [(r, m) for r, pattern in _ROLES.items() if (m := pattern.fullmatch(bare))]
            role, match = found[0] if found else ("", None)
            name = match["layer"] if match else bare
            if role == "diff_m":
                name, role = f"{name}.modulation", "diff"
            name = name if name in names else flat.get(name, "")
            if match is None or name not in names:
                strangers.append(key)
                continue
            layer = layers.setdefault(name, _Layer(name, names[name]))
            if role in layer.keys:
                self._refuse_tensors([layer.keys[role], key], "for one place", "one adapter")
            layer.keys[role] = key
            if role in ("down", "up", "up_bias"):
                adapters.setdefault(match["adapter"] or "", key)
        if len(adapters) > 1:
            self._refuse_tensors(list(adapters.values()), "of several adapters", "one adapter")
        return list(layers.values()), strangers

    def _changes(
        self, layer: _Layer, shapes: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, str, Callable[[], Tensor]]]:
        """Parameter, key and difference, for each parameter that this layer's tensors change."""
        keys = layer.keys
        if ("down" in keys) != ("up" in keys):
            self._refuse_tensors([keys.get("down") or keys["up"]], "without its half", "pairs")
        if "up" not in keys and (alone := [keys[r] for r in ("alpha", "up_bias") if r in keys]):
            self._refuse_tensors(alone, "without a low-rank pair", "pairs")
        scale = self._scale(layer) if "up" in keys else 1.0
        for index, held in enumerate(layer.holds):
            part = index, len(layer.holds)
            weight = held if held in shapes else f"{held}.weight"
            if "up" in keys:
                pair = keys["down"], keys["up"]
                shape = self._fitting(pair, weight, part, shapes)
                yield weight, keys["up"], partial(self._product, *pair, part, shape, scale)
            for role, name, factor in (
                ("up_bias", f"{held}.bias", scale),
                ("diff", weight, 1.0),
                ("diff_b", f"{held}.bias", 1.0),
            ):
                if role in keys:
                    self._fitting((keys[role],), name, part, shapes)
                    yield name, keys[role], partial(self._difference, keys[role], part, factor)

    def _fitting(
        self,
        keys: tuple[str, ...],
        name: str,
        part: tuple[int, int],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> tuple[int, ...]:
        """The parameter's shape; refuses tensors that do not make a change of it."""
        shape = shapes.get(name)
        got = [list(self._shape(key)) for key in keys]
        if shape is not None:
            whole = (part[1] * shape[0], *shape[1:])
            if len(got) == 1:
                fits = tuple(got[0]) == whole
            else:
                down, up = got
                fits = (
                    len(down) > 1
                    and (*up[:1], math.prod(down[1:])) == (whole[0], math.prod(whole[1:]))
                    and math.prod(up[1:]) == down[0] > 0
                )
            if fits:
                return shape
        expected = f"no {name}" if shape is None else f"what makes a change of {name} {list(shape)}"
        self._refuse_tensors(list(keys), f"with shapes that do not fit {got}", expected)

    def _product(
        self, down: str, up: str, part: tuple[int, int], shape: tuple[int, ...], scale: float
    ) -> Tensor:
        rows = self._difference(up, part, 1.0).flatten(1)
        return (rows @ self._tensor(down).flatten(1)).view(shape) * scale

    def _difference(self, key: str, part: tuple[int, int], factor: float) -> Tensor:
        index, parts = part
        return self._tensor(key).chunk(parts)[index] * factor

    def _shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._reader.get_slice(key).get_shape())

    def _tensor(self, key: str) -> Tensor:
        tensor = self._reader.get_tensor(key)
        if not tensor.is_floating_point():
            self._refuse_tensors([key], f"of {tensor.dtype}", "floating-point numbers")
        tensor = tensor.to(wider(tensor.dtype))
        if not tensor.isfinite().all():
            self._refuse_tensors([key], "whose values are not finite", "numbers")
        return tensor

    def _scale(self, layer: _Layer) -> float:
        """What a pair's product is multiplied by: alpha / rank, or alpha / sqrt(rank)."""
        rank = (self._shape(layer.keys["down"]) or (1,))[0]
        if key := layer.keys.get("alpha"):
            stated = self._reader.get_tensor(key)
            if stated.numel() != 1 or not math.isfinite(stated.item()):
                self._refuse_tensors([key], "that are no single number", "one number")
            return stated.item() / rank
        alpha = self._notes.get("lora_alpha", rank)
        for pattern, own in (self._notes.get("alpha_pattern") or {}).items():
            if any(f".{name}".endswith(f".{pattern}") for name in (layer.name, *layer.holds)):
                alpha = own
        return alpha / (math.sqrt(rank) if self._notes.get("use_rslora") else rank)

    def _read_notes(self) -> dict[str, Any]:
        """What diffusers noted in the header, or peft in the file beside; empty for nothing."""
        notes = (self._reader.metadata() or {}).get("lora_adapter_metadata")
        beside = self._path.with_name("adapter_config.json")
        if notes is None and any(key.startswith(_PEFT) for key in self._keys):
            if beside.is_file():
                notes = beside.read_text(encoding="utf-8", errors="replace")
            elif not any(key.endswith(".alpha") for key in self._keys):
                self._refuse("peft's keys", f"{beside.name} beside it, which has their scale")
        if notes is None:
            return {}
        try:
            read = {k.removeprefix("transformer."): v for k, v in json.loads(notes).items()}
            own = {_plain(p): float(a) for p, a in (read.get("alpha_pattern") or {}).items()}
            read = {**read, "alpha_pattern": own}
            if "lora_alpha" in read:
                read["lora_alpha"] = float(read["lora_alpha"])
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            self._refuse(f"notes of its scale that cannot be read ({error})", "numbers by layer")
        if read.get("use_dora"):
            self._refuse("notes of DoRA, which is not read", "a plain LoRA")
        return read


def _plain(pattern: str) -> str:
    """A layer's name out of peft's pattern for it; a stranger's regular expression is not run."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.]+", name):
        raise ValueError(f"alpha_pattern {pattern!r} is no layer's name")
    return name
