"""`vlmteach convert`: weights as first published, beside a base, into a folder that can be loaded.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach import exits
from vlmteach.stops import stoppable
from vlmteach.text import folder

if TYPE_CHECKING:
    from vlmteach.reasoners.original_weights import Weight

SHARD = "5GB"
"""At most so much is written to one file, and held in memory at a time."""


def parser() -> argparse.ArgumentParser:
    """What to convert, beside what, and where to."""
    cli = argparse.ArgumentParser(
        prog="vlmteach convert",
        description="Makes a folder in diffusers' layout of a Wan2.2 transformer's weights as "
        "first published (a pickle, read safely, or safetensors) and a base for all other parts.",
        allow_abbrev=False,
    )
    cli.add_argument(
        "weights", nargs="+", type=Path, help="model.pt, a .safetensors file, or all its shards"
    )
    cli.add_argument(
        "--base",
        required=True,
        help="what it was trained from, in diffusers' layout: a folder or a hub id such as "
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    )
    cli.add_argument("--out", required=True, type=folder, help="a new folder")
    cli.add_argument(
        "--part",
        choices=("transformer", "transformer_2"),
        default="transformer",
        help="of Wan2.2-A14B, transformer is the high-noise expert and transformer_2 the low-noise "
        "one; convert twice, with the first folder as the second's base (default: %(default)s)",
    )
    cli.add_argument("--entry", help="which set of weights of a pickle that has several")
    return cli


def main(words: Sequence[str] | None = None) -> int:
    """Reads the command line and converts: 0 when the folder is there, 2 when it could not be."""
    arguments = parser().parse_args(words)
    try:
        with stoppable():
            placed = convert(
                arguments.weights, arguments.base, arguments.out, arguments.part, arguments.entry
            )
    except (ValueError, OSError) as error:
        return exits.refused(error, "(vlmteach convert --help lists the options)")
    print(f"{placed} tensors -> {arguments.out / arguments.part}, all other parts of the base")
    return 0


def convert(
    files: Sequence[Path], base: str, out: Path, part: str = "transformer", entry: str | None = None
) -> int:
    """Writes the folder; see `parser` for the arguments. It appears whole or not at all.

    Returns:
        How many tensors the files held for the part: as many as it has.

    Raises:
        ValueError: a base of another kind, a folder that is there already, or weights that are not
            exactly the part's.
    """
    from vlmteach.checkpoints.find import find
    from vlmteach.reasoners.original_weights import place_weights, read_weights
    from vlmteach.reasoners.wan_names import originals

    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out: got {str(out)!r}, which is there already, expected a new folder")
    folder = Path(find(base, "reasoner", "wan"))
    if out.is_relative_to(folder.resolve()):
        raise ValueError(f"--out: got {str(out)!r}, which is in the base, expected another place")
    index, shapes = _read_base(folder, part)
    layers = {name.removesuffix(".weight").removesuffix(".bias") for name in shapes}
    placed = place_weights(read_weights(files, entry), shapes, originals(layers))
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        made = scratch / out.name
        # Content without modes: what is shared may be read-only.
        shutil.copytree(
            folder, made, ignore=_not_copied(folder, part), copy_function=shutil.copyfile
        )
        for place, _, _ in os.walk(made):
            os.chmod(place, 0o755)
        (made / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        _write(placed, made / part)
        os.rename(made, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return len(placed)


def _read_base(folder: Path, part: str) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The folder's index, complete, and the shapes of the part's parameters."""
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    from vlmteach.reasoners.parts import read_configs
    from vlmteach.reasoners.wan_a14b import boundary_of
    from vlmteach.reasoners.wan_checkpoint import NO_IMAGE_TOKENS, checked_index, has_second

    network: Any = WanTransformer3DModel
    layout = "the layout of Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    (index,) = read_configs(folder, layout, {None: WanPipeline})
    if has_second(index):
        boundary_of(folder)
    else:
        index = checked_index(folder)
        if part != "transformer":
            raise ValueError(
                f"--part: got {part} for {str(folder)!r}, which has none, expected transformer"
            )
    (config,) = read_configs(folder, layout, {part: network})
    with torch.device("meta"):
        made = network.from_config(config, **NO_IMAGE_TOKENS)
    return index, {name: tuple(p.shape) for name, p in made.named_parameters()}


def _not_copied(folder: Path, part: str) -> Any:
    """Of the base's files, the part's own weights; and what a download leaves beside them."""

    def ignore(directory: str, names: list[str]) -> set[str]:
        if Path(directory) == folder / part:
            return {name for name in names if name != "config.json"}
        return {name for name in names if name in (".git", ".cache")}

    return ignore


def _write(placed: Mapping[str, Weight], folder: Path) -> None:
    """The weights in diffusers' files, read a shard at a time."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    sizes = {
        name: torch.empty(weight.stored.shape, dtype=weight.dtype, device="meta")
        for name, weight in placed.items()
    }
    name = "diffusion_pytorch_model{suffix}.safetensors"
    split = split_torch_state_dict_into_shards(sizes, filename_pattern=name, max_shard_size=SHARD)
    for file, names in split.filename_to_tensors.items():
        shard = {name: placed[name].read() for name in names}
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"--out: {file} could not be written ({error}); make room") from error
        # Which hides it from everybody else, whatever the umask.
        shutil.copymode(folder.parent / "model_index.json", folder / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        file = folder / f"{name.format(suffix='')}.index.json"
        file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
