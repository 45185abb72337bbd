"""Loggers of the user's choice: by name or class path, each instance apart, deciding nothing."""

import csv
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only

from vlmteach.config import WANDB_LOGGER, ClassConfig, Config
from vlmteach.loggers import Loggers, closing, wandb_config
from vlmteach.options import read_config

PACKAGE = '''
from lightning.pytorch.loggers import Logger

class Lines(Logger):
    """Writes a line a reading, and fails where it is told to."""

    name = "lines"
    version = 0

    def __init__(self, path: str, fails: str = ""):
        self.path, self.fails = path, fails
        self.line("init")

    @property
    def experiment(self):
        self.line("experiment")

    def line(self, what, *told):
        with open(self.path, "a") as file:
            print(what, *told, file=file)
        if what == self.fails:
            raise OSError(28, "disk full")

    def log_metrics(self, metrics, step=None):
        self.line("log_metrics", step, *sorted(metrics))

    def log_hyperparams(self, params, *_, **__):
        self.line("log_hyperparams", params["key"])

    def save(self):
        self.line("save")

    def finalize(self, status):
        self.save()
        self.line("finalize", status)

class NoLogger:
    pass
'''


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """A package outside of ours, and a spec of its logger."""
    (tmp_path / "their_loggers.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)

    def spec(fails=""):
        given = {"path": str(tmp_path / "lines.txt"), "fails": fails}
        return ClassConfig(class_path="their_loggers.Lines", init_args=given)

    return spec


def carry_through(loggers, keys=("one", "two")):
    """What a Trainer asks of the loggers of each instance."""
    for key in keys:
        for logger in loggers.of(key):
            logger.log_metrics(metrics={"loss": 1.0}, step=0)
            logger.save()
            logger.finalize("success")


def test_a_logger_from_outside_the_package_is_told_everything(lines, tmp_path):
    carry_through(Loggers([lines()], tmp_path / "out", {"fit": {"steps": 2}}), keys=["one"])
    told = (tmp_path / "lines.txt").read_text().splitlines()
    logged = ["log_metrics 0 loss", "save", "save", "finalize success"]
    assert told == ["init", "experiment", "log_hyperparams one", *logged]


@pytest.mark.parametrize(
    "fails", ["init", "experiment", "log_hyperparams", "log_metrics", "save", "finalize"]
)
def test_a_failing_logger_is_told_once_and_costs_the_others_nothing(lines, tmp_path, capsys, fails):
    metrics = ClassConfig(class_path="lightning.pytorch.loggers.CSVLogger")
    carry_through(Loggers([lines(fails), metrics], tmp_path / "out", {}))
    told = capsys.readouterr().err
    assert told.count("warning") == 1
    assert "their_loggers.Lines: OSError: [Errno 28] disk full" in told
    calls = (tmp_path / "lines.txt").read_text().split()
    assert "two" not in calls  # given up
    for key in ("one", "two"):
        with (tmp_path / "out" / key / "logs" / "metrics.csv").open() as file:
            assert list(csv.DictReader(file)) == [{"loss": "1.0", "step": "0"}]


def test_what_makes_no_logger_is_told_and_left_out(lines, tmp_path, capsys):
    spec = ClassConfig(class_path="their_loggers.NoLogger")
    assert Loggers([spec], tmp_path, {}).of("one") == []
    assert "makes a NoLogger, expected a subclass of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, "out/a__b/logs"),
        ({"save_dir": "DIR"}, "DIR/a__b/logs"),
        ({"name": "mine"}, "out/mine/a__b"),
    ],
)
def test_each_instance_has_its_place(tmp_path, given, place, monkeypatch):
    given = {
        name: str(tmp_path / value) if value == "DIR" else value for name, value in given.items()
    }
    spec = ClassConfig(class_path="lightning.pytorch.loggers.CSVLogger", init_args=given)
    ranked: Any = rank_zero_only
    monkeypatch.setattr(ranked, "rank", 3)  # as in the fourth process
    (logger,) = Loggers([spec], tmp_path / "out", {}).of("a/b")
    assert isinstance(logger, CSVLogger)  # its own class, for callbacks that look for it
    assert isinstance(logger, Logger)
    assert logger.log_dir == str(tmp_path / place)
    assert ranked.rank == 3


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ([], ["WandbLogger"]),
        (["--logger", "csv"], ["CSVLogger"]),
        (["--logger", "wandb", "--logger", "csv"], ["WandbLogger", "CSVLogger"]),
        (["--logger+", "tensorboard"], ["WandbLogger", "TensorBoardLogger"]),
        (
            ["--logger", "lightning.pytorch.loggers.CSVLogger", "--logger.save_dir", "x"],
            ["CSVLogger"],
        ),
        (["--logger", "[]"], []),
    ],
)
def test_one_option_names_the_loggers(words, paths):
    config = read_config(words)
    assert [spec.class_path for spec in config.logger] == [
        f"lightning.pytorch.loggers.{path}" for path in paths
    ]
    assert wandb_config(config).mode == ("auto" if "WandbLogger" in paths else "disabled")
    if "--logger.save_dir" in words:
        assert config.logger[0].init_args == {"save_dir": "x"}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (ClassConfig(class_path=WANDB_LOGGER, init_args={"project": "p"}), "set --wandb.mode"),
        (ClassConfig(class_path="lightning.pytorch.loggers.None_"), "None_"),
        (
            ClassConfig(class_path="lightning.pytorch.loggers.CSVLogger", init_args={"x": 1}),
            "got the argument 'x'",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_loaded(spec, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        Loggers([spec], tmp_path, {})


def test_wandb_is_the_default_and_passed_over_here(tmp_path):
    assert Loggers(Config().logger, tmp_path, {}).of("one") == []


def test_they_are_closed_once_with_a_fit_and_without_one(lines, tmp_path):
    loggers = Loggers([lines()], tmp_path / "out", {})
    for asked in (lambda logger: logger.finalize("success"), lambda logger: None):
        (tmp_path / "lines.txt").unlink(missing_ok=True)
        made = loggers.of("one")
        with closing(made):
            asked(made[0])
        assert (tmp_path / "lines.txt").read_text().splitlines().count("finalize success") == 1
    made = loggers.of("two")
    with pytest.raises(KeyError), closing(made):
        raise KeyError
    assert (tmp_path / "lines.txt").read_text().splitlines()[-1] == "finalize failed"
