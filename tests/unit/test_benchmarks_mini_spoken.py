"""One teacher that sees with its own weights and speaks with the speaker's."""

import pytest
import torch
from PIL import Image

from vlmteach.config import TeacherConfig
from vlmteach.methods.replies import PROMPT_TOKENS, parse_prompt
from vlmteach.mini import world
from vlmteach.queries import REQUEST, write_queries
from vlmteach.teachers.loading import load_teacher
from vlmteach.types import Instance

SETTINGS = {"checkpoint": "builtin:mini/teacher", "dtype": "float32", "frame_pixels": 1024}


@pytest.fixture(scope="module")
def teachers():
    """The miniature's teacher, and the same with the speaker."""
    device = torch.device("cpu")
    spoken = TeacherConfig(family="benchmarks.mini.spoken.SpokenTeacher", **SETTINGS)
    plain = TeacherConfig(family="qwen3_vl", **SETTINGS)
    return load_teacher(plain, device, False), load_teacher(spoken, device, False)


def instance_of(task):
    return Instance(task.key, task.prompt, Image.fromarray(task.first_frame), "")


def test_it_sees_as_the_teacher_does_bitwise(teachers):
    task = world.make("reach", "tuning", 3)
    frames = torch.from_numpy(task.truth).permute(0, 3, 1, 2).float() / 255
    times = [index / world.FPS for index in range(len(frames))]
    texts = [query.text for query in task.queries]
    told = [
        teacher.log_p_yes(frames, teacher.prepare(texts, times, world.SIZE, world.SIZE))
        for teacher in teachers
    ]
    assert torch.equal(*told)


def test_it_writes_the_teacher_s_queries(teachers):
    for family in ("paint", "detour", "odd"):
        instance = instance_of(world.make(family, "tuning", 4))
        plain, spoken = (
            write_queries(teacher, instance, max_process=3, max_replies=1) for teacher in teachers
        )
        assert plain == spoken
        assert plain.source == "teacher"


def test_prose_is_the_speaker_s(teachers, monkeypatch):
    asked = []
    monkeypatch.setattr(
        teachers[1].speaker, "write", lambda *given: asked.append(given) or "the speaker's"
    )
    assert teachers[1].write("Write a prompt.", [], PROMPT_TOKENS) == "the speaker's"
    assert asked == [("Write a prompt.", [], PROMPT_TOKENS)]


def test_the_mark_of_a_request_for_queries_is_in_it_and_in_no_other():
    from benchmarks.mini.spoken import QUERIES
    from vlmteach.methods import pass_at_n, prompt_rewrite, video_tpo, vlm_solver

    assert QUERIES in REQUEST.format(start="", prompt="", process="", max_length=1)
    for module in (pass_at_n, prompt_rewrite, video_tpo, vlm_solver):
        texts = [value for value in vars(module).values() if isinstance(value, str)]
        assert not any(QUERIES in text for text in texts)


def test_a_rewritten_prompt_says_more_of_the_same_task(teachers):
    from vlmteach.methods.prompt_rewrite import request

    task = world.make("reach", "tuning", 5)
    instance = instance_of(task)
    asked = request(task.prompt, shown=True)
    reply = teachers[1].write(asked, [instance.first_frame], PROMPT_TOKENS)
    written = parse_prompt(reply)
    assert written.startswith(task.prompt)
    assert "Go all the way." in written
