"""Parts of a checkpoint in diffusers' layout: loaded strictly, or lent to a device for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from vlmteach.checkpoints.files import CheckpointError
from vlmteach.checkpoints.hollow import build_part, hollow_device
from vlmteach.checkpoints.weights import loading, refuse_larger, refuse_not_finite, refuse_unused


def load_part(model: Any, checkpoint: str | Path, part: str, **options: Any) -> Any:
    """One part, every tensor of which was used; both libraries would only warn and go on.

    Args:
        model: a class of diffusers or transformers.
        checkpoint: a local folder or a hub id.
        part: the subfolder.
        options: `torch_dtype` for diffusers, `dtype` for transformers; for diffusers also what is
            to be read in place of the config's own.

    Raises:
        CheckpointError: weights are missing, left over, of other shapes, or not finite.
    """
    folder = Path(checkpoint) / part
    if (device := hollow_device()) is not None:
        with loading(folder):
            return build_part(model, checkpoint, part, device, options)
    stated = {"subfolder": part, "use_safetensors": True, "output_loading_info": True}
    with loading(folder):
        of_transformers: bool = PreTrainedModel in model.__mro__
        if of_transformers:  # diffusers makes no room for what does not fit
            config = model.config_class.from_pretrained(checkpoint, subfolder=part)
            with torch.device("meta"):
                refuse_larger(folder, model(config))
            stated["ignore_mismatched_sizes"] = True  # they are refused by name below
        network, report = model.from_pretrained(checkpoint, **stated, **options)
    refuse_unused(folder, report)
    refuse_not_finite(folder, network.named_parameters())
    return network


def layers_of(parameters: Iterable[str]) -> dict[str, None]:
    """Names of parameters -> the layers that have them, in order.

    A parameter of a block's own, such as its modulation, counts as a layer.
    """
    return {name.removesuffix(".weight").removesuffix(".bias"): None for name in parameters}


def wider(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums are taken that are rounded to `dtype`: float32 at least."""
    return dtype if dtype == torch.float64 else torch.float32


def read_configs(
    checkpoint: str | Path, expected: str, models: Mapping[str | None, Any]
) -> list[dict[str, Any]]:
    """What the configs of some parts say, in order.

    Args:
        checkpoint: a local folder or a hub id.
        expected: its layout, for the error.
        models: part -> class of diffusers; None is the pipeline's index.

    Raises:
        CheckpointError: a config that cannot be read.
    """
    try:
        return [dict(m.load_config(checkpoint, subfolder=part)) for part, m in models.items()]
    except (OSError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"checkpoint: got {str(checkpoint)!r}, which could not be read ({said}), expected a "
            f"local folder or a hub id in {expected}; check the name, or download it first"
        ) from error


def original_name(module: str, ours: str, theirs: str, names: Mapping[str, str]) -> str:
    """diffusers' name of a block's linear layer -> that of the model as first published.

    Args:
        module: such as `blocks.7.attn2.to_out.0`.
        ours, theirs: what the list of blocks is called.
        names: inner layers, diffusers' name to the original's.

    Raises:
        ValueError: a module without an entry.
    """
    blocks, _, rest = module.partition(".")
    number, _, inner = rest.partition(".")
    if blocks != ours or not number.isdigit() or inner not in names:
        raise ValueError(
            f"module: got {module!r}, expected {ours}.N.X with X one of {', '.join(names)}; "
            "attach the LoRA to those only"
        )
    return f"{theirs}.{number}.{names[inner]}"


class Lent:
    """An encoder that stays where it is, as a function on `device`: its weights are lent to it.

    For encoders that are large and seldom needed: the copies are made when it is called, and
    dropped when the loan ends, after the call or with the outermost `with` around several. Nothing
    is copied where the encoder is on that device.

    Args:
        module: frozen, of transformers; None where a checkpoint has none, which is never called.
        device: where its inputs are.
    """

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module = module
        self.device = device
        self._copies: dict[str, Tensor] = {}
        self._open = 0

    # What diffusers' functions ask of an encoder besides a call.

    @property
    def config(self) -> Any:
        """The module's."""
        return self._module.config

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self._module.dtype

    def parameters(self) -> Iterator[Tensor]:
        """Its weights, where they stay."""
        return self._module.parameters()

    @property
    def is_lent(self) -> bool:
        """Whether its weights have to be copied for a call."""
        return next(self._module.parameters()).device.type != self.device.type

    @contextmanager
    def loan(self) -> Iterator[None]:
        """For the span of a `with`, the copies that the first call makes are kept."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._copies = {}

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The module's output, on the device."""
        with self.loan():
            if not self._copies:
                weights = chain(self._module.named_parameters(), self._module.named_buffers())
                self._copies = {name: tensor.to(self.device) for name, tensor in weights}
            return functional_call(self._module, self._copies, arguments, named)
