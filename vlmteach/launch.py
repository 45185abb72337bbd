"""How many processes on how many machines, read off the launcher that started this one."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

LAUNCH_VARIABLE = "VLMTEACH_LAUNCH"


@dataclass(frozen=True, slots=True)
class Launch:
    """The shape of a launch: `devices` processes on each of `nodes` machines."""

    devices: int
    nodes: int


def find_launch(devices: int | None, nodes: int | None, accelerators: int) -> Launch:
    """The shape of this launch.

    torchrun and SLURM say it in the environment, and Lightning insists that its own arguments
    agree; otherwise the arguments decide.

    Args:
        devices: processes per machine as asked for; None means every accelerator, or one CPU
            process.
        nodes: machines as asked for; None means one.
        accelerators: how many this machine has; 0 for CPU.

    Raises:
        ValueError: when the arguments contradict the launcher, or ask for more devices than
            there are.
    """
    env = os.environ
    found = None
    if "TORCHELASTIC_RUN_ID" in env:
        local = int(env["LOCAL_WORLD_SIZE"])
        found = Launch(local, int(env["WORLD_SIZE"]) // local)
    elif "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        machines = int(env.get("SLURM_JOB_NUM_NODES", "1"))
        found = Launch(int(env["SLURM_NTASKS"]) // machines, machines)
    if found is None:
        found = Launch(devices or max(accelerators, 1), nodes or 1)
    elif (devices or found.devices, nodes or found.nodes) != (found.devices, found.nodes):
        raise ValueError(
            f"--devices, --num_nodes: got {devices} and {nodes}, expected what the launcher "
            f"started, {found.devices} per machine on {found.nodes}; leave them out under it"
        )
    if accelerators and found.devices > accelerators:
        raise ValueError(
            f"--devices: got {found.devices}, expected at most the {accelerators} of this "
            "machine; ask for fewer, or for --accelerator cpu"
        )
    return found


def launch_id() -> str:
    """One name for all processes of this launch, another for the next.

    The process that Lightning's launcher starts others from sets it in the environment they
    inherit; under torchrun and SLURM it comes from theirs.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        parts = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
        return "torchrun-" + "-".join(env.get(part, "") for part in parts)
    if "SLURM_JOB_ID" in env and "SLURM_STEP_ID" in env:
        parts = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "slurm-" + "-".join(env.get(part, "") for part in parts)
    return env.setdefault(LAUNCH_VARIABLE, uuid.uuid4().hex)


def global_rank() -> int:
    """This process's number in its launch, as its launcher says it; 0 when nobody launched it."""
    env = os.environ
    for variable in ("RANK", "SLURM_PROCID"):
        if variable in env:
            return int(env[variable])
    return int(env.get("LOCAL_RANK", "0")) + int(env.get("NODE_RANK", "0"))
