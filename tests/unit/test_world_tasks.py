"""Tasks of the miniature world: repeatable, apart by split, drawn from one closed vocabulary."""

import random
from itertools import combinations, pairwise

import numpy as np
import pytest

from vlmteach.mini.world import (
    CATEGORIES,
    FRAMES,
    PERFECT,
    SIZE,
    SPLITS,
    Execution,
    answers,
    cue,
    families,
    make,
    perform,
    task_of,
    tokens,
    vocabulary,
)
from vlmteach.mini.world.draw import COLOURS, GROUND
from vlmteach.mini.world.splits import compositions
from vlmteach.queries import wording_fault

NAMES = [family.name for family in families()]


def tasks(name, n=20, splits=SPLITS):
    return [make(name, split, seed) for split in splits for seed in range(n)]


def test_ten_families_or_more_two_or_more_in_each_category():
    assert len(NAMES) == len(set(NAMES)) >= 10
    counts = [sum(f.category == category for f in families()) for category in CATEGORIES]
    assert min(counts) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_task_again(name):
    for first, again in zip(tasks(name, 5), tasks(name, 5), strict=True):
        assert (first.key, first.prompt, first.queries) == (again.key, again.prompt, again.queries)
        np.testing.assert_array_equal(first.truth, again.truth)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_splits_give_different_tasks(name):
    prints = [(task.prompt, task.truth.tobytes()) for task in tasks(name, 20)]
    assert len(set(prints)) > 0.75 * len(prints)


@pytest.mark.parametrize("name", NAMES)
def test_no_first_frame_and_prompt_is_in_two_splits(name):
    seen = {
        split: {(t.prompt, t.first_frame.tobytes()) for t in tasks(name, 60, [split])}
        for split in SPLITS
    }
    for one, other in combinations(SPLITS, 2):
        assert not seen[one] & seen[other]


@pytest.mark.parametrize(("a", "b"), [(6, 5), (6, 8), (3, 5)])
def test_compositions_are_split_and_every_first_attribute_is_in_all_splits(a, b):
    owned = {split: set(compositions(split, a, b)) for split in SPLITS}
    assert sum(map(len, owned.values())) == len(set.union(*owned.values())) == a * b
    for split in SPLITS:
        assert {pair[0] for pair in owned[split]} == set(range(a))


@pytest.mark.parametrize("name", ["detour", "drop", "sequence", "paint", "largest", "grow", "odd"])
def test_colour_and_shape_of_the_acting_thing_are_held_out_together(name):
    seen = {split: {task.cue for task in tasks(name, 60, [split])} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not seen[one] & seen[other]
    assert {c for c, _ in seen["test"]} <= {c for c, _ in seen["train"]}


@pytest.mark.parametrize("name", NAMES)
def test_frames_prompt_and_queries_have_the_promised_form(name):
    family = next(f for f in families() if f.name == name)
    for task in tasks(name):
        assert task.truth.shape == (FRAMES, SIZE, SIZE, 3)
        assert task.truth.dtype == task.first_frame.dtype == np.uint8
        np.testing.assert_array_equal(task.first_frame, task.truth[0])
        assert task.prompt.endswith(".")
        roles = [query.role for query in task.queries]
        assert roles == ["goal"] + ["process"] * len(family.parts)
        assert 1 <= len(family.parts) <= 3
        texts = [query.text for query in task.queries]
        assert len(set(texts)) == len(texts)
        assert [wording_fault(text) for text in texts] == [None] * len(texts)


@pytest.mark.parametrize("name", NAMES)
def test_every_word_is_in_the_vocabulary(name):
    known = set(vocabulary())
    for task in tasks(name):
        for text in (task.prompt, *(query.text for query in task.queries), *cue(task)):
            assert set(tokens(text)) <= known, text


def test_no_word_of_the_vocabulary_is_idle():
    used = {"yes", "no"}
    for name in NAMES:
        for task in tasks(name, 40):
            for text in (task.prompt, *(query.text for query in task.queries)):
                used |= set(tokens(text))
    assert set(vocabulary()) - used <= set(COLOURS)


@pytest.mark.parametrize("name", NAMES)
def test_the_cue_names_a_colour_of_the_first_frame_or_of_the_prompt(name):
    for task in tasks(name, 5):
        colour = cue(task)[0]
        level = np.rint(np.array(COLOURS[colour]) * 255)
        shown = (np.abs(task.first_frame - level).max(-1) < 2).any()
        # The light that two lights make together is neither: it has to be known.
        assert shown or colour in tokens(task.prompt) or name == "mix"


@pytest.mark.parametrize("name", NAMES)
def test_perfect_is_the_truth_and_a_flawed_execution_starts_from_the_same_frame(name):
    family = next(f for f in families() if f.name == name)
    for task in tasks(name, 5):
        np.testing.assert_array_equal(perform(task, PERFECT), task.truth)
        for flaw in family.flaws:
            video = perform(task, Execution(**{flaw: 0.5}))
            np.testing.assert_array_equal(video[0], task.first_frame)
            assert (video != task.truth).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_moves_until_the_last_frame_but_one_and_then_stands(name):
    for task in tasks(name, 5):
        moves = [(a != b).any() for a, b in pairwise(task.truth)]
        assert all(moves[1:-1])
        assert not moves[-1]


def test_performing_does_not_hand_out_the_truth_itself():
    task = make("reach", "train", 0)
    perform(task, PERFECT)[:] = 0
    assert task.truth.any()


def test_a_flaw_a_family_does_not_have_is_refused_by_name():
    with pytest.raises(ValueError, match=r"drift: got 3\.0 for family drop"):
        perform(make("drop", "train", 0), Execution(drift=3.0))


@pytest.mark.parametrize("bad", [{"extent": 1.2}, {"drift": -1}, {"late": float("nan")}])
def test_an_execution_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Execution(**bad)


@pytest.mark.parametrize(("name", "split"), [("fly", "train"), ("reach", "validation")])
def test_an_unknown_family_or_split_is_refused(name, split):
    with pytest.raises(ValueError, match="expected one of"):
        make(name, split, 0)


@pytest.mark.parametrize("meta", [{}, {"family": "reach", "split": "test", "seed": "1"}])
def test_metadata_from_elsewhere_is_refused(meta):
    with pytest.raises(ValueError, match="export"):
        task_of(meta)


def test_the_global_generators_are_left_alone():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tobytes()
    for name in NAMES:
        task = make(name, "test", 3)
        answers(task, perform(task, Execution(extent=0.5)))
    assert (
        random.getstate(),
        np.random.get_state(legacy=False)["state"]["key"].tobytes(),
    ) == before


def test_every_two_colours_are_far_apart():
    values = [np.array(value) for value in (*COLOURS.values(), GROUND)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(values, 2)) >= 0.6
