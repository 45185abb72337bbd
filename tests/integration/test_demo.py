"""What a newcomer runs first: the dozen shipped tasks, without any configuration."""

import json
import re
from pathlib import Path

import pytest

from vlmteach.builtin.paths import DEMO
from vlmteach.instances import list_keys, read_held_out
from vlmteach.mini import world
from vlmteach.mini.rule_scores import rule_scores
from vlmteach.table import table
from vlmteach.video import read_video

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def demo(tmp_path_factory, run_unshrunk_fit):
    out = tmp_path_factory.mktemp("demo")
    return out, run_unshrunk_fit("--instances", "builtin:demo.tar", "--out", out)


def test_ends_with_a_table_of_scores(demo):
    out, output = demo
    head, *lines = [line for line in output.splitlines() if re.match(r"instance|test/", line)]
    assert re.split(r"  +", head)[-3:] == ["base", "score", "solved"]
    keys = sorted(list_keys([str(DEMO)]))
    shown = [line.split()[0].partition("...") for line in lines]
    ends = zip(shown, keys, strict=True)
    assert all(key.startswith(start) and key.endswith(end) for (start, _, end), key in ends)
    assert len(keys) == 12
    scores = rule_scores([str(DEMO)], out)
    for line, key in zip(lines, keys, strict=True):
        before, after, success = line.split()[-3:]
        scored = scores[key]
        assert scored.before is not None
        assert (before, after) == (f"{scored.before.overall:.2f}", f"{scored.after.overall:.2f}")
        assert success == ("yes" if scored.after.strict else "no")


def test_the_scores_are_those_of_the_videos(demo):
    out, _ = demo
    held = next(iter(read_held_out([str(DEMO)])))
    assert held.meta is not None
    task = world.task_of(held.meta)
    folder = next(p.parent for p in out.glob("*/done.json")
                  if json.loads(p.read_text())["key"] == held.key)  # fmt: skip
    clip = world.score(task, read_video(folder / "clip.mp4")[0].numpy())
    after = rule_scores([str(DEMO)], out)[held.key].after
    for name in ("goal", "process", "overall", "strict"):
        assert getattr(after, name) == getattr(clip, name)
    kept = json.loads((folder / "score.json").read_text())
    assert kept["overall"] == clip.overall


def test_the_fits_help(demo):
    scores = rule_scores([str(DEMO)], demo[0]).values()
    gains = [s.after.overall - s.before.overall for s in scores if s.before is not None]
    assert sum(gains) / len(gains) > 0
    assert sum(s.after.strict for s in scores) > sum(s.before.strict for s in scores if s.before)


def test_the_demo_lies_at_the_top_and_holds_test_tasks():
    assert (ROOT / "demo.tar").resolve() == DEMO
    metas = [held.meta or {} for held in read_held_out([str(DEMO)])]
    assert [meta["split"] for meta in metas] == ["test"] * 12


def test_what_has_no_rules_has_no_score(tmp_path, sample, write_tar):
    tar = write_tar(tmp_path / "other.tar", [sample(0)])
    assert rule_scores([str(tar)], tmp_path) == {}
    row = {"status": "done", "key": "a", "stop_reason": None, "method": "base", "steps": 0,
           "first_loss": None, "kept_loss": None, "compute": {"seconds": 1.0}}  # fmt: skip
    assert "score" not in table([row], {})
