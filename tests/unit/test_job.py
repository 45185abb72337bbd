"""A folder is for results of one config and the same inputs, compared before the first claim."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from vlmteach.config import (
    Config,
    DecoderConfig,
    FitConfig,
    ReasonerConfig,
    RunConfig,
    TeacherConfig,
    WandbConfig,
)
from vlmteach.job import Binding, Job, digest_of_files
from vlmteach.ledger import Ledger
from vlmteach.record import write_json
from vlmteach.types import Query

KEYS = ["a", "b"]
QUERIES = {"a": (Query("Does it move?", "goal"), Query("Is it red?", "process"))}


@pytest.fixture
def config(tmp_path):
    """Checkpoints that are a few bytes each."""
    for name in ("reasoner", "teacher"):
        (tmp_path / name / "part").mkdir(parents=True)
        (tmp_path / name / "part" / "model.safetensors").write_bytes(name.encode())
        (tmp_path / name / "config.json").write_text("{}")
    for name in ("decoder", "lora"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    return Config(
        reasoner=ReasonerConfig(
            checkpoint=str(tmp_path / "reasoner"),
            distillation_lora=str(tmp_path / "lora.safetensors"),
        ),
        decoder=DecoderConfig(checkpoint=str(tmp_path / "decoder.safetensors")),
        teacher=TeacherConfig(checkpoint=str(tmp_path / "teacher")),
        fit=FitConfig(steps=3),
    )


class Folder:
    """An output folder that launches bind."""

    def __init__(self, out):
        self.out = out

    def __call__(self, config, queries=None):
        binding = Binding(Job(config, (), self.out), queries or {})
        binding.bind(self.ledger(), KEYS)
        return binding

    def done(self):
        write_json(self.out / "a" / "done.json", {})

    def ledger(self):
        return Ledger(self.out, launch="a", max_deaths=3)


@pytest.fixture
def bind(tmp_path):
    return Folder(tmp_path / "out")


def begun(bind, binding, how):
    """The folder as a launch leaves it: instances done, one at work, or models still loading."""
    if how == "done":
        (bind.out / "a").mkdir(parents=True)
        bind.done()
    elif how == "at work":
        assert bind.ledger().claim("a") is not None
    if how != "loading":
        binding.release(bind.ledger())


BEGUN = ("done", "at work", "loading")


@pytest.mark.parametrize("how", BEGUN)
def test_another_config_is_refused_once_a_launch_has_begun(bind, config, how):
    begun(bind, bind(config), how)
    bind(config)
    tried = replace(config, run=RunConfig(max_deaths=9), wandb=WandbConfig(mode="disabled"))
    tried = replace(tried, reasoner=replace(config.reasoner, licence="mit"))
    bind(tried)  # no result depends on these
    with pytest.raises(ValueError, match=r"got fit.steps = 4, expected 3 as in its config.yaml"):
        bind(replace(config, fit=FitConfig(steps=4)))


def test_another_config_is_taken_where_nothing_was_begun(bind, config):
    bind(config).release(bind.ledger())
    bind(replace(config, fit=FitConfig(steps=4)))


def test_a_process_that_died_while_loading_holds_nothing(bind, config):
    binding = bind(config)
    binding.release(bind.ledger())
    words = (
        "import sys, os; from vlmteach.ledger import Ledger; "
        "Ledger(sys.argv[1], launch='x', max_deaths=3).claim('\\0binder'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", words, bind.out], check=False)
    bind(replace(config, fit=FitConfig(steps=4)))


def test_who_is_overtaken_while_loading_sees_it_before_a_claim(bind, config):
    binding = bind(config)
    binding.confirm()
    binding.release(bind.ledger())
    other = bind(replace(config, fit=FitConfig(steps=4)))
    with pytest.raises(ValueError, match=r"got fit.steps = 3, expected 4"):
        binding.confirm()
    other.confirm()


@pytest.mark.parametrize("how", BEGUN)
@pytest.mark.parametrize(
    ("changed", "option"),
    [
        ("reasoner/part/model.safetensors", "--reasoner.checkpoint"),
        ("reasoner/config.json", "--reasoner.checkpoint"),
        ("lora.safetensors", "--reasoner.distillation_lora"),
        ("decoder.safetensors", "--decoder.checkpoint"),
        ("teacher/part/model.safetensors", "--teacher.checkpoint"),
        ("teacher/chat_template.jinja", "--teacher.checkpoint"),
    ],
)
def test_a_checkpoint_changed_in_place_is_refused(bind, config, how, changed, option, tmp_path):
    begun(bind, bind(config), how)
    file = tmp_path / changed
    size, time = (file.stat().st_size, file.stat().st_mtime) if file.exists() else (1, 1)
    file.write_bytes(b"x" * size)
    os.utime(file, (time, time))
    with pytest.raises(ValueError, match=f"got {option} with another content"):
        bind(config)


@pytest.mark.parametrize("how", BEGUN)
@pytest.mark.parametrize("queries", [{}, {"a": QUERIES["a"][:1]}, QUERIES | {"b": QUERIES["a"]}])
def test_other_queries_are_refused(bind, config, how, queries):
    begun(bind, bind(config, QUERIES), how)
    bind(config, dict(reversed(QUERIES.items())))
    with pytest.raises(ValueError, match="got --queries with another content"):
        bind(config, queries)


def test_what_lies_beside_a_checkpoint_is_none_of_it(bind, config, tmp_path):
    begun(bind, bind(config), "done")
    (tmp_path / "reasoner" / "README.md").write_text("new")
    (tmp_path / "reasoner" / ".cache" / "huggingface").mkdir(parents=True)
    bind(config)


def test_a_large_file_is_read_in_places(tmp_path):
    file = tmp_path / "large.safetensors"
    with file.open("wb") as opened:
        opened.truncate(80 * 2**20)  # sparse
    before = digest_of_files(file)
    for place in (0, 2**25, 80 * 2**20 - 8):  # the header, the middle, the end
        with file.open("r+b") as opened:
            opened.seek(place)
            opened.write(b"x" * 2**21 if place == 2**25 else b"x" * 8)
        assert digest_of_files(file) != before
        before = digest_of_files(file)


UNREADABLE = {"empty": b"", "binary": bytes(range(256)), "list": b"[1]", "text": b"config"}


@pytest.mark.parametrize("kind", [*UNREADABLE, "gone"])
@pytest.mark.parametrize("file", ["config.yaml", ".inputs.json"])
def test_results_whose_config_cannot_be_read_are_not_gone_on_with(bind, config, kind, file):
    begun(bind, bind(config), "done")
    path = bind.out / file
    path.unlink()
    if kind in UNREADABLE:
        path.write_bytes(UNREADABLE[kind])
    elif file == ".inputs.json":  # of an earlier version
        bind(config)
        return
    with pytest.raises(
        ValueError, match=r"expected the file as it was; put it back, or name another folder"
    ):
        bind(config)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_config_that_cannot_be_read_is_replaced_where_there_are_no_results(bind, config, kind):
    bind(config).release(bind.ledger())
    (bind.out / "config.yaml").write_bytes(UNREADABLE[kind])
    bind(config)
    bind(config)


def test_of_two_launches_at_once_the_second_waits_for_the_firsts_config(bind, config, monkeypatch):
    ledger = bind.ledger()
    assert ledger.claim("\0binder") is not None  # and has not written yet
    first = replace(config, fit=FitConfig(steps=4))

    def sleep(_):
        write_json(bind.out / "config.yaml", Binding(Job(first, (), bind.out), {}).config)

    monkeypatch.setattr("vlmteach.job.time.sleep", sleep)
    with pytest.raises(ValueError, match=r"got fit.steps = 3, expected 4"):
        bind(config)
