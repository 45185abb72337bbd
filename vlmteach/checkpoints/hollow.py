"""Models without weights: built from a checkpoint's configs on a device, meta where it is to count.

Within `hollow` every loader of the house builds what it would load, shapes and dtypes alike, and
reads no weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

_DEVICE: ContextVar[torch.device | None] = ContextVar("hollow", default=None)


@contextmanager
def hollow(device: torch.device) -> Iterator[None]:
    """Loads nothing for the span of a `with`: networks are built on `device`, encoders on meta."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


def hollow_device() -> torch.device | None:
    """Where networks are built instead of loaded; None outside `hollow`."""
    return _DEVICE.get()


def build_part(model: Any, checkpoint: Any, part: str, device: torch.device, options: Any) -> Any:
    """One part of a folder in diffusers' layout, as its config says.

    Args:
        model: a class of diffusers, or of transformers (an encoder).
        checkpoint: the folder.
        part: the subfolder.
        device: for a network of diffusers.
        options: as for loading: `torch_dtype` or `dtype`, and entries in place of the config's.
    """
    options = dict(options)
    if "dtype" in options:
        config = model.config_class.from_pretrained(checkpoint, subfolder=part)
        with torch.device("meta"):
            return model(config).to(options["dtype"])
    dtype = options.pop("torch_dtype")
    with device:
        network = model.from_config(model.load_config(checkpoint, subfolder=part), **options)
    kept = network._keep_in_fp32_modules or ()  # as `from_pretrained` does it
    for name, parameter in network.named_parameters():
        if not any(layer in name.split(".") for layer in kept):
            parameter.data = parameter.data.to(dtype)
    return network
