"""Pages of the repository within these: an included file's links and pictures are found again.

A link to a file that one of these pages includes leads to that page; one to any other file of the
repository is left as its name.
"""

from __future__ import annotations

import re
from os.path import normpath, relpath
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
_INCLUDE = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def pages() -> dict[Path, str]:
    """File of the repository -> the page that includes it, from the root of these."""
    return {
        (page.parent / included).resolve(): "/" + page.relative_to(DOCS).as_posix()
        for page in sorted(DOCS.rglob("*.md"))
        for included in _INCLUDE.findall(page.read_text())
    }


def moved(text: str, file: Path, parent: Path, known: dict[Path, str]) -> str:
    """A file's text as it must be written in the page that includes it.

    Args:
        text: Markdown.
        file: where it lies.
        parent: the page that includes it.
        known: from `pages`.
    """

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return found[0]
        there = Path(normpath(file.parent / path)).resolve()
        if picture:
            return f"![{words}]({relpath(there, parent.parent)})"
        if there in known:
            return f"[{words}]({known[there]}{anchor and '#'}{anchor})"
        return words if words.startswith("`") or " " in words else f"`{words}`"

    return _LINK.sub(link, text)


def _on_include(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    file = (Path(app.srcdir) / path).resolve()
    content[0] = moved(content[0], file, Path(app.env.doc2path(parent)), pages())


def setup(app: Sphinx) -> dict[str, bool]:
    """Listens to what is included."""
    app.connect("include-read", _on_include)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
