"""What a launcher says of the launch, read off its environment."""

import os

import pytest

from vlmteach.launch import LAUNCH_VARIABLE, RANK_VARIABLE, Launch, find_launch, launch_id

LEFT_BEHIND = ("RANK", "WORLD_SIZE", "NODE_RANK", "LAUNCH", "PMI_", "OMPI_", "JSM_", "VLMTEACH_")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC", "LOCAL_", *LEFT_BEHIND)):
            monkeypatch.delenv(name)


def torchrun(monkeypatch, local=4, total=8, rank=5):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "r",
        "TORCHELASTIC_RESTART_COUNT": 0,
        "MASTER_PORT": 1234,
        "LOCAL_WORLD_SIZE": local,
        "WORLD_SIZE": total,
        "RANK": rank,
        "LOCAL_RANK": rank % local,
    }.items():
        monkeypatch.setenv(name, str(value))


# As srun sets them (srun(1), output variables) for one task, and as a batch script sees its job.
STEP = {"JOB_ID": 7, "STEP_ID": 0, "JOB_NAME": "fit", "NODEID": 0}
ON_ONE = {**STEP, "NTASKS": 4, "NNODES": 1, "STEP_NUM_TASKS": 4, "STEP_NUM_NODES": 1}
ON_TWO = {**STEP, "NTASKS": 16, "NNODES": 2, "STEP_NUM_TASKS": 16, "STEP_NUM_NODES": 2}
SCRIPT = {"JOB_ID": 7, "JOB_NAME": "fit", "NTASKS": 4, "NNODES": 1, "PROCID": 0, "LOCALID": 0}


def slurm(monkeypatch, values):
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


@pytest.mark.parametrize(
    ("devices", "nodes", "accelerators", "expected"),
    [(None, None, 0, (1, 1)), (None, None, 8, (8, 1)), (2, None, 0, (2, 1)), (2, 1, 8, (2, 1))],
)
def test_arguments_decide_without_a_launcher(devices, nodes, accelerators, expected):
    assert find_launch(devices, nodes, accelerators) == Launch(*expected)


@pytest.mark.parametrize(
    ("devices", "accelerators", "processes", "places"),
    [
        (None, 0, 3, [0, 0, 0]),
        (2, 0, 6, [0, 1, 0, 1, 0, 1]),
        (None, 1, 3, [0, 0, 0]),
        (None, 4, 12, [0, 1, 2, 3] * 3),
        (2, 4, 6, [0, 1, 0, 1, 0, 1]),
    ],
)
def test_several_at_once_share_each_device(monkeypatch, devices, accelerators, processes, places):
    found = []
    for rank in range(processes):
        if rank:
            monkeypatch.setenv(RANK_VARIABLE, f"{rank}:99")
        found.append(find_launch(devices, None, accelerators, at_once=3))
    assert [each.rank for each in found] == [each.local_rank for each in found]
    assert [each.local_rank for each in found] == list(range(processes))
    assert {each.processes for each in found} == {processes}
    assert [each.device for each in found] == places


def test_several_at_once_on_machines_by_hand(monkeypatch):
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv(RANK_VARIABLE, "3:99")
    assert find_launch(2, 2, 2, at_once=2) == Launch(4, 2, 7, 3, 1, "first rank")


def test_torchrun_may_start_as_many_as_share_the_devices(monkeypatch):
    torchrun(monkeypatch, local=4, total=4, rank=3)
    with pytest.raises(ValueError, match=r"its 2 accelerators; .* --run\.instances_at_once"):
        find_launch(None, None, 2)
    assert find_launch(None, None, 2, at_once=2) == Launch(4, 1, 3, 3, 1, "torchrun")
    assert find_launch(2, None, 2, at_once=2).device == 1
    with pytest.raises(ValueError, match="--devices, --num_nodes: got 1 and None, expected what"):
        find_launch(1, None, 2, at_once=2)
    with pytest.raises(ValueError, match="at most its 1 accelerators with 2 on each"):
        find_launch(None, None, 1, at_once=2)


@pytest.mark.parametrize(
    "stray",
    [
        {"RANK": "3"},
        {"RANK": "3", "LOCAL_RANK": "3"},
        {"LOCAL_RANK": "1"},
        {"NODE_RANK": "1"},
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "PMI_SIZE": "1"},
    ],
)
def test_what_stays_behind_in_a_shell_is_not_believed(monkeypatch, stray):
    for name, value in stray.items():
        monkeypatch.setenv(name, value)
    assert find_launch(2, None, 4) == Launch(2, 1)


@pytest.mark.parametrize(
    "name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE"]
)
def test_a_launcher_that_is_not_known_is_refused_by_name(monkeypatch, name):
    monkeypatch.setenv(name, "8")
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(ValueError, match=f"{name}: got '8' without torchrun and srun, expected"):
        find_launch(None, None, 0)


@pytest.mark.parametrize("values", [{"devices": 0}, {"devices": -2}, {"nodes": 0}])
def test_no_process_is_no_launch(values):
    with pytest.raises(ValueError, match=r"got -?\d, expected at least 1"):
        find_launch(values.get("devices"), values.get("nodes"), 0)


def test_machines_by_hand_say_their_number(monkeypatch):
    with pytest.raises(ValueError, match="NODE_RANK: got none, expected this machine's number, 0"):
        find_launch(4, 2, 8)
    monkeypatch.setenv("NODE_RANK", "1")
    assert find_launch(4, 2, 8) == Launch(4, 2, rank=4)
    monkeypatch.setenv(RANK_VARIABLE, "3:99")
    assert find_launch(4, 2, 8) == Launch(4, 2, 7, 3, 3, "first rank")


