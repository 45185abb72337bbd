"""A sweep's file: its settings, seeds and instances, read and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vlmteach.presets import Unambiguous
from vlmteach.text import decode_text, read_file

FIELDS = {"config", "instances", "seeds", "devices", "settings"}
OWN = {"config", "instances", "out", "devices", "num_nodes", "run.seed"}
"""Options that a sweep gives to all its runs."""
LARGEST = 2**20
"""Bytes of a sweep file."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says."""

    config: str
    instances: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    """Name -> overrides of the config, by dotted name."""
    seeds: tuple[int, ...] = (0,)
    devices: int | None = None

    def runs(self, out: Path) -> list[tuple[str, int, Path]]:
        """(setting, seed, folder) of every run."""
        return [
            (name, seed, out / folder_of(name) / f"seed{seed}")
            for name in self.settings
            for seed in self.seeds
        ]

    def only(self, names: Iterable[str]) -> Sweep:
        """The same sweep with some of its settings.

        Raises:
            ValueError: for a name it does not have.
        """
        chosen = set(names)
        if unknown := sorted(chosen - set(self.settings)):
            raise ValueError(
                f"--only: got {unknown[0]!r}, expected one of the settings {list(self.settings)}"
            )
        return replace(self, settings={k: v for k, v in self.settings.items() if k in chosen})


def folder_of(setting: str) -> str:
    """A setting's name as a folder: `no goal query` -> `no-goal-query`."""
    return re.sub(r"[^a-z0-9.=]+", "-", setting.lower()).strip("-")


def read_sweep(path: Path) -> Sweep:
    """Reads and checks a sweep file.

    Raises:
        ValueError: names the field, what was got and what was expected.
    """
    try:
        given = yaml.load(decode_text(read_file(path, LARGEST)), Unambiguous)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: got {' '.join(str(error).split())}, expected YAML") from error
    if not isinstance(given, dict) or not {"config", "instances", "settings"} <= set(given):
        got = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise ValueError(f"{path}: got {got}, expected config, instances and settings")
    if unknown := sorted(set(given) - FIELDS):
        raise ValueError(f"{path}: got the field {unknown[0]!r}, expected one of {sorted(FIELDS)}")
    if not isinstance(given["settings"], dict):
        got = type(given["settings"]).__name__
        raise ValueError(f"{path}: settings: got {got}, expected a name and its changes per line")
    settings = {str(name): changes or {} for name, changes in given["settings"].items()}
    for name, changes in settings.items():
        if not isinstance(changes, dict):
            raise ValueError(
                f"{path}: settings: {name}: got {changes!r}, expected {{option: value}}"
            )
        if taken := sorted(OWN & changes.keys()):
            raise ValueError(
                f"{path}: settings: {name}: got {taken[0]!r}, expected an option of one run's; the "
                "sweep sets it for all: use its own fields, or leave it out"
            )
    folders = [folder_of(name) for name in settings]
    if len(set(folders)) < len(folders):
        raise ValueError(f"{path}: settings: got names that share a folder, expected {folders}")
    if not all(folder.strip(".") for folder in folders):
        raise ValueError(
            f"{path}: settings: got the folders {folders}, expected each with a letter or digit; "
            "rename them"
        )
    if not settings:
        raise ValueError(f"{path}: settings: got none, expected at least one; write `base: {{}}`")
    instances, seeds = given["instances"], given.get("seeds", [0])
    if not isinstance(instances, str) and not _is_list(instances, str):
        raise ValueError(f"{path}: instances: got {instances!r}, expected a list of tars, folders")
    if not _is_list(seeds, int) or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{path}: seeds: got {seeds!r}, expected a list of whole numbers, each once"
        )
    return Sweep(
        config=str(given["config"]),
        instances=tuple([instances] if isinstance(instances, str) else instances),
        settings=settings,
        seeds=tuple(seeds),
        devices=given.get("devices"),
    )


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(each) is kind for each in value)
