"""Rows, their statistics, tables, files and plots."""

import csv
import io
import json
import sys

import pytest

from benchmarks.table import (
    __main__ as command,
)
from benchmarks.table import (
    csv_rows,
    markdown,
    mean_interval,
    measures_of,
    paired_difference,
    r_squared,
    read_rows,
    summarize,
    teachers,
)
from benchmarks.table.plots import write_plots
from benchmarks.table.text import report


def test_interval_covers_the_mean_and_narrows_with_n():
    few = mean_interval([0, 1] * 10)
    many = mean_interval([0, 1] * 200)
    assert few["mean"] == many["mean"] == 0.5
    assert few["low"] < 0.5 < few["high"]
    # The standard error of a coin is 0.5 / sqrt(n); 1.96 of them on either side.
    assert few["high"] - few["low"] == pytest.approx(2 * 1.96 * 0.5 / 20**0.5, rel=0.15)
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 * 0.5 / 400**0.5, rel=0.15)
    assert mean_interval([0.25]) == {"mean": 0.25, "low": 0.25, "high": 0.25, "n": 1}
    assert mean_interval([3, 3, 3]) == {"mean": 3.0, "low": 3.0, "high": 3.0, "n": 3}


def test_intervals_are_the_same_whatever_was_computed_before():
    values = [0.1, 0.4, 0.45, 0.9]
    first = mean_interval(values)
    mean_interval([5.0, 7.0, 1.0])
    from vlmteach.report import statistics

    statistics._mean_interval.cache_clear()
    assert mean_interval(values) == first


ROWS = [
    {"setting": setting, "key": str(key), "seed": 0, "overall": 0.1 * key + gain, "odd": odd}
    for setting, gain, odd in (("base", 0.0, None), ("ours", 0.2, 1))
    for key in range(5)
]


def test_differences_are_paired():
    """Instances differ by far more than methods do: only pairing finds the exact gain."""
    gain = paired_difference(ROWS, "ours", "base", "overall")
    assert gain["mean"] == pytest.approx(0.2)
    assert gain["high"] - gain["low"] < 1e-9
    assert gain["n"] == 5


def test_tables_say_n_and_leave_a_missing_measure_open():
    summary = summarize(ROWS, ("overall", "odd"))
    assert [row["setting"] for row in summary] == ["base", "ours"]
    assert summary[1]["overall"]["mean"] == pytest.approx(0.4)
    lines = markdown(summary, ("overall", "odd")).splitlines()
    assert lines[1] == "|---|---|---|---|"
    assert lines[2].startswith("| base | 5 | 0.200 [")
    assert lines[2].endswith("| - |")
    assert lines[3].endswith("| 1.000 [1.000, 1.000] |")


def test_more_seeds_are_not_more_instances():
    """Three equal clips of each instance tell nothing new: the interval must not shrink."""
    once = [row for row in ROWS if row["setting"] == "base"]
    thrice = [{**row, "seed": seed} for row in once for seed in range(3)]
    alone, repeated = (summarize(rows, ["overall"])[0] for rows in (once, thrice))
    assert repeated["overall"] == pytest.approx(alone["overall"])
    assert (repeated["n"], repeated["clips"]) == (5, 15)


def test_r_squared_by_hand():
    # Line through (0, 1), (1, 3), (2, 2): slope 0.5, intercept 1.5. Left over: -0.5, 1, -0.5,
    # squares 1.5; spread about the mean 2: 1 + 1 + 0 = 2. R squared = 1 - 1.5 / 2 = 0.25.
    intercept, slope, explained = r_squared([0, 1, 2], [1, 3, 2])
    assert (intercept, slope, explained) == pytest.approx((1.5, 0.5, 0.25))
    assert r_squared([0, 1, 2], [5, 3, 1]) == pytest.approx((5, -2, 1))


@pytest.mark.parametrize(("x", "y"), [([0, 1], [1, 2]), ([1, 1, 1], [1, 2, 3])])
def test_two_points_have_no_r_squared(x, y):
    with pytest.raises(ValueError, match="expected three"):
        r_squared(x, y)


def told(setting, base, result):
    """Rows of one setting: (P(yes), verdict) of each base clip and the clip's own score."""
    return [
        {
            "setting": setting,
            "key": str(key),
            "seed": 0,
            "overall": result,
            "base_p_yes": p,
            "base_passes": passes,
        }
        for key, (p, passes) in enumerate(base)
    ]


def test_a_teacher_is_judged_on_base_clips():
    # Pairs of a passing and a failing clip: 0.9 and 0.4 against 0.6 and 0.2; of four, one is in the
    # wrong order. Yes above one half: 0.9 right, 0.4 wrong, 0.6 wrong, 0.2 right.
    rows = told("a", [(0.9, True), (0.4, True), (0.6, False), (0.2, False)], 0.5)
    rows += told("all fail", [(0.9, False), (0.4, False)], 0.5)
    rows += [{"setting": "base", "key": "0", "seed": 0, "overall": 0.1}]
    (teacher,) = teachers(rows, "overall")
    assert (teacher.setting, teacher.n) == ("a", 4)
    assert teacher.auroc == pytest.approx(0.75)
    assert teacher.accuracy["mean"] == pytest.approx(0.5)
    assert teacher.result["mean"] == pytest.approx(0.5)


def test_measures_are_the_numbers_that_are_not_costs():
    row = {**ROWS[-1], "seconds": 1.0, "steps": 3, "category": "x", "base_p_yes": 0.5, "won": True}
    assert measures_of([row]) == ["overall", "odd", "won"]


