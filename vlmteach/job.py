"""What one command was asked to do, and whether the results in a folder are of the same config."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlmteach.config import Config
from vlmteach.ledger import DONE
from vlmteach.presets import read_yaml
from vlmteach.record import write_text

UNBOUND = ("wandb", "run.max_deaths")
"""Config entries that may change between a run and its resumption: no result depends on them."""


@dataclass(frozen=True)
class Job:
    """What one command was asked to do."""

    config: Config
    sources: tuple[str, ...]
    out: Path
    queries: Path | None = None

    def digest(self) -> str:
        """Of the config, without what no result depends on: 16 hexadecimal digits of sha256."""
        flat = _flat(_plain(self.config))
        bound = {name: flat[name] for name in sorted(flat) if not name.startswith(UNBOUND)}
        return hashlib.sha256(json.dumps(bound).encode()).hexdigest()[:16]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _plain(config: Config) -> dict[str, Any]:
    """A config as `config.yaml` gives it back: tuples are lists there."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def changes(config: Config, out: Path) -> list[tuple[str, Any, Any]]:
    """(field, ours, theirs) of every entry in which a config differs from that of the results in
    a folder; none where the folder has no results."""
    path = out / "config.yaml"
    if not path.exists() or not any(out.glob(f"*/{DONE}")):
        return []
    ours = _flat(_plain(config))
    theirs = _flat(read_yaml(path))
    return [
        (name, ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and not name.startswith(UNBOUND)
    ]


def bind(config: Config, out: Path) -> None:
    """Writes `config.yaml`, or checks that a run to be resumed was made with the same.

    Raises:
        ValueError: when results would mix two configs in one folder.
    """
    if changed := changes(config, out):
        name, ours, theirs = changed[0]
        raise ValueError(
            f"--out {out}: got {name} = {ours!r}"
            f"{f' and {len(changed) - 1} more changes' if changed[1:] else ''}, expected "
            f"{theirs!r} as in its config.yaml; resume with that config, or name another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", yaml.safe_dump(_plain(config), sort_keys=False))
