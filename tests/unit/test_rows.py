"""A run's rows: scored once, read back, and never of another clip or other rules."""

import json
import tarfile
from io import BytesIO

import pytest

from benchmarks.table import read_rows
from vlmteach.instances.write import write_tar
from vlmteach.ledger import folder_name
from vlmteach.mini import rule_scores as scoring
from vlmteach.mini import world
from vlmteach.mini.rule_scores import rule_scores
from vlmteach.record import read_json, write_json
from vlmteach.rows import write_table
from vlmteach.video import write_video


@pytest.fixture
def run(tmp_path):
    """A finished run on one task of the miniature, with its tar and the instance's folder."""
    import torch

    tar = tmp_path / "tasks.tar"
    (sample,) = world.export("test", 1, 3)
    key = write_tar([sample], tar).keys[0]
    _, family, seed = key.split("/")
    task = world.make(family, "test", int(seed))
    out = tmp_path / "mine"
    place = out / folder_name(key)
    place.mkdir(parents=True)
    (out / "config.yaml").write_text("{}")
    still = task.truth[:1].repeat(len(task.truth), 0)
    write_video(place / "clip.mp4", torch.from_numpy(task.truth), world.FPS)
    write_video(place / "base.mp4", torch.from_numpy(still.copy()), world.FPS)
    compute = {"seconds": 2.0, "reasoner_forwards": 8, "reasoner_backwards": 4, "teacher_calls": 5}
    write_json(
        place / "done.json",
        {
            "key": key,
            "seed": 0,
            "steps": 4,
            "kept_loss": 0.1,
            "first_loss": 0.9,
            "compute": compute,
        },
    )
    return out, str(tar), place, key


def test_rules_score_once_and_the_row_says_it(run, monkeypatch):
    out, tar, _, key = run
    first = rule_scores([tar], out)
    assert first[key].after.strict
    before = first[key].before
    assert before is not None
    assert not before.strict
    monkeypatch.setattr(scoring, "by_rules", None)
    assert rule_scores([tar], out) == first
    write_table(out)
    (row,) = json.loads((out / "table.json").read_text())
    assert read_rows(out) == read_rows(out / "table.json") == [row]
    assert (row["setting"], row["key"], row["seed"]) == ("mine", key, 0)
    assert (row["strict"], row["base_strict"]) == (True, False)
    assert (row["seconds"], row["steps"], row["kept_loss"]) == (2.0, 4, 0.1)


def test_another_clip_or_other_rules_are_scored_anew(run, monkeypatch):
    out, tar, place, key = run
    assert rule_scores([tar], out)[key].after.strict
    (place / "clip.mp4").write_bytes((place / "base.mp4").read_bytes())
    assert read_rows(out)[0].get("strict") is None, "a score of another clip counts not"
    assert not rule_scores([tar], out)[key].after.strict
    stale = read_json(place / "score.json") | {"rules": "older", "strict": True}
    write_json(place / "score.json", stale)
    assert not rule_scores([tar], out)[key].after.strict


def test_without_rules_a_row_has_the_losses(run):
    out, _, _, _ = run
    write_table(out)
    (row,) = read_rows(out)
    assert (row["first_loss"], row["kept_loss"]) == (0.9, 0.1)
    assert "strict" not in row


@pytest.mark.parametrize("kind", ["meta", "clip", "score"])
def test_what_cannot_be_scored_costs_its_own_score_alone(run, kind, tmp_path):
    out, tar, place, key = run
    with tarfile.open(tmp_path / "first.tar", "w") as first:
        for name, data in {"a.prompt.txt": b"go", "a.meta.json": b"[1]"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            first.addfile(info, BytesIO(data))
    if kind == "clip":
        (place / "clip.mp4").unlink()
    elif kind == "score":
        (place / "score.json").write_text("[]")
    scores = rule_scores([str(tmp_path / "first.tar"), tar], out)
    assert list(scores) == ([] if kind == "clip" else [key])
