"""Sweep files and tables."""

import sys

import pytest

from benchmarks.sweep import command, folder_of, read_sweep
from benchmarks.table import markdown, mean_interval, paired_difference, summarize
from vlmteach import fit


def sweep(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_sweep(path)


GOOD = """
config: random
instances: a.tar
seeds: [0, 1]
settings:
  base: {method: base}
  no goal query: {query.ask: process, fit.gradient: 2}
  micro-fit:
"""


def test_a_sweep_is_runs_of_the_fit_command(tmp_path):
    read = sweep(tmp_path, GOOD)
    runs = read.runs(tmp_path / "out")
    assert [(name, seed) for name, seed, _ in runs] == [
        (name, seed) for name in ("base", "no goal query", "micro-fit") for seed in (0, 1)
    ]
    assert runs[3][2] == tmp_path / "out" / "no-goal-query" / "seed1"
    words = command(read, "no goal query", 1, runs[3][2])
    assert words[:3] == [sys.executable, "-m", "vlmteach.fit"]
    cli = fit.parser()
    parsed = cli.instantiate(cli.parse_args(fit.presets_first(words[3:])))
    assert (parsed.query.ask, parsed.fit.gradient, parsed.run.seed) == ("process", 2, 1)
    assert parsed.instances == ["a.tar"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "got list, expected config, instances and settings"),
        ("{config: a, instances: b, settings: {}, colour: red}", "got the field 'colour'"),
        ("{config: a, instances: b, settings: {A b: {}, a-b: {}}}", "share a folder"),
    ],
)
def test_a_bad_sweep_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, text)


def test_folders_are_plain_names():
    assert folder_of("Best of 5, ../x!") == "best-of-5-..-x"
    assert "/" not in folder_of("a/b")


def test_interval_covers_the_mean_and_narrows_with_n():
    few = mean_interval([0, 1] * 10)
    many = mean_interval([0, 1] * 200)
    assert few["mean"] == many["mean"] == 0.5
    assert few["low"] < 0.5 < few["high"]
    # The standard error of a coin is 0.5 / sqrt(n); 1.96 of them on either side.
    assert few["high"] - few["low"] == pytest.approx(2 * 1.96 * 0.5 / 20**0.5, rel=0.15)
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 * 0.5 / 400**0.5, rel=0.15)
    assert mean_interval([0, 1] * 10) == few
    assert mean_interval([0.25]) == {"mean": 0.25, "low": 0.25, "high": 0.25, "n": 1}


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
    assert lines[2].startswith("| base | 5 | 0.200 [")
    assert lines[2].endswith("| - |")
    assert lines[3].endswith("| 1.000 [1.000, 1.000] |")
