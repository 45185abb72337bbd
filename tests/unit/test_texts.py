"""Prompts that share a loan: how many loans, which bits, how much is kept, whose error it is."""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from transformers import T5Config, T5EncoderModel

from vlmteach.reasoners.parts import Lent
from vlmteach.reasoners.texts import Texts

CPU = torch.device("cpu")
BYTES = 4 * 3
"""Of the embedding of a word."""


class Encoder:
    """In place of one that is lent: each loan is counted."""

    device = CPU

    def __init__(self, is_lent=True):
        self.is_lent = is_lent
        self.loans, self.open = 0, False
        self.asked = Counter()

    @contextmanager
    def loan(self):
        self.loans += 1
        self.open = True
        try:
            yield
        finally:
            self.open = False

    def __call__(self, prompt):
        self.asked[prompt] += 1
        assert self.open or not self.is_lent
        if "bad" in prompt:
            raise ValueError(f"cannot encode {prompt}")
        generator = torch.Generator().manual_seed(len(prompt))
        return (torch.randn(1, len(prompt.split()), 3, generator=generator),)


def texts(encoder, **options):
    return Texts(encoder, [encoder], **options)


def test_prompts_of_several_instances_share_a_loan_and_have_the_bits_of_their_own():
    prompts = [f"move it {'on ' * number}" for number in range(10)]
    alone, shared = Encoder(), Encoder()
    one, several = texts(alone), texts(shared)
    for number, prompt in enumerate(prompts):
        (expected,) = one.of(prompt, [])
        (got,) = several.of(prompt, prompts[number + 1 : number + 5])
        assert torch.equal(got, expected)
    assert (alone.loans, shared.loans) == (10, 2)
    assert set(shared.asked.values()) == set(alone.asked.values()) == {1}
    # Again, and the same prompt many times: no loan at all.
    for prompt in [*prompts, *[prompts[3]] * 5]:
        assert torch.equal(*several.of(prompt, prompts), *one.of(prompt, []))
    assert (alone.loans, shared.loans) == (10, 2)


def test_a_prompt_that_cannot_be_encoded_hurts_nobody_else():
    encoder = Encoder()
    kept = texts(encoder)
    (got,) = kept.of("go", ["bad one", "go on", "bad two"])
    assert torch.equal(got, texts(Encoder()).of("go", [])[0])
    kept.of("go on", ["bad one"])
    assert encoder.loans == 1
    with pytest.raises(ValueError, match="cannot encode bad one"):
        kept.of("bad one", ["go up there"])  # its own loan, which ends there
    assert not encoder.open
    assert encoder.asked["go up there"] == 0
    kept.of("go up there", [])
    assert encoder.loans == 3


def test_what_was_not_asked_for_longest_goes_first():
    encoder = Encoder()
    kept = texts(encoder, most_bytes=3 * BYTES)
    for prompt in ("a", "b", "c", "a", "d"):
        kept.of(prompt, [])
    assert encoder.loans == 4
    kept.of("a", [])
    assert encoder.loans == 4
    kept.of("b", [])
    assert encoder.loans == 5


def test_a_loan_makes_no_more_than_is_kept():
    encoder = Encoder()
    kept = texts(encoder, most_bytes=3 * BYTES)
    kept.of("a", list("bcdefgh"))
    assert sorted(encoder.asked) == ["a", "b", "c"]
    for prompt in "abc":
        kept.of(prompt, [])
    assert encoder.loans == 1
    kept.of("one two three four", [])  # larger than all: made, and not kept
    kept.of("one two three four", [])
    assert encoder.loans == 3
    assert kept._bytes == 0


def test_where_nothing_is_lent_nothing_is_kept_or_looked_at():
    encoder = Encoder(is_lent=False)
    kept = texts(encoder)
    assert torch.equal(*kept.of("go", ["on", "bad"]), *kept.of("go", []))
    assert encoder.asked == {"go": 2}
    assert encoder.loans == 0


@pytest.fixture
def module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, dropout_rate=0
        )
        return T5EncoderModel(config).eval()


def test_weights_are_copied_once_a_loan_and_dropped_after_it(module, monkeypatch):
    made = Counter()
    to = nn.Parameter.to

    def counted(self, *arguments, **named):
        made[arguments] += isinstance(self, nn.Parameter)
        return to(self, *arguments, **named)

    monkeypatch.setattr(nn.Parameter, "to", counted)
    lent = Lent(module, CPU)
    assert not lent.is_lent
    assert Lent(module, torch.device("meta")).is_lent
    ids = torch.arange(6)[None]
    expected = module(ids).last_hidden_state
    count = len(list(module.parameters()))
    for number in (1, 2):  # each call by itself
        assert torch.equal(lent(ids).last_hidden_state, expected)
        assert made[CPU,] == number * count
    made.clear()

    def use():
        with lent.loan():
            with lent.loan():
                lent(ids)
            lent(ids)
            assert lent._copies
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        use()
    assert made[CPU,] == count
    assert not lent._copies
