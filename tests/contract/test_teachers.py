"""Every teacher of the table keeps the contract, with the video shared by its queries or not."""

from typing import Any

import pytest
import torch

from tests.contract.teacher_contract import QUERIES, TeacherContract, frames_of
from tests.families import cases
from vlmteach.families import TEACHERS, family_class
from vlmteach.teachers.base import Teacher


@pytest.fixture(scope="class", params=[(f, share) for f in TEACHERS for share in (True, False)])
def made(request, tmp_path_factory) -> Any:
    family, share = request.param
    folder = tmp_path_factory.mktemp(family)
    cases("teacher")[family].save(folder)
    teacher: Teacher = family_class(TEACHERS, family).load(
        str(folder),
        dtype=torch.float32,
        device=torch.device("cpu"),
        frame_pixels=1 << 18,
        share_video=share,
        checkpointing=False,
    )
    return family, teacher


class TestFamilies(TeacherContract):
    @pytest.fixture(scope="class")
    def teacher(self, made) -> Teacher:
        return made[1]

    def test_family_is_the_name_in_the_table(self, made):
        family, teacher = made
        assert teacher.facts.family == family

    def test_network_is_frozen(self, teacher):
        assert not any(p.requires_grad for p in teacher.network.parameters())
        assert not any(module.training for module in teacher.network.modules())

    @pytest.mark.parametrize("shape", [(64, 32), (100, 333), (352, 480)])
    @pytest.mark.parametrize("count", [1, 3, 8])
    def test_no_more_tokens_than_the_budget(self, made, monkeypatch, shape, count):
        family, teacher = made

        def seen(count):
            prepared = teacher.prepare(QUERIES[:1], times[:count], *shape)
            (packed,) = prepared.passes
            return int(teacher._visual(packed.ids).sum()), prepared

        times = [number / 4 for number in range(count)]
        full, free = seen(count)
        least, _ = seen(1)
        for tokens in sorted({full, full - 1, full // 2, full // 3, 129, 5, 1} - {0}, reverse=True):
            monkeypatch.setattr(teacher, "_budget", tokens)
            if tokens < least and not family.startswith("qwen"):  # whose frames have one size
                with pytest.raises(ValueError, match=rf"got {tokens}, expected at least {least}"):
                    teacher.frames_of(count, *shape)
                continue
            watched = teacher.frames_of(count, *shape)
            spent, prepared = seen(watched)
            assert spent <= tokens
            assert teacher.frames_of(watched, *shape) == watched
            if tokens >= full:
                assert (watched, prepared.size) == (count, free.size)
                frames = frames_of(count, *shape)
                expected = teacher.log_p_yes(frames, free)
                assert torch.equal(teacher.log_p_yes(frames, prepared), expected)
            if watched < count:
                with pytest.raises(ValueError, match=rf"got {count}, expected at most {watched} "):
                    seen(count)

    def test_an_untrained_one_is_never_certain(self, teacher):
        prepared = teacher.prepare(QUERIES, [0.0, 0.5, 1.0], 64, 32)
        assert (teacher.log_p_yes(frames_of(3, 64, 32), prepared) < 0).all()

    def test_a_pass_that_fails_leaves_it_as_it_was(self, teacher, monkeypatch):
        prepared, frames = teacher.prepare(QUERIES, [0.0, 0.5, 1.0], 64, 32), frames_of(3, 64, 32)
        expected = teacher.log_p_yes(frames, prepared)

        def fail(*_, **__):
            raise torch.OutOfMemoryError("pretend")

        monkeypatch.setattr(teacher, "checkpointing", "full")  # which needs the mode of training
        with monkeypatch.context() as patch:
            patch.setattr(teacher.network.lm_head, "forward", fail)
            with pytest.raises(torch.OutOfMemoryError):
                teacher.log_p_yes(frames, prepared)
        assert not any(module.training for module in teacher.network.modules())
        assert torch.equal(teacher.log_p_yes(frames, prepared), expected)
