"""Claims: one owner at a time, whatever dies, and keys that mean no harm to the disk."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vlmteach.ledger import DONE, ERROR, Claim, Ledger, folder_name

HOSTILE = [
    *("", ".", "..", "../up", "/etc/passwd", "a/../b", "a//b", "a/", "/a", ".hidden", "a/.b"),
    *("a__b", "a_/b", "a/_b", "über/漢字", "a b", "a\nb", "a\0b", "x" * 400, "\udcff", "~", "CON."),
    *("wandb", "config.yaml", "results.jsonl", "a*b", "a?b", "a\\b", "-rf"),
]


def ledger(folder, **options):
    return Ledger(folder, **{"launch": "here", "max_deaths": 2, **options})


def take(book, key) -> Claim:
    claim = book.claim(key)
    assert claim is not None
    return claim


def another_node(claim):
    """Rewrites a claim as one of a process that cannot be looked up from here."""
    owner = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**owner, "machine": "elsewhere", "launch": "other"}))


def grow_old(claim, seconds):
    then = time.time() - seconds
    os.utime(claim.path, (then, then))


def dead_claim(folder, key, ending="pass"):
    """A claim whose owner, a process on this machine, has ended: without a word, or by `ending`."""
    code = (
        "import os, sys; from vlmteach.ledger import Ledger; from pathlib import Path\n"
        "book = Ledger(Path(sys.argv[1]), launch='dead', max_deaths=9)\n"
        f"with book.last_words(book.claim(sys.argv[2])):\n    {ending}"
    )
    return subprocess.run([sys.executable, "-c", code, str(folder), key], check=False).returncode


def dies(book, key, words=""):
    """As `dead_claim`, without a process: the claim of one that began another time."""
    claim = take(book, key)
    owner = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**owner, "started": owner["started"] - 1}) + "\n" + words)


def finish(folder, key, name=DONE):
    place = folder / folder_name(key)
    place.mkdir(exist_ok=True)
    (place / name).write_text("{}")


def claim_all(folder, keys, gate, won):
    gate.wait()
    book = ledger(folder)
    won.put([key for key in keys if book.claim(key)])


def race(folder, keys, workers=4):
    """What each of several processes got that claim the same keys at the same moment."""
    context = multiprocessing.get_context("spawn")
    gate, won = context.Barrier(workers + 1), context.Queue()
    processes = [
        context.Process(target=claim_all, args=(folder, keys, gate, won)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    gate.wait(60)
    got = [key for _ in processes for key in won.get(timeout=60)]
    for process in processes:
        process.join()
    return got


def test_a_key_is_claimed_once(tmp_path):
    assert take(ledger(tmp_path), "task/0").number == 1
    assert ledger(tmp_path).claim("task/0") is None
    assert ledger(tmp_path, launch="another").claim("task/0") is None
    assert ledger(tmp_path).pending(["task/0", "task/1"]) == ["task/1"]


def test_of_many_processes_exactly_one_gets_each_key(tmp_path):
    fresh = [f"fresh/{i}" for i in range(40)]
    superseded = [f"old/{i}" for i in range(40)]
    for key in superseded:
        claim = take(ledger(tmp_path), key)
        another_node(claim)
        grow_old(claim, 3600)
    keys = [key for pair in zip(fresh, superseded, strict=True) for key in pair]
    assert sorted(race(tmp_path, keys)) == sorted(keys)


def test_a_dead_owner_on_this_machine_is_superseded_at_once(tmp_path):
    dead_claim(tmp_path, "k")
    assert take(ledger(tmp_path), "k").number == 2


def test_a_recycled_process_number_does_not_revive_the_dead(tmp_path):
    claim = take(ledger(tmp_path), "k")
    owner = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**owner, "started": owner["started"] - 1}))
    assert take(ledger(tmp_path), "k").number == 2


def test_a_live_owner_on_another_node_is_left_alone_until_its_lease_is_over(tmp_path):
    claim = take(ledger(tmp_path), "k")
    another_node(claim)
    assert ledger(tmp_path, launch="another").claim("k") is None
    grow_old(claim, 599)
    assert ledger(tmp_path).claim("k") is None
    grow_old(claim, 601)
    assert ledger(tmp_path).pending(["k"]) == ["k"]
    assert take(ledger(tmp_path), "k").number == 2


@pytest.mark.parametrize(
    "words",
    [
        "",
        "\n",
        "{",
        "[]",
        "null",
        "{}",
        '{"pid": "x", "started": 1}',
        "\0" * 99,
        "\udcff",
        "[" * 99_999,
    ],
)
def test_a_claim_that_names_nobody_is_none(tmp_path, words):
    book = ledger(tmp_path, max_deaths=1)
    for number in (1, 2, 3):
        claim = take(book, "k")
        assert claim.number == number
        claim.path.write_bytes(words.encode("utf-8", "surrogateescape"))
        assert book.poisoned(["k"]) == []


def test_a_claim_is_never_seen_half_written(tmp_path, monkeypatch):
    seen = []
    link = os.link

    def look(source, target):
        seen.append((target.exists(), json.loads(source.read_text())["key"]))
        link(source, target)

    monkeypatch.setattr("vlmteach.ledger.os.link", look)
    claim = take(ledger(tmp_path), "k")
    assert seen == [(False, "k")]
    assert [path.name for path in claim.path.parent.iterdir()] == ["k.1"]


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("vlmteach.ledger.os.link", refuse)
    assert take(ledger(tmp_path), "k").number == 1
    assert ledger(tmp_path).claim("k") is None


@pytest.mark.parametrize("ahead", [3600, 10**9])
def test_a_clock_stepped_back_holds_a_claim_for_one_lease(tmp_path, monkeypatch, ahead):
    watch = [1000.0]
    monkeypatch.setattr("vlmteach.ledger.monotonic", lambda: watch[0])
    claim = take(ledger(tmp_path), "k")
    another_node(claim)
    grow_old(claim, -ahead)
    book = ledger(tmp_path)
    assert book.claim("k") is None
    watch[0] += 599
    assert book.pending(["k"]) == []
    assert book.unfinished(["k"]) == ["k"]
    watch[0] += 2
    assert book.pending(["k"]) == ["k"]
    assert take(book, "k").number == 2


def test_an_owner_that_goes_on_touching_is_left_alone_whatever_its_clock(tmp_path, monkeypatch):
    watch = [1000.0]
    monkeypatch.setattr("vlmteach.ledger.monotonic", lambda: watch[0])
    claim = take(ledger(tmp_path), "k")
    another_node(claim)
    book = ledger(tmp_path)
    for step in range(5):
        grow_old(claim, -3600 - step)
        assert book.claim("k") is None
        watch[0] += 400


def test_a_stopped_process_lets_go_of_what_it_holds_and_of_nothing_else(tmp_path):
    book = ledger(tmp_path)
    theirs = take(book, "theirs")
    another_node(theirs)
    take(book, "ours")
    (tmp_path / ".claims" / "odd.1").write_text("?")
    ledger(tmp_path).release_own()
    assert book.pending(["ours", "theirs", "odd"]) == ["ours", "odd"]
    assert book.poisoned(["ours"]) == []


def test_touch_renews_the_lease_and_tells_who_was_overtaken(tmp_path):
    book = ledger(tmp_path)
    claim = take(book, "k")
    another_node(claim)
    grow_old(claim, 3600)
    assert book.touch(claim)
    assert book.claim("k") is None
    grow_old(claim, 3600)
    assert book.claim("k") is not None
    assert not book.touch(claim)


def test_deaths_are_capped_and_then_the_key_is_poisoned(tmp_path):
    book = ledger(tmp_path, max_deaths=2)
    dies(book, "k", "Fatal Python error: Aborted")
    assert book.poisoned(["k"]) == []
    assert dead_claim(tmp_path, "k", ending="os.abort()") == -signal.SIGABRT
    assert book.claim("k") is None
    assert book.pending(["k"]) == []
    assert book.poisoned(["k", "other"]) == ["k"]


def test_deaths_without_a_word_weigh_a_tenth_of_a_crash(tmp_path):
    book = ledger(tmp_path, max_deaths=2)
    for number in range(19):
        dies(book, "k")
        assert book.pending(["k"]) == ["k"]
        assert book.suspects(["k"]) == (["k"] if number else [])
    dies(book, "k")
    assert book.poisoned(["k"]) == ["k"]


def test_the_last_attempt_is_not_poisoned_while_it_runs(tmp_path):
    book = ledger(tmp_path, max_deaths=2)
    dies(book, "k", "Fatal Python error: Aborted")
    assert book.claim("k") is not None
    assert book.poisoned(["k"]) == []
    assert book.unfinished(["k"]) == ["k"]


def test_a_poll_looks_at_no_file_of_a_key_that_nobody_touched_and_once_at_a_result(
    tmp_path, monkeypatch
):
    book, keys = ledger(tmp_path), [f"task/{number}" for number in range(500)]
    for key in keys[:250]:
        finish(tmp_path, key)
    looks = []
    stat = os.stat
    monkeypatch.setattr("os.stat", lambda path, **k: (looks.append(path), stat(path, **k))[1])
    assert book.pending(keys) == keys[250:]
    assert len(looks) <= 250 + 5
    looks.clear()
    assert book.pending(keys) == keys[250:]
    assert book.finished(keys) == 250
    assert len(looks) <= 5


def test_a_released_claim_is_free_and_costs_no_attempt(tmp_path):
    book = ledger(tmp_path, max_deaths=1)
    for attempt in (1, 2, 3):
        claim = take(book, "k")
        assert claim.number == attempt
        book.release(claim)
    assert book.poisoned(["k"]) == []
    assert book.pending(["k"]) == ["k"]


@pytest.mark.parametrize("name", [DONE, ERROR])
def test_a_result_ends_the_matter(tmp_path, name):
    book = ledger(tmp_path)
    assert not book.is_done("a/b")
    finish(tmp_path, "a/b", name)
    assert book.is_done("a/b")
    assert book.claim("a/b") is None
    assert book.pending(["a/b"]) == []
    assert book.poisoned(["a/b"]) == []


def test_work_finished_between_look_and_claim_is_not_done_again(tmp_path, monkeypatch):
    book = ledger(tmp_path)
    answers = iter([False, True])
    monkeypatch.setattr(book, "is_done", lambda key: next(answers))
    assert book.claim("k") is None


def test_folder_names_stay_inside_and_apart(tmp_path):
    keys = [*HOSTILE, "a/b", "A/B", "a", "a-b", "In-Domain_50/O-47_x_data-generator/00000"]
    names = [folder_name(key) for key in keys]
    assert len(set(names)) == len(keys)
    for name in names:
        place = tmp_path / name
        place.mkdir()
        assert place.resolve().parent == tmp_path.resolve()
        assert not name.startswith(".")
        assert len(name.encode()) <= 130


def test_plain_keys_keep_their_names():
    assert folder_name("In-Domain_50/O-47_x/00000") == "In-Domain_50__O-47_x__00000"
    assert folder_name("über/漢字").startswith("ber~")


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_can_be_claimed(tmp_path, key):
    book = ledger(tmp_path)
    assert book.claim(key) is not None
    assert book.claim(key) is None


def test_nonsense_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        ledger(tmp_path, max_deaths=0)


def test_the_ledger_needs_no_torch():
    code = "import sys, vlmteach.ledger; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_lease_is_renewed_however_long_a_stage_takes(tmp_path):
    mine = ledger(tmp_path, lease_seconds=0.4)
    claim = take(mine, "a")
    other = ledger(tmp_path, launch="other", lease_seconds=0.4)
    with mine.last_words(claim):
        another_node(claim)  # nobody there can look whether it lives
        for _ in range(6):
            time.sleep(0.2)
            assert not other.is_pending("a")
    time.sleep(0.6)
    assert other.is_pending("a")
    mine.release(claim)
    assert not [each for each in threading.enumerate() if each.name == "vlmteach-lease"]
