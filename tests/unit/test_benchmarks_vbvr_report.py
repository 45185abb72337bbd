"""Aggregates on hand-computed cases, and the tables that hold them."""

import json

import pytest

from benchmarks.table import read_rows
from benchmarks.vbvr import report as report_module
from benchmarks.vbvr.__main__ import main
from benchmarks.vbvr.report import category_mean, report, summarize

KIT = {
    **{"commit": "c" * 40, "dirty": False, "source_sha256": "5" * 64},
    **{"python": "3.11.7", "opencv": "4.10.0", "numpy": "none"},
}
IN, OUT = "In-Domain_50", "Out-of-Domain_50"


def row(split, category, task_specific, number, **told):
    return {
        **{"split": split, "task": "t", "index": f"{number:05d}", "category": category},
        **{"status": "done", "task_specific": task_specific, "weighted": task_specific / 2},
        **{"kit": KIT, "model": "ours", **told},
    }


# In-Domain: Abstraction 0.2, 0.4, 0.6 (mean 0.4), Knowledge 1.0. Out-of-Domain: Knowledge 0, 0.
ROWS = [
    *(row(IN, "Abstraction", score, n) for n, score in enumerate((0.2, 0.4, 0.6))),
    row(IN, "Knowledge", 1.0, 3),
    *(row(OUT, "Knowledge", 0.0, n) for n in (0, 1)),
]


@pytest.fixture
def few_draws(monkeypatch):
    """Intervals are not what the test looks at."""
    monkeypatch.setattr(report_module, "DRAWS", 20)
    report_module._bootstrap.cache_clear()
    yield
    report_module._bootstrap.cache_clear()


def write(folder, passed=True, **models):
    folder.mkdir(exist_ok=True)
    check = {
        **{"kit": KIT, "samples": len(ROWS), "truths": {}, "passed": passed, "bound": 0.67},
        **{"mean_task_specific": 0.9, "faults": []},
        "rows": [
            {"sample": "a/b/00000", "task_specific": 0.6},
            {"sample": "a/c/00000", "task_specific": 1.0},
        ],
    }
    (folder / "kit.json").write_text(json.dumps(check))
    for name, rows in models.items():
        lines = [json.dumps({**row, "model": name}) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))


@pytest.mark.usefixtures("few_draws")
def test_sample_and_category_means_per_split_and_overall():
    found = summarize("ours", ROWS, 6, KIT)
    means = {
        (part, kind): found["task_specific"][part][kind]["mean"]
        for part in ("in_domain", "out_of_domain", "overall")
        for kind in ("sample_mean", "category_mean")
    }
    assert means == {
        ("in_domain", "sample_mean"): pytest.approx(2.2 / 4),
        ("in_domain", "category_mean"): pytest.approx((0.4 + 1.0) / 2),
        ("out_of_domain", "sample_mean"): 0.0,
        ("out_of_domain", "category_mean"): 0.0,
        ("overall", "sample_mean"): pytest.approx(2.2 / 6),
        ("overall", "category_mean"): pytest.approx((0.4 + 1 / 3) / 2),
    }
    assert found["weighted"]["overall"]["sample_mean"]["mean"] == pytest.approx(1.1 / 6)
    assert found["task_specific"]["in_domain"]["sample_mean"]["n"] == 4
    categories = found["task_specific"]["categories"]
    assert {name: (cell["mean"], cell["n"]) for name, cell in categories.items()} == {
        "Abstraction": (pytest.approx(0.4), 3),
        "Knowledge": (pytest.approx(1 / 3), 3),
    }


def test_the_category_means_interval_is_that_of_its_draws():
    """Two categories of 100 coins each: the standard error is half of sqrt(2) * 0.05."""
    rows = [
        row(IN, category, float(n % 2), n)
        for category in ("Abstraction", "Knowledge")
        for n in range(100)
    ]
    cell = category_mean(rows, "task_specific")
    assert cell["mean"] == 0.5
    assert cell["low"] < 0.5 < cell["high"]
    assert cell["high"] - cell["low"] == pytest.approx(2 * 1.96 * 0.05 / 2**0.5, rel=0.15)
    assert category_mean(rows, "task_specific") == cell


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS[:-1], {**ROWS[-1], "status": "error", "error": "dead"}], "1 of 6 rows are errors"),
        (ROWS[:-1], "5 rows for 6 samples"),
        ([*ROWS[:-1], {**ROWS[-1], "kit": {**KIT, "opencv": "4.5"}}], "rows of another kit"),
    ],
)
def test_a_model_with_an_error_or_a_gap_has_no_mean(rows, message):
    found = summarize("ours", rows, 6, KIT)
    assert message in found["refused"]
    assert "task_specific" not in found


