"""What a launcher says of the launch, read off its environment."""

import pytest

from vlmteach.launch import LAUNCH_VARIABLE, Launch, find_launch, global_rank, launch_id

KNOWN = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in (*KNOWN, "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", LAUNCH_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def torchrun(monkeypatch, local=4, total=8, rank=5):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "r",
        "TORCHELASTIC_RESTART_COUNT": 0,
        "MASTER_PORT": 1234,
        "LOCAL_WORLD_SIZE": local,
        "WORLD_SIZE": total,
        "RANK": rank,
    }.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("devices", "nodes", "accelerators", "expected"),
    [(None, None, 0, (1, 1)), (None, None, 8, (8, 1)), (2, None, 0, (2, 1)), (4, 2, 8, (4, 2))],
)
def test_arguments_decide_without_a_launcher(devices, nodes, accelerators, expected):
    assert find_launch(devices, nodes, accelerators) == Launch(*expected)
    assert global_rank() == 0


def test_torchrun_decides(monkeypatch):
    torchrun(monkeypatch)
    assert find_launch(None, None, 4) == Launch(4, 2)
    assert find_launch(4, 2, 4) == Launch(4, 2)
    assert global_rank() == 5
    with pytest.raises(ValueError, match="got 3 and None, expected what the launcher started, 4"):
        find_launch(3, None, 4)


def test_slurm_decides(monkeypatch):
    for name, value in {"NTASKS": 16, "JOB_NUM_NODES": 2, "JOB_NAME": "fit", "PROCID": 9}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert find_launch(None, None, 8) == Launch(8, 2)
    assert global_rank() == 9


def test_an_interactive_slurm_shell_is_no_launcher(monkeypatch):
    for name, value in {"NTASKS": 16, "JOB_NUM_NODES": 2, "JOB_NAME": "interactive"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert find_launch(None, None, 1) == Launch(1, 1)


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match="got 4, expected at most the 2 of this machine"):
        find_launch(4, None, 2)


def test_launch_id_is_shared_by_children_and_differs_between_launches(monkeypatch):
    first = launch_id()
    assert launch_id() == first  # a child inherits the variable
    monkeypatch.delenv(LAUNCH_VARIABLE)
    assert launch_id() != first
    torchrun(monkeypatch)
    assert launch_id() == "torchrun-r-1234-0"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert launch_id() == "torchrun-r-1234-1"
