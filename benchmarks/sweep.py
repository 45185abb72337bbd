"""Methods x settings x seeds over the same instances, each as a run of `vlmteach.fit`.

    python -m benchmarks.sweep sweep.yaml --out runs/sweep

A sweep file:

    config: wan22-turbo          # a preset or a YAML file, for every setting
    instances: [data.tar]
    seeds: [0]
    devices: 1                   # processes per machine
    settings:
      base: {method: base}
      micro-fit: {}
      no goal query: {query.ask: process}

Every run lies in `<out>/<setting>/seed<k>` and is resumable, so the sweep is: the same command does
what is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FIELDS = {"config", "instances", "seeds", "devices", "settings"}


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


def folder_of(setting: str) -> str:
    """A setting's name as a folder: `no goal query` -> `no-goal-query`."""
    return re.sub(r"[^a-z0-9.=]+", "-", setting.lower()).strip("-")


def read_sweep(path: Path) -> Sweep:
    """Reads and checks a sweep file.

    Raises:
        ValueError: names the field, what was got and what was expected.
    """
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(given, dict) or not {"config", "instances", "settings"} <= set(given):
        got = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise ValueError(f"{path}: got {got}, expected config, instances and settings")
    if unknown := sorted(set(given) - FIELDS):
        raise ValueError(f"{path}: got the field {unknown[0]!r}, expected one of {sorted(FIELDS)}")
    settings = {str(name): changes or {} for name, changes in given["settings"].items()}
    folders = [folder_of(name) for name in settings]
    if len(set(folders)) < len(folders) or "" in folders:
        raise ValueError(f"{path}: settings: got names that share a folder, expected {folders}")
    instances = given["instances"]
    return Sweep(
        config=str(given["config"]),
        instances=tuple([instances] if isinstance(instances, str) else instances),
        settings=settings,
        seeds=tuple(given.get("seeds", (0,))),
        devices=given.get("devices"),
    )


def command(sweep: Sweep, setting: str, seed: int, folder: Path) -> list[str]:
    """The command line of one run."""
    changes = {"run.seed": seed, "run.base_video": False, "wandb.group": folder_of(setting)}
    changes |= sweep.settings[setting]
    options = [f"--{name}={json.dumps(value).strip(chr(34))}" for name, value in changes.items()]
    words = [sys.executable, "-m", "vlmteach.fit", "--config", sweep.config, "--out", str(folder)]
    if sweep.devices is not None:
        words += ["--devices", str(sweep.devices)]
    return [*words, *options, "--instances", *sweep.instances]


def run_sweep(sweep: Sweep, out: Path) -> list[str]:
    """Runs what is missing, one setting after another.

    Returns:
        The runs in which some instance has no result, as `<setting>/seed<k>`.
    """
    incomplete = []
    runs = sweep.runs(out)
    for number, (setting, seed, folder) in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {setting}, seed {seed}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            done = subprocess.run(
                command(sweep, setting, seed, folder), stdout=log, stderr=log, check=False
            )
        if done.returncode:
            incomplete.append(f"{folder_of(setting)}/seed{seed}")
            print(f"    ended with {done.returncode}: see {folder / 'log.txt'}", flush=True)
    return incomplete


def main() -> int:
    cli = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    cli.add_argument("sweep", type=Path)
    cli.add_argument("--out", type=Path, required=True)
    arguments = cli.parse_args()
    try:
        sweep = read_sweep(arguments.sweep)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 3 if run_sweep(sweep, arguments.out) else 0


if __name__ == "__main__":
    sys.exit(main())
