"""Options that name classes, as LightningCLI's users know them.

`--optimizer torch.optim.SGD --optimizer.momentum 0.9`, `--reward my.Reward --reward.weight 0.2`;
in a file `my.Class` or `{class_path: my.Class, init_args: {...}}`, for lists one or a list of such.
jsonargparse refuses a dataclass with the key `class_path`, so these five are read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlmteach.config import WANDB_LOGGER, ClassConfig, Config, RewardConfig
from vlmteach.presets import CLASSES, plain_value

LISTS = ("reward", "callbacks", "logger")
LOGGERS = {
    "wandb": WANDB_LOGGER,
    "csv": "lightning.pytorch.loggers.CSVLogger",
    "tensorboard": "lightning.pytorch.loggers.TensorBoardLogger",
}
"""Short names of loggers."""
HELP = {
    "optimizer": "class of the optimiser, made with the adapter's weights and lr = "
    "fit.learning_rate (default: torch.optim.AdamW without weight decay); its arguments are "
    "options below it, such as --optimizer.weight_decay 0.1",
    "scheduler": "class of a torch schedule of the learning rate, stepped after each update "
    "(default: none); arguments as --scheduler.total_iters 5",
    "reward": "class of a reward summed with the teacher's, and again for one more; "
    "--reward.weight and the class's own arguments follow it",
    "callbacks": "class of a Lightning callback of the micro-fit, and again for one more; "
    "arguments as --callbacks.every 3",
    "logger": "class of a Lightning logger, or wandb, csv, tensorboard, and again for one more "
    "(default: wandb); arguments as --logger.save_dir logs; [] for none",
}
"""A line each for `--help`."""


class ClassOptions:
    """The five fields while files and words are read, the last one said winning."""

    def __init__(self) -> None:
        default = Config().optimizer
        self._one: dict[str, dict[str, Any] | None] = {
            "optimizer": {
                "class_path": default.class_path,
                "init_args": dict(default.init_args),
            },
            "scheduler": None,
        }
        self._several: dict[str, list[dict[str, Any]]] = {name: [] for name in LISTS}
        self.replace("logger", "wandb")
        self._named: set[str] = set()
        """Lists of which a word has named a class: the next plain one is one more."""

    def replace(self, field: str, value: Any) -> None:
        """Takes a field's value as a file gives it, in place of what there was.

        Raises:
            ValueError: neither a class path nor class_path and init_args.
        """
        if field in LISTS:
            given = value if isinstance(value, list) else [] if value is None else [value]
            self._several[field] = [_entry(field, one) for one in given]
        elif value is None and field == "optimizer":
            raise ValueError("optimizer: got nothing, expected a class such as torch.optim.AdamW")
        else:
            self._one[field] = None if value is None else _entry(field, value)

    def word(self, name: str, text: str) -> None:
        """Takes an option of the command line.

        Args:
            name: without dashes: `reward`, `reward+`, `reward.weight`, `optimizer.init_args.eps`.
            text: its value, read as YAML.

        Raises:
            ValueError: a value that does not fit, or an argument while no class is named.
        """
        field, _, argument = name.partition(".")
        more, field = field.endswith("+"), field.removesuffix("+")
        try:
            value = plain_value(text)
        except ValueError as error:
            raise ValueError(f"--{name}: {error}") from error
        if argument:
            self._argument(field, argument.split("."), value)
        elif more and field not in LISTS:
            raise ValueError(f"--{field}+: got one more, expected one {field}; write --{field}")
        elif field not in LISTS:
            self._choose(field, value)
        elif more or (field in self._named and not isinstance(value, list)):
            self._several[field] = [*self._several[field], _entry(field, value)]
            self._named.add(field)
        else:
            self.replace(field, value)
            self._named.add(field)

    def _choose(self, field: str, value: Any) -> None:
        """Another class drops the arguments of the one before; the same keeps them."""
        standing = self._one[field]
        if not (isinstance(value, str) and standing and standing["class_path"] == value):
            self.replace(field, value)

    def _argument(self, field: str, path: list[str], value: Any) -> None:
        entry = self._one[field] if field in self._one else (self._several[field] or [None])[-1]
        option = ".".join((field, *path))
        if entry is None:
            raise ValueError(
                f"--{option}: got an argument without a class, expected --{field} "
                "package.module.Class before it"
            )
        if path == ["class_path"]:
            if value != entry["class_path"]:
                entry.clear()
                entry.update(_entry(field, value))
            return
        if path == ["weight"] and field == "reward":
            entry["weight"] = _weight(value)
            return
        if path == ["init_args"]:
            entry["init_args"] = _arguments(field, value)
            return
        *sections, last = path[1:] if path[0] == "init_args" else path
        place = entry["init_args"]
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"--{option}: got an entry of {section}, which is {place!r}")
        place[last] = _arguments(field, {last: value})[last]

    def read(self) -> dict[str, Any]:
        """The five fields of `Config`."""
        optimizer, scheduler = self._one["optimizer"], self._one["scheduler"]
        assert optimizer is not None
        return {
            "optimizer": ClassConfig(**optimizer),
            "scheduler": None if scheduler is None else ClassConfig(**scheduler),
            "reward": tuple(RewardConfig(**one) for one in self._several["reward"]),
            "callbacks": tuple(ClassConfig(**one) for one in self._several["callbacks"]),
            "logger": tuple(ClassConfig(**one) for one in self._several["logger"]),
        }


def is_class_option(name: str) -> bool:
    """Whether an option's name, without dashes, belongs to one of the five fields."""
    return name.partition(".")[0].removesuffix("+") in CLASSES


def _entry(field: str, value: Any) -> dict[str, Any]:
    """`my.Class` or a mapping -> class_path, init_args and for a reward its weight, copied."""
    given = {"class_path": value} if isinstance(value, str) else value
    takes = {"class_path", "init_args", *(("weight",) if field == "reward" else ())}
    if (
        not isinstance(given, Mapping)
        or not isinstance(given.get("class_path"), str)
        or given.keys() - takes
    ):
        raise ValueError(
            f"{field}: got {value!r}, expected a class path such as my_package.module.Class, or "
            f"a mapping of {', '.join(sorted(takes))}; the class's own arguments go into init_args"
        )
    init_args = given.get("init_args")
    path = given["class_path"]
    entry = {
        "class_path": LOGGERS.get(path, path) if field == "logger" else path,
        "init_args": _arguments(field, {} if init_args is None else init_args),
    }
    return {**entry, "weight": _weight(given["weight"])} if "weight" in given else entry


def _arguments(field: str, value: Any) -> dict[str, Any]:
    """Arguments of a class, such as a record can hold."""
    try:
        if isinstance(value, Mapping):
            return json.loads(json.dumps(dict(value)))
    except TypeError:
        pass
    raise ValueError(
        f"{field}: got {value!r}, expected arguments by name: numbers, texts, booleans, lists and "
        "mappings of these (a date in quotes)"
    )


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"reward.weight: got {value!r}, expected a number")
    return float(value)
