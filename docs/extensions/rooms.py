"""`.. room:: NAME`: the reference of all files of a room, in the order of vlmteach/README.md.

Docstrings are plain text with `code` in it; what else reStructuredText would read as markup is
escaped.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).parent.parent.parent / "vlmteach"
WITHOUT_TYPES = ("attribute", "data", "property")
"""What has its type in the code and only words in its docstring."""
_fields: dict[str, list[str]] = {}


def rooms() -> dict[str, list[str]]:
    """Room -> its modules, without those that only start a command or say where they moved."""
    text = (PACKAGE / "README.md").read_text()
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {
        room: [
            ".".join(("vlmteach", *Path(file).with_suffix("").parts)).removesuffix(".__init__")
            for file in re.findall(r"^\| `([\w/]+\.py)` \|(?!.*` moved:)", body, re.MULTILINE)
            if not file.endswith("__main__.py")
        ]
        for room, body in zip(parts[1::2], parts[2::2], strict=True)
    }


class Room(SphinxDirective):
    """One `automodule` per file, each under its name."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The sections of the room's modules."""
        lines: list[str] = []
        for module in rooms()[self.arguments[0]]:
            lines += [module, "-" * len(module), "", f".. automodule:: {module}", ""]
        text = StringList(lines, source="room")
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Leaves `code` as it is and escapes other marks, outside of examples."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            pieces = re.split(r"(`[^`]*`)", line)
            pieces[::2] = [re.sub(r"([*|])|(?<=\w)(_)(?=\W|$)", r"\\\1\2", p) for p in pieces[::2]]
            lines[number] = "".join(pieces)
    if what in WITHOUT_TYPES:
        _fields[name] = list(lines)


def untyped(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Takes back what napoleon does to a field, where it reads a colon as the end of a type."""
    if what in WITHOUT_TYPES:
        lines[:] = _fields.pop(name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the directive, and reads docstrings before and after napoleon."""
    app.add_directive("room", Room)
    app.connect("autodoc-process-docstring", plain, priority=400)
    app.connect("autodoc-process-docstring", untyped, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
