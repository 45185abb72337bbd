"""Counting what real models compute, move and hold on the meta device: no memory, no data.

Weights, pixels and activations are meta tensors, which have a shape and nothing else. What a model
decides by value (token ids, masks, grids: integers) stays real, on the CPU. Attention is counted as
one fused kernel, as a GPU runs it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from math import prod
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, register_flop_formula

from vlmteach.recompute import ATTENTION

aten = torch.ops.aten
_LARGE = 2**24
"""Numbers of a repeated mask from which on it is counted and not made: nothing asks for its values,
and HunyuanVideo-1.5's has a cell for each pair of tokens."""


class IntegersStayReal(TorchDispatchMode):
    """Integer and boolean tensors are kept on the CPU, and lent to operations on meta tensors."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.device(kwargs.get("device") or "cpu").type == "meta":
            dtype = kwargs.get("dtype") or (args[0].dtype if _is_tensor(args[0]) else None)
            of_numbers = func in (aten.arange.default, aten.arange.start, aten.arange.start_step)
            if of_numbers and dtype is None:
                dtype = torch.int64
            if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
                kwargs["device"] = torch.device("cpu")
        if func is aten.repeat.default and prod((args[0].numel(), *args[1])) > _LARGE:
            return func(args[0].to("meta"), *args[1:])
        if not tree_any(_is_meta, (args, kwargs)) or func is aten._to_copy.default:
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return False  # HunyuanVideo-1.5 asks whether the first frame it is given is all zero
        if func is aten.index.Tensor or func is aten.index_put.default:
            args = (args[0], _as_positions(args[1]), *args[2:])
        return func(*tree_map(_lend, args), **tree_map(_lend, kwargs))


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operations on meta tensors read and write, as eager kernels run them.

    Views and fresh memory move nothing; what is broadcast is read once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and not func.name().startswith(("aten::empty", "aten::new_empty")):
            for tensor in filter(_is_meta, tree_leaves((args, kwargs, out))):
                size = tensor.numel() * tensor.element_size()
                self.bytes += min(size, tensor.untyped_storage().nbytes())
        return out


class _Products(TorchDispatchMode):
    """Adds up operations by torch's own formulas.

    Its `FlopCounterMode` keeps what is recomputed alive until the end of the backward pass, and
    with it the peak of memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class Live(TorchDispatchMode):
    """Follows the bytes of tensors that come to be under it, for as long as they live.

    Whatever was there before does not count, nor what a kernel takes for its own span.

    Args:
        device: the type of device whose tensors are followed.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device = device
        self.bytes = 0
        """Alive now."""
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        fresh = [t for t in tree_leaves(out) if _is_tensor(t) and t.device.type == self.device]
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if _is_tensor(t)}
        for tensor in fresh:
            self._follow(tensor.untyped_storage(), given)
        return out

    def _follow(self, storage: Any, given: set[int]) -> None:
        name, size = id(storage), storage.nbytes()
        if name in self._known or name in given:
            return

        def gone(_: Any) -> None:
            self.bytes -= size
            del self._known[name]

        self._known[name] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _is_meta(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_meta


def _lend(x: Any) -> Any:
    # A single number may meet a meta tensor as it is.
    return x.to("meta") if isinstance(x, Tensor) and x.ndim and not x.is_meta else x


def _as_positions(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """A mask's positions can be found only while its values are known."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not index.is_meta:
            found += index.nonzero(as_tuple=True)
        else:
            found.append(index)
    return found


@torch.library.custom_op("vlmteach::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Fused attention that is only ever counted."""
    raise NotImplementedError


@torch.library.custom_op("vlmteach::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Never run: it stands for the fused backward kernel, to be counted."""
    raise NotImplementedError


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return q.new_empty((*q.shape[:-1], v.shape[-1]))


@attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, ...]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors, output)  # as the real kernels do


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*attention_backward(grad, *ctx.saved_tensors[:3], ctx.causal), None)


attention.register_autograd(_differentiate, setup_context=_save)
ATTENTION.add(torch.ops.vlmteach.attention.default)  # `selective` keeps its output like the others'


@register_flop_formula(torch.ops.vlmteach.attention)
def attention_flops(
    q: Sequence[int], k: Sequence[int], v: Sequence[int], causal: bool, **_: Any
) -> int:
    """Two matrix products of Sq x Sk x D; a causal kernel skips half of each."""
    *batch, rows, width = q
    cells = torch.Size(batch).numel() * rows * k[-2]
    return 2 * cells * (width + v[-1]) // (2 if causal else 1)


@register_flop_formula(torch.ops.vlmteach.attention_backward)
def attention_backward_flops(
    grad: Sequence[int],
    q: Sequence[int],
    k: Sequence[int],
    v: Sequence[int],
    causal: bool,
    **_: Any,
) -> int:
    """Five products: a fused kernel recomputes the scores, then makes four gradients."""
    return 5 * attention_flops(q, k, v, causal) // 2


@register_flop_formula(aten.addmm_)
def addmm_in_place_flops(out: Sequence[int], a: Sequence[int], b: Sequence[int], **_: Any) -> int:
    """As for `addmm`, which torch counts itself."""
    return 2 * a[0] * a[1] * b[1]


def _fused(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *_: Any, **named: Any
) -> Tensor:
    """What every scaled dot-product attention becomes while it is counted.

    A mask is counted as the full square, which is what a kernel given one computes.
    """
    return attention(query, key, value, bool(named.get("is_causal")))


def flops(run: Callable[[], Any]) -> tuple[int, Any]:
    """Floating-point operations of a call on meta tensors, and its result.

    Matrix products, convolutions and attention are counted, a multiplication and an addition as
    two; what is done element by element is not.
    """
    counter = _Products()
    with IntegersStayReal(), patch.object(F, "scaled_dot_product_attention", _fused), counter:
        result = run()
    return counter.total, result
