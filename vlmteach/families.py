"""The tables of families: a name of the config -> the class that loads a checkpoint of its kind.

A new family enters here, in the literal type and in the table of its kind, and in `tests/families`;
tests hold the three together. A family of a guest enters no table: its class path stands in the
config. Classes are named, not imported, so that a family costs nothing until it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from vlmteach.class_path import load_class

ReasonerFamily = Literal["wan", "wan_a14b", "hunyuan15"]
TeacherFamily = Literal["qwen3_vl", "qwen2_5_vl", "internvl"]
DecoderFamily = Literal["taehv", "full"]

REASONERS: Mapping[str, str] = {
    "wan": "vlmteach.reasoners.wan.WanReasoner",
    "wan_a14b": "vlmteach.reasoners.wan_a14b.WanA14BReasoner",
    "hunyuan15": "vlmteach.reasoners.hunyuan15.HunyuanReasoner",
}
"""Each a `vlmteach.reasoners.base.Reasoner`."""

TEACHERS: Mapping[str, str] = {
    "qwen3_vl": "vlmteach.teachers.qwen_vl.Qwen3VLTeacher",
    "qwen2_5_vl": "vlmteach.teachers.qwen_vl.Qwen2_5VLTeacher",
    "internvl": "vlmteach.teachers.internvl.InternVLTeacher",
}
"""Each a `vlmteach.teachers.base.Teacher`."""

FULL = "full"
"""The decoder that the reasoner itself names: its own VAE."""
DECODERS: Mapping[str, str] = {"taehv": "vlmteach.decoders.taehv.TaehvDecoder"}
"""Each a `vlmteach.decoders.base.LoadedDecoder`; all families but `full`."""


def is_name(name: str, known: Iterable[str]) -> bool:
    """Whether this is a known family, or has the form of a class path; imports nothing."""
    *module, kind = name.split(".")
    return name in known or (bool(module) and all(p.isidentifier() for p in (*module, kind)))


def family_class(table: Mapping[str, str], name: str) -> Any:
    """The class of a family, imported now.

    Args:
        table: of one kind.
        name: of a family in the table, or a guest's class path `my_package.module.Class`,
            importable from where the command runs.

    Raises:
        ValueError: for a name that is neither, a module that does not import, or one that has no
            such class.
    """
    if not is_name(name, table):
        raise ValueError(
            f"family: got {name!r}, expected one of {', '.join(table)}, or the class path of a "
            "family of your own, my_package.module.Class"
        )
    found = load_class(table.get(name, name))
    if not isinstance(found, type):
        raise ValueError(f"family: got {name!r}, expected a class; correct the name")
    return found
