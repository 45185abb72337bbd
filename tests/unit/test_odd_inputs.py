"""Odd inputs that a stranger tried: each with the line it gets, or what becomes of it."""

import os
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.sweep import options
from benchmarks.sweep_file import read_sweep
from vlmteach import cli, entrance
from vlmteach.classes import check_classes
from vlmteach.config import ClassConfig, Config, FitConfig, RewardConfig
from vlmteach.fit import told_of
from vlmteach.instances.loose import instance_of, loose_of
from vlmteach.instances.write import NewSample, write_tar
from vlmteach.job import Job
from vlmteach.launch import find_launch
from vlmteach.ledger import folder_name
from vlmteach.options import read_config
from vlmteach.reward import Objective, Prepared, Term
from vlmteach.rows import write_table


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("run: {seed: }", "run.seed: got nothing, expected a value"),
        ("fit: {steps: null}", "fit.steps: got nothing"),
        ("method:", "method: got nothing"),
        ("fit: {steps: 1}\nclip: {frames: 9}\nfit: {steps: 2}", "'fit' twice"),
        ("fit: {steps: 1, steps: 2}", "'steps' twice"),
        ("# nothing", "got NoneType, expected a mapping"),
    ],
)
def test_a_preset_that_says_nothing_or_too_much(tmp_path, text, told):
    path = tmp_path / "mine.yaml"
    path.write_text(text if told.startswith("got None") else f"base: random\n{text}\n")
    with pytest.raises(ValueError, match=told):
        read_config(["--config", str(path)])


def test_a_preset_may_leave_open_what_may_be_open(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: random\nclip: {max_pixels: 1024}\nscheduler:\n")
    assert read_config(["--config", str(tmp_path / "mine.yaml")]).scheduler is None


def test_a_misspelt_option_is_told_by_its_name():
    with pytest.raises(
        ValueError, match=r"^--fit\.stps: got 'fit\.stps', expected perhaps 'fit\.steps'"
    ):
        read_config(["--fit.stps", "1"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("settings: {..: {}}", "each with a letter or digit"),
        ("settings: {a: {}}\nseeds: 3", "seeds: got 3, expected a list"),
        ("settings: {a: {}}\nseeds: []", "seeds: got"),
        ("settings: {a: {}}\nseeds: [0, 0]", "each once"),
        ("settings: {a: {run.seed: 7}}", "got 'run.seed', expected an option of one run's"),
        ("settings: {a: {out: there}}", "got 'out', expected an option"),
        ("settings: {}", "settings: got none"),
        ("settings: {a: {}, a: {}}", "'a' twice"),
        ("settings: [", "expected YAML"),
    ],
)
def test_a_sweep_that_cannot_be_meant(tmp_path, text, told):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"config: random\ninstances: [a.tar]\n{text}\n")
    with pytest.raises(ValueError, match=told):
        read_sweep(path)


@pytest.mark.parametrize("instances", ["5", "[5]", "null"])
def test_a_sweep_of_no_instances(tmp_path, instances):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"config: random\ninstances: {instances}\nsettings: {{a: {{}}}}\n")
    with pytest.raises(ValueError, match="instances: got"):
        read_sweep(path)


def test_a_sweep_says_texts_as_they_are_written(tmp_path):
    path = tmp_path / "sweep.yaml"
    texts = ["/Modèles/x", 'say "hi"', "C:\\x"]
    lines = [f"  s{n}: {{teacher.checkpoint: '{text}'}}" for n, text in enumerate(texts)]
    path.write_text("config: random\ninstances: [a.tar]\nsettings:\n" + "\n".join(lines), "utf-8")
    sweep = read_sweep(path)
    for number, text in enumerate(texts):
        assert f"--teacher.checkpoint={text}" in options(sweep, f"s{number}", 0, tmp_path)


def test_a_picture_is_the_same_by_its_path_and_by_pil(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6  # turned
    pixels = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
    pictures = {
        "turned.jpg": (Image.fromarray(pixels), {"exif": exif}),
        "print.jpg": (Image.fromarray(pixels).convert("CMYK"), {}),
        "plain.png": (Image.fromarray(pixels), {}),
    }
    for name, (picture, more) in pictures.items():
        picture.save(tmp_path / name, **more)
        by_path = instance_of("Go.", tmp_path / name, key="k").first_frame
        by_pil = instance_of("Go.", Image.open(tmp_path / name), key="k").first_frame
        assert by_path is not None
        assert by_pil is not None
        assert by_pil.size == by_path.size == ((32, 48) if "turned" in name else (48, 32))
        assert by_pil.convert("RGB").tobytes() == by_path.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": np.zeros((4, 4, 3))}, "image: got ndarray, expected a path or a PIL image"),
        ({"image": Image.new("F", (4, 4))}, "image: got"),
        ({"prompt": None}, "prompt: got NoneType, expected a text"),
        ({"key": 5}, "key: got int, expected a text"),
    ],
)
def test_arguments_of_another_kind(given, told):
    with pytest.raises(ValueError, match=told):
        instance_of(**{"prompt": "Go.", "key": "k", **given})
    assert instance_of("Go.", key="k", seed=np.int64(3)).seed == 3  # pyright: ignore


