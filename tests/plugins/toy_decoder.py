"""The toy reasoner's decoder with a checkpoint of its own, as a family of decoders from outside."""

from __future__ import annotations

from typing import Self

import torch
from safetensors.torch import load_file

from tests.plugins.toy_reasoner import ToyDecoder


class LoadedToyDecoder(ToyDecoder):
    @classmethod
    def load(cls, checkpoint: str | None, *, dtype: torch.dtype, device: torch.device) -> Self:
        if checkpoint is None:
            raise ValueError("decoder.checkpoint: got none, expected the toy's file; name it")
        return cls(load_file(checkpoint)["colours"].to(device, dtype))
