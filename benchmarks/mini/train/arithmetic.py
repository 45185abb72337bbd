"""The arithmetic that the stages train in: bfloat16 where the processor has it.

Where torch must emulate it (x86 without AVX-512, as many laptops), a training step in bfloat16
takes up to ten times as long as in float32; where the processor multiplies it, about half as long.
The weights and their moments are float32 in either case, and the manifest says which it was.
"""

from __future__ import annotations

import torch


def arithmetic() -> torch.dtype:
    """What this processor trains in."""
    multiplies = any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    return torch.bfloat16 if multiplies else torch.float32


def quick_arithmetic() -> torch.autocast:
    """Autocast to it, for the span of a `with`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=arithmetic() == torch.bfloat16)
