"""Modes of recomputation: the same loss and gradient; what a fit does that runs out of memory."""

import pytest

from vlmteach.config import FitConfig
from vlmteach.recompute import MODES, cheaper


def test_modes_get_cheaper_and_end():
    assert [cheaper(mode) for mode in MODES] == ["selective", "full", None]


@pytest.mark.parametrize(("given", "kept"), [(True, "full"), (False, "none"), ("auto", "auto")])
def test_old_spellings_keep_their_meaning(given, kept):
    assert FitConfig(checkpointing=given).checkpointing == kept
