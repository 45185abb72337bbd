"""What every teacher promises (`vlmteach.teachers.base`).

A family of your own passes when a subclass with its fixture passes; only members of the protocol
are used.
"""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from tests.contract.exact import inexact
from vlmteach.teachers.base import Teacher, Watcher, Writer

QUERIES = ["Does the ball reach the square?", "Is it red?", "Does the shape stay the same?"]


def frames_of(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


class WatcherContract:
    @pytest.fixture(scope="class")
    def teacher(self) -> Watcher:
        """A small one in float32 on the CPU that sees frames of 64 x 32 pixels."""
        raise NotImplementedError

    def test_scores_are_log_probabilities_with_gradient_to_every_frame(self, teacher):
        frames = frames_of(3, 64, 32).requires_grad_()
        prepared = teacher.prepare(QUERIES, [0.0, 0.5, 1.0], 64, 32)
        scores = teacher.log_p_yes(frames, prepared)
        assert scores.shape == (3,)
        assert scores.dtype == torch.float32
        assert scores.device == teacher.device
        assert (scores <= 0).all()
        assert inexact(scores) == set()
        for score in scores:
            (gradient,) = torch.autograd.grad(score, frames, retain_graph=True)
            assert gradient.isfinite().all()
            assert (gradient.abs().amax((1, 2, 3)) > 0).all()

    def test_a_step_up_the_gradient_raises_the_score(self, teacher):
        frames = frames_of(2, 32, 32).requires_grad_()
        prepared = teacher.prepare(QUERIES, [0.0, 1.0], 32, 32)
        before = teacher.log_p_yes(frames, prepared).sum()
        (gradient,) = torch.autograd.grad(before, frames)
        with torch.no_grad():
            after = teacher.log_p_yes(frames + 1e-2 * gradient / gradient.norm(), prepared).sum()
        assert after > before

    def test_scores_repeat_and_follow_the_order_of_the_queries(self, teacher):
        frames = frames_of(2, 32, 32)
        prepared = teacher.prepare(QUERIES, [0.0, 1.0], 32, 32)
        scores = teacher.log_p_yes(frames, prepared)
        assert torch.equal(scores, teacher.log_p_yes(frames, prepared))
        turned = teacher.prepare(QUERIES[::-1], [0.0, 1.0], 32, 32)
        torch.testing.assert_close(
            teacher.log_p_yes(frames, turned), scores.flip(0), rtol=1e-5, atol=1e-5
        )

    def test_frozen(self, teacher):
        prepared = teacher.prepare(QUERIES, [0.0], 32, 32)
        assert not teacher.log_p_yes(frames_of(1, 32, 32), prepared).requires_grad

    def test_facts_name_family_and_layout(self, teacher):
        assert teacher.facts.family
        assert teacher.facts.layout


class WriterContract:
    @pytest.fixture(scope="class")
    def teacher(self) -> Writer:
        """A small one that reads images of 64 x 48 pixels."""
        raise NotImplementedError

    def test_writes_plain_text_and_the_same_again(self, teacher):
        picture = Image.new("RGB", (64, 48), "blue")
        for images in ([], [picture], [picture, Image.new("RGB", (48, 64), "red")]):
            text = teacher.write("Describe the object.", images, 4)
            assert isinstance(text, str)
            assert "<|" not in text
            assert teacher.write("Describe the object.", images, 4) == text


class TeacherContract(WatcherContract, WriterContract):
    @pytest.fixture(scope="class")
    def teacher(self) -> Teacher:
        raise NotImplementedError
