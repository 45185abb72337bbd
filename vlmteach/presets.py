"""Preset files: found by name, read whole, laid over the preset that their `base:` line names.

Nothing heavy is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from vlmteach.text import decode_text, read_file

PRESETS = Path(__file__).parent / "configs"
DEFAULT_PRESET = "mini"
LARGEST = 2**16
"""Bytes of a preset or config file."""
CLASSES = ("optimizer", "scheduler", "reward", "callbacks", "logger")
"""Fields of `Config` that name classes."""


class Unambiguous(yaml.SafeLoader):
    """Safe YAML in which nothing is said twice: of two, the first would go without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping of a node; raises YAMLError where a name comes again."""
        names: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in names:
                    raise yaml.YAMLError(f"{key.value!r} twice{key.start_mark}")
                names.add(key.value)
        return super().construct_mapping(node, deep)


class _Loader(Unambiguous):
    """Safe YAML in which 5e-5 is a number, as it is everywhere but in YAML 1.1."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        # Ten lines of aliases of aliases unfold to more than any memory.
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*), which is not read here")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    # YAML 1.1 wants a point and a signed exponent.
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


def plain_value(text: str) -> Any:
    """A word of the command line as YAML reads it: a number, a boolean, null, a list, a text.

    Raises:
        ValueError: text that is no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"got {text[:200]!r}, expected YAML or JSON; {_told(error)}") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file says, without aliases and of bounded size.

    Raises:
        ValueError: no such file, or no YAML.
    """
    data = read_file(path, LARGEST)
    try:
        return yaml.load(decode_text(data), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: got {_told(error)}, expected YAML; correct it") from error


def preset_path(name: str, beside: Path | None = None) -> Path:
    """A preset's name or a YAML file -> the file.

    Args:
        beside: a file whose folder relative paths start from; None: the working directory.

    Raises:
        ValueError: when it is neither.
    """
    if (preset := PRESETS / f"{name}.yaml").is_file():
        return preset
    if (path := (beside.parent / name if beside else Path(name))).is_file():
        return path
    known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
    where = f"{beside}: base" if beside else "--config"
    raise ValueError(f"{where}: got {name!r}, expected a YAML file or a preset's name: {known}")


def read_preset(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The fields that a preset file sets, those of its `base:` under its own.

    Args:
        path: a YAML file.
        above: files that were on the way to this one.

    Raises:
        ValueError: no YAML mapping, a base that is not there, or bases that go in a circle.
    """
    chain = (*above, path.resolve())
    if chain[-1] in above:
        circle = " -> ".join(link.name for link in chain)
        raise ValueError(f"base: got a circle {circle}, expected an end; take one base line out")
    given = read_yaml(path)
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(
            f"{path}: got {type(given).__name__}, expected a mapping of fields such as "
            "`fit: {steps: 20}`; see configs/"
        )
    base = given.pop("base", None)
    if base is None:
        return given
    if not isinstance(base, str):
        raise ValueError(f"{path}: base: got {base!r}, expected one preset's name or YAML file")
    return overlaid(read_preset(preset_path(base, beside=path), chain), given)


def overlaid(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Two presets as one: sections entry by entry, lists and classes replaced whole."""
    both = dict(under)
    for name, value in over.items():
        beneath = both.get(name)
        if name not in CLASSES and isinstance(beneath, dict) and isinstance(value, dict):
            both[name] = {**beneath, **value}
        else:
            both[name] = value
    return both


def _told(error: Exception) -> str:
    return " ".join(str(error).split())
