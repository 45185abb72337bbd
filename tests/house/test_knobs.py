"""No knob that nobody turns: every field of the config earns its place in a preset or a sweep."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import yaml

from benchmarks.mini.oracle import SETTING
from vlmteach.config import ClassConfig, Config
from vlmteach.options import MOVED

ROOT = Path(__file__).parent.parent.parent
UNTURNED = {
    "logger": "of the user's taste: no result depends on it",
    "run.seed": "a sweep's `seeds` turn it",
    "run.predictions": "of the user's disk: what a fit computes does not hang on it",
    "run.threads": "of the machine",
    "run.deterministic": "of the machine",
    "run.instances_at_once": "of the machine",
    "run.max_deaths": "of the machine",
    "wandb.mode": "of the user's account",
    "wandb.project": "of the user's account",
    "wandb.group": "of the user's account",
}
"""Fields that no preset and no sweep turns, and why they are there."""


def knobs() -> set[str]:
    found = set()
    for field in fields(Config):
        value = getattr(Config(), field.name)
        if is_dataclass(value) and not isinstance(value, ClassConfig):
            found |= {f"{field.name}.{inner.name}" for inner in fields(value)}
        else:
            found.add(field.name)
    return found


def turned() -> set[str]:
    """Knobs that a preset sets or a sweep's setting changes."""
    found = set(SETTING)
    for preset in (ROOT / "configs").glob("*.yaml"):
        for name, value in yaml.safe_load(preset.read_text()).items():
            inside = value if isinstance(value, dict) else {}
            found |= {f"{name}.{entry}" for entry in inside} | {name}
    for sweep in (ROOT / "benchmarks").rglob("*.yaml"):
        for changes in (yaml.safe_load(sweep.read_text()).get("settings") or {}).values():
            found |= set(changes or {})
    return found


def test_every_knob_is_turned_by_somebody_or_says_why_not():
    assert knobs() - turned() == set(UNTURNED)


def test_no_moved_spelling_is_a_knob_again():
    assert not {name for name in MOVED if "=" not in name} & knobs()
