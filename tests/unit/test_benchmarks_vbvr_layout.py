"""Places of samples: official ones keep theirs, raw ones get one that is the same every time."""

import json
import subprocess
import sys

import pytest

from benchmarks.vbvr.__main__ import ROWS as ROW_CHOICES
from benchmarks.vbvr.__main__ import SPLITS as SPLIT_CHOICES
from benchmarks.vbvr.__main__ import main
from benchmarks.vbvr.export import ROWS
from benchmarks.vbvr.layout import TRUTH, Named, Place, assign, compare, places_in
from vlmteach.instances.vbvr_tasks import BENCHMARK, CATEGORIES, SPLITS

SLIDING = "O-47_sliding_puzzle_data-generator"
CIRCLES = "G-174_arrange_circles_by_circumference_data-generator"


def test_the_benchmark_has_fifty_tasks_a_split_in_five_categories():
    splits = [split for split, _ in BENCHMARK.values()]
    assert [splits.count(split) for split in SPLITS] == [50, 50]
    assert {category for _, category in BENCHMARK.values()} == set(CATEGORIES)
    assert BENCHMARK[SLIDING] == ("In-Domain_50", "Abstraction")
    assert BENCHMARK[CIRCLES] == ("Out-of-Domain_50", "Perception")


def test_official_samples_keep_their_place():
    key = f"In-Domain_50/{SLIDING}/00003"
    assert assign([Named(key, SLIDING, "In-Domain_50")])[key].folder == key


def test_raw_samples_take_the_tasks_split_and_their_own_number():
    keys = [f"{SLIDING}/sliding_puzzle_{n:08d}" for n in (4, 0)]
    keys.append(f"{CIRCLES}/arrange_00000002")
    found = assign([Named(key, key.split("/")[0], None) for key in keys])
    assert found[keys[0]] == Place("In-Domain_50", SLIDING, "00004")
    assert found[keys[1]] == Place("In-Domain_50", SLIDING, "00000")
    assert found[keys[2]].video == f"Out-of-Domain_50/{CIRCLES}/00002.mp4"


@pytest.mark.parametrize("ends", [("a", "b"), ("1", "x_1"), ("100000", "7"), ("9" * 30, "8" * 30)])
def test_without_distinct_numbers_samples_are_counted_by_key(ends):
    named = [Named(f"{SLIDING}/{end}", SLIDING, None) for end in ends]
    found = {key: place.index for key, place in assign(named).items()}
    assert found == {key: f"{n:05d}" for n, key in enumerate(sorted(found))}
    assert found == {key: place.index for key, place in assign(named[::-1]).items()}


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (Named("a", None, None), "got task None"),
        (Named("a", "../up", "In-Domain_50"), "got task '../up'"),
        (Named("a", "task/nested", "In-Domain_50"), "expected a plain name"),
        (Named("a", "my_task", None), "give --split-name"),
        (Named("a", SLIDING, "train"), "got split 'train'"),
        (Named("b_00003", SLIDING, "In-Domain_50"), "one index for two samples"),
    ],
)
def test_what_has_no_place_is_refused_by_name(named, message):
    good = Named(f"{SLIDING}/x_00003", SLIDING, None)
    with pytest.raises(ValueError, match=r"got 1 faults") as refusal:
        assign([good, named])
    assert message in str(refusal.value)


def test_a_task_of_ones_own_goes_where_it_is_told():
    found = assign([Named("t/1", "my_task", None)], "Out-of-Domain_50")
    assert found["t/1"].folder == "Out-of-Domain_50/my_task/00001"


def plant(root, place, files=TRUTH):
    for name in files:
        path = root / place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_the_data_tree_is_listed_and_must_be_whole(tmp_path):
    with pytest.raises(ValueError, match="expected In-Domain_50/<task>/<5 digits>/"):
        places_in(tmp_path)
    places = [Place("Out-of-Domain_50", CIRCLES, "00000"), Place("In-Domain_50", SLIDING, "00001")]
    for place in places:
        plant(tmp_path, place)
    (tmp_path / "In-Domain_50" / SLIDING / "notes").mkdir()
    assert places_in(tmp_path) == sorted(places)
    plant(tmp_path, Place("In-Domain_50", SLIDING, "00002"), TRUTH[:2])
    with pytest.raises(ValueError, match=r"00002: no ground_truth\.mp4"):
        places_in(tmp_path)


def test_a_folder_is_compared_both_ways(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").touch()
    (tmp_path / ".hidden").touch()
    assert compare(tmp_path, ["a/1.mp4", "a/2.mp4"]) == (["a/2.mp4"], [".hidden"])
    assert compare(tmp_path / "nowhere", ["x"]) == (["x"], [])


def test_help_imports_nothing_heavy_and_names_what_there_is():
    assert (SPLIT_CHOICES, ROW_CHOICES) == (SPLITS, ROWS)
    probe = (
        "import json, sys\nfrom benchmarks.vbvr.__main__ import main\n"
        "try: main(['score', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'av', 'PIL', 'numpy', 'torchmetrics', 'yaml', 'vlmteach.instances'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == []
    assert "--kit" in done.stdout


def test_a_wrong_command_says_so(tmp_path, capsys):
    source = ["--instances", "none.tar", "--out", str(tmp_path)]
    assert main(["export", "--run", str(tmp_path), *source]) == 2
    assert "neither --model nor --method-rows" in capsys.readouterr().err
    assert main(["export", "--run", str(tmp_path), *source, "--model", "ours"]) == 2
    assert "expected the --out folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "benchmarks.vbvr score" in capsys.readouterr().err
