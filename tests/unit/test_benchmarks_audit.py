"""The failure audit: what is drawn, how each hand labels, and the table."""

import json
import sys

import pytest
import yaml

from benchmarks.audit import __main__ as command
from benchmarks.audit import judged, people, rules
from benchmarks.audit.cases import Case, draw, open_run
from benchmarks.audit.report import report, share_of, shown_case, table
from benchmarks.judges import JudgeError, Reply
from vlmteach.mini import world
from vlmteach.types import Query

TASK = world.make("reach", "tuning", 3)
EXTENT = world.perform(TASK, world.Execution(extent=0.3))
"""Stops short: the goal is missed, every process part is right."""


def case(queries=TASK.queries, **told):
    return Case(
        run="ours", key=TASK.key, clip="clip.mp4", digest="d", score=0.0, queries=queries,
        p_yes=None, **told,
    )  # fmt: skip


def labelled(queries, p_yes, video=EXTENT):
    found = case(tuple(queries))
    rules.label(found, TASK, video, p_yes)
    return found


def test_a_teacher_that_takes_the_failure_for_done_saw_wrongly():
    found = labelled(TASK.queries, [0.9] * len(TASK.queries))
    assert found.label == "perception"
    assert found.why == f"seen wrongly: {TASK.queries[0].text}"
    assert found.verdicts == (False, *[True] * (len(TASK.queries) - 1))
    assert found.by == "rules"


def test_a_teacher_that_saw_the_failure_is_not_to_blame():
    assert labelled(TASK.queries, [0.1, *[0.9] * (len(TASK.queries) - 1)]).label == "neither"


def test_a_teacher_that_sees_a_fault_where_none_is_saw_wrongly_too():
    found = labelled(TASK.queries, [0.1, 0.2, *[0.9] * (len(TASK.queries) - 2)])
    assert found.label == "perception"
    assert TASK.queries[1].text in found.why


def test_a_query_about_something_else_is_wrong_whatever_was_seen():
    other = (Query("By the end of the video, is the moon blue?", "goal"), *TASK.queries[1:])
    found = labelled(other, [0.1, *[0.9] * (len(TASK.queries) - 1)])
    assert found.label == "query"
    assert "asks for something else: By the end of the video, is the moon blue?" in found.why
    assert found.verdicts[0] is None


def test_a_failure_that_nobody_asked_after_is_a_query_error():
    found = labelled(TASK.queries[1:], [0.9] * (len(TASK.queries) - 1))
    assert (found.label, found.why) == ("query", f"is asked by none: {TASK.queries[0].text}")


def test_meaning_is_the_words_without_articles_and_marks():
    text = TASK.queries[0].text
    respelt = text.upper().replace("THE ", "").replace("?", "")
    assert rules.meaning(respelt) == rules.meaning(text)
    assert rules.meaning(text) != rules.meaning(TASK.queries[1].text)


@pytest.mark.parametrize("key", ["a", "tuning/reach/x", "tuning/nothing/3", "else/reach/3"])
def test_other_keys_have_no_rules(key):
    assert rules.task_of(key) is None


def test_a_key_of_the_miniature_gives_its_task():
    found = rules.task_of(TASK.key)
    assert found is not None
    assert (found.key, found.prompt) == (TASK.key, TASK.prompt)


