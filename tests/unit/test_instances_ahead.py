"""Samples with the prompts that follow them."""

from vlmteach.instances import ahead
from vlmteach.instances.ahead import how_many, read_ahead
from vlmteach.instances.sample import InstanceError, RawSample


def sample(key, prompt=None, size=0, problem=None):
    members = {"first.png": bytes(size)} if size else {}
    if prompt is not None:
        members["prompt.txt"] = prompt if isinstance(prompt, bytes) else prompt.encode()
    return RawSample(key, "a.tar", members, problem)


def read(samples, count):
    return [(raw.key, list(prompts)) for raw, prompts in read_ahead(samples, count)]


def test_each_sample_comes_once_with_those_behind_it():
    samples = [sample(key, f" go {key}\n") for key in "abcd"]
    expected = [("a", ["go b", "go c"]), ("b", ["go c", "go d"]), ("c", ["go d"]), ("d", [])]
    assert read(samples, 2) == expected
    assert read(samples, 0) == [(key, []) for key in "abcd"]
    assert read([], 3) == []


def test_no_more_is_read_than_is_looked_at():
    taken = []

    def source():
        for key in "abcdef":
            taken.append(key)
            yield sample(key, "go")

    for count, expected in ((0, "a"), (2, "abc")):
        taken.clear()
        next(read_ahead(source(), count))
        assert taken == list(expected)


def test_bad_samples_are_passed_over_and_keep_their_turn():
    words = {"field": "x", "got": "x", "expected": "x", "remedy": "x"}
    problem = InstanceError(key="d", source="a.tar", **words)
    samples = [
        sample("a", "go"),
        sample("b"),
        sample("c", b"\xff\xfe\xff"),
        sample("d", "go d", problem=problem),
        sample("e", "go e"),
    ]
    found = read(samples, 9)
    assert [key for key, _ in found] == list("abcde")
    assert found[0] == ("a", ["go e"])


def test_large_samples_are_not_held(monkeypatch):
    monkeypatch.setattr(ahead, "MOST_BYTES", 100)
    samples = [sample(key, key, size=60) for key in "abcd"]
    assert read(samples, 9) == [("a", ["b"]), ("b", ["c"]), ("c", ["d"]), ("d", [])]
    samples = [sample(key, key, size=200) for key in "ab"]
    assert read(samples, 9) == [("a", []), ("b", [])]


def test_only_where_encoders_are_lent_and_within_bounds():
    assert how_many("cpu", 8) == 0
    assert [how_many("cuda", ranks) for ranks in (1, 2, 4, 64)] == [16, 32, 64, 64]
