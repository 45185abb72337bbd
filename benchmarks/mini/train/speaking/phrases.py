"""The speaker's further tokens: texts that always come in one piece.

They are what stands between the fields of the methods' requests, as those say it themselves, and
the sentences and the JSON of the replies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.mini.train.speaking import language
from vlmteach.asking import with_refusals
from vlmteach.methods import pass_at_n, prompt_rewrite, video_tpo, vlm_solver
from vlmteach.mini.world.details import SENTENCES

_FIELD = "@"
_SHORTEST = 6
"""Characters of a piece that is worth a token."""


def _requests() -> Iterator[str]:
    """Every request once, with `_FIELD` in its fields."""
    for shown in (True, False):
        yield prompt_rewrite.request(_FIELD, shown=shown)
        for done in ([], [_FIELD], [_FIELD, _FIELD]):
            yield vlm_solver.plan_request(_FIELD, done, most=1, shown=shown)
    yield vlm_solver.verify_request(_FIELD, _FIELD, frames=1)
    yield video_tpo.loss_request(_FIELD, _FIELD)
    yield video_tpo.gradient_request(_FIELD, _FIELD, _FIELD)
    yield video_tpo.rewrite_request(_FIELD, _FIELD, _FIELD)
    yield pass_at_n.pick_request(_FIELD, count=1, frames=1)
    yield with_refusals("", [_FIELD])


def phrases() -> list[str]:
    """All further tokens, each once, in an order that no other module's change disturbs but its
    own: requests, sentences, JSON."""
    between = re.compile(rf'\[?"{_FIELD}"\]?|{_FIELD}|\d+')
    pieces = [piece for text in _requests() for piece in between.split(text)]
    said = [*SENTENCES.values(), *language.FAULTS.values(), language.RIGHT, "It is"]
    spaced = [f" {text}" for text in [*said, *language.VIDEOS]]
    bare = [*language.VIDEOS, language.ADD, language.KEEP, "It is"]
    scaffold = [
        '{"prompt": "',
        '{"accept": false, "prompt": "',
        '"}',
        language.ACCEPTED,
        language.DONE,
        *(language.picked(best) for best in range(1, 6)),
    ]
    pieces = [piece for piece in pieces if len(piece) >= _SHORTEST]
    return list(dict.fromkeys([*pieces, *spaced, *bare, *scaffold]))
