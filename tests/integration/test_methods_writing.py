"""Methods whose teacher writes: a scripted one drives each to every end it can come to."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.integration.scripted import CONFIG, RUNGS, TASK, Scripted, cost, read, written
from vlmteach import models
from vlmteach.config import (
    PassAtNConfig,
    PromptRewriteConfig,
    VideoTPOConfig,
    VLMSolverConfig,
)
from vlmteach.methods import Resources, carry_out, load_method
from vlmteach.video import read_video


@pytest.fixture(scope="module")
def loaded():
    return models.load(CONFIG, torch.device("cpu"))


@pytest.fixture
def solve(loaded, tmp_path):
    """Runs a method; the outcome, the folder, and the scripted teacher with all replies spent."""

    def run(name, replies=(), *, instance=TASK, folder="out", ahead=(), **changes):
        out = tmp_path / folder
        out.mkdir(exist_ok=True)
        teacher = Scripted(loaded.teacher, replies)
        resources = Resources(replace(CONFIG, **changes), replace(loaded, teacher=teacher), {})
        outcome = carry_out(load_method(name, resources), resources, instance, out, ahead=ahead)
        assert teacher.replies == []
        return outcome, out, teacher

    return run


@pytest.fixture
def base(solve):
    """The bytes of a plain sample of some prompt."""

    def sample(prompt=TASK.prompt):
        _, out, _ = solve("base", instance=replace(TASK, prompt=prompt), folder="base")
        return (out / "clip.mp4").read_bytes()

    return sample


NEW = "The ball goes around the wall and stops on the square."
NEWER = "The ball goes left, then down, and stops on the square."
QUOTED = json.dumps(TASK.prompt)


@pytest.mark.parametrize("selector", ["vlm_pick", "oracle"])
def test_other_selectors_have_the_same_candidates(solve, base, selector):
    best = PassAtNConfig(candidates=2)
    replies = [written(best=2)] if selector == "vlm_pick" else []
    _, ours, _ = solve("pass_at_n", folder="ours", pass_at_n=best)
    best = replace(best, selector=selector)
    outcome, out, _ = solve("pass_at_n", replies, pass_at_n=best)
    for number in range(2):
        name = f"candidate_{number}.mp4"
        assert (out / name).read_bytes() == (ours / name).read_bytes()
    assert (out / "candidate_0.mp4").read_bytes() == base()
    assert not (out / "queries.json").exists()
    assert outcome.selector == read(out / "candidates.json")["selector"] == selector
    assert outcome.query_source is outcome.first_loss is outcome.kept_loss is None
    assert cost(outcome) == (2 * RUNGS, len(replies))


def test_the_teacher_is_shown_every_candidate_and_names_one(solve):
    best = PassAtNConfig(candidates=3, selector="vlm_pick")
    outcome, out, teacher = solve("pass_at_n", ['{"best": 3}'], pass_at_n=best)
    ((request, images),) = teacher.asked
    assert QUOTED in request
    assert len({image.tobytes() for image in images}) == len(images) == 3
    assert outcome.candidate == read(out / "candidates.json")["picked"] == 2
    assert outcome.fallbacks == 0
    assert (out / "clip.mp4").read_bytes() == (out / "candidate_2.mp4").read_bytes()


def test_an_unusable_pick_is_candidate_0_and_recorded(solve, base):
    best = PassAtNConfig(candidates=2, selector="vlm_pick")
    outcome, out, _ = solve("pass_at_n", ["the second one"], pass_at_n=best)
    assert (outcome.candidate, outcome.fallbacks) == (0, 1)
    assert "the second one" in read(out / "candidates.json")["refusals"][0]
    assert (out / "clip.mp4").read_bytes() == base()


@pytest.mark.parametrize(("selector", "count"), [("oracle", 2), ("vlm_pick", 1)])
def test_candidate_0_is_delivered_where_nothing_is_to_be_picked(solve, base, selector, count):
    best = PassAtNConfig(candidates=count, selector=selector)
    outcome, out, _ = solve("pass_at_n", pass_at_n=best)
    assert (outcome.candidate, outcome.fallbacks) == (0, 0)
    assert (out / "clip.mp4").read_bytes() == base()
    assert cost(outcome) == (count * RUNGS, 0)


def test_a_rewritten_prompt_is_what_is_sampled(solve, base):
    outcome, out, teacher = solve("prompt_rewrite", [written(prompt=NEW)])
    ((request, images),) = teacher.asked
    assert "starting from this image" in request
    assert QUOTED in request
    assert [image.size for image in images] == [(32, 32)]
    assert read(out / "prompt.json") == {
        "prompt": NEW,
        "original": TASK.prompt,
        "source": "teacher",
        "replies": 1,
        "refusals": [],
    }
    assert {path.name for path in out.iterdir()} == {"clip.mp4", "prompt.json"}
    assert (out / "clip.mp4").read_bytes() == base(NEW) != base()
    assert cost(outcome) == (RUNGS, 1)
    assert outcome.fallbacks == 0


def test_without_a_usable_rewrite_the_clip_is_the_bases(solve, base):
    settings = PromptRewriteConfig(max_replies=2)
    replies = ["", written(prompt="<|x|>")]
    outcome, out, _ = solve("prompt_rewrite", replies, prompt_rewrite=settings)
    record = read(out / "prompt.json")
    assert (record["source"], record["replies"]) == ("instance", 2)
    assert record["prompt"] == record["original"] == TASK.prompt
    assert len(record["refusals"]) == 2
    assert (out / "clip.mp4").read_bytes() == base()
    assert cost(outcome) == (RUNGS, 2)
    assert outcome.fallbacks == 1


def test_a_text_only_instance_is_rewritten_without_an_image(solve):
    instance = replace(TASK, first_frame=None)
    _, _, teacher = solve("prompt_rewrite", [written(prompt=NEW)], instance=instance)
    ((request, images),) = teacher.asked
    assert images == []
    assert "image" not in request


def test_the_micro_fit_can_start_from_a_rewritten_prompt(solve, base):
    fit = replace(CONFIG.fit, rewrite_prompt=True)
    ours, out, _ = solve("micro_fit", [written(prompt=NEW)], fit=fit)
    plain, told, _ = solve("micro_fit", instance=replace(TASK, prompt=NEW), folder="told")
    assert read(out / "prompt.json")["prompt"] == NEW
    assert (out / "clip.mp4").read_bytes() == (told / "clip.mp4").read_bytes()
    adapter, again = (load_file(folder / "adapter.safetensors") for folder in (out, told))
    assert adapter.keys() == again.keys()  # the files' headers tell of two prompts, and of one
    assert all(torch.equal(adapter[name], again[name]) for name in adapter)
    assert (out / "base.mp4").read_bytes() == base()
    # The base video is of the instance's own prompt, of which the fit has predicted nothing.
    assert ours.compute.reasoner_forwards == plain.compute.reasoner_forwards + 1
    assert ours.compute.teacher_calls == plain.compute.teacher_calls + 1


def test_best_of_n_can_sample_a_rewritten_prompt(solve, base):
    best = PassAtNConfig(candidates=2, rewrite_prompt=True)
    ours, out, _ = solve("pass_at_n", [written(prompt=NEW)], pass_at_n=best)
    assert read(out / "prompt.json")["prompt"] == NEW
    assert (out / "candidate_0.mp4").read_bytes() == base(NEW)
    plain, told, _ = solve("pass_at_n", pass_at_n=PassAtNConfig(candidates=2), folder="plain")
    # Whatever the prompt, the teacher judges by the task's own queries.
    assert (out / "queries.json").read_bytes() == (told / "queries.json").read_bytes()
    assert ours.compute.teacher_calls == plain.compute.teacher_calls + 1
    assert ours.compute.reasoner_forwards == plain.compute.reasoner_forwards
    assert ours.fallbacks == 0


def test_best_of_n_without_a_usable_rewrite_samples_the_prompt_itself_and_says_so(solve, base):
    best = PassAtNConfig(candidates=2, selector="vlm_pick", rewrite_prompt=True)
    ours, out, _ = solve("pass_at_n", ["no", "no", "no", "none of them"], pass_at_n=best)
    assert (out / "candidate_0.mp4").read_bytes() == base()
    assert ours.fallbacks == 2  # the prompt, and the pick


def test_video_tpo_compares_advises_rewrites_and_samples_once_more(solve, base):
    replies = ["The second is worse.", "Name the way.", written(prompt=NEW)]
    outcome, out, teacher = solve("video_tpo", replies)
    (loss, pair), (gradient, none), (rewrite, no) = teacher.asked
    assert len(pair) == 1
    assert none == no == []
    assert all(QUOTED in request for request in (loss, gradient, rewrite))
    assert "The second is worse." in gradient
    assert "Name the way." in rewrite
    record = read(out / "video_tpo.json")
    assert (record["original"], record["prompt"]) == (TASK.prompt, NEW)
    (only,) = record["rounds"]
    assert only["clips"] == ["round_1_0.mp4", "round_1_1.mp4"]
    assert only["rewrite"] == {"value": NEW, "replies": 1, "refusals": []}
    _, best, _ = solve("pass_at_n", folder="best", pass_at_n=PassAtNConfig(candidates=2))
    for number in range(2):
        candidate = best / f"candidate_{number}.mp4"
        assert (out / f"round_1_{number}.mp4").read_bytes() == candidate.read_bytes()
    assert (out / "clip.mp4").read_bytes() == base(NEW)
    assert cost(outcome) == (3 * RUNGS, 3)
    assert outcome.fallbacks == 0


def test_video_tpo_goes_on_from_the_improved_prompt(solve, base):
    replies = ["a", "b", written(prompt=NEW), "c", "d", written(prompt=NEWER)]
    outcome, out, teacher = solve("video_tpo", replies, video_tpo=VideoTPOConfig(rounds=2))
    assert NEW in teacher.asked[3][0]
    assert [r["prompt"] for r in read(out / "video_tpo.json")["rounds"]] == [TASK.prompt, NEW]
    assert (out / "round_2_0.mp4").read_bytes() == base(NEW)
    assert (out / "clip.mp4").read_bytes() == base(NEWER)
    assert cost(outcome) == (5 * RUNGS, 6)


@pytest.mark.parametrize(
    ("replies", "fallbacks"),
    [
        ([""], 1),
        (["a", "..."], 1),
        (["a", "b", "no", "no"], 1),
        (["a", "b", written(prompt=TASK.prompt)], 0),
    ],
    ids=["no-loss", "no-gradient", "no-rewrite", "same-prompt"],
)
def test_video_tpo_without_an_improvement_is_the_base(solve, base, replies, fallbacks):
    settings = VideoTPOConfig(rounds=3, max_replies=2)
    outcome, out, _ = solve("video_tpo", replies, video_tpo=settings)
    assert (out / "clip.mp4").read_bytes() == base()
    assert len(read(out / "video_tpo.json")["rounds"]) == 1
    assert cost(outcome) == (2 * RUNGS, len(replies))  # the clip is one of the two
    assert outcome.fallbacks == fallbacks


def test_the_solver_plans_verifies_and_chains(solve, base):
    replies = [
        written(prompt="First."),
        written(accept=False, prompt="First, but better."),
        written(accept=True),
        written(prompt="Second."),
        "looks fine to me",
        written(done=True),
    ]
    outcome, out, teacher = solve("vlm_solver", replies)
    record = read(out / "vlm_solver.json")
    first, second = record["segments"]
    assert [a["prompt"] for a in (*first, *second)] == ["First.", "First, but better.", "Second."]
    assert [a["candidate"] for a in (*first, *second)] == [0, 1, 2]
    assert [a["accepted"] for a in (*first, *second)] == [False, True, True]
    assert "looks fine to me" in second[0]["refusal"]
    assert (record["end"], record["refusal"]) == ("done", None)
    assert cost(outcome) == (3 * RUNGS, 6)
    assert outcome.fallbacks == 1
    assert (out / "segment_1_1.mp4").read_bytes() == base("First.")
    # The next plan sees what was made, and the last frame of the accepted clip.
    request, (start,) = teacher.asked[3]
    assert '["First, but better."]' in request
    kept, fps = read_video(out / "segment_1_2.mp4")
    assert abs(np.array(start).astype(int) - kept[-1].numpy()).mean() < 3  # coded as H.264
    clip, rate = read_video(out / "clip.mp4")
    assert (clip.shape, rate) == (kept.shape, fps)


def test_the_solver_without_a_plan_is_the_base(solve, base):
    outcome, out, _ = solve("vlm_solver", ["I would rather not."])
    assert (out / "clip.mp4").read_bytes() == base()
    assert read(out / "vlm_solver.json")["end"] == "no_plan"
    assert cost(outcome) == (RUNGS, 1)
    assert outcome.fallbacks == 1


def test_a_plan_that_fails_later_keeps_what_was_accepted(solve):
    replies = [written(prompt="First."), written(accept=True), "no idea"]
    outcome, out, _ = solve("vlm_solver", replies)
    record = read(out / "vlm_solver.json")
    assert (len(record["segments"]), record["end"]) == (1, "no_plan")
    assert (out / "clip.mp4").read_bytes() == (out / "segment_1_1.mp4").read_bytes()
    assert cost(outcome) == (RUNGS, 3)
    assert outcome.fallbacks == 1


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_segment_without_an_accepted_clip_ends_the_chain(solve, accepted):
    replies = [written(prompt="First."), written(accept=True)] * accepted
    replies += [written(prompt="Never."), written(accept=False, prompt=NEW)]
    replies += [written(accept=False, prompt=NEWER)]
    settings = VLMSolverConfig(segments=2, tries=2)
    outcome, out, _ = solve("vlm_solver", replies, vlm_solver=settings)
    record = read(out / "vlm_solver.json")
    assert [a["prompt"] for a in record["segments"][-1]] == ["Never.", NEW]
    assert record["end"] == "rejected"
    delivered = "segment_1_1.mp4" if accepted else "segment_1_2.mp4"  # there must be one
    assert (out / "clip.mp4").read_bytes() == (out / delivered).read_bytes()
    assert cost(outcome) == ((2 + accepted) * RUNGS, len(replies))


def test_a_text_only_chain_starts_without_an_image_and_goes_on_with_one(solve):
    replies = [written(prompt="First."), written(accept=True)]
    replies += [written(prompt="Second."), written(accept=True)]
    outcome, out, teacher = solve(
        "vlm_solver",
        replies,
        instance=replace(TASK, first_frame=None),
        vlm_solver=VLMSolverConfig(segments=2),
    )
    assert [len(images) for _, images in teacher.asked] == [0, 1, 1, 1]
    assert read(out / "vlm_solver.json")["end"] == "segments"
    assert cost(outcome) == (2 * RUNGS, 4)


@pytest.mark.parametrize(
    ("name", "replies"),
    [
        ("prompt_rewrite", ["no", written(prompt=NEW)]),
        ("video_tpo", ["a", "b", written(prompt=NEW)]),
        ("vlm_solver", [written(prompt=NEW), written(accept=True), written(done=True)]),
    ],
)
def test_the_same_instance_twice_gives_the_same_files(solve, name, replies):
    _, first, _ = solve(name, replies, folder="first")
    solve("micro_fit", instance=replace(TASK, key="move/2"), folder="between")
    _, again, _ = solve(name, replies, folder="again")
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in again.iterdir()}
    for file in names:
        assert (first / file).read_bytes() == (again / file).read_bytes()


@pytest.mark.parametrize("name", ["pass_at_n", "prompt_rewrite", "video_tpo", "vlm_solver"])
@pytest.mark.parametrize("instance", [TASK, replace(TASK, first_frame=None)], ids=["image", "text"])
def test_a_teacher_that_writes_nonsense_does_no_harm(loaded, base, name, instance, tmp_path):
    """The random teacher itself: nothing it writes is of use."""
    config = replace(
        CONFIG,
        pass_at_n=PassAtNConfig(candidates=2, selector="vlm_pick"),
        prompt_rewrite=PromptRewriteConfig(max_replies=1),
        video_tpo=VideoTPOConfig(max_replies=1),
    )
    resources = Resources(config, loaded, {})
    outcome = carry_out(load_method(name, resources), resources, instance, tmp_path)
    assert outcome.fallbacks == 1
    same = (tmp_path / "clip.mp4").read_bytes() == base()
    assert same == (instance.first_frame is not None)


@pytest.mark.parametrize(
    ("name", "replies", "told"),
    [
        ("base", [], [(TASK.prompt, ("next",))]),
        ("prompt_rewrite", [written(prompt="Push it.")], [("Push it.", ())]),
        (
            "vlm_solver",
            [written(prompt="First."), written(accept=True), written(done=True)],
            [("First.", ())],
        ),
    ],
)
def test_prompts_of_the_next_are_told_where_they_are_encoded_as_they_are(
    solve, loaded, monkeypatch, name, replies, told
):
    seen, encode = [], loaded.reasoner.encode

    def noted(prompt, first_frame, clip, ahead=()):
        seen.append((prompt, tuple(ahead)))
        return encode(prompt, first_frame, clip, ahead)

    monkeypatch.setattr(loaded.reasoner, "encode", noted)
    solve(name, replies, ahead=["next"])
    assert seen == told
