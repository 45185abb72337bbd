"""Methods and the paper's ablations, as the command line takes them."""

import typing

import pytest

from vlmteach.config import MethodName
from vlmteach.methods import METHODS
from vlmteach.options import read_config
from vlmteach.types import Selector


def read(*words):
    return read_config(words)


def test_every_method_can_be_chosen_and_no_other():
    assert set(typing.get_args(MethodName)) == set(METHODS)
    for name in METHODS:
        assert read("--method", name).method == name


def test_every_selector_can_be_chosen():
    for name in typing.get_args(Selector):
        assert read("--pass_at_n.selector", name).pass_at_n.selector == name


@pytest.mark.parametrize(
    ("words", "got", "expected"),
    [
        ("--query.ask process", lambda c: c.query.ask, "process"),
        ("--query.ask goal", lambda c: c.query.ask, "goal"),
        ("--query.source generic", lambda c: c.query.source, "generic"),
        ("--fit.gradient last", lambda c: c.fit.gradient, "last"),
        ("--fit.gradient full", lambda c: c.fit.gradient, "full"),
        ("--fit.gradient 2", lambda c: c.fit.gradient, 2),
        ("--teacher.frames 48", lambda c: c.teacher.frames, 48),
        (
            "--fit.threshold 0 --fit.steps 16 --fit.keep last",
            lambda c: (c.fit.threshold, c.fit.steps, c.fit.keep),
            (0, 16, "last"),
        ),
        ("--decoder.family full", lambda c: c.decoder.family, "full"),
        (
            "--teacher.family qwen2_5_vl --teacher.checkpoint a/b",
            lambda c: (c.teacher.family, c.teacher.checkpoint),
            ("qwen2_5_vl", "a/b"),
        ),
        ("--reasoner.checkpoint a/b", lambda c: c.reasoner.checkpoint, "a/b"),
        ("--reasoner.distillation_lora x.safetensors", lambda c: c.reasoner.distillation_lora,
         "x.safetensors"),
        ("--fit.noises 5", lambda c: c.fit.noises, 5),
        ("--fit.rewrite_prompt true", lambda c: c.fit.rewrite_prompt, True),
        ("--pass_at_n.rewrite_prompt true", lambda c: c.pass_at_n.rewrite_prompt, True),
        ("--prompt_rewrite.max_replies 1", lambda c: c.prompt_rewrite.max_replies, 1),
        ("--video_tpo.rounds 3", lambda c: c.video_tpo.rounds, 3),
        ("--video_tpo.max_replies 1", lambda c: c.video_tpo.max_replies, 1),
        ("--vlm_solver.segments 2", lambda c: c.vlm_solver.segments, 2),
        ("--vlm_solver.tries 1", lambda c: c.vlm_solver.tries, 1),
    ],
)  # fmt: skip
def test_every_ablation_is_a_setting(words, got, expected):
    assert got(read(*words.split())) == expected


@pytest.mark.parametrize(
    "name",
    ["pass_at_n.candidates", "prompt_rewrite.max_replies", "video_tpo.rounds",
     "video_tpo.max_replies", "vlm_solver.segments", "vlm_solver.tries"],
)  # fmt: skip
def test_counts_start_at_1(name):
    with pytest.raises(ValueError, match=f"{name}: got 0, expected at least 1"):
        read(f"--{name}", "0")
