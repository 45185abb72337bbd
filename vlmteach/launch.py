"""How many processes on how many machines, and which of them this one is: read off its launcher.

Three launchers are known: torchrun, srun, and the first rank of a machine, which starts the others
where nobody else did. Nothing else in the environment is believed: variables such as RANK and
LOCAL_RANK stay behind in shells, job scripts and containers.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from vlmteach.garbage import few_collections
from vlmteach.stops import Stopped, follow, stoppable
from vlmteach.streams import escape_what_cannot_be_shown

LAUNCH_VARIABLE = "VLMTEACH_LAUNCH"
RANK_VARIABLE = "VLMTEACH_RANK"
"""`<rank on this machine>:<process number of the first>`, in the ranks that the first starts."""
MOST = 1024
"""Processes on one machine."""
SHELLS = ("bash", "interactive")
"""Names of SLURM jobs that are a shell, by Lightning's convention."""
STRANGERS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE")
"""Where launchers that are not known (mpirun, jsrun, one's own) say how many they started."""


@dataclass(frozen=True, slots=True)
class Launch:
    """`processes` on each of `nodes` machines, and which one this is."""

    processes: int
    nodes: int
    rank: int = 0
    """Of all processes; the first one opens the output folder and collects the rows."""
    local_rank: int = 0
    device: int = 0
    """Number of the accelerator, among those that this process sees."""
    by: Literal["nobody", "first rank", "torchrun", "srun"] = "nobody"
    """Who started this process; with nobody, it starts the others of its machine itself."""


def find_launch(
    devices: int | None, nodes: int | None, accelerators: int, at_once: int = 1
) -> Launch:
    """The launch that this process is part of.

    Args:
        devices: per machine as asked for; None means every accelerator, or one CPU process.
        nodes: machines as asked for; None means one.
        accelerators: how many this process sees; 0 for CPU.
        at_once: processes that share each device; a launcher that is known says itself how many
            processes there are, and this how many of them an accelerator may have.

    Raises:
        ValueError: when the arguments contradict the launcher or ask for more devices than there
            are, or when the environment is of a launcher that is not known or not complete.
    """
    for name, asked in (("--devices", devices), ("--num_nodes", nodes)):
        if asked is not None and asked < 1:
            raise ValueError(f"{name}: got {asked}, expected at least 1; leave it out for all")
    if devices is not None and devices * at_once > MOST:
        raise ValueError(
            f"--devices: got {devices} with {at_once} processes on each, expected at most {MOST} "
            "processes on a machine; ask for fewer"
        )
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        found = _of_torchrun()
    elif _is_srun():
        found = _of_srun(accelerators)
    else:
        return _of_ours(devices, nodes, accelerators, at_once)
    asked = (found.processes if devices is None else devices * at_once, nodes or found.nodes)
    if asked != (found.processes, found.nodes):
        raise ValueError(
            f"--devices, --num_nodes: got {devices} and {nodes}, expected what {found.by} "
            f"started, {found.processes} per machine on {found.nodes}; leave them out under it"
        )
    if accelerators and found.device >= accelerators * at_once:
        each = f" with {at_once} on each" if at_once > 1 else ""
        raise ValueError(
            f"{found.by}: got {found.processes} processes on this machine, expected at most its "
            f"{accelerators} accelerators{each}; start fewer, give more of them to an accelerator "
            "with --run.instances_at_once, or give --accelerator cpu"
        )
    return replace(found, device=found.device % accelerators) if accelerators else found


def _of_torchrun() -> Launch:
    expected = "expected a number as torchrun sets it; start with torchrun, or unset all of its"
    rank, local_rank, total, local = (
        _number(name, expected + " variables (TORCHELASTIC_*)")
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    )
    return Launch(local, total // max(local, 1), rank, local_rank, local_rank, "torchrun")


def _is_srun() -> bool:
    """Whether srun started this process as one of several.

    A job's variables alone do not say so: a job script and a shell of salloc have them too, and
    are one process that may start others itself.
    """
    env = os.environ
    step_tasks = env.get("SLURM_STEP_NUM_TASKS")
    if step_tasks is None and env.get("SLURM_JOB_NAME") in SHELLS:
        return False
    in_step = "SLURM_STEP_ID" in env or env.get("SLURM_PROCID", "0") != "0"
    return in_step and (step_tasks or env.get("SLURM_NTASKS", "1")) != "1"


def _of_srun(accelerators: int) -> Launch:
    env = os.environ

    def first(*names: str) -> int:
        name = next((name for name in names if name in env), names[0])
        return _number(
            name,
            "expected a number as srun sets it; pass SLURM's variables on to this process, into "
            "its container too",
        )

    tasks = first("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    nodes = first("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    rank = first("SLURM_PROCID")
    # On one machine the two numbers are the same; on several, tasks may lie on them in any order.
    local_rank = first("SLURM_LOCALID", *(["SLURM_PROCID"] if nodes == 1 else []))
    # Each task may see only its own accelerator (--gpus-per-task=1).
    device = 0 if accelerators == 1 else local_rank
    return Launch(-(-tasks // max(nodes, 1)), nodes, rank, local_rank, device, "srun")


def _of_ours(devices: int | None, nodes: int | None, accelerators: int, at_once: int) -> Launch:
    env = os.environ
    for name in STRANGERS:
        if env.get(name, "1") != "1":
            raise ValueError(
                f"{name}: got {env[name]!r} without torchrun and srun, expected one of them to "
                "have started several processes; start with it, or unset the variable"
            )
    devices = max(accelerators, 1) if devices is None else devices
    nodes = 1 if nodes is None else nodes
    if accelerators and devices > accelerators:
        raise ValueError(
            f"--devices: got {devices}, expected at most the {accelerators} of this "
            "machine; ask for fewer, for several processes on each with "
            "--run.instances_at_once, or for --accelerator cpu"
        )
    node = 0
    if nodes > 1:
        number = f"this machine's number, 0 to {nodes - 1}"
        node = _number("NODE_RANK", f"expected {number}; set it on each, or use torchrun")
    local_rank = int(env.get(RANK_VARIABLE, "0").partition(":")[0])
    by = "first rank" if RANK_VARIABLE in env else "nobody"
    processes = devices * at_once
    rank = node * processes + local_rank
    return Launch(processes, nodes, rank, local_rank, local_rank % devices, by)


def _number(name: str, expected: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise ValueError(f"{name}: got {text or 'none'}, {expected}")
    return int(text)


@contextmanager
def commanded() -> Iterator[None]:
    """A command's span: it can be asked to stop, and stops when the process that started it as a
    rank on this machine has gone."""
    env = os.environ
    escape_what_cannot_be_shown()
    with few_collections(), stoppable():
        if RANK_VARIABLE in env:
            follow(int(env[RANK_VARIABLE].partition(":")[2]))
        elif "TORCHELASTIC_RUN_ID" in env:
            follow(os.getppid())
        try:
            yield
        except Stopped as stop:
            print(f"{stop}; the same command does what is missing", file=sys.stderr)
            raise


def launch_id() -> str:
    """One name for all processes of this launch, another for the next.

    The first rank of a machine sets it in the environment that those it starts inherit; under
    torchrun and SLURM it comes from theirs.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        parts = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
        return "torchrun-" + "-".join(env.get(part, "") for part in parts)
    if "SLURM_JOB_ID" in env and "SLURM_STEP_ID" in env:
        parts = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "slurm-" + "-".join(env.get(part, "") for part in parts)
    return env.setdefault(LAUNCH_VARIABLE, uuid.uuid4().hex)
