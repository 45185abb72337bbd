"""Trainers that take nothing from the job and the folder they run in."""

import os
import signal

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from vlmteach.launch import Launch
from vlmteach.strategies import InPlaceStrategy, InstanceParallelStrategy, secluded_trainer

SLURM = {"NTASKS": 4, "JOB_ID": 7, "JOB_NAME": "fit", "PROCID": 2, "LOCALID": 2, "NODEID": 0}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Probe(pl.LightningModule):
    """Notes what its Trainer is like, and does what it is told in a step."""

    def __init__(self, act=lambda: None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.act = act
        self.handlers = None

    def step(self):
        self.handlers = [signal.getsignal(number) for number in SIGNALS]
        self.act()

    def training_step(self, batch, batch_idx):
        self.step()
        return self.weight

    def predict_step(self, batch, batch_idx):
        self.step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(trainer, probe):
    trainer.fit(probe, range(1))


def predict(trainer, probe):
    trainer.predict(probe, list(range(1)), return_predictions=False)


def in_place():
    return InPlaceStrategy(torch.device("cpu"))


def parallel():
    return InstanceParallelStrategy(Launch(4, 1, 2, 2, 2, "srun"), torch.device("cpu"))


BOTH = pytest.mark.parametrize(("strategy", "run"), [(in_place, fit), (parallel, predict)])


@BOTH
def test_a_job_s_signals_and_a_checkpoint_that_lies_about_are_not_taken_up(
    tmp_path, monkeypatch, strategy, run
):
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another job")
    before, environment = [signal.getsignal(number) for number in SIGNALS], dict(os.environ)
    probe = Probe()
    options = {"max_epochs": 1, "logger": False}
    with secluded_trainer(strategy(), tmp_path / "trainer", **options) as trainer:
        run(trainer, probe)
    assert probe.handlers == before
    assert type(trainer._accelerator_connector.cluster_environment) is LightningEnvironment
    assert [path.name for path in tmp_path.iterdir()] == ["hpc_ckpt_1.ckpt"]
    assert dict(os.environ) == environment


@BOTH
def test_an_interrupt_stays_one_and_so_does_the_next(tmp_path, strategy, run):
    before = signal.getsignal(signal.SIGINT)

    def interrupt():
        raise KeyboardInterrupt

    options = {"max_epochs": 1, "logger": False}
    with (
        pytest.raises(KeyboardInterrupt),
        secluded_trainer(strategy(), tmp_path / "trainer", **options) as trainer,
    ):
        run(trainer, Probe(interrupt))
    assert signal.getsignal(signal.SIGINT) == before


def test_a_rank_has_its_number_and_starts_nobody_where_a_launcher_has():
    strategy = parallel()
    assert (strategy.global_rank, strategy.local_rank, strategy.world_size) == (2, 2, 4)
    assert not strategy.is_global_zero
    strategy._configure_launcher()
    assert strategy.launcher is None
    first = InstanceParallelStrategy(Launch(2, 1), torch.device("cpu"))
    first._configure_launcher()
    assert first.launcher is not None
