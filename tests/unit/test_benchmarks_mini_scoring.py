"""What is kept of an instance's clips: the classifier's view beside those of teacher and judge."""

import json

import pytest
import torch

from benchmarks.mini import agreement
from benchmarks.mini.classifier import ClipClassifier
from benchmarks.mini.scoring import Views, rows_of_run, scores_of
from benchmarks.viewer import Viewer
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini.world import Execution, make, perform
from vlmteach.video import write_video

TASK = make("reach", "train", 3)


class Says(Viewer):
    """A viewer that always says the same, and counts how often it is asked."""

    def __init__(self, p_yes):
        self.answer, self.asked = p_yes, 0  # no model is loaded

    def p_yes(self, queries, clip, fps):
        self.asked += 1
        return tuple(self.answer for _ in queries)


def classifier(bias) -> ClipClassifier:
    """One that answers with a constant."""
    torch.manual_seed(0)
    made = ClipClassifier().eval()
    last = made.answer[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(bias)
    return made


@pytest.fixture
def place(tmp_path):
    """A finished instance: the clip is the truth, the base stops short, two candidates."""
    folder = tmp_path / folder_name(TASK.key)
    folder.mkdir(parents=True)
    short = perform(TASK, Execution(extent=0.5))
    for name, video in {
        "clip": TASK.truth, "base": short, "candidate_0": short, "candidate_1": TASK.truth,
    }.items():  # fmt: skip
        write_video(folder / f"{name}.mp4", video, 8.0)
    done = {"key": TASK.key, "seed": 0, "stop_reason": "steps", "compute": {}}
    (folder / DONE).write_text(json.dumps(done))
    return folder


def kept(place):
    return json.loads((place / "score.json").read_text())


def test_every_clip_gets_every_view(place):
    views = Views(Says(0.9), Says(0.2), "a judge", "its sha256", classifier(2.0))
    clip, short, whole = scores_of(TASK, place, views)
    assert [row["strict"] for row in (clip, short, whole)] == [True, False, True]
    for row in (clip, short, whole):
        assert set(agreement.VIEWERS.values()) <= row.keys()
        assert (row["p_yes"], row["judge_yes"], row["classifier_yes"]) == (0.9, False, True)
        assert row["false_yes"] == row["classifier_false_yes"] == (not row["strict"])
        assert row["classifier_p_yes"] == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert kept(place) == [clip, short, whole]


def test_a_score_without_the_classifier_is_extended_and_the_others_are_not_asked_again(place):
    teacher, judge = Says(0.9), Says(0.2)
    before = scores_of(TASK, place, Views(teacher, judge, "a judge", "its sha256"))
    assert not any("classifier" in name for row in before for name in row)
    asked = teacher.asked, judge.asked
    after = scores_of(TASK, place, Views(teacher, judge, "a judge", "its sha256", classifier(-2.0)))
    assert (teacher.asked, judge.asked) == asked
    for old, new in zip(before, after, strict=True):
        assert old.items() <= new.items()
        assert new["classifier_yes"] is False
    assert kept(place) == after


def test_another_training_of_the_classifier_is_asked_anew_and_the_same_is_not(place, monkeypatch):
    views = Views(Says(0.9), Says(0.2), "a judge", "its sha256", classifier(-2.0))
    scores_of(TASK, place, views)
    again = Views(views.teacher, views.judge, "a judge", "its sha256", classifier(3.0))
    assert scores_of(TASK, place, again)[0]["classifier_yes"] is True
    monkeypatch.setattr(ClipClassifier, "p_yes", None)  # cannot be called
    assert scores_of(TASK, place, again) == kept(place)


def test_the_classifier_picks_among_candidates(place, monkeypatch):
    def right(self, task, clip):
        ends = torch.from_numpy(task.truth[-1].astype("int16"))
        return (0.9 if (clip[-1].short() - ends).abs().float().mean() < 4 else 0.1,)

    monkeypatch.setattr(ClipClassifier, "p_yes", right)
    run, tasks = place.parent, {TASK.key: TASK}
    views = Views(Says(0.9), Says(0.2), "a judge", "its sha256", classifier(0.0))
    rows = {row["setting"]: row for row in rows_of_run("best of 2", run, tasks, views)}
    assert list(rows) == ["best of 2", "best of 2, oracle's pick", "best of 2, classifier's pick"]
    assert rows["best of 2, classifier's pick"]["strict"] is True
    without = Views(Says(0.9), Says(0.2), "a judge", "its sha256")
    assert len(list(rows_of_run("best of 2", run, tasks, without))) == 2
