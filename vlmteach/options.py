"""From the words of a command line to a `Config`: presets, files, dotted options.

Nothing heavy is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vlmteach.config import Config

PRESETS = Path(__file__).parent / "configs"
DEFAULT_PRESET = "mini"
CLASSES = ("optimizer", "scheduler", "reward", "callbacks")
"""Fields of `Config` that name classes."""


def preset_path(name: str) -> Path:
    """A preset's name or a YAML file -> the file.

    Raises:
        ValueError: when it is neither.
    """
    if (preset := PRESETS / f"{name}.yaml").is_file():
        return preset
    if (path := Path(name)).is_file():
        return path
    known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
    raise ValueError(f"--config: got {name!r}, expected a YAML file or a preset's name: {known}")


def config_parser() -> Any:
    """The options that are fields of `Config`."""
    from jsonargparse import ActionConfigFile, ArgumentParser  # pyright: ignore[reportPrivateImportUsage]

    cli = ArgumentParser(exit_on_error=False, add_help=False, usage=argparse.SUPPRESS)
    cli.add_argument(
        "--config",
        action=ActionConfigFile,
        help=f"a preset's name or a YAML file (default: {DEFAULT_PRESET}); options after it win",
    )
    cli.add_class_arguments(Config, skip=set(CLASSES))
    return cli


def presets_first(words: Sequence[str]) -> list[str]:
    """Moves `--config` to the front, presets resolved to files: other options win wherever they
    stand, and without `--config` the embedded default is taken."""
    chosen, rest = [], []
    left = iter(words)
    for word in left:
        if word == "--config":
            chosen.append(next(left, ""))
        elif word.startswith("--config="):
            chosen.append(word.removeprefix("--config="))
        else:
            rest.append(word)
    front = [
        part for name in chosen or [DEFAULT_PRESET] for part in ("--config", str(preset_path(name)))
    ]
    return front + rest


def read_config(words: Sequence[str]) -> Config:
    """The config that some words ask for.

    Args:
        words: `--config` and dotted options, as on the command line.

    Raises:
        ValueError: for a preset or option that does not exist, or a value that does not fit.
    """
    cli = config_parser()
    try:
        parsed = cli.instantiate(cli.parse_args(presets_first(words)))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    named = {field.name: parsed[field.name] for field in fields(Config) if field.name in parsed}
    return Config(**named)


def parse(own: argparse.ArgumentParser, words: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """A command's own options, and the config that all others ask for.

    Args:
        own: made with `add_help=False, allow_abbrev=False, exit_on_error=False`.
        words: of the command line; `-h` and `--help` print all options and end the process.

    Raises:
        ValueError: for words that neither takes.
    """
    if {"-h", "--help"} & set(words):
        print(own.format_help())
        print(config_parser().format_help())
        raise SystemExit(0)
    try:
        options, others = own.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    return options, read_config(others)