def test_torchrun_decides(monkeypatch):
    torchrun(monkeypatch)
    ours = Launch(4, 2, 5, 1, 1, "torchrun")
    assert find_launch(None, None, 4) == find_launch(4, 2, 4) == ours
    with pytest.raises(ValueError, match="got 3 and None, expected what torchrun started, 4"):
        find_launch(3, None, 4)


def test_torchrun_inside_a_slurm_job_decides(monkeypatch):
    torchrun(monkeypatch)
    slurm(monkeypatch, {**ON_ONE, "STEP_NUM_TASKS": 1, "PROCID": 0, "LOCALID": 0})
    assert find_launch(None, None, 4) == Launch(4, 2, 5, 1, 1, "torchrun")
    slurm(monkeypatch, {**ON_ONE, "PROCID": 2, "LOCALID": 2})
    assert find_launch(None, None, 4).rank == 5


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_half_of_torchrun_is_refused_by_name(monkeypatch, missing):
    torchrun(monkeypatch)
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=f"^{missing}: got none, expected a number as torchrun"):
        find_launch(None, None, 4)


@pytest.mark.parametrize(
    ("values", "accelerators", "expected"),
    [
        pytest.param(
            {**ON_TWO, "PROCID": 9, "LOCALID": 1, "NTASKS_PER_NODE": 8},
            8,
            Launch(8, 2, 9, 1, 1, "srun"),
            id="--ntasks-per-node",
        ),
        pytest.param(
            {**ON_ONE, "PROCID": 2, "LOCALID": 2},
            4,
            Launch(4, 1, 2, 2, 2, "srun"),
            id="--ntasks without per-node",
        ),
        pytest.param(
            {
                **ON_TWO,
                "STEP_NUM_TASKS": 5,
                "STEP_TASKS_PER_NODE": "3,2",
                "PROCID": 4,
                "LOCALID": 1,
            },
            3,
            Launch(3, 2, 4, 1, 1, "srun"),
            id="uneven",
        ),
        pytest.param(
            {**ON_ONE, "PROCID": 3, "LOCALID": 3, "GPUS_PER_TASK": 1},
            1,
            Launch(4, 1, 3, 3, 0, "srun"),
            id="--gpus-per-task=1",
        ),
        pytest.param(
            {**ON_ONE, "PROCID": 3},
            4,
            Launch(4, 1, 3, 3, 3, "srun"),
            id="no LOCALID on one machine",
        ),
        pytest.param(
            {**ON_ONE, "JOB_NAME": "interactive", "PROCID": 1, "LOCALID": 1},
            0,
            Launch(4, 1, 1, 1, 1, "srun"),
            id="srun in a shell of salloc",
        ),
        pytest.param(
            {**STEP, "NTASKS": 2, "JOB_NUM_NODES": 1, "PROCID": 1, "LOCALID": 1},
            0,
            Launch(2, 1, 1, 1, 1, "srun"),
            id="without the step's own numbers",
        ),
        pytest.param(SCRIPT, 4, Launch(4, 1), id="a job script without srun"),
        pytest.param({**SCRIPT, "NTASKS": 1}, 4, Launch(4, 1), id="sbatch with one task"),
        pytest.param(
            {**ON_ONE, "STEP_NUM_TASKS": 1, "PROCID": 0}, 4, Launch(4, 1), id="srun of one task"
        ),
        pytest.param(
            {**SCRIPT, "JOB_NAME": "interactive", "STEP_ID": 0}, 1, Launch(1, 1), id="a shell"
        ),
        pytest.param({"NTASKS": 16, "JOB_NAME": "fit"}, 1, Launch(1, 1), id="salloc, login node"),
    ],
)
def test_slurm_decides_where_srun_started_several(monkeypatch, values, accelerators, expected):
    slurm(monkeypatch, values)
    monkeypatch.setenv("RANK", "3")  # a stray one is not believed here either
    assert find_launch(None, None, accelerators) == expected


@pytest.mark.parametrize(
    ("values", "accelerators", "told"),
    [
        ({**ON_TWO, "PROCID": 9}, 8, "SLURM_LOCALID: got none, expected a number as srun sets it"),
        (ON_ONE, 4, "SLURM_PROCID: got none, expected a number as srun sets it"),
        ({**ON_ONE, "PROCID": 1, "STEP_NUM_TASKS": "four"}, 4, "SLURM_STEP_NUM_TASKS: got four"),
        ({**ON_ONE, "PROCID": 3, "LOCALID": 3}, 2, "srun: got 4 processes on this machine, exp"),
    ],
)
def test_a_step_that_cannot_be_right_is_refused_by_name(monkeypatch, values, accelerators, told):
    slurm(monkeypatch, values)
    with pytest.raises(ValueError, match=told):
        find_launch(None, None, accelerators)


def test_more_devices_than_there_are_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="got 4, expected at most the 2 of this machine"):
        find_launch(4, None, 2)
    torchrun(monkeypatch, local=4, total=4, rank=2)
    with pytest.raises(ValueError, match="torchrun: got 4 processes on this machine"):
        find_launch(None, None, 1)


def test_launch_id_is_shared_by_children_and_differs_between_launches(monkeypatch):
    first = launch_id()
    assert launch_id() == first  # a child inherits the variable
    monkeypatch.delenv(LAUNCH_VARIABLE)
    assert launch_id() != first
    torchrun(monkeypatch)
    assert launch_id() == "torchrun-r-1234-0"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert launch_id() == "torchrun-r-1234-1"
