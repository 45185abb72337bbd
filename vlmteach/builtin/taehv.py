"""A small random TAEHV file in exactly the layout of the published ones."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Literal

Variant = Literal["taew2_2", "taew2_2_super", "taew2_1", "taehv1_5", "taehv1_5_super"]
Widths = tuple[int, int, int, int]

FULL_WIDTHS: dict[Variant, Widths] = {
    "taew2_2": (256, 128, 64, 64),
    "taew2_2_super": (512, 256, 128, 64),
    "taew2_1": (256, 128, 64, 64),
    "taehv1_5": (256, 128, 64, 64),
    "taehv1_5_super": (512, 256, 128, 64),
}
"""Channels of the published decoders' three stages and of what follows; the last is also the
encoder's width."""

SMALL_WIDTHS: Widths = (24, 16, 12, 12)

_LATENT_CHANNELS: dict[Variant, int] = {
    "taew2_2": 48,
    "taew2_2_super": 48,
    "taew2_1": 16,
    "taehv1_5": 32,
    "taehv1_5_super": 32,
}
_PATCH: dict[Variant, int] = {
    "taew2_2": 2,
    "taew2_2_super": 2,
    "taew2_1": 1,
    "taehv1_5": 2,
    "taehv1_5_super": 2,
}
_CONTRAST: dict[Variant, float] = {
    "taew2_2": 0.014,
    "taew2_2_super": 0.002,
    "taew2_1": 0.02,
    "taehv1_5": 0.014,
    "taehv1_5_super": 0.002,
}
"""Gain of the last convolution, measured: pixels vary by about 0.35 before the clamp."""

Tensors = Iterator[tuple[str, tuple[int, ...]]]


def save_random_taehv(
    path: str | Path,
    *,
    variant: Variant = "taew2_2",
    seed: int = 0,
    widths: Widths = SMALL_WIDTHS,
) -> None:
    """Writes a random file with the tensor names of `variant`, encoder included, as float16.

    The weights are drawn so that latents of unit variance decode to frames that spread over [0, 1]
    with some pixels saturated at either end. The global random state is not touched.

    Args:
        path: the safetensors file to write.
        variant: the published file whose layout is followed.
        seed: the same seed gives the same file.
        widths: channels of the decoder's three stages and of what follows;
            `FULL_WIDTHS[variant]` gives the published shapes.
    """
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in taehv_shapes(variant, widths).items():
        if len(shape) == 1:
            value = torch.randn(shape, generator=generator) * 0.1
        else:
            fan_in = shape[1] * shape[2] * shape[3]
            value = torch.randn(shape, generator=generator) * sqrt(_gain(name, variant) / fan_in)
        if name == "decoder.22.bias":
            value = value + 0.5  # mid-grey
        tensors[name] = value.half()
    save_file(tensors, path)


def taehv_shapes(variant: Variant, widths: Widths) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published file, with the widths given."""
    decoder = _super_decoder if variant.endswith("_super") else _base_decoder
    latent_channels, pixels = _LATENT_CHANNELS[variant], 3 * _PATCH[variant] ** 2
    return {
        **dict(_encoder(latent_channels, widths[3], pixels)),
        **dict(decoder(latent_channels, widths, pixels)),
    }


def _gain(name: str, variant: Variant) -> float:
    """Variance of a layer's output over its input's: 2 makes up for a ReLU."""
    if name == "decoder.22.weight":
        return _CONTRAST[variant]
    last_of_block = "conv.3" if variant.endswith("_super") else "conv.4"
    return 0.3 if last_of_block in name else 2.0  # residual branches stay small


def _conv(name: str, out: int, into: int, kernel: int, *, bias: bool) -> Tensors:
    yield f"{name}.weight", (out, into, kernel, kernel)
    if bias:
        yield f"{name}.bias", (out,)


def _memory_block(name: str, width: int) -> Tensors:
    yield from _conv(f"{name}.conv.0", width, 2 * width, 3, bias=True)
    yield from _conv(f"{name}.conv.2", width, width, 3, bias=True)
    yield from _conv(f"{name}.conv.4", width, width, 3, bias=True)


def _super_memory_block(name: str, width: int) -> Tensors:
    yield from _conv(f"{name}.conv.0", 2 * width, 1, 7, bias=False)
    yield from _conv(f"{name}.conv.1", 4 * width, 2 * width, 1, bias=True)
    yield from _conv(f"{name}.conv.3", width, 4 * width, 1, bias=False)


def _encoder(latent_channels: int, width: int, pixels: int) -> Tensors:
    yield from _conv("encoder.0", width, pixels, 3, bias=True)
    for start, stride in ((2, 2), (7, 2), (12, 1)):
        yield from _conv(f"encoder.{start}.conv", width, stride * width, 1, bias=False)
        yield from _conv(f"encoder.{start + 1}", width, width, 3, bias=False)
        for index in range(start + 2, start + 5):
            yield from _memory_block(f"encoder.{index}", width)
    yield from _conv("encoder.17", latent_channels, width, 3, bias=True)


def _base_decoder(latent_channels: int, widths: Widths, pixels: int) -> Tensors:
    yield from _conv("decoder.1", widths[0], latent_channels, 3, bias=True)
    for stage, (start, stride) in enumerate(((3, 1), (9, 2), (15, 2))):
        width = widths[stage]
        for index in range(start, start + 3):
            yield from _memory_block(f"decoder.{index}", width)
        yield from _conv(f"decoder.{start + 4}.conv", stride * width, width, 1, bias=False)
        yield from _conv(f"decoder.{start + 5}", widths[stage + 1], width, 3, bias=False)
    yield from _conv("decoder.22", pixels, widths[3], 3, bias=True)


def _super_decoder(latent_channels: int, widths: Widths, pixels: int) -> Tensors:
    yield from _conv("decoder.0", widths[0], latent_channels, 1, bias=False)
    for stage, (start, stride) in enumerate(((1, 1), (8, 2), (15, 2))):
        width, following = widths[stage], widths[stage + 1]
        for index in range(start, start + 3):
            yield from _super_memory_block(f"decoder.{index}", width)
        yield from _conv(f"decoder.{start + 3}", 4 * following, width, 3, bias=True)
        yield from _conv(f"decoder.{start + 6}.conv", stride * following, following, 1, bias=False)
    yield from _conv("decoder.22", pixels, widths[3], 3, bias=True)
