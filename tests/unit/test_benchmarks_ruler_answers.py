"""How a judge's answer is read, and how it is asked for again."""

import pytest

from benchmarks.judges import Reply
from benchmarks.ruler.asking import AnswerError, ask, parse
from benchmarks.ruler.items import Item
from vlmteach.instances import RawSample
from vlmteach.instances.ruler import METRICS, Checklist

IF, _, _, RC = METRICS


def test_a_good_answer():
    text = 'x<think>The ball\n falls.</think>\n<answer>\n["Good", "Poor"]</answer>\n'
    assert parse(text[1:], 2) == (("Good", "Poor"), "The ball\n falls.")
    assert parse(f"```xml\n{text[1:]}```", 2)[0] == ("Good", "Poor")
    assert parse('<answer>["Medium"]</answer>', 1) == (("Medium",), "")
    quoted = '<think>They want <answer> here</think><answer>["Medium"]</answer>'
    assert parse(quoted, 1)[0] == ("Medium",)
    assert parse('so</think><answer>["Medium"]</answer>', 1) == (("Medium",), "so")


@pytest.mark.parametrize(
    "reply",
    [
        '<think>t</think><answer>["good", "POOR"]</answer>',
        '<think>t</think><answer>[" Good", "poor "]</answer>',
        "<think>t</think><answer>['Good', 'Poor']</answer>",
        '<think>t</think><answer>```json\n["Good", "Poor"]\n```</answer>',
        '<think>t</think><answer>\n```["Good", "Poor"]```\n</answer>',
        '<think>t</think>\n```xml\n<answer>["Good", "Poor"]</answer>\n```',
        '```\n<think>t</think><answer>["Good", "Poor"]</answer>\n```<|im_end|>',
        '<think>t</think><answer>["Good", "Poor"]</answer><|im_end|>\n<|endoftext|>',
        '<think>t</think><answer>["Good", "Poor"]</answer></s>',
        '<s><think>t</think><answer>["Good", "Poor"]</answer><end_of_turn>\n',
        '<think>t</think><answer>["Good", "Poor"]</answer><\uff5cend\u2581of\u2581sentence\uff5c>',
        '<think>t</think><answer><|begin_of_box|>["Good", "Poor"]<|end_of_box|></answer>',
        '<THINK>t</THINK><Answer>["Good", "Poor"]</Answer>',
    ],
)
def test_what_a_server_or_a_habit_adds_is_passed_over(reply):
    assert parse(reply, 2) == (("Good", "Poor"), "t")


@pytest.mark.parametrize("draft", ['<answer>["Poor", "Poor"]</answer>', "</answer>", "<answer>"])
def test_a_draft_in_the_thought_is_no_answer(draft):
    for opened in ("<think>", ""):
        reply = f'{opened}a {draft} b</think><answer>["Good", "Poor"]</answer>'
        assert parse(reply, 2) == (("Good", "Poor"), f"a {draft} b")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("", "no </answer>"),
        ('["Good", "Poor"]', "no </answer>"),
        ('["Good", "Poor"]</answer>', "one"),
        ('<answer>["Good", "Poor"]</answer> as I said', "no </answer>"),
        ('Sure! <answer>["Good", "Poor"]</answer>', "outside"),
        ('<answer>["Good"]</answer><answer>["Good", "Poor"]</answer>', "one"),
        ('<think>a <answer>["Poor", "Poor"]</answer>', "outside"),  # a thought without an end
        ('<answer>["Good", "Poor"]</answer><|im_end|>user <|', "no </answer>"),
        ("```", "no </answer>"),
        ('<answer>["Good"]</answer>', "1 ratings, expected 2"),
        ('<answer>["Good", "Good", "Good"]</answer>', "3 ratings"),
        ('<answer>["Good", "goodish"]</answer>', "none of"),
        ('<answer>["Good", 2]</answer>', "none of"),
        ('<answer>["Good", ["Good"]]</answer>', "none of"),
        ("<answer>Good, Poor</answer>", "not JSON"),
        ('<answer>{"1": "Good", "2": "Poor"}</answer>', "no list"),
        ("<answer>" + "[" * 100_000 + "</answer>", "not JSON"),
        ("<answer>" * 200_000, "characters"),
    ],
)
def test_another_answer_is_refused(reply, message):
    with pytest.raises(AnswerError, match=message):
        parse(reply, 2)


ITEM = Item(
    "physics/0",
    Checklist("physics", "0", "science", ((IF, "Does it fall?"), (RC, "Down?")), "It falls."),
    "content",
    "digest",
    RawSample("physics/0", "x.tar", {"prompt.txt": b"A ball falls."}),
    None,
)


class Scripted:
    name = "scripted"

    def __init__(self, *replies):
        self.replies = list(replies)
        self.said = []

    def reply(self, turns):
        self.said.append(turns)
        return Reply(self.replies.pop(0), tokens={"total_tokens": 10})


def test_an_answer_that_cannot_be_read_is_asked_for_again():
    good = '<think>b</think><answer>["Good", "Poor"]</answer>'
    judge = Scripted('<answer>["Good"]</answer>', "", good)
    verdict = ask(judge, ITEM, [])
    assert (verdict.value, verdict.asks) == ((("Good", "Poor"), "b"), 3)
    assert verdict.tokens == {"total_tokens": 30}
    opening, corrected, varied = judge.said
    assert [turn.role for turn in opening] == ["system", "user"]
    assert [turn.role for turn in corrected] == ["system", "user", "assistant", "user"]
    assert "1 ratings, expected 2" in corrected[-1].parts[0]
    assert [turn.role for turn in varied] == ["system", "user"]  # some servers refuse empty turns
    assert varied[1].parts[:-1] == opening[1].parts
    assert "without <think>" in varied[1].parts[-1]
    judge = Scripted("no", "no", "no", good)
    with pytest.raises(AnswerError, match="3 replies could not be read"):
        ask(judge, ITEM, [])
    assert judge.replies == [good]


@pytest.mark.parametrize("fault", ["no", ""])
def test_no_two_asks_are_alike(fault):
    """A greedy judge says the same to the same words."""

    class Greedy:
        name = "greedy"

        def reply(self, turns):
            heard.append(repr(turns))
            return Reply('<answer>["Good", "Poor"]</answer>' if len(set(heard)) == 3 else fault)

    heard = []
    assert ask(Greedy(), ITEM, []).asks == 3


def test_the_judge_is_shown_what_the_benchmark_names_in_its_order():
    judge = Scripted('<answer>["Good", "Poor"]</answer>')
    ask(judge, ITEM, [])
    text = "\n".join(judge.said[0][1].parts)
    places = [text.index(part) for part in ("A ball falls.", "It falls.", "1. Does", "2. Down?")]
    assert places == sorted(places)
