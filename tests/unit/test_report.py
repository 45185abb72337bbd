"""Rows and records -> pages: what is read, what is drawn, what is escaped."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.report_runs import add_error, add_instance, begin
from vlmteach import guard
from vlmteach.report import COMPARISON, PAGE, guarded, write_report
from vlmteach.report.build import runs_of
from vlmteach.report.charts import Axis, axis_over, bins, polyline, tally
from vlmteach.report.page import number, signed, url
from vlmteach.report.read import read_run
from vlmteach.report.summary import BOX, curves, run_context

CANARY = "\"'><script>canary()</script><img src=x onerror=canary()>{{7*7}}</style></textarea>"


class Seen(HTMLParser):
    """The tags of a page, and the texts of its scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.inside = {"script": [], "style": []}
        self.open = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = tag if tag in self.inside else None

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open:
            self.inside[self.open].append(data)

    def having(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def run(tmp_path):
    return begin(tmp_path / "run")


def page_of(run):
    text = write_report([run]).read_text("utf-8")
    return text, Seen(text)


@pytest.mark.parametrize("where", ["prompt", "key", "query", "error", "task", "setting", "judge"])
def test_whatever_a_stranger_writes_is_text(tmp_path, run, where):
    key = CANARY if where == "key" else "a"
    told: dict[str, Any] = {name: CANARY for name in ("prompt", "query", "task") if name == where}
    folder = add_instance(run, key, clips=True, scales=[(0, 0, 0, 0), (1, 1, 1, 1)], **told)
    if where == "judge":
        path = folder / "scales" / "scales.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"judge": CANARY}))
    add_error(run, "b", f"got {CANARY if where == 'error' else 1}, expected; {CANARY}")
    if where == "setting":
        index = [{"setting": CANARY, "seed": 0, "folder": "run"}]
        (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in index))
        write_report([tmp_path])
        text = (tmp_path / PAGE).read_text("utf-8")
        seen = Seen(text)
    else:
        text, seen = page_of(run)
    assert len(seen.having("script")) == len(seen.having("style")) == 1
    assert "canary()</script>" not in text.replace("&lt;/script&gt;", "")
    assert "{{7*7}}" in text
    assert not [name for _, given in seen.tags for name in given if name.startswith("on")]
    assert "&lt;script&gt;canary()" in text
    sources = [
        v
        for _, g in seen.tags
        for n, v in g.items()
        if n in ("src", "data-src", "data-href", "data-video")
    ]
    assert sources
    assert all(re.fullmatch(r"\./[\w./~%+=,-]+", source) for source in sources)


@pytest.mark.parametrize("pages", ["run", "comparison"])
def test_the_policy_allows_the_page_s_own_script_and_nothing_else(tmp_path, run, pages):
    add_instance(run, "a")
    other = begin(tmp_path / "other")
    add_instance(other, "a")
    text = write_report([run] if pages == "run" else [run, other]).read_text("utf-8")
    seen = Seen(text)
    (policy,) = [m["content"] for m in seen.having("meta") if "Policy" in m.get("http-equiv", "")]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for name in ("script", "style"):
        (own,) = seen.inside[name]
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "connect-src" not in rules
    assert "unsafe" not in policy
    assert not [given for _, given in seen.tags if "style" in given]  # the policy would drop it
    assert text.index("Content-Security-Policy") < text.index("<style>")


@pytest.mark.parametrize("line", ["[]", "{}", "no JSON", '{"setting": "a", "seed": "0"}'])
def test_an_index_that_no_sweep_has_written_is_refused(run, line):
    (run / "runs.jsonl").write_text(line)
    with pytest.raises(ValueError, match=r"runs\.jsonl: line 1: got .*expected a run of a sweep"):
        write_report([run])


def test_numbers_that_no_fit_could_reach_are_none(run):
    """JSON may hold whole numbers of any length; a page is made all the same."""
    folder = add_instance(run, "a")
    record = json.loads((folder / "fit.json").read_text())
    record["readings"][0]["loss"] = 10**400
    record["clip"] = {"height": 10**30, "width": -4}
    (folder / "fit.json").write_text(json.dumps(record))
    row = json.loads((folder / "done.json").read_text())
    (folder / "done.json").write_text(json.dumps(row | {"steps": 10**30}))
    (shown,) = read_run(run)
    assert (shown.losses[0], shown.height, shown.width, shown.updates) == (None, 0, 0, 0)
    assert write_report([run]).exists()


def test_the_same_folder_gives_the_same_bytes(run):
    add_instance(run, "b", clips=True)
    add_instance(run, "a")
    first = write_report([run]).read_bytes()
    assert first == write_report([run]).read_bytes()
    assert str(run.parent).encode() not in first


@pytest.mark.parametrize(
    ("p_yes", "strict", "outcome"),
    [
        (0.8, True, "solved"),
        (0.8, False, "fooled"),
        (0.2, True, "unseen"),
        (0.2, False, "unsolved"),
        (0.8, None, "yes"),
        (0.2, None, "no"),
    ],
)
def test_outcomes(run, p_yes, strict, outcome):
    add_instance(run, "a", p_yes=(0.3, p_yes), strict=strict)
    assert read_run(run)[0].outcome == outcome


