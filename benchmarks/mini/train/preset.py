"""The finished recipe as a preset of its own, beside its models."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

NAME = "mini.yaml"


def save_preset(out: Path) -> Path:
    """Writes the preset `mini` with the models of a recipe's folder in the shipped ones' place.

    Args:
        out: folder of the recipe.

    Returns:
        `<out>/mini.yaml`, for `--config` of `vlmteach.fit` and `benchmarks.mini`.
    """
    shipped = (files("vlmteach") / "configs" / NAME).read_text(encoding="utf-8")
    lines = [line for line in shipped.splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("builtin:mini/", f"{out.resolve()}/")
    path = out / NAME
    path.write_text(f"# python -m benchmarks.mini --config {path} ...\n{text}\n", encoding="utf-8")
    return path
