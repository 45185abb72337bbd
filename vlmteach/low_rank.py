"""peft's LoRA layer, computed in the network's dtype from weights in their own."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora import Linear
from torch import Tensor


class LowRankLinear(Linear):
    """A linear layer and its low-rank update, which one matrix product adds in place.

    peft computes the update in the dtype of A and B: with float32 weights on a bfloat16 network it
    converts the whole input and output of each layer and passes five times over float32 tensors of
    their size. Here A and B are converted, which are small. Where the dtypes agree, the value is
    peft's, bit for bit if the scale is a power of two and the product is not split on the device.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [..., in] -> x W^T + bias + alpha / r (x A^T) B^T, [..., out]."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        out = self.base_layer(_rows(x), *args, **kwargs)
        for name in self.active_adapters:
            linears: tuple[Any, Any] = (self.lora_A[name], self.lora_B[name])
            a, b = (linear.weight.to(out.dtype) for linear in linears)
            # In place: nothing else holds the layer's fresh output, nor does its backward need it.
            # Rows of their own: the gradients of x are then summed in peft's order.
            out.addmm_(_rows(x) @ a.T, b.T, alpha=self.scaling[name])
        return out.view(*x.shape[:-1], out.shape[-1])


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
