"""Templates -> one HTML file: everything escaped, and a policy that runs no script but the page's.

The script and the style stand in the page and are named in its Content-Security-Policy by their
hashes, so that a word that slipped through the escaping would still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
NOTHING = "\N{EN DASH}"
"""Where there is no number."""


def render(template: str, *, live: bool = False, **context: Any) -> str:
    """A page as text; the same context gives the same text.

    Args:
        template: its name in `templates`.
        live: the page asks its server for what is new.
        context: what the template needs. Its texts are a stranger's.
    """
    from markupsafe import Markup

    style, script = (_own(name) for name in ("page.css", "page.js"))
    text = (
        _templates()
        .get_template(template)
        .render(
            **context,
            live=live,
            policy=policy(style, script, live),
            style=Markup(style),
            script=Markup(script),
        )
    )
    head, style_end, rest = text.partition("</style>")
    body, script_start, tail = rest.rpartition("<script>")
    # Indentation is half of a large page's nodes. A stranger's ">" and "<" are escaped by now.
    text = head + style_end + re.sub(r">\n\s*<", "><", body) + script_start + tail
    return text.encode("utf-8", "replace").decode("utf-8")  # a key may hold lone surrogates


def policy(style: str, script: str, live: bool) -> str:
    """The page's Content-Security-Policy."""
    rules = {
        "default-src": "'none'",
        "script-src": _hash_of(script),
        "style-src": _hash_of(style),
        "img-src": "'self'",
        "media-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # A live page parses what its server sends; the others have no need to parse anything.
    rules |= (
        {"connect-src": "'self'"}
        if live
        else {
            "require-trusted-types-for": "'script'",
            "trusted-types": "vlmteach",
        }
    )
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _own(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"number": number, "signed": signed, "url": url, "words": words}
    return templates


def number(value: float | bool | None, decimals: int = 2) -> str:
    """A number for a reader: at most so many decimals, large ones with fewer; yes or no."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    decimals = 0 if abs(value) >= 1000 else min(decimals, 1) if abs(value) >= 100 else decimals
    return f"{value:,.{decimals}f}"


def signed(value: float | None, decimals: int = 2) -> str:
    """A difference, with its sign."""
    if value is None:
        return NOTHING
    text = f"{value:+.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def words(name: str) -> str:
    """A field's name as words: `reasoner_forwards` -> `reasoner forwards`."""
    return name.replace("_", " ")


def url(path: str) -> str:
    """A relative path as a URL that cannot name a scheme or leave the page's folder by itself."""
    return "./" + quote(path, safe="/", errors="replace")