def test_csv_gives_the_same_values_back():
    rows = [{**row, "category": "a" if row["key"] < "2" else "b", "steps": 4} for row in ROWS]
    lines = list(csv.DictReader(io.StringIO(csv_rows(rows, ["overall", "odd"]))))
    cells = {(r["setting"], r["category"], r["measure"]): r for r in lines}
    expected = summarize(rows, ["overall"])[0]["overall"]
    got = cells["base", "", "overall"]
    assert {name: float(got[name]) for name in expected} == expected
    assert ("base", "", "odd") not in cells
    assert float(cells["ours", "b", "overall"]["mean"]) == pytest.approx(0.5)
    assert (cells["ours", "b", "overall"]["n"], cells["ours", "", "steps"]["mean"]) == ("3", "4.0")


def test_a_report_says_where_settings_differ_in_clips():
    rows = [*ROWS, {"setting": "a|b", "key": "9", "seed": 0, "overall": 1.0}]
    text = report(rows, ["overall"], "overall", "base")
    assert "1 to 5 of them" in text
    assert "| a\\|b | 1 | 1.000" in text
    assert "| ours | 5 | +0.200 [+0.200, +0.200] |" in text
    assert text.count("a\\|b") == 1, "it shares no clip with base: no difference"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3], "row 1: got int"),
        ([{"setting": "a", "key": 3, "seed": 0}], "field key: got 3, expected a text"),
        ([{"setting": "a", "key": "k", "seed": True}], "field seed: got True"),
        ([{"setting": "a", "key": "k", "seed": 0, "x": float("nan")}], "expected a finite number"),
        ([{"setting": "a", "key": "k", "seed": 0, "x": {}}], "a row is flat"),
        ([{"setting": "a", "key": "k", "seed": 0}] * 2, "row 2: got .* as in row 1"),
    ],
)
def test_bad_rows_are_refused_by_row_and_field(tmp_path, rows, message):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        read_rows(path)


def test_rows_come_from_files_and_folders(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    assert read_rows(tmp_path / "rows.jsonl") == ROWS
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "table.json").write_text(json.dumps(ROWS))
    assert read_rows(tmp_path / "mini") == ROWS
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="expected an array of rows"):
        read_rows(tmp_path / "x.json")


def test_rows_of_a_sweep_are_scores_beside_results(tmp_path):
    instance = tmp_path / "no-goal" / "seed3" / "a__1"
    instance.mkdir(parents=True)
    unfinished = tmp_path / "no-goal" / "seed3" / "a__2"
    unfinished.mkdir()
    done = {"key": "a/1", "seed": 3, "steps": 2, "compute": {"seconds": 1.5, "teacher_calls": 4}}
    (instance / "done.json").write_text(json.dumps(done))
    for folder in (instance, unfinished):
        (folder / "score.json").write_text(json.dumps([{"overall": 0.5}, {"overall": 0.9}]))
    (tmp_path / "runs.jsonl").write_text(
        json.dumps({"setting": "no goal", "seed": 3, "folder": "no-goal/seed3"}) + "\n"
    )
    (row,) = read_rows(tmp_path)
    assert (row["setting"], row["key"], row["seed"]) == ("no goal", "a/1", 3)
    assert (row["overall"], row["seconds"], row["teacher_calls"], row["steps"]) == (0.5, 1.5, 4, 2)
    assert read_rows(tmp_path / "no-goal" / "seed3")[0]["setting"] == "seed3"
    with pytest.raises(ValueError, match="score the run first"):
        read_rows(unfinished)


def full_rows():
    """Four settings with everything that plots are made of."""
    rows = []
    for number, setting in enumerate(("base", "5 updates", "10 updates", "no | goal $x$")):
        for key in range(6):
            rows.append(
                {
                    "setting": setting,
                    "key": str(key),
                    "seed": 0,
                    "category": "ab"[key % 2],
                    "overall": 0.1 * number + 0.05 * key,
                    "steps": (0, 5, 10, key)[number],
                    "seconds": 1.0 + 9 * number,
                    "reasoner_forwards": 4 + number,
                    "reasoner_backwards": number,
                    "base_p_yes": (key * (number + 1) % 6) / 6,
                    "base_passes": key % 3 == 0,
                }
            )
    return rows


def test_every_plot_is_drawn_from_full_rows(tmp_path):
    written = write_plots(full_rows(), "overall", tmp_path)
    assert [path.name for path in written] == [
        "compute.png",
        "steps.png",
        "categories.png",
        "teachers.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    again = [path.read_bytes() for path in written]
    write_plots(full_rows(), "overall", tmp_path)
    assert [path.read_bytes() for path in written] == again


def test_a_plot_that_rows_cannot_fill_is_left_out_and_taken_away(tmp_path):
    write_plots(full_rows(), "overall", tmp_path)
    bare = [{k: row[k] for k in ("setting", "key", "seed", "overall")} for row in full_rows()]
    assert write_plots(bare, "overall", tmp_path) == []
    assert not list(tmp_path.glob("*.png"))


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(full_rows()))
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["table", str(rows), "--out", str(out)])
    assert command.main() == 0
    printed = capsys.readouterr().out
    assert (out / "table.md").read_text() in printed
    assert "R squared of overall on AUROC" in printed
    assert "24 clips of 4 settings" in printed
    names = {path.name for path in out.iterdir()}
    assert names >= {"table.md", "table.csv", "compute.png", "teachers.png"}


def test_the_command_refuses_a_measure_that_is_not_there(tmp_path, monkeypatch, capsys):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROWS))
    words = ["table", str(rows), "--out", str(tmp_path / "out"), "--measure", "beauty"]
    monkeypatch.setattr(sys, "argv", words)
    assert command.main() == 2
    assert "got 'beauty', expected one of ['overall', 'odd']" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