def test_the_teacher_s_word_on_the_clip_goes_before_that_on_the_prediction(run):
    add_instance(run, "a", p_yes=(0.1, 0.9), strict=False, more={"p_yes": 0.2, "judge_p_yes": 0.7})
    (shown,) = read_run(run)
    assert shown.outcome == "unsolved"
    assert shown.views == {"p_yes": 0.2, "judge_p_yes": 0.7}
    assert shown.after == {"overall": 0.9, "strict": False}


def test_gain_is_of_the_score_or_else_of_the_loss(run):
    add_instance(run, "a")
    add_instance(run, "b", strict=None, p_yes=(0.1, 0.7))
    scored, unscored = read_run(run)
    assert scored.gain == pytest.approx(0.4)
    assert unscored.gain == pytest.approx(0.6)
    assert (scored.change, unscored.change) == ("fixed", "")


def test_an_error_is_told_from_its_remedy_and_one_at_work_is_shown(run):
    add_error(run, "a", "ValueError: x: got 1, expected 2; put it back")
    folder = add_instance(run, "b")
    (folder / "done.json").unlink()
    failed, working = read_run(run)
    assert (failed.error, failed.remedy) == ("ValueError: x: got 1, expected 2", "put it back")
    assert working.outcome == "working"
    text, _ = page_of(run)
    assert "put it back" in text
    assert "1 at work" in text


@pytest.mark.parametrize(
    "name",
    [
        *("fit.json", "score.json", "instance.json", "predictions.json", "guard.json"),
        "scales/scales.json",
    ],
)
@pytest.mark.parametrize("content", ["", "[1]", '{"readings": 1, "queries": [], "clip": 7}'])
def test_a_broken_file_leaves_its_part_out_and_not_the_page(run, name, content):
    folder = add_instance(run, "a", clips=True, drift=0.1, scales=[(0, 0, 0, 0), (1, 1, 1, 1)])
    (folder / name).write_text(content)
    text, _ = page_of(run)
    assert 'data-key="a"' in text


def test_a_warning_is_a_badge_a_column_and_a_filter(run, monkeypatch):
    monkeypatch.setattr(guard, "LIMITS", {"still_drift": 0.1, "sharpness": 0.5})
    monkeypatch.setattr(guarded, "LIMITS", guard.LIMITS)
    add_instance(run, "fell", drift=0.3)
    add_instance(run, "teacher unmoved", drift=0.3, p_yes=(0.8, 0.85))
    add_instance(run, "kept", drift=0.05)
    add_instance(run, "old")
    shown = {each.key: each for each in read_run(run)}
    assert {key: each.watched for key, each in shown.items()} == {
        "fell": "warned", "teacher unmoved": "quiet", "kept": "quiet", "old": ""
    }  # fmt: skip
    assert shown["fell"].warning == ("still_drift",)
    text, seen = page_of(run)
    assert '<option value="warned">warned (1)</option>' in text
    assert '<option value="quiet">not warned (2)</option>' in text
    cards = {given["data-key"]: given for given in seen.having("article")}
    assert cards["fell"]["data-guard"] == "warned"
    titles = [given["title"] for given in seen.having("span") if "title" in given]
    assert titles == ["the teacher rose while these fell: still drift"] * 3  # card, row, table
    folded = [part.split("</noscript>")[0] for part in text.split("<noscript>")]
    (row,) = [part for part in folded if 'data-row="fell"' in part]
    assert row.count("<span>warned</span>") == 1  # of four rows
    beyond = [part for part in folded if "<strong>beyond</strong><br>to 0.100</td>" in part]
    assert len(beyond) == 2  # the teacher that did not rise has no warning, and the same number
    assert all("<td>0.71\N{EN DASH}1.41</td>" in part for part in beyond)  # half an octave


def test_views_of_the_base_clip_stand_beside_those_of_the_delivered(run):
    more = {"p_yes": 0.8, "judge_p_yes": 0.3, "base_p_yes": 0.1, "base_judge_p_yes": 0.2}
    add_instance(run, "a", more=more | {"judge": "builtin:a/judge"})
    (shown,) = read_run(run)
    assert shown.base_views == {"p_yes": 0.1, "judge_p_yes": 0.2}
    assert shown.before == {"overall": 0.5, "strict": False}
    text, _ = page_of(run)
    assert "judge's P(yes)</th><td>0.20</td><td>0.30</td>" in text.replace("&#39;", "'")


def test_an_adapter_s_scales_are_drawn_with_what_fell(run, monkeypatch):
    monkeypatch.setattr(guard, "LIMITS", {"still_drift": 0.1})
    scales = [(0, 0.1, 0.1, 0.0), (0.5, 0.6, 0.4, 0.05), (1.25, 0.9, 0.2, 0.2)]
    add_instance(run, "a", scales=scales)
    (shown,) = read_run(run)
    swept = guarded.sweep_of(shown.scales, BOX)
    assert swept is not None
    assert swept.teacher == ("34,87.2 145.2,43.2 312,16.8",)
    assert swept.judge == ("34,87.2 145.2,60.8 312,78.4",)
    assert swept.fell == [(312, "still_drift")]
    assert [scale for scale, _ in swept.rows] == ["0", "0.5", "1.25"]
    assert [cell.is_beyond for cell in swept.rows[-1][1]] == [False] * 7 + [True]
    text, _ = page_of(run)
    assert "<strong>0.200 !</strong>" in text
    assert "builtin:a/judge" in text
    assert guarded.sweep_of(None, BOX) is None


