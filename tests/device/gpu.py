"""A device without a device: tensors on "gpu:0" that hold a real CPU tensor.

Every operation runs on what its tensors hold. It raises where tensors of the CPU and of the device
meet, as CUDA does, and counts where the host waits for the device and where CUDA has no
deterministic form of it. Importing this registers the backend for the whole process: give it one
of its own.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._device import _device_constructors
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

HOST = torch.device("cpu")

inexact: Counter[str] = Counter()
"""Operations that were run and have no deterministic form on CUDA."""
reads: Counter[str] = Counter()
"""Times that the host waited for a value, by operation."""
lent: Counter[str] = Counter()
"""Bytes of weights that were copied from the host to the device."""

INEXACT = re.compile(
    r"_?upsample_(linear|bilinear|bicubic|trilinear)\dd(_aa)?_backward|grid_sampler_\dd_backward"
    r"|reflection_pad\dd_backward|_?adaptive_(avg|max)_pool\dd_backward|avg_pool3d_backward"
    r"|fractional_max_pool\dd_backward|max_unpool\dd|nll_loss(2d)?_(for|back)ward|put_?|histc"
    r"|_?ctc_loss_backward|_embedding_bag_.*backward|(nan)?median|scatter_reduce_?"
)
"""What `torch.use_deterministic_algorithms` refuses on CUDA; cumulated sums of fractions too."""
_MAY_MEET = ("copy_", "index", "index_put", "index_put_")
"""Operations that take a tensor of the CPU beside those of the device: copies and indices."""
_READS = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "is_nonzero", "_unique2")
"""Operations whose result, or its size, the host waits for."""


class OnDevice(Tensor):
    """A tensor on the device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("gpu", 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, *args, **(kwargs or {}))

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: OnDevice) -> None:
        self.become(other)

    def become(self, other: OnDevice) -> None:
        """Shape and strides, and what is held, which torch does not know of."""
        Tensor.data.__set__(self, other)  # pyright: ignore
        self.held = other.held

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({list(self.shape)}, {self.dtype})"


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Any operation that has a tensor of the device among its arguments, or makes one."""
    name = op.overloadpacket.__name__
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = {id(x.held): x for x in tensors if isinstance(x, OnDevice)}
    theirs = {id(x): x for x in tensors if not isinstance(x, OnDevice)}
    for x in theirs.values():
        if ours and x.ndim and name not in _MAY_MEET:
            said = f"{name}: got tensors on gpu:0 and on cpu, {list(x.shape)}"
            print(said, file=sys.stderr, flush=True)  # raised in a backward pass, it aborts
            raise RuntimeError(said)
    cumulated = name.startswith("cum") and tensors[0].is_floating_point()
    if cumulated or INEXACT.fullmatch(name):
        inexact[name] += 1
    asked = kwargs.get("device")
    on_device = asked.type == "gpu" if asked is not None else bool(ours)
    held_args, held = pytree.tree_map_only(OnDevice, lambda x: x.held, (args, kwargs))
    if asked is not None:
        held = {k: v for k, v in held.items() if k != "pin_memory"} | {"device": HOST}
    out = op(*held_args, **held)

    masks = name.startswith("index") and any(x.dtype == torch.bool for x in tensors[1:])
    fetched = name == "_to_copy" and not on_device
    fetched |= name == "copy_" and not isinstance(args[0], OnDevice)
    if (ours and fetched) or masks or name in _READS:
        reads[name] += 1
    if name == "copy_" and ours and isinstance(args[1], torch.nn.Parameter):
        lent[name] += args[1].nbytes
    for x in ours.values():
        if x.shape != x.held.shape or x.stride() != x.held.stride():  # as `arange_out` resizes
            x.become(OnDevice(x.held))

    def wrapped(x: Tensor) -> Tensor:
        if id(x) in ours:
            return ours[id(x)]  # changed in place
        return OnDevice(x) if on_device and id(x) not in theirs else x

    return pytree.tree_map_only(Tensor, wrapped, out)


class _Module:
    """What torch asks of a device's module, `torch.gpu`."""

    @staticmethod
    def is_available() -> bool:
        return True

    is_initialized = is_available

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_rng_state(device: Any = None) -> Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    @staticmethod
    def set_rng_state(state: Tensor, device: Any = None) -> None:
        pass

    @staticmethod
    @contextmanager
    def device(index: Any) -> Iterator[None]:
        yield

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_tensor = torch.tensor


def tensor(data: Any, **options: Any) -> Tensor:
    """torch's own reads a list of tensors below the level at which this device is seen."""
    return _tensor(pytree.tree_map_only(OnDevice, Tensor.item, data), **options)


_setup_privateuseone_for_python_backend("gpu", backend_module=_Module)
torch._C._set_only_lift_cpu_tensors(True)  # what `torch.tensor` makes is moved, and so seen
_library = torch.library.Library("_", "IMPL")
_library.fallback(run, "PrivateUse1")
_device_constructors()  # kept from now on, with torch's own: `with torch.device(...)` goes by it
torch.tensor = tensor