def make_run(folder, keys=6, method="micro_fit"):
    """A run of `keys` instances of which all but the last have failed."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": method, "run": {"seed": 4}}))
    for number in range(keys):
        place = folder / f"k{number}"
        place.mkdir()
        (place / "clip.mp4").write_bytes(f"clip {number}".encode())
        done = {"key": f"k{number}", "seed": 4, "steps": 1, "compute": {"seconds": 1.0}}
        (place / "done.json").write_text(json.dumps(done))
        score = [{"strict": number == keys - 1, "overall": number / 10}]
        (place / "score.json").write_text(json.dumps(score))
        if method == "base":
            continue
        queries = {"goal": "Is it?", "process": ["Does it?"], "source": "teacher"}
        told = {**queries, "replies": 1, "refusals": []}
        (place / "queries.json").write_text(json.dumps(told))
        readings = [{"step": n, "p_yes": [0.1 * n, 0.5]} for n in range(3)]
        fit = {"readings": readings, "kept_step": 2}
        (place / "fit.json").write_text(json.dumps(fit))
    return folder


def opened(folder, seed=0, below=0.5, measure="strict"):
    return open_run(folder, None, measure=measure, below=below, seed=seed)


def test_the_draw_is_seeded_and_a_larger_sample_holds_the_smaller(tmp_path):
    folder = make_run(tmp_path / "ours" / "seed4", keys=9)
    first = opened(folder)
    assert sorted(first.failed) == [f"k{n}" for n in range(8)]
    assert first.failed == opened(folder).failed
    assert first.failed != opened(folder, seed=1).failed
    few, many = opened(folder), opened(folder)
    draw(few, 3, {})
    draw(many, 5, {"k0": "a task"})
    assert [c.key for c in many.cases][:3] == [c.key for c in few.cases] == first.failed[:3]
    assert few.name == "ours, seed 4"


def test_a_case_carries_what_was_asked_and_what_was_said_of_what_was_kept(tmp_path):
    run = opened(make_run(tmp_path / "seed4"))
    draw(run, 1, {})
    (found,) = run.cases
    assert [query.text for query in found.queries] == ["Is it?", "Does it?"]
    assert found.p_yes == (0.2, 0.5)


def test_a_run_without_queries_has_failures_and_no_cases(tmp_path):
    run = opened(make_run(tmp_path / "seed4", method="base"))
    draw(run, 50, {})
    assert (len(run.failed), run.cases) == (5, [])
    assert [line["outcome"] for line in table([run])] == ["failure"]


def test_another_measure_sets_another_bar(tmp_path):
    folder = make_run(tmp_path / "seed4")
    assert sorted(opened(folder, measure="overall", below=0.25).failed) == ["k0", "k1", "k2"]
    with pytest.raises(ValueError, match="got no 'beauty' of any clip"):
        opened(folder, measure="beauty")
    with pytest.raises(ValueError, match=r"got no config.yaml"):
        opened(tmp_path)


def test_the_table_counts_outcomes_of_failures_and_of_all(tmp_path):
    run = opened(make_run(tmp_path / "ours" / "seed4", keys=10))  # 9 of 10 failed
    draw(run, 4, {})
    for found, word in zip(run.cases, ("perception", "perception", "query", None), strict=True):
        found.label = word
    lines = {line["outcome"]: line for line in table([run])}
    assert (lines["failure"]["count"], lines["failure"]["of"]) == (9, 10)
    assert lines["failure"]["of_all"]["mean"] == pytest.approx(0.9)
    seen = lines["perception error"]
    assert (seen["count"], seen["of"]) == (2, 3), "the case without a label does not count"
    assert seen["share"]["mean"] == pytest.approx(2 / 3)
    assert seen["of_all"]["mean"] == pytest.approx(0.6)
    assert lines["query error"]["of_all"]["mean"] == pytest.approx(0.3)
    assert seen["share"]["low"] <= 2 / 3 <= seen["share"]["high"]
    text = report([run], "strict below 0.5")
    assert "| ours, seed 4 | query error | 1 of 3 |" in text
    assert "Label: none yet" in text


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    # z^2 = 3.8415: of 0 in 10 the upper end is 0.38415 / 1.38415; of 5 in 10 the ends lie
    # 1.96 sqrt(0.025 + 0.0096037) / 1.38415 about one half.
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341)],
)
def test_a_share_is_never_surer_than_its_sample(count, of, low, high):
    found = share_of(count, of)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-4)


def test_texts_of_instances_cannot_pass_for_the_report():
    told = case((Query("Is it | so?\n# Label: none", "goal"),), prompt="a\n## Cases")
    text = shown_case(1, told)
    assert "\n## Cases" not in text
    assert "\n# Label" not in text
    assert "Is it \\| so?" in text


def test_labels_go_out_and_come_back_as_csv(tmp_path):
    path = tmp_path / "labels.csv"
    cases = [case(), case(label="query", by="person", why="odd, really"), case()]
    people.write_labels(path, cases)
    assert path.read_text() == 'case,label,why\n1,,\n2,query,"odd, really"\n3,,\n'
    path.write_text("case,label,why\n1, Perception ,blind\n2,,\n3,neither,\n")
    assert people.read_labels(path, 3) == {1: ("perception", "blind"), 3: ("neither", "")}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_labels_from_a_spreadsheet_are_read(tmp_path, encoding):
    path = tmp_path / "labels.csv"
    path.write_bytes("case,label,why\r\n1,query,grün\r\n".encode(encoding))
    assert people.read_labels(path, 1) == {1: ("query", "grün")}
    path.write_text('case,label,why\n1,query,"open\n2,query,\n')
    with pytest.raises(ValueError, match="expected CSV; close the quotes"):
        people.read_labels(path, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,label\n1,query\n", "expected case,label,why"),
        ("case,label,why\n1,wrong,\n", "line 2: got label 'wrong'"),
        ("case,label,why\n4,query,\n", "got case '4', expected 1 to 1"),
    ],
)
def test_bad_labels_are_refused_by_line(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        people.read_labels(path, 1)


def test_the_terminal_asks_for_what_is_missing_and_saves_each():
    cases = [case(), case(label="query", by="person"), case(), case(), case()]
    typed, saved = iter(["what?", "p", "s", "neither", "e"]), []
    cases.append(case())

    def keep():
        saved.append([c.label for c in cases])

    people.ask(cases, shown_case, keep, read=lambda prompt: next(typed))
    assert [c.label for c in cases] == ["perception", "query", None, "neither", None, None]
    assert len(saved) == 2


class Scripted:
    """A judge that says what it is told to, and keeps what it was shown."""

    name = "scripted"

    def __init__(self, *texts):
        self.texts, self.shown = list(texts), []

    def reply(self, turns):
        self.shown.append(turns)
        text = self.texts.pop(0)
        if text is None:
            raise JudgeError("got HTTP 500")
        return Reply(text)


def test_a_judge_labels_what_is_missing_and_faults_stay_open(monkeypatch):
    monkeypatch.setattr(judged, "frames_of", lambda clip: [])
    cases = [case(), case(label="query", by="scripted"), case(prompt='a "task"'), case()]
    perceived = 'so: {"label": "query"} or {"label": "Perception", "why": "blind"}'
    judge = Scripted(perceived, *["no idea"] * 3, None)
    kept = []
    faults = judged.label(cases, judge, lambda: kept.append(1))
    assert [c.label for c in cases] == ["perception", "query", None, None]
    assert (cases[0].by, cases[0].why, len(kept)) == ("scripted", "blind", 1)
    assert len(faults) == 2
    assert faults[0].startswith("case 3: got no JSON object")
    assert "'no idea'" in faults[0]
    assert len(set(map(str, judge.shown[1:4]))) == 3, (
        "a greedy judge says the same to the same words"
    )
    (turn,) = judge.shown[1]
    assert '"a \\"task\\""' in turn.parts[0]
    assert TASK.queries[0].text in turn.parts[0]


def test_a_clip_that_cannot_be_read_leaves_the_others_theirs(tmp_path):
    cases = [case(), case()]
    cases[0].clip = str(tmp_path / "gone.mp4")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    cases[1].clip = str(tmp_path / "clip.mp4")
    assert len(judged.label(cases, Scripted(), lambda: None)) == 2


@pytest.fixture
def audit(tmp_path, monkeypatch, capsys):
    """The command on a run beside a base run; gives the exit code and what was printed."""
    make_run(tmp_path / "base" / "seed4", method="base")
    make_run(tmp_path / "ours" / "seed4")
    runs = [str(tmp_path / name / "seed4") for name in ("base", "ours")]
    data = tmp_path / "data"
    data.mkdir()
    for number in range(6):
        (data / f"k{number}.prompt.txt").write_text(f"task {number}")

    def go(*words):
        out = str(tmp_path / "out")
        monkeypatch.setattr(sys, "argv", ["audit", *runs, "--out", out, *words])
        code = command.main()
        told = capsys.readouterr()
        return code, told.out + told.err

    return go


def test_a_person_fills_in_the_file_and_labels_stay_until_the_clip_changes(audit, tmp_path):
    words = ("--instances", str(tmp_path / "data"), "--sample", "3")
    code, told = audit(*words)
    assert code == 3
    assert "0 of 3 cases labelled" in told
    assert "fill in" in told
    labels = tmp_path / "out" / "labels.csv"
    assert labels.read_text().splitlines() == ["case,label,why", "1,,", "2,,", "3,,"]
    assert 'Task: "task' in (tmp_path / "out" / "audit.md").read_text()
    labels.write_text("case,label,why\n1,query,odd\n2,perception,\n3,,\n")
    code, told = audit(*words)
    assert (code, "2 of 3 cases labelled" in told) == (3, True)
    assert "| ours, seed 4 | query error | 1 of 2 |" in told
    assert "| base, seed 4 | failure | 5 of 6 |" in told
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [c["label"] for c in record["cases"]] == ["query", "perception", None]
    assert labels.read_text().splitlines()[1] == "1,query,odd"
    audit(*words[:-1], "1")
    assert labels.read_text().splitlines()[1:] == ["1,query,odd"]
    code, told = audit(*words)
    assert "2 of 3 cases labelled" in told, "a smaller sample has lost no label"
    (tmp_path / "ours" / "seed4" / record["cases"][0]["key"] / "clip.mp4").write_bytes(b"new")
    code, told = audit(*words)
    assert "1 of 3 cases labelled" in told, "the label was for another clip"
    assert labels.read_text().splitlines()[1:] == ["1,,", "2,perception,", "3,,"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--by person: got no --instances"),
        (("--by", "rules"), "--by rules: got the instance 'k"),
        (("--by", "judge", "--instances", "DATA"), "got no judge, expected --endpoint"),
        (
            ("--by", "judge", "--instances", "DATA", "--endpoint", "http://127.0.0.1:9", "--model",
             "Qwen/Qwen2.5-VL-72B"),
            "of the family 'qwen' like the teacher",
        ),
    ],
)  # fmt: skip
def test_the_command_refuses_what_it_cannot_label(audit, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr("benchmarks.viewer.Viewer", lambda *_: None)
    code, told = audit(*(str(tmp_path / "data") if word == "DATA" else word for word in words))
    assert code == 2
    assert message in told