def test_what_a_score_of_another_clip_says_counts_not(run):
    add_instance(run, "a", clips=True, more={"clip_sha256": "0" * 64})
    assert read_run(run)[0].after == {}


def test_a_sweep_s_page_and_those_of_its_runs(tmp_path):
    index = []
    for setting, score in (("base", 0.4), ("ours", 0.6)):
        run = begin(tmp_path / setting / "seed0")
        for n in range(4):
            add_instance(run, f"t/{n}", score=score + 0.1 * n, strict=score > 0.5)
        index.append({"setting": setting, "seed": 0, "folder": f"{setting}/seed0"})
    index.append({"setting": "outside", "seed": 0, "folder": "../.."})
    index.append({"setting": "not begun", "seed": 0, "folder": "none"})
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in index))
    assert [name for name, *_ in runs_of(tmp_path)] == ["base", "ours"]
    page = write_report([tmp_path])
    text = page.read_text("utf-8")
    assert page == tmp_path / PAGE
    assert "+0.200 <small>[+0.200, +0.200]" in text  # paired: the instances' spread is gone
    assert (tmp_path / "ours" / "seed0" / PAGE).is_file()
    assert './ours/seed0/report.html#t/0"' in text
    assert text.count("data-card") - text.count("[data-card]") == 4


def test_several_runs_are_compared_in_the_folder_they_share(tmp_path):
    for name in ("one", "two"):
        add_instance(begin(tmp_path / name), "a")
    page = write_report([tmp_path / "one", tmp_path / "two"])
    assert page == tmp_path / COMPARISON
    assert "minus one, paired" in page.read_text("utf-8")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the output folder"):
        write_report([tmp_path])


def test_an_empty_run_has_a_page(run):
    assert "0 of 0" in page_of(run)[0]


def test_axes():
    axis = Axis(0, 10, 100, 200)
    assert (axis(5), axis(-1), axis(99)) == (150, 100, 200)
    assert axis.ticks(5) == [
        (100, "0"),
        (120, "2"),
        (140, "4"),
        (160, "6"),
        (180, "8"),
        (200, "10"),
    ]
    assert axis_over([1, 100], 0, 100).logarithmic
    assert not axis_over([0, 100], 0, 100).logarithmic
    assert axis_over([3, 3], 0, 100)(3) == pytest.approx(50, abs=51)
    assert [told for _, told in axis_over([1, 1000], 0, 100).ticks()][:3] == ["1", "2", "5"]


def test_a_hole_breaks_a_curve():
    axis = Axis(0, 3, 0, 3)
    assert polyline(axis, axis, [0, 1, 2, 3], [0, None, 2, 3]) == ("0,0", "2,2 3,3")


def test_bins_count_everything_once():
    few = [("0", 0), ("1", 0), ("2", 0), ("3", 2), ("4", 1)]
    assert [(bar.label, bar.count) for bar in bins([3, 3, 4])] == few
    assert sum(bar.count for bar in bins([*range(100), 7])) == 101
    assert len(bins(range(100))) <= 12
    assert bins([]) == []
    assert [(b.label, b.count) for b in tally("abb")] == [("b", 2), ("a", 1)]


def test_curves_of_a_fit_without_updates_are_none(run):
    add_instance(run, "a", p_yes=(0.9,))
    assert curves(read_run(run)[0]) is None


def test_words_for_readers():
    assert [number(v) for v in (None, True, 0.126, 123.46, 12345.6)] == [
        "\N{EN DASH}",
        "yes",
        "0.13",
        "123.5",
        "12,346",
    ]
    assert signed(-0.2) == "\N{MINUS SIGN}0.20"
    assert url("javascript:alert(1)//é?#") == "./javascript%3Aalert%281%29//%C3%A9%3F%23"


def figure(run, label):
    shown = run_context(run, read_run(run))["figures"]
    (found,) = [each for each in shown if each.label.startswith(label)]
    return found.value, found.told


def test_base_and_delivered_are_of_the_same_instances(run):
    """One without a base video would make the two means those of other instances."""
    add_instance(run, "a", base_score=0.2, base_strict=False)
    add_instance(run, "b", base_score=0.6, base_strict=True)
    assert figure(run, "Mean") == ("0.40 \N{RIGHTWARDS ARROW} 0.90", "base, then delivered")
    assert figure(run, "Solved") == ("1 \N{RIGHTWARDS ARROW} 2", "of 2; 1 mended, 0 broken")
    add_instance(run, "c", base_score=None, base_strict=None)
    assert figure(run, "Mean") == ("0.90", "delivered")
    assert figure(run, "Solved") == ("3", "of 3")
