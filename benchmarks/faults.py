"""Random kills and stops of whole launches, and what is left of the results afterwards.

    python -m benchmarks.faults --out runs/faults                      # 200 kills, 60 stops
    python -m benchmarks.faults --out runs/faults --kills 6 --stops 3

Round after round, the same few small instances are solved on random checkpoints by two processes
that `--devices 2`, torchrun or srun (simulated by the variables it sets) has started. At random
moments one process, of the launcher or of a rank, gets `kill -9`, or the launcher is asked to stop
by SIGTERM or SIGINT. The same command is given again until it ends well. Then every instance must
be there once, none given up, with the bits of an undisturbed run, and nothing must be left: no
process, no claim that holds, no scratch file.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import alive
from vlmteach.job import INPUTS
from vlmteach.ledger import DONE, Ledger, folder_name
from vlmteach.record import read_json, write_json

LAUNCHERS = ("--devices 2", "torchrun", "srun")
OPTIONS = (
    *("--config=random", "--clip.frames=5", "--clip.max_pixels=1024", "--teacher.frames=4"),
    *("--lora.rank=2", "--fit.steps=6", "--query.source=generic", "--wandb.mode=disabled"),
)
PER_ROUND = 4
"""Faults to each output folder."""
SECONDS_TO_STOP = 60.0
"""How long processes that were asked to stop, or whose launcher is gone, may take."""


@dataclass
class Tally:
    """What happened under one launcher."""

    rounds: int = 0
    launches: int = 0
    kills: int = 0
    stops: int = 0
    longest_stop: float = 0.0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Started:
    """A launch under way.

    Args:
        launcher: one of `LAUNCHERS`.
        arguments: of `vlmteach.fit`.
        log: where its output goes.
        number: of the launch, as the scheduler's job number.
    """

    def __init__(self, launcher: str, arguments: Sequence[str], log: Path, number: int) -> None:
        python, module = [sys.executable, "-m"], ["vlmteach.fit", *arguments]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        if launcher == "torchrun":
            run = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
            commands = [([*python, *run, *module], env)]
        elif launcher == "srun":
            commands = [([*python, *module], env | _srun(rank, number)) for rank in (0, 1)]
        else:
            commands = [([*python, *module, "--devices=2"], env)]
        self.log = log
        with log.open("ab") as out:
            self.leaders = [
                subprocess.Popen(command, env=own, stdout=out, stderr=out, start_new_session=True)
                for command, own in commands
            ]

    def processes(self) -> list[int]:
        """All processes of the launch that are alive, by the sessions it began."""
        for leader in self.leaders:
            leader.poll()
        return alive({leader.pid for leader in self.leaders})

    def wait(self, seconds: float) -> bool:
        """Whether the launch, with all its processes, has ended within some seconds."""
        limit = time.monotonic() + seconds
        while self.processes():
            if time.monotonic() > limit:
                return False
            time.sleep(0.1)
        return True


def _srun(rank: int, number: int) -> dict[str, str]:
    """What srun sets for one of two tasks on one machine (srun(1), output variables)."""
    values = {
        **{"JOB_ID": number, "STEP_ID": 0, "JOB_NAME": "fit", "NTASKS": 2, "NNODES": 1},
        **{"STEP_NUM_TASKS": 2, "STEP_NUM_NODES": 1, "STEP_TASKS_PER_NODE": 2},
        **{"PROCID": rank, "LOCALID": rank, "NODEID": 0},
    }
    return {f"SLURM_{name}": str(value) for name, value in values.items()}


def bits(folder: Path) -> dict[str, str]:
    """What must not differ of each file of an instance: its bytes, or what no clock is in."""
    found = {}
    for file in sorted(folder.iterdir()):
        data: Any = file.read_bytes()
        if file.name in (DONE, "fit.json"):
            timed = ("seconds", "compute", "peak_memory_gib")
            record = {k: v for k, v in read_json(file).items() if k not in timed}
            data = json.dumps(record).encode()
        found[file.name] = hashlib.sha256(data).hexdigest()
    return found


def faults_of(out: Path, reference: Path, keys: Sequence[str]) -> list[str]:
    """What is wrong with a finished run, in words."""
    wrong = []
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    if [row["key"] for row in rows] != sorted(keys):
        wrong.append(f"rows of {[row['key'] for row in rows]}")
    wrong += [f"{row['key']}: {row.get('error')}" for row in rows if row["status"] != "done"]
    for key in keys:
        here, there = bits(out / folder_name(key)), bits(reference / folder_name(key))
        if differ := {name for name in here | there if here.get(name) != there.get(name)}:
            wrong.append(f"{key}: {sorted(differ)} differ")
    ledger = Ledger(out, launch="check", max_deaths=1)
    if held := ledger.held(keys):
        wrong.append(f"claims that hold: {held}")
    ours = (".claims", ".now", INPUTS)
    scratch = [file for file in out.rglob(".*") if file.name not in ours]
    expected = {folder_name(key) for key in keys} | {"config.yaml", "results.jsonl"}
    expected |= {"table.json", "report.html"}
    strays = {file.name for file in out.iterdir()} - expected - set(ours)
    if scratch or strays:
        wrong.append(f"files left: {[*map(str, scratch), *sorted(strays)]}")
    return wrong


def round_of(
    launcher: str,
    kinds: list[str],
    tally: Tally,
    *,
    arguments: Sequence[str],
    log: Path,
    chance: random.Random,
    span: float,
) -> None:
    """Runs a command until it ends well, with faults at random moments.

    Args:
        launcher: one of `LAUNCHERS`.
        kinds: "kill" or "stop"; what strikes is taken from its end.
        tally: what is counted up.
        arguments: of `vlmteach.fit`.
        log: where the launches' output goes.
        chance: draws moments and victims.
        span: seconds within which a fault strikes after a launch, or after the last fault.
    """
    while True:
        tally.launches += 1
        launch = Started(launcher, arguments, log, tally.launches)
        while True:
            if not kinds:
                if not launch.wait(1800):
                    tally.wrong.append("hangs")
                break
            limit = time.monotonic() + chance.uniform(0, span)
            while time.monotonic() < limit and launch.processes():
                time.sleep(0.05)
            alive = launch.processes()
            if not alive:
                break
            leaders = [leader.pid for leader in launch.leaders if leader.pid in alive]
            if kinds.pop() == "kill":
                tally.kills += 1
                os.kill(chance.choice(alive), signal.SIGKILL)
                # A launcher that is gone takes its ranks with it; a rank that is gone does not.
                if launcher != "srun":
                    time.sleep(0.2)
                    if launch.leaders[0].poll() is None:
                        continue
                elif len(launch.processes()) > 0:
                    continue
            else:
                tally.stops += 1
                number = chance.choice([signal.SIGTERM, signal.SIGINT])
                for leader in leaders:
                    os.kill(leader, number)
            begun = time.monotonic()
            if not launch.wait(SECONDS_TO_STOP):
                tally.wrong.append(f"left running: {launch.processes()}")
            tally.longest_stop = max(tally.longest_stop, time.monotonic() - begun)
            break
        for process in launch.processes():
            os.kill(process, signal.SIGKILL)
        codes = [leader.wait() for leader in launch.leaders]
        if not any(codes):
            return


def write_instances(path: Path, count: int) -> list[str]:
    """A tar of text-to-video samples; returns their keys."""
    keys = [f"move/ball_{number}" for number in range(count)]
    with tarfile.open(path, "w") as tar:
        for key in keys:
            data = f"Move the ball of {key} to the right edge.".encode()
            member = tarfile.TarInfo(f"{key}.prompt.txt")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return keys


def table(tallies: dict[str, Tally]) -> str:
    """One line a launcher, in Markdown."""
    lines = [
        "| launcher | folders | launches | kill -9 | stops | longest stop | s a fault | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, tally in tallies.items():
        each = tally.seconds / max(tally.kills + tally.stops, 1)
        lines.append(
            f"| {name} | {tally.rounds} | {tally.launches} | {tally.kills} | {tally.stops} "
            f"| {tally.longest_stop:.1f} s | {each:.1f} | {len(tally.wrong)} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs all rounds and prints the table; returns 1 when anything was wrong."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("--out", type=Path, required=True, help="a new folder")
    cli.add_argument("--kills", type=int, default=200)
    cli.add_argument("--stops", type=int, default=60)
    cli.add_argument("--instances", type=int, default=6, help="in each folder")
    cli.add_argument("--seed", type=int, default=0)
    asked = cli.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup, and inherited
    asked.out.mkdir(parents=True)
    keys = write_instances(asked.out / "data.tar", asked.instances)
    options = [*OPTIONS, f"--instances={asked.out / 'data.tar'}"]
    begun, reference = time.monotonic(), asked.out / "reference"
    command = [sys.executable, "-m", "vlmteach.fit", *options, f"--out={reference}"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    span = (time.monotonic() - begun) / 2  # two processes need about that
    chance = random.Random(asked.seed)
    left = ["kill"] * asked.kills + ["stop"] * asked.stops
    chance.shuffle(left)
    tallies = {launcher: Tally() for launcher in LAUNCHERS}
    number = 0
    while left:
        launcher = LAUNCHERS[number % len(LAUNCHERS)]
        tally, out = tallies[launcher], asked.out / f"{number:03d}"
        kinds = [left.pop() for _ in range(min(PER_ROUND, len(left)))]
        before, known = time.monotonic(), len(tally.wrong)
        round_of(
            launcher,
            kinds,
            tally,
            arguments=[*options, f"--out={out}"],
            log=asked.out / f"{number:03d}.log",
            chance=chance,
            span=span,
        )
        left += kinds  # the run was faster
        tally.rounds += 1
        tally.seconds += time.monotonic() - before
        tally.wrong += faults_of(out, reference, keys)
        for wrong in tally.wrong[known:]:
            print(f"{out}: {wrong}")
        write_json(asked.out / "tallies.json", {k: asdict(v) for k, v in tallies.items()})
        print(f"{len(left)} faults left\n{table(tallies)}", flush=True)
        number += 1
    return 1 if any(tally.wrong for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