def test_devices_that_are_not_there():
    for name in ("gpu!", "cuda:77"):
        with pytest.raises(ValueError, match="device: got"):
            entrance.load("random", device=name)
    with pytest.raises(ValueError, match="expected at most 1024 processes"):
        find_launch(100_000, None, 0)
    with pytest.raises(ValueError, match=r"fit\.steps: got"):
        FitConfig(steps=10**21)


def test_a_run_from_python_is_one_process(tmp_path):
    with pytest.raises(ValueError, match="one process; use `vlmteach fit`"):
        entrance.run("builtin:demo.tar", "random", tmp_path, {"run.instances_at_once": 2})


@pytest.mark.parametrize("words", [[""], ["a.png", " "]])
def test_an_empty_word_is_no_folder(words):
    with pytest.raises(ValueError, match="got an empty word"):
        loose_of(words, key=None, lines=[])


def test_a_mark_before_the_first_line_is_none_of_the_prompt():
    (marked,), _ = loose_of(["-"], key=None, lines=["\ufeffMove it.\n"])
    (plain,), _ = loose_of(["-"], key=None, lines=["Move it.\n"])
    assert marked == plain


def test_keys_that_are_names_of_a_runs_own_files():
    for name in ("applied.json", "runs.jsonl", "sweep.yaml", "compare.html"):
        assert folder_name(name) != name


@pytest.mark.parametrize(
    "config",
    [
        Config(callbacks=(ClassConfig(class_path="collections.OrderedDict"),)),
        Config(optimizer=ClassConfig(class_path="types.SimpleNamespace")),
        Config(scheduler=ClassConfig(class_path="collections.UserList")),
        Config(reward=(RewardConfig(class_path="os.getcwd"),)),
        Config(reward=(RewardConfig(class_path="collections.OrderedDict"),)),
    ],
)
def test_classes_of_another_kind_are_refused_before_one_is_made(config):
    with pytest.raises(ValueError, match=r"got .*, expected|got a class that does not take"):
        check_classes(config)


def test_rewards_with_faults_are_told_by_name():
    class Odd:
        def __init__(self, prepared, scores):
            self.prepared, self.given = prepared, scores

        def prepare(self, watched):
            return self.prepared

        def scores(self, frames, prepared):
            return self.given

    for prepared in (None, Prepared(roles=())):
        with pytest.raises(ValueError, match=r"reward Odd: got .* from its `prepare`"):
            Objective([Term("Odd", Odd(prepared, None), 1.0)], SimpleNamespace(), 0.5)  # pyright: ignore
    odd = Odd(Prepared(roles=("goal",)), -1.0)
    objective = Objective([Term("Odd", odd, 1.0)], SimpleNamespace(), 0.5)  # pyright: ignore
    with pytest.raises(ValueError, match=r"reward Odd: got float -1\.0, expected"):
        objective(torch.zeros(1, 3, 4, 4))


def test_one_broken_score_costs_neither_table_nor_page(tmp_path, capsys):
    from tests.report_runs import add_instance, begin

    run = begin(tmp_path / "run")
    for key in ("a", "b"):
        add_instance(run, key)
    (run / "b" / "score.json").write_text("garbage")
    told_of(Job(Config(), (), run))
    assert {p.name for p in run.iterdir()} >= {"table.json", "report.html"}
    assert "score.json: got" in capsys.readouterr().err
    write_table(run)


def test_a_key_that_the_terminal_cannot_show_ends_no_command(tmp_path):
    (tmp_path / "ключ.prompt.txt").write_text("Move it.")
    environment = {**os.environ, "PYTHONIOENCODING": "latin1"}
    command = [sys.executable, "-m", "vlmteach", "list", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0
    assert rb"\u043a\u043b\u044e\u0447" in done.stdout


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch, capsys):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    assert cli.main(["list", str(tmp_path / "nothing.tar")]) == 2
    assert "nothing.tar" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--instances", "builtin:demo.tar"],
        ["solve", "Move it."],
        ["apply", "Move it.", "--adapter", "there"],
        ["convert", "model.pt", "--base", "there"],
    ],
)
def test_an_empty_word_is_no_working_directory(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    with suppress(SystemExit):
        assert cli.main([*words, "--out", ""]) == 2
    assert "got an empty word, expected a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["a\nb", "a\u2028b", "a\u202eb", "a\udce9b"])
def test_nothing_is_packed_that_would_not_be_read(tmp_path, key):
    packed = write_tar([NewSample(key, "here", {"prompt.txt": b"Go."})], tmp_path / "a.tar")
    assert not packed.keys
    assert "a key in UTF-8, on one line" in str(packed.refused[0])
