"""Checkpoints of the package's own: trained ones it ships, random ones made on first use.

The random ones know nothing: they exist so that every byte of the path, from files to video, can
run on a laptop. They are written from a fixed seed into the user's cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

VERSION = 1
"""Raised whenever the bytes of a builtin change, so that no stale cache is read."""


SHIPPED = Path(__file__).parent.parent / "mini" / "weights"
"""`mini/wan` and its like: folders and files in the same layouts as the random ones."""
DEMO = SHIPPED.parent / "demo.tar"
"""A dozen instances of the miniature's test split."""


def cache_folder() -> Path:
    """`$VLMTEACH_CACHE`, or `vlmteach` under `$XDG_CACHE_HOME` (`~/.cache`)."""
    own = os.environ.get("VLMTEACH_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlmteach"


def _writers() -> dict[str, Callable[[Path], None]]:
    from vlmteach.builtin.hunyuan15 import save_random_hunyuan15
    from vlmteach.builtin.internvl import save_random_internvl
    from vlmteach.builtin.qwen_vl import save_random_qwen2_5_vl, save_random_qwen3_vl
    from vlmteach.builtin.taehv import save_random_taehv
    from vlmteach.builtin.wan import save_random_wan, save_random_wan_a14b

    return {
        "random/wan": save_random_wan,
        "random/wan_a14b": save_random_wan_a14b,
        "random/hunyuan15": save_random_hunyuan15,
        "random/qwen3_vl": save_random_qwen3_vl,
        "random/qwen2_5_vl": save_random_qwen2_5_vl,
        "random/internvl": save_random_internvl,
        "random/taehv.safetensors": save_random_taehv,
        "random/taehv1_5.safetensors": partial(save_random_taehv, variant="taehv1_5"),
    }


def builtin_path(name: str) -> Path:
    """The path of a builtin checkpoint; a random one is made on first use.

    Safe when several ranks ask at once: each writes its own copy and one rename wins.

    Raises:
        ValueError: for a name that is not a builtin.
    """
    shipped = {f"mini/{path.name}": path for path in SHIPPED.iterdir()} | {DEMO.name: DEMO}
    if name in shipped:
        return shipped[name]
    writers = _writers()
    if name not in writers:
        known = ", ".join(sorted({*writers, *shipped}))
        raise ValueError(f"builtin: got {name!r}, expected one of {known}")
    target = cache_folder() / f"v{VERSION}" / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".making-"))
    try:
        writers[name](scratch / target.name)
        try:
            os.rename(scratch / target.name, target)
        except OSError:
            if not target.exists():  # lost the race to another rank: its copy is the same
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def source_path(name: str) -> str:
    """`builtin:demo.tar` -> the path of the dozen tasks the package ships; others as they are."""
    return str(builtin_path(name.removeprefix("builtin:"))) if name.startswith("builtin:") else name


def resolve(checkpoint: str) -> str:
    """`builtin:NAME` -> the path of a checkpoint of the package; anything else as it is.

    A checkpoint that looks like a path and does not exist is refused here, before a hub client
    takes it for a repository.

    Raises:
        ValueError: for an unknown builtin or a path that does not exist.
    """
    if checkpoint.startswith("builtin:"):
        return str(builtin_path(checkpoint.removeprefix("builtin:")))
    path = Path(checkpoint).expanduser()
    if path.exists():
        return str(path)
    is_file_name = checkpoint.startswith((".", "/", "~")) or path.suffix == ".safetensors"
    if is_file_name or checkpoint.count("/") != 1:
        raise ValueError(
            f"checkpoint: got {checkpoint!r}, which is no file or folder, expected a local path, "
            "a hub id of the form owner/name, or builtin:NAME"
        )
    return checkpoint
