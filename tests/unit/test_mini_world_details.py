"""Prompts with more detail."""

import pytest

from vlmteach.mini.world import detail_words, detailed, details, families, make, tokens, vocabulary


@pytest.mark.parametrize("family", [family.name for family in families()])
def test_a_detail_speaks_of_a_flaw_of_the_family_or_names_what_acts(family):
    for seed in range(20):
        task = make(family, "train", seed)
        flaws = set(next(item for item in families() if item.name == family).flaws)
        assert details(task).keys() - flaws <= {"which"}
        assert details(task).keys() >= flaws
        whole = detailed(task, details(task))
        assert task.cue[0] in tokens(whole), "the colour that acts is named"
        assert whole.startswith(task.prompt)
        assert set(tokens(whole)) <= {*vocabulary(), *detail_words()}


def test_no_detail_is_the_bare_prompt_and_the_order_is_the_same_for_all():
    task = make("reach", "train", 1)
    assert detailed(task, ()) == task.prompt
    assert (
        detailed(task, ("duplicate", "extent")) == f"{task.prompt} Go all the way. Leave no copy."
    )


def test_a_detail_that_the_task_does_not_have_is_refused():
    task = make("level", "train", 1)
    with pytest.raises(ValueError, match=r"got duplicate for train/level/1, expected some of ext"):
        detailed(task, ("extent", "duplicate"))


def test_the_words_of_details_are_apart_from_the_world_s():
    assert not set(detail_words()) & set(vocabulary())
    assert {"all", "way", "copy"} <= set(detail_words())
