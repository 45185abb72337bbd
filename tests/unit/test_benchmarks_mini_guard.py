"""How the guard's limits are chosen, and what is told of its warnings."""

import pytest

from benchmarks.mini import guard as of_mini
from benchmarks.mini.guard import Case, cases_of, choose, limits_at, table, youden
from benchmarks.sweep import Sweep
from vlmteach.guard import DRIFTS, LEAST_DRIFT, LOOKS, MEASURES, Guard, Guarded, Look
from vlmteach.instances.write import write_tar
from vlmteach.ledger import folder_name
from vlmteach.mini import world
from vlmteach.record import write_json
from vlmteach.rows import GUARD


def case(drift, rejected, key="a", half=True, before=0.1, after=0.9, judge=0.9):
    look = Look(0.1, 1.0, 0.01, 0.1)
    guard = Guard(look, look, first_drift=0.0, still_drift=drift, still_share=1.0)
    return Case("fit", key, half, Guarded(guard, before, after), rejected, judge)


def test_a_limit_is_a_quantile_of_the_accepted_rounded_to_two_digits():
    cases = [case(d, False) for d in (0.01, 0.02, 0.03)] + [case(0.9, True)]
    assert limits_at(1.0, cases)["still_drift"] == 0.03
    assert limits_at(0.6, cases)["still_drift"] == 0.022
    assert limits_at(0.0, cases)["still_drift"] == LEAST_DRIFT  # 0.01 is what compression does
    assert (limits_at(1.0, cases)["sharpness"], limits_at(1.0, cases)["first_drift"]) == (0, 0.02)
    assert set(limits_at(0.5, cases)) == set(MEASURES) == {*LOOKS, *DRIFTS}
    with pytest.raises(ValueError, match="no clip that the rules accept"):
        limits_at(0.5, cases[-1:])


def test_what_is_chosen_tells_the_choosing_cases_apart_best():
    right = [case(d, False) for d in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.3)]
    wrong = [case(0.5, True), case(0.4, True), case(0.2, True)]
    quantile, limits = choose([*right, *wrong])
    assert (quantile, limits["still_drift"]) == (0.9, 0.11)  # higher misses one, lower flags more
    assert youden(right + wrong, limits) == pytest.approx(1 - 0.1)
    assert youden(right + wrong, {}) == 0.0
    assert youden(right + wrong, {"still_drift": 0.0}) == 0.0  # warning of everything is no skill
    assert youden([case(0.5, True), case(0.0, False)], {"still_drift": 0.1}) == 1.0


def test_a_case_whose_teacher_did_not_rise_is_never_warned_of():
    assert case(0.5, True).warns({"still_drift": 0.1})
    assert not case(0.5, True, before=0.85).warns({"still_drift": 0.1})
    assert case(0.5, True).is_fooled
    assert not case(0.5, False).is_fooled
    assert not case(0.5, True, after=0.4).is_fooled


def test_the_table_counts_what_is_warned_of_and_what_is_rejected():
    cases = [
        case(0.5, True, "a", judge=0.1),
        case(0.5, False, "b"),
        case(0.0, True, "c"),
        case(0.0, False, "d"),
        case(0.0, False, "e", half=False),
    ]
    limits = dict.fromkeys(MEASURES, 1.0) | {"still_drift": 0.1}
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table(cases, limits).splitlines()
    ]
    told = {tuple(line[:3]): line[3:] for line in lines[2:]}
    n, rejected, warned, precision, recall, fooled = told["chosen from", "all", "warning"]
    assert n == "4"
    assert [cell.split()[0] for cell in (rejected, warned, precision, recall, fooled)] == [
        "0.500"
    ] * 5
    assert told["chosen from", "all", "judge says no"][3].startswith("1.000")
    assert told["told", "all", "warning"][3:] == ["-", "-", "-"]
    assert told["chosen from", "all", "sharpness"][3] == "-"


@pytest.fixture
def run(tmp_path):
    """A sweep of one setting with a guard on fourteen tasks, the clips made by the rules' book."""
    made = {}
    for split in ("tuning", "test"):
        tar = tmp_path / f"{split}.tar"
        write_tar(world.export(split, 14, 3), tar)
        made[split] = Sweep("mini", (str(tar),), {"base": {}, "fit": {}})
    return tmp_path, made


def test_the_fits_of_the_tuning_split_alone_are_cases(run, monkeypatch):
    out, sweeps = run
    monkeypatch.setattr(
        of_mini, "kept_scores", lambda task, folder: [{"strict": task.family == "detour"}]
    )
    from vlmteach.instances import read_held_out

    keys = [held.key for held in read_held_out(sweeps["tuning"].instances)]
    for key in keys:
        folder = out / "fit" / "seed0" / folder_name(key)
        folder.mkdir(parents=True)
        write_json(folder / GUARD, case(0.2, True).guarded)
    found = cases_of(sweeps["tuning"], out)
    assert [each.key for each in found] == keys
    assert [each.is_chosen_from for each in found] == [True] * 13 + [False]
    assert {each.setting for each in found} == {"fit"}
    assert all(each.is_rejected == ("/detour/" not in each.key) for each in found)
    with pytest.raises(ValueError, match="got the test split, expected tuning"):
        cases_of(sweeps["test"], out)
