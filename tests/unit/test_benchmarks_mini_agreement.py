"""Agreement with the rules, on rows whose numbers are known."""

import json
import sys

from benchmarks.mini import agreement


def row(key, seed, strict, teacher, judge, setting="fit"):
    return {
        "setting": setting, "key": key, "seed": seed, "family": key[0], "strict": strict,
        "p_yes": teacher, "judge_p_yes": judge,
    }  # fmt: skip


ROWS = [
    row("a1", 0, False, 0.9, 0.1),
    row("a1", 1, True, 0.8, 0.9),
    row("b1", 0, True, 0.2, 0.9),
    row("b1", 1, False, 0.1, 0.1),
]


def test_what_a_viewer_is_worth():
    told = agreement.told(ROWS, "p_yes")
    assert told == {"accuracy": [0.5, 0.5], "false yes": [0.5, 0], "false no": [0, 0.5]}
    assert agreement.told(ROWS, "judge_p_yes")["accuracy"] == [1, 1]
    assert agreement.auroc(ROWS, "judge_p_yes") == "1.000"
    assert agreement.auroc(ROWS, "p_yes") == "0.500"
    assert agreement.auroc(ROWS[:1], "p_yes") == "-"


def test_a_pick_is_the_clip_that_a_viewer_likes_best():
    ((setting, n, seeds, any_seed, teacher, judge, classifier, oracle),) = agreement.picked(ROWS)
    assert (setting, n, seeds) == ("fit", "2", "2")
    means = [cell.split()[0] for cell in (any_seed, teacher, judge, oracle)]
    assert means == ["0.500", "0.500", "1.000", "1.000"]
    assert classifier == "-"  # it was not asked
    assert agreement.picked(ROWS[::2]) == []


def test_the_command_prints_a_line_per_viewer_and_family(tmp_path, capsys, monkeypatch):
    (tmp_path / "table.json").write_text(json.dumps(ROWS))
    monkeypatch.setattr(sys, "argv", ["agreement", str(tmp_path)])
    assert agreement.main() == 0
    out = capsys.readouterr().out
    assert "| fit | teacher | 0.500" in out
    assert "| fit | judge | 0.500" in out
    assert "| a | 1 of 2 | 0.50 / 0.50 / 0.00 / 0.000 | 1.00 / 0.00 / 0.00 / 1.000 | - |" in out
    monkeypatch.setattr(sys, "argv", ["agreement", str(tmp_path / "none")])
    assert agreement.main() == 2
