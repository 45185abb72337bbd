"""VideoTPO (TiViBench, arXiv 2511.13704): the prompt improved at test time, by text alone.

A round samples two clips of the current prompt. The teacher compares them against the task (the
textual loss), turns that into advice on the prompt (the textual gradient), and rewrites the prompt.
The clip is then sampled from the last prompt and the instance's own noise.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

from vlmteach.asking import Answer, ask
from vlmteach.methods.base import Resources, Work
from vlmteach.methods.replies import PROMPT_TOKENS, RULES, parse_prompt, parse_text
from vlmteach.methods.sheets import first_and_last
from vlmteach.record import write_json
from vlmteach.types import Decision

CANDIDATES = 2
"""Clips that are compared: candidates 0 and 1 of the instance's noises in every round."""
SIDE = 256
"""Pixels; frames shown are at most 256 x 256 (released code)."""
TEXT_TOKENS = 384
"""Of an analysis, and of advice."""

_TASK = """\
A video model is to carry out a task. The task, as a JSON string:
{task}
The prompt it was given, as a JSON string:
{prompt}
"""

_LOSS = (
    _TASK
    + """\
The image shows two videos that it made of this prompt, the first above the second: on the left \
the first frame of each, on the right its last. Compare them. For each, go through what is right \
and what is wrong, step by step, judged strictly by the task; both may be wrong. Reply with the \
analysis only."""
)

_GRADIENT = (
    _TASK
    + """\
An analysis of two videos that it made of this prompt, as a JSON string:
{loss}
How should the prompt change, so that the next video carries out the task? Name what is to be \
added, made clearer or left out, and why. Reply with the advice only."""
)

_REWRITE = (
    _TASK
    + """\
Advice on this prompt, as a JSON string:
{gradient}
Write the improved prompt. Keep to the task.
{rules}Reply with JSON only: {{"prompt": "..."}}"""
)


def loss_request(task: str, prompt: str) -> str:
    """The text that asks for the analysis of two videos; their sheet stands before it.

    Args:
        task: the instance's prompt.
        prompt: that the videos were made of.
    """
    return _LOSS.format(**_told(task, prompt))


def gradient_request(task: str, prompt: str, loss: str) -> str:
    """The text that asks for advice on a prompt, given the analysis of its videos."""
    told = json.dumps(loss, ensure_ascii=False)
    return _GRADIENT.format(**_told(task, prompt), loss=told)


def rewrite_request(task: str, prompt: str, gradient: str) -> str:
    """The text that asks for the improved prompt, given the advice on it."""
    told = json.dumps(gradient, ensure_ascii=False)
    return _REWRITE.format(**_told(task, prompt), gradient=told, rules=RULES)


def _told(task: str, prompt: str) -> dict[str, str]:
    told = {"task": task, "prompt": prompt}
    return {name: json.dumps(text, ensure_ascii=False) for name, text in told.items()}


@dataclass(frozen=True, slots=True)
class Round:
    """One improvement of the prompt; a text is missing where the one before it is."""

    prompt: str
    """That both clips were made of."""
    clips: tuple[str, ...]
    """Files in the instance's folder, candidates 0 and 1."""
    loss: Answer[str]
    gradient: Answer[str] | None
    rewrite: Answer[str] | None

    @property
    def improved(self) -> str | None:
        """The improved prompt; None where no reply could be used."""
        return None if self.rewrite is None else self.rewrite.value


class VideoTPO:
    """Rounds of compare, advise and rewrite; then one sample."""

    name = "video_tpo"
    adapts = False

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def solve(self, work: Work) -> Decision:
        """See `Method.solve`."""
        prompt = original = work.instance.prompt
        folder, rounds = work.folder, []
        while len(rounds) < self.resources.config.video_tpo.rounds:
            rounds.append(self._round(work, prompt, len(rounds) + 1))
            improved = rounds[-1].improved
            if improved in (None, prompt):  # another round would be this one again
                break
            prompt = improved
        if prompt == rounds[-1].prompt:  # as is the clip: it has been sampled already
            work.finish_clips()
            shutil.copyfile(folder / rounds[-1].clips[0], folder / "clip.mp4")
        else:
            problem = work.pose(prompt=prompt)
            with work.stage("sample"):
                work.sample(problem, "clip")
        record = {"original": original, "prompt": prompt, "rounds": rounds}
        write_json(folder / "video_tpo.json", record)
        return Decision(fallbacks=sum(r.improved is None for r in rounds))

    def _round(self, work: Work, prompt: str, number: int) -> Round:
        problem = work.pose(prompt=prompt)
        names = [f"round_{number}_{candidate}" for candidate in range(CANDIDATES)]
        with work.stage("sample"):
            clips = [work.sample(work.candidate(problem, i), name) for i, name in enumerate(names)]
        task = work.instance.prompt
        loss = ask(
            work,
            loss_request(task, prompt),
            [first_and_last(clips, SIDE)],
            parse_text,
            max_replies=1,
            max_new_tokens=TEXT_TOKENS,
        )
        gradient = rewrite = None
        if loss.value is not None:
            gradient = ask(
                work,
                gradient_request(task, prompt, loss.value),
                [],
                parse_text,
                max_replies=1,
                max_new_tokens=TEXT_TOKENS,
            )
        if gradient is not None and gradient.value is not None:
            rewrite = ask(
                work,
                rewrite_request(task, prompt, gradient.value),
                [],
                parse_prompt,
                max_replies=self.resources.config.video_tpo.max_replies,
                max_new_tokens=PROMPT_TOKENS,
            )
        files = tuple(f"{name}.mp4" for name in names)
        return Round(prompt, files, loss, gradient, rewrite)
