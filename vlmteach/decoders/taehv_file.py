"""Reading a TAEHV file: the decoder it holds, found from its shapes, and its weights, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vlmteach.checkpoints.files import refuse_pointer
from vlmteach.checkpoints.hollow import hollow_device
from vlmteach.checkpoints.weights import refuse_not_finite
from vlmteach.decoders.taehv_layers import Grow, base_layers, super_layers

Shape = tuple[int, ...]

_REMEDY = (
    "expected a TAEHV file for Wan as published, taew2_2, taew2_2_super or taew2_1, or for "
    "HunyuanVideo-1.5, taehv1_5 or taehv1_5_super (github.com/madebyollin/taehv, folder "
    "safetensors/), or lighttaew2_2, lighttaew2_1 or lighttaehy1_5 "
    "(huggingface.co/lightx2v/Autoencoders)"
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the shapes in a file say of its decoder."""

    kind: Literal["base", "super"]
    latent_channels: int
    widths: tuple[int, int, int, int]
    """Channels of the three stages, and of what follows them."""
    patch: int
    """Pixels per side that the last convolution gives at once: 1 for Wan 2.1, 2 for Wan 2.2 and
    HunyuanVideo-1.5."""

    def build(self) -> nn.Sequential:
        """The decoder's layers, on the current default device."""
        make = base_layers if self.kind == "base" else super_layers
        return make(self.latent_channels, self.widths, self.patch)


def infer_architecture(shapes: Mapping[str, Shape], name: str) -> Architecture:
    """The architecture that a file's tensor shapes imply.

    Args:
        shapes: tensor name -> shape, as in the file.
        name: the file, for the error message.

    Raises:
        ValueError: the shapes are not those of a known decoder.
    """

    def size(key: str, axis: int) -> int:
        if key not in shapes:
            raise ValueError(f"{name}: tensor {key!r} is missing; {_REMEDY}")
        if len(shapes[key]) != 4:
            raise ValueError(
                f"{name}: tensor {key!r}: got shape {shapes[key]}, expected 4 axes; {_REMEDY}"
            )
        return shapes[key][axis]

    kind: Literal["base", "super"] = "super" if "decoder.0.weight" in shapes else "base"
    if kind == "super":
        # Each stage ends in a convolution to 2 x 2 pixels of the next width.
        inner = [size(f"decoder.{index}.weight", 0) // 4 for index in (4, 11, 18)]
        first = "decoder.0.weight"
    else:
        inner = [size(f"decoder.{index}.weight", 0) for index in (8, 14, 20)]
        first = "decoder.1.weight"
    widths = (size(first, 0), inner[0], inner[1], inner[2])
    out = size("decoder.22.weight", 0)
    patch = {3: 1, 12: 2}.get(out)
    if patch is None:
        raise ValueError(
            f"{name}: tensor 'decoder.22.weight': got {out} output channels, "
            f"expected 3 (Wan 2.1) or 12 (Wan 2.2, HunyuanVideo-1.5); {_REMEDY}"
        )
    return Architecture(kind, size(first, 1), widths, patch)


def read_decoder(path: str | Path, *, dtype: torch.dtype) -> tuple[Architecture, nn.Sequential]:
    """The decoder in a TAEHV file, frozen and in eval mode, on the CPU.

    The file's `encoder.*` tensors are a known part of it and are neither read nor built. Every
    `decoder.*` tensor is used and every parameter is filled. Where a grow kernel in the file is
    larger than its layer's (files trained with more frames per latent), its last channels are used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not safetensors, or its tensors are not exactly those expected.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path}: got a {path.suffix or 'suffix-less'} file, expected .safetensors; pickled "
            "weights (.pth) are never read: take the same weights from the folder safetensors/ of "
            "github.com/madebyollin/taehv or from huggingface.co/lightx2v/Autoencoders"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such TAEHV file; {_REMEDY}")
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            weights = {key: file.get_tensor(key) for key in shapes if key.startswith("decoder.")}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a safetensors file ({error}); {_REMEDY}") from error
    architecture = infer_architecture(shapes, str(path))
    if (device := hollow_device()) is not None:
        with device:
            return architecture, architecture.build().to(dtype).eval().requires_grad_(False)
    with torch.device("meta"):
        layers = architecture.build()
    _trim_grow_kernels(layers, weights)
    _check(path, layers, shapes, weights)
    refuse_not_finite(path, weights.items())
    state = {key.removeprefix("decoder."): value.to(dtype) for key, value in weights.items()}
    layers.load_state_dict(state, strict=True, assign=True)
    return architecture, layers.eval().requires_grad_(False)


def _trim_grow_kernels(layers: nn.Sequential, weights: dict[str, Tensor]) -> None:
    for index, layer in enumerate(layers):
        key = f"decoder.{index}.conv.weight"
        if isinstance(layer, Grow) and key in weights:
            surplus = weights[key].shape[0] - layer.conv.out_channels
            if surplus > 0 and surplus % layer.conv.in_channels == 0:
                weights[key] = weights[key][surplus:].clone()


def _check(
    path: Path, layers: nn.Sequential, shapes: Mapping[str, Shape], weights: Mapping[str, Tensor]
) -> None:
    expected = {f"decoder.{key}": tuple(p.shape) for key, p in layers.state_dict().items()}
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise ValueError(f"{path}: tensors are missing: {_few(missing)}; {_REMEDY}")
    extra = sorted(key for key in shapes if key not in expected and not key.startswith("encoder."))
    if extra:
        raise ValueError(
            f"{path}: got tensors that this decoder has no place for: {_few(extra)}; {_REMEDY}"
        )
    for key, shape in expected.items():
        if tuple(weights[key].shape) != shape:
            raise ValueError(
                f"{path}: tensor {key!r}: got shape {shapes[key]}, expected {shape}; {_REMEDY}"
            )


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
