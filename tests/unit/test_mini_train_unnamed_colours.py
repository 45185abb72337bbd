"""Videos in colours without a name: the thing keeps its shape, its colour and name are gone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from benchmarks.mini.train.teacher import hardening
from benchmarks.mini.train.teacher import network as teacher_network
from benchmarks.mini.train.teacher import training as teacher
from benchmarks.mini.train.teacher.data import examples
from benchmarks.mini.train.teacher.dense_losses import colour_shares
from benchmarks.mini.train.teacher.tokens import Width, save_folder
from benchmarks.mini.train.teacher.unnamed_colours import recoloured, unnamed
from vlmteach.mini.world import COLOURS, Execution, make, perform
from vlmteach.mini.world.draw import GROUND

TINY = Width(
    hidden=32, layers=2, heads=2, inner=48, vision_hidden=16, vision_layers=1, vision_heads=1,
    vision_inner=32,
)  # fmt: skip


def _draw(seed=1):
    return torch.Generator().manual_seed(seed)


def _video(task, extent=0.63):
    return teacher.to_frames([perform(task, Execution(extent=extent)) / np.float32(255)])[0]


def test_only_the_acting_colour_changes_and_mixtures_change_in_part():
    named = torch.tensor([*COLOURS.values(), GROUND.tolist()])
    ground, mixtures = torch.from_numpy(GROUND), 0
    for seed in range(12):
        task = make("level", "train", seed)
        video = _video(task)
        shown = recoloured(video, task.cue[0], _draw(seed))
        full = colour_shares(video[None])[0, ..., 1 + list(COLOURS).index(task.cue[0])] > 0.99
        other = shown.movedim(1, -1)[full].median(0).values
        assert (named - other).norm(dim=1).min() > 0.25
        # What was c parts of the colour and the rest ground is c parts of the other.
        old = torch.tensor(COLOURS[task.cue[0]]) - ground
        away = video.movedim(1, -1) - ground
        along = away @ old / old.square().sum()
        mixed = (away - along[..., None] * old).norm(dim=-1) < 0.01
        mixtures += int(((along > 0.2) & (along < 0.8) & mixed).sum())
        expected = ground + along[..., None] * (other - ground)
        torch.testing.assert_close(shown.movedim(1, -1)[mixed], expected[mixed], atol=0.02, rtol=0)
        black = (video < 0.1).all(1, keepdim=True).expand_as(video)
        torch.testing.assert_close(shown[black], video[black], atol=0.01, rtol=0)
    assert mixtures > 50


def test_a_colour_without_a_name_is_a_function_of_the_draw():
    task = make("level", "train", 5)
    video = _video(task)
    one, again = (recoloured(video, task.cue[0], _draw(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, recoloured(video, task.cue[0], _draw(4)))


def test_the_name_goes_and_the_rest_stays():
    task = make("level", "train", 5)
    for query in task.queries:
        text = unnamed(query.text, task.cue[0])
        assert task.cue[0] not in text
        assert "  " not in text
        assert text.endswith("?")


def test_the_stage_shows_unnamed_families_so_and_no_others(tmp_path):
    save_folder(tmp_path, TINY)
    network = teacher_network.new_network(tmp_path, 3)
    teacher.save_weights(network.state_dict(), tmp_path)
    tasks = [make(name, "train", seed) for name in ("level", "reach") for seed in range(20)]
    plain = torch.stack([_video(task) for task in tasks])
    for families in ((), ("level",)):
        stage = teacher.TeacherStage(
            tmp_path, network, seed=3, steps=2, batch=8, attacked=0, unnamed=families
        )
        frames, questions = stage._shown(plain, tasks, _draw())
        changed = (frames != plain).flatten(1).any(1)
        assert not changed[20:].any()
        assert bool(changed[:20].any()) == bool(families)
        for task, texts, one in zip(tasks, questions, changed, strict=True):
            own = [query.text for query in task.queries]
            if one:
                assert all(task.cue[0] not in text for text in texts)
            elif texts != own:
                assert task.cue[0] not in " ".join(texts)  # generic words
    assert changed[:20].float().mean() > 0.3


def test_families_can_come_more_often():
    few = Counter(item.task.family for item in examples(3, 7, 200, easy=0.0))
    many = Counter(item.task.family for item in examples(3, 7, 200, easy=0.0, more=hardening.MORE))
    assert many["mirror"] + many["level"] > 1.4 * (few["mirror"] + few["level"])