@pytest.mark.usefixtures("few_draws")
def test_the_report_sets_the_rows_beside_every_model(tmp_path):
    write(tmp_path, static=ROWS, end_jump=ROWS, ours=ROWS, theirs=ROWS)
    text, without_mean = report(tmp_path)
    assert without_mean == 0
    lines = [line for line in text.splitlines() if " sample mean |" in line]
    assert [line.split(" | ")[0] for line in lines[:4]] == [
        *("| ours", "| theirs", "| static", "| end_jump"),
    ]
    assert lines[0].startswith("| ours | sample mean | 4 + 2 | 0.550 [")
    assert "| 0.000 [0.000, 0.000] | 0.367 [" in lines[0]
    assert "commit cccc" in text
    assert "OpenCV 4.10.0" in text
    assert "Ground truth at or below 0.67: a/b/00000." in text
    assert "No row of" not in text
    assert (tmp_path / "report.md").read_text() == text
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [model["model"] for model in saved["models"]] == ["ours", "theirs", "static", "end_jump"]


@pytest.mark.usefixtures("few_draws")
def test_absent_rows_and_refused_models_are_announced(tmp_path, capsys):
    broken = [*ROWS[:-1], {**ROWS[-1], "status": "error", "error": "list index"}]
    write(tmp_path, ours=ROWS, broken=broken)
    assert main(["report", str(tmp_path)]) == 3
    said = capsys.readouterr().out
    assert "No row of static and end_jump" in said
    assert "- broken: 1 of 6 rows are errors\n  - Out-of-Domain_50/t/00001: list index" in said
    assert "| broken | sample mean | 5 | - | - | - |" in said
    write(tmp_path, broken=ROWS)
    assert main(["report", str(tmp_path)]) == 0


@pytest.mark.usefixtures("few_draws")
def test_recipes_and_costs_come_from_the_manifests(tmp_path):
    write(tmp_path, ours=ROWS, static=ROWS)
    paths = [f"{r['split']}/t/{r['index']}.mp4" for r in ROWS]
    cost = {"seed": 7, "seconds": 1.5}
    shared = {
        **{"sizes": ["160 x 160"], "frames": [9], "fps": [8.0], "borders_cut": 2, "count": 6},
        "sha256": "a" * 64,
    }
    ours = {**shared, "row": None, "run": {"methods": ["micro_fit"]}}
    still = {**shared, "row": "static", "run": None}
    for name, manifest, given in (("ours", ours, cost), ("static", still, None)):
        manifest["videos"] = [{"path": path, "cost": given} for path in paths]
        (tmp_path / f"{name}.manifest.json").write_text(json.dumps(manifest))
    text, _ = report(tmp_path)
    assert f"| ours | micro_fit | 160 x 160 | 9 | 8 | 2 of 6 | {'a' * 64} |" in text
    assert "| static | static |" in text
    clips = read_rows(tmp_path)
    assert len(clips) == 12
    assert clips[0] == {
        **{"setting": "ours", "key": f"{IN}/t/00000", "category": "Abstraction", "split": IN},
        **{"task": "t", "task_specific": 0.2, "weighted": 0.1, **cost},
    }
    assert clips[6]["seed"] == 0


def test_a_kit_that_failed_its_self_check_gets_no_report(tmp_path):
    write(tmp_path, ours=ROWS, passed=False)
    with pytest.raises(ValueError, match="failed its self-check"):
        report(tmp_path)
    write(tmp_path / "empty")
    with pytest.raises(ValueError, match="got no rows"):
        report(tmp_path / "empty")
