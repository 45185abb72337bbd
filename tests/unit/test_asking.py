"""What is taken from a teacher's reply, whatever it may hold."""

import json

import pytest

from vlmteach.asking import Answer, ask, json_objects
from vlmteach.methods.replies import (
    MAX_PROMPT,
    MAX_TEXT,
    checked_prompt,
    parse_pick,
    parse_prompt,
    parse_text,
)

GOOD = "The ball rolls along the wall to the red square and stays there."


class Scripted:
    """A `Work` that only writes: gives the replies in order and keeps what it was asked."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.asked = []

    def write(self, request, images, max_new_tokens):
        self.asked.append((request, list(images), max_new_tokens))
        return self.replies.pop(0)


def prompt(text: object = GOOD, **extra):
    return json.dumps({"prompt": text, **extra})


def asked(*replies, max_replies=3, parse=parse_prompt):
    work = Scripted(*replies)
    answer = ask(work, "Write it.", ["image"], parse, max_replies=max_replies, max_new_tokens=9)  # type: ignore[arg-type]
    return work, answer


@pytest.mark.parametrize(
    "reply",
    [
        prompt(),
        f"```json\n{prompt()}\n```",
        f"Thinking about {{}} and {{x}} ... so: {prompt()} Done.",
        f'You asked for {{"prompt": "..."}}. {prompt()}',
        prompt(f"  {GOOD.replace(' ', chr(10), 1)}\t"),
        prompt("Nothing.") + prompt(),
    ],
    ids=["bare", "fence", "prose", "echo", "lines", "two"],
)
def test_a_prompt_is_found_within_the_reply(reply):
    assert parse_prompt(reply) == GOOD


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("", "expected a JSON object"),
        ("I'm sorry, I can't help with that.", "expected a JSON object"),
        (prompt()[:-2], "expected a JSON object"),
        (json.dumps([GOOD]), "expected a JSON object"),
        (json.dumps({"rewritten": GOOD}), "expected a JSON object"),
        (prompt(note="x"), "got the fields .*note"),
        (prompt(None), "got null, expected a string"),
        (prompt([GOOD]), "expected a string"),
        (prompt({"prompt": GOOD}), "expected a string"),
        (prompt(""), "expected words"),
        (prompt(" \n "), "expected words"),
        (prompt("..."), "expected words"),
        (prompt("a" * (MAX_PROMPT + 1)), f"got {MAX_PROMPT + 1} characters"),
        (prompt("Stop<|im_end|>now"), "im_end.* without tags"),
        (prompt("A <IMG_CONTEXT> ball"), "without tags"),
        (prompt("A </s> ball"), "without tags"),
        (prompt("A ball\x00rolls"), "control character"),
        ('{"prompt": "half a \\ud800 character"}', "expected a JSON object"),
        ("{" * 5000, "expected a JSON object"),
        ('{"prompt": ' * 3000, "expected a JSON object"),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_fault(reply, message):
    with pytest.raises(ValueError, match=message) as refusal:
        parse_prompt(reply)
    assert len(str(refusal.value)) < 400
    str(refusal.value).encode()


def test_plain_comparisons_are_no_tags():
    assert checked_prompt("Move while x < 3 and y > 4.") == "Move while x < 3 and y > 4."


@pytest.mark.parametrize(("reply", "candidate"), [('{"best": 1}', 0), ('So {"best": 3}!', 2)])
def test_a_pick_counts_from_1_in_the_reply_and_from_0_here(reply, candidate):
    assert parse_pick(reply, 3) == candidate


@pytest.mark.parametrize(
    "reply",
    ["2", "the second", '{"best": 0}', '{"best": 4}', '{"best": -1}', '{"best": "2"}',
     '{"best": 2.0}', '{"best": true}', '{"best": [1]}', '{"best": n}', '{"best": 1e0}',
     '{"best": 1, "why": "it moves"}', '{"best": 2} or {"best": null}', ""],
)  # fmt: skip
def test_what_names_no_candidate_is_refused(reply):
    with pytest.raises(ValueError, match="expected"):
        parse_pick(reply, 3)


def test_free_text_is_made_safe_to_be_told_again():
    assert parse_text("  The <|im_end|> ball\nstops. ") == "The (|im_end|) ball\nstops."
    assert len(parse_text("long " * MAX_TEXT)) == MAX_TEXT
    for empty in ("", " \n", "...", "12"):
        with pytest.raises(ValueError, match="expected a text"):
            parse_text(empty)


def test_a_good_reply_ends_the_asking():
    work, answer = asked(prompt(), "never read")
    assert answer == Answer(GOOD, 1, ())
    assert work.asked == [("Write it.", ["image"], 9)]
    assert work.replies == ["never read"]


def test_each_attempt_is_told_every_reason_so_far_and_no_tag():
    work, answer = asked("<|im_end|>", prompt(""), prompt())
    assert answer.value == GOOD
    assert answer.replies == 3
    first, second, third = (request for request, _, _ in work.asked)
    assert first == "Write it."
    assert "(|im_end|)" in second
    assert "<" not in second + third
    assert answer.refusals[1] in third
    assert "im_end" in third


def test_after_the_last_attempt_there_is_no_value_and_every_reason():
    work, answer = asked("no", "no", max_replies=2)
    assert answer.value is None
    assert answer.replies == len(answer.refusals) == 2
    assert work.replies == []


def test_half_a_character_is_no_object_but_what_follows_is():
    assert json_objects('{"a": "\\udfff"} {"b": "\\ud83d\\ude00"}') == [{"b": "\U0001f600"}]
