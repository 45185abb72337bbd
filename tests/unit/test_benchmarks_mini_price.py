"""The price of a setting: counted, and linear in its updates."""

from typing import Any

import pytest

from benchmarks.mini.price import COST, costs, picture, priced, reasoner_gflop, table
from benchmarks.sweep import Sweep
from vlmteach.builtin.paths import DEMO
from vlmteach.instances import decode, read_samples
from vlmteach.options import read_config

SMALL = {"clip.frames": 5, "clip.max_pixels": 1024, "teacher.frames": 2, "lora.rank": 2}
QUICK = [f"--{name}={value}" for name, value in SMALL.items()]


@pytest.fixture(scope="module")
def instance():
    return decode(next(read_samples(str(DEMO))))


def test_each_evaluation_and_each_update_costs_the_same(instance):
    words = ["--config=random", "--query.source=generic", "--fit.threshold=0", *QUICK]
    words += ["--run.base_video=none", "--run.predictions=false"]

    def cost(*more):
        return reasoner_gflop(read_config([*words, *more]), instance)

    two, four = (
        cost("--method=base", f"--reasoner.ladder={ladder}")
        for ladder in ("[1000, 500]", "[1000, 750, 500, 250]")
    )
    assert four == pytest.approx(2 * two)
    sweep = Sweep("random", (str(DEMO),), {"fit": {**SMALL, "run.predictions": False}})
    fixed, update = costs(sweep, instance)["fit"]
    assert fixed + 3 * update == pytest.approx(cost("--fit.steps=3"), rel=1e-3)
    assert update < cost("--fit.steps=1", "--lora.blocks=1") < fixed + update


def test_rows_get_their_cost_and_the_table_a_share():
    measures = {"strict": 1, "overall": 0.5, "process": 0.5, "false_yes": 0, "judge_false_yes": 0}
    rows = [
        {"setting": setting, "key": key, "seed": 0, "steps": steps, "seconds": 1.0, **measures}
        for setting, steps in (("base", 0), ("fit", 5))
        for key in ("a", "b")
    ]
    found = priced([*rows, {**rows[0], "setting": "another"}], {"base": (2, 0), "fit": (3, 1)})
    assert [row[COST] for row in found] == [2, 2, 8, 8]
    assert [line.split(" | ")[-1].rstrip(" |") for line in table(found).splitlines()[2:]] == [
        "0.250",
        "1.000",
    ]
    strict, overall = picture(found).axes
    assert strict.get_xlim()[0] == 0
    marks: list[Any] = [mark for mark in strict.lines if str(mark.get_label())[0] != "_"]
    assert [mark.get_xdata()[0] for mark in marks] == [1, 4]
    assert overall.get_ylabel() == "overall score"
