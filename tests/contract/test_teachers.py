"""What every teacher promises, and that the facts it declares are true."""

from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image

from vlmteach.builtin.internvl import save_random_internvl
from vlmteach.builtin.qwen_vl import save_random_qwen2_5_vl, save_random_qwen3_vl
from vlmteach.teachers.base import Teacher
from vlmteach.teachers.internvl import InternVLTeacher
from vlmteach.teachers.qwen_vl import QwenVLTeacher

QUERIES = ["Does the ball reach the square?", "Is it red?", "Does the shape stay the same?"]
FAMILIES = {
    "qwen3_vl": (save_random_qwen3_vl, partial(QwenVLTeacher.load, family="qwen3_vl")),
    "qwen2_5_vl": (save_random_qwen2_5_vl, partial(QwenVLTeacher.load, family="qwen2_5_vl")),
    "internvl": (save_random_internvl, InternVLTeacher.load),
}
"""Every family, with a small checkpoint of its own; a new one joins here."""


@pytest.fixture(scope="module", params=[(f, share) for f in FAMILIES for share in (True, False)])
def made(request, tmp_path_factory) -> Any:
    family, share = request.param
    folder = tmp_path_factory.mktemp(family)
    save, load = FAMILIES[family]
    save(folder)
    teacher: Teacher = load(
        folder,
        dtype=torch.float32,
        device=torch.device("cpu"),
        frame_pixels=1 << 18,
        share_video=share,
    )
    return family, teacher


@pytest.fixture
def teacher(made) -> Teacher:
    return made[1]


def _frames(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_scores_are_log_probabilities_with_gradient_to_every_frame(teacher):
    side = teacher.facts.size_multiple
    frames = _frames(3, 2 * side, side).requires_grad_()
    prepared = teacher.prepare(QUERIES, [0.0, 0.5, 1.0], 2 * side, side)
    scores = teacher.log_p_yes(frames, prepared)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float32
    assert scores.device == teacher.device
    assert (scores < 0).all()
    for score in scores:
        (gradient,) = torch.autograd.grad(score, frames, retain_graph=True)
        assert gradient.isfinite().all()
        assert (gradient.abs().amax((1, 2, 3)) > 0).all()


def test_a_step_up_the_gradient_raises_the_score(teacher):
    side = teacher.facts.size_multiple
    frames = _frames(2, side, side).requires_grad_()
    prepared = teacher.prepare(QUERIES, [0.0, 1.0], side, side)
    before = teacher.log_p_yes(frames, prepared).sum()
    (gradient,) = torch.autograd.grad(before, frames)
    with torch.no_grad():
        after = teacher.log_p_yes(frames + 1e-2 * gradient / gradient.norm(), prepared).sum()
    assert after > before


def test_scores_repeat_and_follow_the_order_of_the_queries(teacher):
    side = teacher.facts.size_multiple
    frames = _frames(2, side, side)
    prepared = teacher.prepare(QUERIES, [0.0, 1.0], side, side)
    scores = teacher.log_p_yes(frames, prepared)
    assert torch.equal(scores, teacher.log_p_yes(frames, prepared))
    turned = teacher.prepare(QUERIES[::-1], [0.0, 1.0], side, side)
    torch.testing.assert_close(
        teacher.log_p_yes(frames, turned), scores.flip(0), rtol=1e-5, atol=1e-5
    )


def test_family_is_declared(made):
    family, teacher = made
    assert teacher.facts.family == family


def test_size_multiple_is_what_the_teacher_sees(teacher):
    side, fixed = teacher.facts.size_multiple, teacher.facts.fixed_size
    for height, width in [(side, side), (3 * side, 2 * side)]:
        seen = teacher.prepare(QUERIES, [0.0], height, width).size
        assert seen == (fixed or (height, width))
    for height, width in [(side + 1, side), (3 * side - 1, 2 * side + 1), (2000, 1500)]:
        seen = teacher.prepare(QUERIES, [0.0], height, width).size
        assert seen[0] % side == seen[1] % side == 0
        assert seen != (height, width)
        assert fixed in (None, seen)


def test_temporal_patch_is_the_frames_that_fuse(teacher):
    side, fused = teacher.facts.size_multiple, teacher.facts.temporal_patch
    for count in range(1, 2 * fused + 2):
        prepared = teacher.prepare(QUERIES, list(range(count)), side, side)
        assert prepared.grid[0, 0] == -(-count // fused)


def test_frozen(teacher):
    network = teacher.network  # type: ignore[attr-defined]
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(module.training for module in network.modules())


def test_writes_plain_text(teacher):
    picture = Image.new("RGB", (64, 48), "blue")
    for images in ([], [picture], [picture, Image.new("RGB", (48, 64), "red")]):
        text = teacher.write("Describe the object.", images, 4)
        assert isinstance(text, str)
        assert "<|" not in text
