"""The family `taehv`: the surrogates of all the VAEs."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.families import DecoderCase
from vlmteach.builtin.taehv import save_random_taehv
from vlmteach.decoders.taehv import TaehvDecoder


def small(folder: Path, *, variant: Any) -> TaehvDecoder:
    path = folder / "taehv.safetensors"
    save_random_taehv(path, variant=variant)
    return TaehvDecoder.load(path, dtype=torch.float32, device="cpu")


CASE = DecoderCase(
    small={
        variant: partial(small, variant=variant)
        for variant in ("taew2_2", "taew2_2_super", "taew2_1", "taehv1_5", "taehv1_5_super")
    }
)
