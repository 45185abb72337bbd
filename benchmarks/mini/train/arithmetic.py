"""The arithmetic that the stages train in: bfloat16 where the processor has it.

Where torch must emulate it (x86 without AVX-512, as many laptops), a training step in bfloat16
takes up to ten times as long as in float32; where the processor multiplies it, about half as long.
The weights and their moments are float32 in either case, and the manifest says which it was.
"""

from __future__ import annotations

import torch


def arithmetic() -> torch.dtype:
    """What this processor trains in."""
    # oneDNN's own answer: else its kernels are left out and torch goes number by number.
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def quick_arithmetic() -> torch.autocast:
    """Autocast to it, for the span of a `with`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=arithmetic() == torch.bfloat16)
