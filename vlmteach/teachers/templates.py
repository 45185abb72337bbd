"""Chat templates: found where the official processor seeks them, and rendered within bounds.

A template is a program that comes with the checkpoint. transformers' sandbox lets it touch nothing,
but lets it loop for ever and fill the memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmteach.checkpoints.files import CheckpointError, read_json
from vlmteach.teachers.processor_files import local_file, read

MOST_STEPS = 1_000_000
"""Lines of template and calls that one turn may take; real ones take some hundred, and the first
turn some ten thousand, in which the template is compiled."""
MOST_BYTES = 1 << 30
"""Of memory that the process may grow by in one turn: also by what a clip needs that is being
encoded beside it."""
MOST_TEMPLATE = 1 << 16
"""Characters of a template; real ones have some thousands."""
MOST_CHARACTERS = 1 << 20
"""Of what it writes. Also the largest number that it may name."""


def chat_template(checkpoint: str | Path, tokenizer: Any) -> str:
    """The chat template, sought where the official processor seeks it.

    Of a list of named templates the one called default is taken, or the only one.

    Args:
        checkpoint: a local folder or a hub id.
        tokenizer: of the same checkpoint, as transformers loads it.

    Raises:
        CheckpointError: the checkpoint has none, or one that is no template or could not be
            rendered within bounds.
    """
    found: Any = read(checkpoint, "chat_template.jinja")
    for name in ("chat_template.json", "processor_config.json"):
        path = local_file(checkpoint, name) if found is None else None
        if path is not None:
            found = (read_json(path) or {}).get("chat_template")
    if found is None:
        found = tokenizer.chat_template
    if isinstance(found, list):
        named = [part for part in found if isinstance(part, dict)]
        found = {part.get("name"): part.get("template") for part in named}
    if isinstance(found, dict):
        found = found.get("default", next(iter(found.values())) if len(found) == 1 else found)
    if not isinstance(found, str):
        got = "no chat template" if not found else f"{json.dumps(found, default=str)[:80]}"
        raise CheckpointError(
            f"teacher {checkpoint}: got {got}, expected a chat template in chat_template.jinja, "
            "chat_template.json, processor_config.json or tokenizer_config.json, one of them named "
            "default where there are several"
        )
    _check(checkpoint, found)
    return found


def _check(checkpoint: str | Path, template: str) -> None:
    """Refuses what a bound on steps cannot hold: one step may raise to a power for hours."""
    from jinja2 import Environment, TemplateSyntaxError, nodes

    said = None
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (TemplateSyntaxError, RecursionError) as error:
        said = f"an error in it ({error})"
    else:
        numbers = [c.value for c in parsed.find_all(nodes.Const) if isinstance(c.value, int)]
        if len(template) > MOST_TEMPLATE:
            said = f"{len(template)} characters"
        elif any(True for _ in parsed.find_all((nodes.Pow, nodes.Mul))):
            said = "a power or product in it"
        elif any(abs(number) > MOST_CHARACTERS for number in numbers):
            said = "a number in it beyond a million"
    if said:
        raise CheckpointError(
            f"teacher {checkpoint}: got a chat template with {said}, expected a plain one of at "
            f"most {MOST_TEMPLATE} characters; take the template that belongs to the checkpoint"
        )


def within_bounds(render: Callable[[], str]) -> str:
    """What `render` returns, stopped where it takes too many steps or too much memory.

    Raises:
        CheckpointError: it was stopped, or failed.
    """
    steps = 0

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > MOST_STEPS:
            raise RuntimeError(f"more than {MOST_STEPS} steps")
        return count if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    try:
        with _little_memory():
            sys.settrace(count)
            text = render()
            sys.settrace(before)
    except Exception as error:
        raise CheckpointError(
            f"teacher: got a chat template that fails ({type(error).__name__}: "
            f"{str(error)[:200]}), expected one turn of text; take the template that belongs to "
            "the checkpoint"
        ) from error
    finally:
        sys.settrace(before)
    if len(text) > MOST_CHARACTERS:
        raise CheckpointError(
            f"teacher: got {len(text)} characters from the chat template, expected at most "
            f"{MOST_CHARACTERS}; take the template that belongs to the checkpoint"
        )
    return text


@contextmanager
def _little_memory() -> Iterator[None]:
    """Lets the process grow by `MOST_BYTES` at most, where the system can be told so."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    room = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room if soft < 0 else min(soft, room), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
