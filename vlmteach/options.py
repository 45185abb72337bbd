"""From the words of a command line to a `Config`: presets, files, dotted options.

Nothing heavy is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from vlmteach import class_options
from vlmteach.class_options import ClassOptions, is_class_option
from vlmteach.config import Config
from vlmteach.presets import CLASSES, DEFAULT_PRESET, overlaid, preset_path, read_preset

MOVED = {
    "method=teacher": "--method micro_fit",
    "fit.optimizer": "--optimizer with a class path such as torch.optim.AdamW",
    "fit.weight_decay": "--optimizer.weight_decay",
    "query.attempts": "--query.max_replies",
    "prompt_rewrite.attempts": "--prompt_rewrite.max_replies",
    "video_tpo.attempts": "--video_tpo.max_replies",
    "vlm_solver.attempts": "--vlm_solver.tries",
    "run.attempts": "--run.max_deaths",
    "teacher.share_video": "nothing: the video is always shared between the queries",
}
"""Spellings of earlier versions -> what stands for them now."""


def _known() -> dict[str, list[str]]:
    """Field of `Config` -> the fields of its section; none where it is a value of its own."""
    default = Config()
    values = {field.name: getattr(default, field.name) for field in fields(Config)}
    return {
        name: [field.name for field in fields(value)]
        if is_dataclass(value) and name not in CLASSES
        else []
        for name, value in values.items()
    }


def _check_name(name: str, value: Any, where: str) -> None:
    """Refuses an option that is not there, with the one that is meant where that can be told."""
    for spelling in (name, f"{name}={value}"):
        if spelling in MOVED:
            raise ValueError(f"{where}{spelling}: this moved; write {MOVED[spelling]}")
    section, _, entry = name.partition(".")
    known = _known()
    if is_class_option(name) or (section in known and (not entry or entry in known[section])):
        return
    names = [f"{s}.{e}" for s, entries in known.items() for e in entries] + list(known)
    near = difflib.get_close_matches(name, names, 1)
    raise ValueError(
        f"{where}got {name!r}, expected "
        + (f"perhaps {near[0]!r}" if near else "a field of the config")
        + "; --help lists all"
    )


def _section_names(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every entry that a file sets."""
    for name, value in given.items():
        if name in CLASSES or not isinstance(value, Mapping):
            yield name, value
        else:
            yield from ((f"{name}.{entry}", inner) for entry, inner in value.items())


def _read_file(name: str) -> dict[str, Any]:
    """A preset, every entry's name checked."""
    path = preset_path(name)
    given = read_preset(path)
    for entry, value in _section_names(given):
        _check_name(entry, value, f"{path}: ")
        if entry not in CLASSES and _known().get(entry):
            raise ValueError(f"{path}: {entry}: got {value!r}, expected a mapping of its fields")
    return given


def _value_parser() -> Any:
    """The fields of `Config` that are values, each with its type."""
    from jsonargparse import ArgumentParser  # pyright: ignore[reportPrivateImportUsage]

    cli = ArgumentParser(exit_on_error=False, add_help=False, usage=argparse.SUPPRESS)
    cli.add_class_arguments(Config, skip=set(CLASSES))
    return cli


def config_help() -> str:
    """What `--help` says of the options that are fields of `Config`."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    try:
        values = _value_parser()
    finally:
        set_parsing_settings(docstring_parse_attribute_docstrings=False)
    for action in values._actions:
        if _known().get(action.dest):
            action.help = argparse.SUPPRESS  # a whole section as one value: for files
    classes = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
    config = classes.add_argument_group("config")
    config.add_argument(
        "--config",
        metavar="NAME",
        help=f"a preset's name or a YAML file (default: {DEFAULT_PRESET}); other options win over "
        "it; given twice, the later file is laid over the earlier",
    )
    group = classes.add_argument_group("classes by path, with their arguments")
    for name in CLASSES:
        group.add_argument(f"--{name}", metavar="CLASS", help=class_options.HELP[name])
    return f"{classes.format_help()}\n{values.format_help()}"


def split(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Words that are no option of the config, in order; and its options, name and value.

    A value of None says that the word came last, without one.
    """
    known = {"config", *_known()}
    others: list[str] = []
    options: list[tuple[str, str | None]] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name.partition(".")[0].removesuffix("+") not in known:
            others.append(word)
        else:
            options.append((name, value if equals else next(left, None)))
    return others, options


def read_config(words: Sequence[str]) -> Config:
    """The config that some words ask for.

    Args:
        words: `--config` and dotted options, as on the command line; without `--config`, the
            embedded default is taken.

    Raises:
        ValueError: for a preset or option that does not exist, or a value that does not fit.
    """
    others, options = split(words)
    if others:
        name = others[0].removeprefix("--").partition("=")[0]
        if others[0].startswith("--"):
            _check_name(name, None, f"{others[0]}: ")
        raise ValueError(f"got {others[0]!r}, expected an option; --help lists all")
    return _read(options)


def _read(options: Sequence[tuple[str, str | None]]) -> Config:
    given: dict[str, Any] = {}
    values: list[str] = []
    classes: list[tuple[str, str]] = []
    files: list[str] = []
    for name, value in options:
        if value is None or value.startswith("--"):
            raise ValueError(f"--{name}: got no value, expected one; write --{name}=VALUE")
        if name == "config":
            files.append(value)
            continue
        _check_name(name, value, f"--{name}: ")
        if is_class_option(name):
            classes.append((name, value))
        else:
            values.append(f"--{name}={value}")
    for name in files or [DEFAULT_PRESET]:
        given = overlaid(given, _read_file(name))
    _refuse_empty(given)
    chosen = ClassOptions()
    for field in CLASSES:
        if field in given:
            chosen.replace(field, given.pop(field))
    for name, value in classes:
        chosen.word(name, value)
    cli = _value_parser()
    try:
        told = cli.parse_object(given, defaults=False)
        parsed = cli.instantiate(cli.parse_args(values, namespace=told))
    except argparse.ArgumentError as error:
        raise ValueError(" ".join(str(error).split())) from error
    named = {field.name: parsed[field.name] for field in fields(Config) if field.name in parsed}
    return Config(**named, **chosen.read())


def _refuse_empty(given: Mapping[str, Any]) -> None:
    """Refuses an entry of a file without a value, where the field has to have one."""
    hints: dict[str, Any] = get_type_hints(Config)
    for name in given.keys() & hints.keys():
        if is_dataclass(hints[name]):
            inner = get_type_hints(hints[name])
            hints |= {f"{name}.{entry}": kind for entry, kind in inner.items()}
    for name, value in _section_names(given):
        if value is None and name in hints and type(None) not in get_args(hints[name]):
            raise ValueError(f"{name}: got nothing, expected a value; write one, or leave it out")


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
        print(config_help())
        raise SystemExit(0)
    mine, options = split(words)
    try:
        arguments, others = own.parse_known_args(mine)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if others:
        read_config(others)
    return arguments, _read(options)
