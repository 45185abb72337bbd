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
