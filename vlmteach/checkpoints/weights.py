"""The weights of a checkpoint: which files, which tensors, and whether all of them were used."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vlmteach.checkpoints.files import AGAIN, CheckpointError, read_json, refuse_pointer

STEMS = ("model", "diffusion_pytorch_model")
"""What transformers and diffusers call the weights."""
_UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")


def header(file: Path) -> dict[str, int]:
    """Tensors in a safetensors file and how many numbers each has; the numbers are not read.

    Raises:
        CheckpointError: it is missing, cut short, or something else.
    """
    refuse_pointer(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: math.prod(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: got a file that is cut short or no safetensors ({error}); {AGAIN}"
        ) from error


def tensors(folder: Path) -> dict[str, int]:
    """All tensors of a network's folder, from the headers of its files: name -> numbers in it.

    Raises:
        CheckpointError: no safetensors weights under the usual names, a shard that is missing or
            holds other tensors than the index says, a tensor that two files hold.
    """
    files: dict[str, list[str]] = {}
    for stem in STEMS:
        if (folder / f"{stem}.safetensors").exists():
            files[f"{stem}.safetensors"] = []
        elif (index := read_json(folder / f"{stem}.safetensors.index.json")) is not None:
            files |= _shards(folder / f"{stem}.safetensors.index.json", index)
    if not files:
        raise CheckpointError(_what_is_there(folder))
    held: dict[str, int] = {}
    for name, promised in files.items():
        found = header(folder / name)
        if promised and set(promised) != set(found):
            odd = sorted(set(promised) ^ set(found))
            raise CheckpointError(
                f"{folder / name}: got other tensors than the index beside it says ({few(odd)}), "
                f"expected the same; {AGAIN}"
            )
        if twice := sorted(held.keys() & found):
            raise CheckpointError(
                f"{folder}: got {few(twice)} in more than one of {few(sorted(files))}, expected "
                "each tensor once; remove the files that do not belong to the checkpoint"
            )
        held |= found
    return held


def _shards(path: Path, index: Mapping[str, Any]) -> dict[str, list[str]]:
    """Shard -> the tensors that an index says it holds."""
    shards: dict[str, list[str]] = {}
    named = index.get("weight_map")
    for tensor, shard in named.items() if isinstance(named, dict) else ():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise CheckpointError(
                f"{path}: got the shard {shard!r}, expected the name of a file beside it; {AGAIN}"
            )
        if not (path.parent / shard).exists():
            raise CheckpointError(
                f"{path}: got no {shard}, which the index names, expected every shard beside it; "
                f"{AGAIN}"
            )
        shards.setdefault(shard, []).append(tensor)
    if not shards:
        raise CheckpointError(f"{path}: got an index without a weight_map; {AGAIN}")
    return shards


def _what_is_there(folder: Path) -> str:
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    expected = "expected model.safetensors, diffusion_pytorch_model.safetensors or an index of one"
    variants = [name for name in there if name.endswith(".safetensors") and name.count(".") > 1]
    if variants:
        plain = variants[0].split(".")[0] + ".safetensors"
        remedy = f"rename {variants[0]} to {plain} to use that variant" + (
            " (and the others alike, in the index too)" if len(variants) > 1 else ""
        )
        return f"{folder}: got only the variant {few(variants)}, {expected}; {remedy}"
    unsafe = [name for name in there if name.endswith(_UNSAFE)]
    if unsafe:
        return (
            f"{folder}: got only {few(unsafe)}, which may run code when it is read, {expected}; "
            "take a revision of the checkpoint with safetensors, or convert it where you trust it"
        )
    return f"{folder}: got no weights (it holds {few(there) or 'nothing'}), {expected}; {AGAIN}"


def refuse_larger(folder: Path | str, network: torch.nn.Module) -> None:
    """Refuses a config that describes more weights than the files hold.

    A library would make room for all of them before it says so.

    Args:
        folder: where the weights lie; nothing is said of a hub id.
        network: as the config describes it, on the meta device.

    Raises:
        CheckpointError: it is larger.
    """
    if not Path(folder).is_dir():
        return
    held = sum(tensors(Path(folder)).values())
    described = sum(parameter.numel() for parameter in network.parameters())
    if described > 2 * held:  # a few missing ones are told by name later
        raise CheckpointError(
            f"{folder}: got {held} weights for a config.json that describes {described}, expected "
            f"all of them; {AGAIN}, and check the sizes in its config"
        )


def refuse_unused(folder: Path | str, report: Mapping[str, Any]) -> None:
    """Refuses what a library's loading report says was not loaded exactly.

    Args:
        folder: where the weights lie.
        report: `output_loading_info` of transformers or diffusers.

    Raises:
        CheckpointError: tensors without a place, of another shape, or missing ones, by name.
    """
    odd = {
        "missing_keys": "missing",
        "mismatched_keys": "of another shape than the config says",
        "unexpected_keys": "that the network has no place for",
        "error_msgs": "in errors",
    }
    for kind, said in odd.items():
        found = report.get(kind) or ()
        names = sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in found)
        if names:
            raise CheckpointError(
                f"{folder}: got {len(names)} weights {said} ({few(names)}), expected every weight "
                "of the network and no other; take the checkpoint as published, with its own names"
            )


def refuse_not_finite(folder: Path | str, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuses weights with a NaN or an infinity: nothing that is made with them means anything.

    One read of each; a sum is finite where all its terms are.

    Raises:
        CheckpointError: names the tensors.
    """
    bad = [
        name
        for name, tensor in tensors
        if tensor.is_floating_point()
        and not torch.isfinite(tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)))
    ]
    if bad:
        raise CheckpointError(
            f"{folder}: got NaN or infinite weights ({few(sorted(bad))}), expected finite ones; "
            f"{AGAIN}, or take the one it was made from"
        )


@contextmanager
def loading(what: Path | str, *, passes: type[Exception] = CheckpointError) -> Iterator[None]:
    """Makes one line of whatever a library raises at a checkpoint that it cannot read.

    The libraries' own reports, tables of many lines, are not printed: `refuse_unused` tells.

    Args:
        what: the file or folder.
        passes: errors that say it well enough themselves.

    Raises:
        CheckpointError: for any error but a lack of memory.
    """
    reports = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [log.level for log in reports]
    for log in reports:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    except (passes, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{what}: could not be loaded ({type(error).__name__}: {said}), expected a checkpoint "
            f"as published; {AGAIN}, or check what was changed in it"
        ) from error
    finally:
        for log, level in zip(reports, levels, strict=True):
            log.setLevel(level)


def few(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
