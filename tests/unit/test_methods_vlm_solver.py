"""Plans, verdicts and the joining of clips."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from vlmteach.config import Config, VLMSolverConfig
from vlmteach.frames import uniform_frames
from vlmteach.methods import Resources, VLMSolver
from vlmteach.methods.vlm_solver import Chain, Try, join, parse_plan, parse_verdict

NEXT = "The ball rolls on."


def test_a_plan_is_a_prompt_or_the_end():
    assert parse_plan(json.dumps({"prompt": NEXT}), may_end=False) == NEXT
    assert parse_plan(json.dumps({"prompt": NEXT}), may_end=True) == NEXT
    assert parse_plan('It is finished: {"done": true}', may_end=True) == ""
    assert parse_plan(f'{{"done": true}}? No: {{"prompt": "{NEXT}"}}', may_end=True) == NEXT


@pytest.mark.parametrize(
    ("reply", "may_end"),
    [
        ('{"done": true}', False),
        ('{"done": false}', True),
        ('{"done": "true"}', True),
        ('{"done": 1}', True),
        ('{"done": true, "prompt": "Go on."}', True),
        ('{"prompt": "Go on.", "step": 2}', True),
        ('{"prompt": ""}', True),
        ('{"prompt": null}', False),
        ("done", True),
        ("", False),
    ],
)
def test_what_is_no_plan_is_refused(reply, may_end):
    with pytest.raises(ValueError, match="expected"):
        parse_plan(reply, may_end=may_end)


def test_a_verdict_accepts_or_brings_a_better_prompt():
    assert parse_verdict('Fine. {"accept": true}') == ""
    assert parse_verdict(json.dumps({"accept": False, "prompt": NEXT})) == NEXT


@pytest.mark.parametrize(
    "reply",
    [
        "accept",
        '{"accept": "true"}',
        '{"accept": 1}',
        '{"accept": null, "prompt": "Go on."}',
        '{"accept": true, "prompt": "Go on."}',
        '{"accept": false}',
        '{"accept": false, "prompt": ""}',
        '{"accept": false, "prompt": "A <|x|> tag"}',
        '{"accept": false, "prompt": "Go on.", "why": "it broke"}',
    ],
)
def test_what_is_no_verdict_is_refused(reply):
    with pytest.raises(ValueError, match="expected"):
        parse_verdict(reply)


def numbered(first, frames):
    levels = torch.arange(first, first + frames, dtype=torch.uint8)
    return levels.view(-1, 1, 1, 1).expand(frames, 2, 2, 3).contiguous()


def test_one_clip_is_delivered_as_it_is():
    assert torch.equal(join([numbered(0, 9)], 9), numbered(0, 9))


def test_a_chain_takes_shared_frames_once_and_is_resampled_uniformly():
    chain = [numbered(0, 9), numbered(8, 9), numbered(16, 9)]  # frames 0 to 24
    assert join(chain, 9)[:, 0, 0, 0].tolist() == uniform_frames(25, 9)
    assert join(chain, 25)[:, 0, 0, 0].tolist() == list(range(25))


def test_fallbacks_are_the_replies_that_could_not_be_used():
    fine = Try("segment_1_1.mp4", 0, NEXT, accepted=True)
    odd = Try("segment_2_1.mp4", 1, NEXT, accepted=True, refusal="got '', expected ...")
    assert Chain(((fine,),), "done", None).fallbacks == 0
    assert Chain(((fine,), (odd,)), "segments", None).fallbacks == 1
    assert Chain(((fine,), (odd,)), "no_plan", "got '', expected ...").fallbacks == 2


def test_a_reasoner_without_first_frames_cannot_chain():
    reasoner = SimpleNamespace(facts=SimpleNamespace(accepts_image=False))
    models = cast(Any, SimpleNamespace(reasoner=reasoner))
    with pytest.raises(ValueError, match=r"got a reasoner .* text only, expected .*; take an"):
        VLMSolver(Resources(Config(), models, {}))
    VLMSolver(Resources(Config(vlm_solver=VLMSolverConfig(segments=1)), models, {}))
