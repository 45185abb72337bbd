"""Rows of the miniature's table: what a setting's teacher thought of the base clip."""

from pathlib import Path

from benchmarks.mini.__main__ import JUDGE
from benchmarks.mini.scoring import Views, add_capability, sha256_of_weights
from benchmarks.sweep import read_sweep
from vlmteach.options import read_config

SWEEPS = Path(__file__).parent.parent.parent / "benchmarks" / "mini"


def test_capability_is_that_of_the_setting_s_own_teacher():
    sweep = read_sweep(SWEEPS / "seeds.yaml")
    settings = ["base", "micro-fit, the judge as teacher", "an oracle's pick"]
    rows = [
        {"setting": setting, "key": "a", "seed": 0, "p_yes": 0.9, "judge_p_yes": 0.2,
         "strict": setting == "base"}
        for setting in settings
    ]  # fmt: skip
    add_capability(rows, sweep, JUDGE)
    base, fitted, oracle = rows
    assert (base["base_p_yes"], base["base_passes"]) == (0.9, True)
    assert (fitted["base_p_yes"], fitted["base_passes"]) == (0.2, True)
    assert "base_p_yes" not in oracle
    add_capability(other := [dict(fitted)], sweep, JUDGE)  # without a base there is nothing to tell
    assert other == [fitted]


def test_every_sweep_of_the_miniature_has_a_base_to_compare_with():
    files = sorted(SWEEPS.glob("*.yaml"))
    assert len(files) == 17
    for file in files:
        sweep = read_sweep(file)
        assert sweep.settings["base"] == {"method": "base"}
        assert read_config(["--config", sweep.config]).reasoner.checkpoint == "builtin:mini/wan"


def test_a_score_counts_only_for_the_very_judge_that_gave_it():
    judges = ["builtin:mini/judge", "builtin:mini/teacher"]
    now, other = (sha256_of_weights(judge) for judge in judges)
    assert now != other
    assert now == sha256_of_weights(judges[0])
    views = Views(None, None, JUDGE, now)  # type: ignore[arg-type]
    assert views.judged({"judge": JUDGE, "judge_sha256": now})
    assert not views.judged({"judge": JUDGE, "judge_sha256": other})
    assert not views.judged({"judge": judges[1], "judge_sha256": now})
    assert not views.judged({"judge": JUDGE})  # scored before weights were told apart
