"""What an adapter's file says of itself: the same bytes each time, bounded, and read by others."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from vlmteach.adapter_notes import (
    LONGEST,
    Base,
    candidate_of,
    noted,
    notes_of,
    other_base,
    queries_of,
    read_notes,
    shortened,
)
from vlmteach.config import Config, LoraConfig, ReasonerConfig
from vlmteach.types import ClipSpec, FitRecord, Query, QuerySet, Reading

BASE = Base("owner/name", "d" * 64, "high_noise", "cc-by-nc-sa-4.0")
CONFIG = Config(
    lora=LoraConfig(rank=3, alpha=5.0),
    reasoner=ReasonerConfig(distillation_lora="/home/somebody/few_steps.safetensors"),
)
RECORD = FitRecord(
    key="move/ball",
    digest="x",
    clip=ClipSpec(frames=9, height=32, width=48, fps=8.0),
    seed=7,
    queries=QuerySet((Query("Is it there?", "goal"), Query("Is it whole?", "process")), "teacher"),
    readings=(Reading(0, 1.5, (0.2, 0.3)), Reading(1, 0.25, (0.8, 0.9))),
    stop_reason="threshold",
    steps=1,
    kept_step=1,
    kept_loss=0.25,
    seconds={"fit": 12.3},
    peak_memory_gib=1.0,
    teacher_layout="video",
    versions={"torch": "2", "peft": "1"},
)
TENSORS = {
    "transformer.a.lora_A.weight": torch.arange(12.0).view(3, 4),
    "transformer.a.lora_B.weight": torch.ones(5, 3),
}


def notes(**changes):
    given = {"prompt": "Go.", "told": None, "candidate": 2, "image": True} | changes
    record = replace(RECORD, **given.pop("record", {}))
    return notes_of(CONFIG, BASE, record, **given)


def test_base_prompt_queries_losses_and_versions_are_told():
    told = {k.removeprefix("vlmteach."): v for k, v in notes(told="Go slowly.").items()}
    assert all(isinstance(text, str) for text in told.values())
    assert (told["base"], told["base_sha256"]) == ("owner/name", "d" * 64)
    assert (told["base_part"], told["base_licence"]) == ("high_noise", "cc-by-nc-sa-4.0")
    assert (told["prompt"], told["prompt_told"]) == ("Go.", "Go slowly.")
    assert json.loads(told["queries"])[1] == {"role": "process", "text": "Is it whole?"}
    assert (told["first_loss"], told["kept_loss"], told["kept_step"]) == ("1.5", "0.25", "1")
    assert (told["steps"], told["seed"], told["candidate"]) == ("1", "7", "2")
    lora = json.loads(told["lora"])
    assert (lora["rank"], lora["alpha"], lora["alpha_folded"]) == (3, 5.0, True)
    assert json.loads(told["versions"]) == RECORD.versions
    assert told["modelspec.license"] == "cc-by-nc-sa-4.0"
    assert told["modelspec.resolution"] == "48x32"
    must = {"sai_model_spec", "architecture", "title"}  # `implementation` is the file's
    assert {f"modelspec.{name}" for name in must} <= told.keys()


def test_neither_time_nor_a_place_on_the_disk_is_told():
    text = json.dumps(notes())
    assert "12.3" not in text
    assert "/home" not in text
    assert "few_steps.safetensors" in text
    assert notes(record={"seconds": {"fit": 99.0}, "peak_memory_gib": 3.0}) == notes()


def test_what_is_not_known_is_left_out():
    told = notes_of(
        Config(),
        Base(),
        replace(RECORD, kept_loss=None, kept_step=None),
        prompt="Go.",
        told=None,
        candidate=0,
        image=False,
    )
    absent = {"base_sha256", "base_part", "base_licence", "kept_loss", "prompt_told"}
    assert not {f"vlmteach.{name}" for name in absent} & told.keys()
    assert "modelspec.license" not in told
    assert "None" not in told.values()


def test_the_tensors_stay_and_the_bytes_are_the_same_in_every_process(tmp_path):
    data = noted(save(TENSORS), notes(), "diffusers")
    assert all(torch.equal(load(data)[name], each) for name, each in TENSORS.items())
    probe = (
        "import hashlib, torch\nfrom tests.unit import test_adapter_notes as t\n"
        "data = t.noted(t.save(t.TENSORS), t.notes(), 'diffusers')\n"
        "print(hashlib.sha256(data).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(data).hexdigest()
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    file = tmp_path / "a.safetensors"
    file.write_bytes(data)
    found = read_notes(file)
    assert found.items() >= notes().items()
    assert found["modelspec.hash_sha256"] == f"0x{hashlib.sha256(data[start:]).hexdigest()}"
    assert found["modelspec.implementation"] == "diffusers"


def test_no_note_makes_a_reader_scale_what_is_scaled_already():
    def told(tensors):
        data = noted(save(tensors), notes(), "comfyui")
        return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]

    found = told(TENSORS)
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("3", "3")
    assert not {"alpha", "lora_alpha", "network_alpha", "lora_adapter_metadata"} & found.keys()
    joined = told(TENSORS | {"transformer.b.lora_A.weight": torch.ones(9, 4)})
    assert not {"ss_network_dim", "ss_network_alpha"} & joined.keys()


@pytest.mark.parametrize(
    "text", ["x" * 10**6, "\ud800 half a pair", '"\\\n\0\u202e</script>', "é🎈"]
)
def test_a_stranger_s_words_are_bounded_and_leave_the_file_readable(tmp_path, text):
    queries = QuerySet((Query(text, "goal"),), "sample")
    record = {"key": text, "queries": queries, "stop_reason": text}
    told = notes(prompt=text, told=text, record=record)
    assert max(map(len, told.values())) <= 7 * LONGEST  # as JSON, where a letter may be \\uXXXX
    file = tmp_path / "a.safetensors"
    file.write_bytes(noted(save(TENSORS), told, "diffusers"))
    assert file.stat().st_size < 100_000
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["vlmteach.prompt"] == told["vlmteach.prompt"]


def test_another_base_is_told_and_what_cannot_be_compared_is_not():
    told = notes()
    assert other_base(told, BASE) is None
    assert other_base(told, replace(BASE, name="a copy", licence=None)) is None
    assert other_base(told, Base()) is None
    assert other_base({}, BASE) is None
    line = other_base(told, Base("other/one", "e" * 64, "high_noise"))
    assert line is not None
    assert "owner/name (high_noise, dddddddddddd)" in line
    assert "other/one (high_noise, eeeeeeeeeeee) is loaded" in line
    line = other_base(told, replace(BASE, part="low_noise"))
    assert line is not None
    assert "low_noise" in line


def test_the_noise_of_the_fit_is_read_or_refused():
    assert (candidate_of(notes()), candidate_of({})) == (2, 0)
    for text in ("-1", "1.5", "²", "9" * 40, ""):
        with pytest.raises(ValueError, match="expected a whole number"):
            candidate_of({"vlmteach.candidate": text})


@pytest.mark.parametrize("content", [None, b"", b"no tensors at all"])
def test_a_file_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "adapter.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an adapter as a fit leaves it"):
        read_notes(file)


def test_a_file_of_an_earlier_version_has_no_notes(tmp_path):
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(save(TENSORS))
    assert read_notes(file) == {}


@pytest.mark.parametrize(
    ("told", "queries"),
    [
        ('[{"role": "goal", "text": "Is it there?"}]', (Query("Is it there?", "goal"),)),
        ("[]", ()),
        ("no JSON", ()),
        ('[{"role": "goal"}]', ()),
        ('[{"role": "boss", "text": "Is it there?"}]', ()),
        ('[{"role": "goal", "text": 7}]', ()),
        ('[{"role": ["goal"], "text": "a"}]', ()),
        ("{}", ()),
        ("7", ()),
        ("[" * 100_000, ()),
        (json.dumps([{"role": "goal", "text": "Is it there?"}] * 5), ()),
        (json.dumps([{"role": "goal", "text": shortened("x" * 5000)}]), ()),
    ],
)
def test_the_queries_of_the_fit_are_read_whole_or_not_at_all(told, queries):
    assert queries_of({"vlmteach.queries": told}) == queries
    assert queries_of({}) == ()


def test_the_notes_of_a_fit_tell_its_queries():
    notes = notes_of(CONFIG, BASE, RECORD, prompt="go", told=None, candidate=0, image=True)
    assert queries_of(notes) == RECORD.queries.queries
