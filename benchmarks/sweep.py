"""Methods x settings x seeds over the same instances, spread over all ranks.

    python -m benchmarks.sweep sweep.yaml --out runs/sweep
    python -m benchmarks.sweep sweep.yaml --out runs/sweep --only base "no goal query"
    torchrun --nproc-per-node 8 --nnodes 8 -m benchmarks.sweep sweep.yaml --out runs/sweep

A sweep file:

    config: wan22-turbo          # a preset or a YAML file, for every setting
    instances: [data.tar]
    seeds: [0]
    devices: 1                   # processes per machine (default: every GPU, or one CPU process)
    settings:                    # name: what differs from the config
      base: {method: base}
      micro-fit: {}
      no goal query: {query.ask: process}

Every run lies in `<out>/<setting>/seed<k>`, as `vlmteach.fit` would leave it, and is resumable, so
the sweep is: the same command does what is missing. Each rank walks through all runs and claims
instances, and goes on to the next run when it finds nothing left: settings whose models are equal
come after each other and share them in memory, and no rank waits for the last instance of a run
before the end of the sweep.

`<out>/runs.jsonl` is the sweep's index, one object per run: `setting`, `seed`, `folder` (below the
output folder), `changes` (of the setting), `digest` (of the resolved config), `state` (`missing`,
`partial` or `complete`), `instances`, `done`, `failed`, and `error` where a run's models could not
be loaded or an instance failed (the first that did). Runs of settings that left the sweep file
stay in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.sweep_file import Sweep, folder_of, read_sweep
from vlmteach import exits, fit
from vlmteach.launch import commanded
from vlmteach.ledger import DONE, ERROR, folder_name
from vlmteach.options import parse
from vlmteach.record import write_text
from vlmteach.report.index import INDEX, read_index
from vlmteach.rows import read_row
from vlmteach.stops import Stopped, stoppable
from vlmteach.text import printable

if TYPE_CHECKING:
    from vlmteach.runner import Run


def options(sweep: Sweep, setting: str, seed: int, folder: Path) -> list[str]:
    """The options of `vlmteach.fit` that make one run."""
    changes = {"run.seed": seed, "run.base_video": "none", "wandb.group": folder_of(setting)}
    changes |= sweep.settings[setting]
    words = ["--config", sweep.config, "--out", str(folder)]
    if sweep.devices is not None:
        words += ["--devices", str(sweep.devices)]
    words += [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in changes.items()
    ]
    return [*words, "--instances", *sweep.instances]


def incomplete(sweep: Sweep, out: Path) -> list[str]:
    """The runs in which some instance has no result, as `<setting>/seed<k>`."""
    complete = {row["folder"] for row in read_index(out) if row["state"] == "complete"}
    folders = [folder.relative_to(out).as_posix() for _, _, folder in sweep.runs(out)]
    return [folder for folder in folders if folder not in complete]


def run_sweep(sweep: Sweep, out: Path) -> list[str]:
    """Runs what is missing of a sweep, in a process of its own, for commands that go on after it.

    Returns:
        The runs in which some instance has no result, as `<setting>/seed<k>`.

    Raises:
        ValueError: the sweep could not start.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "sweep.yaml"
    write_text(path, yaml.safe_dump(json.loads(json.dumps(asdict(sweep))), sort_keys=False))
    command = [sys.executable, "-m", "benchmarks.sweep", str(path), "--out", str(out)]
    if run_command(command) == exits.BAD_USE:
        raise ValueError(f"{path}: the sweep could not start; its message stands above")
    return incomplete(sweep, out)


def run_command(command: Sequence[str]) -> int:
    """Exit code of a command run to its end. Told to end before, this process ends the
    command's too: nobody would know of it, and the next start would meet it in the same folder."""
    with subprocess.Popen(command) as process, stoppable():
        try:
            return process.wait()
        except Stopped:
            process.terminate()  # the `with` waits for it
            raise


class Board:
    """The sweep's index and progress lines, kept by the first rank.

    Args:
        sweep: what is being run.
        out: its output folder.
        names: (setting, seed) of each run.
        runs: in the order in which they are done.
    """

    def __init__(
        self, sweep: Sweep, out: Path, names: Sequence[tuple[str, int]], runs: Sequence[Run]
    ) -> None:
        self.out = out
        self.names = names
        self.runs = runs
        self.changes = sweep.settings
        self.counts = [(0, 0)] * len(runs)
        self.shown: Run | None = None
        self.count(runs)
        # The rate counts what is finished from here on.
        self.started, self.finished_before = time.monotonic(), self.finished()

    def count(self, runs: Iterable[Run]) -> None:
        """Counts (done, failed) of some runs on disk."""
        for run in runs:
            folders = [run.job.out / folder_name(key) for key in run.keys]
            done = sum((folder / DONE).exists() for folder in folders)
            failed = sum((folder / ERROR).exists() for folder in folders)
            self.counts[self.runs.index(run)] = (done, failed)

    def finished(self) -> int:
        """Instances that need nothing more, over all runs."""
        return sum(map(sum, self.counts))

    def __call__(self, run: Run) -> None:
        """Takes note of an instance that this rank has just finished."""
        turned = run is not self.shown
        self.count(self.runs if turned else [run])
        done, failed = self.counts[self.runs.index(run)]
        if turned or done + failed == len(run.keys):
            self.shown = run
            self.write()
            print(self.line(run), flush=True)

    def line(self, run: Run) -> str:
        """Where the sweep is, with an estimate from the rate of this launch."""
        number = self.runs.index(run)
        (setting, seed), (done, failed) = self.names[number], self.counts[number]
        total, finished = sum(len(each.keys) for each in self.runs), self.finished()
        made = finished - self.finished_before
        left = (time.monotonic() - self.started) * (total - finished) / max(made, 1)
        return (
            f"[{number + 1}/{len(self.runs)}] {setting}, seed {seed}: {done} of {len(run.keys)} "
            f"done, {failed} failed; sweep: {finished} of {total}, about "
            f"{timedelta(seconds=round(left))} left"
        )

    def rows(self) -> list[dict[str, Any]]:
        """The index's objects of this sweep."""
        rows = []
        for (setting, seed), run, (done, failed) in zip(
            self.names, self.runs, self.counts, strict=True
        ):
            state = "partial" if done + failed else "missing"
            row = {
                "setting": setting,
                "seed": seed,
                "folder": run.job.out.relative_to(self.out).as_posix(),
                "changes": self.changes[setting],
                "digest": run.job.digest(),
                "state": "complete" if done == len(run.keys) else state,
                "instances": len(run.keys),
                "done": done,
                "failed": failed,
            }
            if run.refusal is not None:
                row["error"] = f"{type(run.refusal).__name__}: {run.refusal}"
            elif failed and (error := first_error(run)):
                row["error"] = error
            rows.append(row)
        return rows

    def write(self) -> None:
        """Writes the index; rows of runs that this sweep does not have stay."""
        ours = {row["folder"]: row for row in self.rows()}
        kept = {row["folder"]: row for row in read_index(self.out)} | ours
        write_text(self.out / INDEX, "".join(json.dumps(row) + "\n" for row in kept.values()))


def first_error(run: Run) -> str | None:
    """What the first failed instance of a run says, in one line."""
    for key in run.keys:
        row = read_row(run.job.out / folder_name(key) / ERROR)
        if row is not None:
            return f"{printable(key)}: {printable(str(row.get('error')).partition(chr(10))[0])}"
    return None


def refuse_changed(sweep: Sweep, out: Path, runs: Sequence[Run]) -> None:
    """Refuses a setting whose results were made with another config under the same name."""
    from vlmteach.job import changes

    for (setting, seed, folder), run in zip(sweep.runs(out), runs, strict=True):
        if changed := changes(run.job.config, folder):
            name, ours, theirs = changed[0]
            raise ValueError(
                f"settings: {setting!r}, seed {seed}: got {name} = {ours!r}, expected {theirs!r} "
                f"as in {folder / 'config.yaml'}; give the changed setting another name, or move "
                f"{folder} away"
            )


def walk(sweep: Sweep, out: Path) -> int:
    """Takes this rank through the sweep.

    Returns:
        0 when every instance has its result (and on ranks above the first), 3 otherwise.

    Raises:
        ValueError: for a sweep that cannot start, before anything is loaded.
    """
    if not sweep.instances:
        raise ValueError(
            "instances: got none, expected tar files or folders; name them in the file"
        )
    parsed = [
        parse(fit.parser(), options(sweep, setting, seed, folder))
        for setting, seed, folder in sweep.runs(out)
    ]
    from vlmteach import models
    from vlmteach.report import write_report
    from vlmteach.runner import Run, run_all

    counts = {config.run.instances_at_once for _, config in parsed}
    if len(counts) > 1:
        raise ValueError(
            f"run.instances_at_once: got {sorted(counts)} in a sweep, expected one number, as "
            "all runs share the processes; put it into the config"
        )
    accelerator, shape = fit.machine(*parsed[0])
    runs = [Run(fit.job(arguments, config)) for arguments, config in parsed]
    refuse_changed(sweep, out, runs)
    kinds: list[Run] = []  # one run of each set of models
    for run in runs:
        if not any(models.are_shared(kind.job.config, run.job.config) for kind in kinds):
            kinds.append(run)
    pairs = [
        (name, run)
        for kind in kinds
        for name, run in zip(sweep.runs(out), runs, strict=True)
        if models.are_shared(kind.job.config, run.job.config)
    ]
    runs = [run for _, run in pairs]
    out.mkdir(parents=True, exist_ok=True)
    board = Board(sweep, out, [(setting, seed) for (setting, seed, _), _ in pairs], runs)
    if shape.rank == 0:
        board.write()
    run_all(runs, accelerator=accelerator, shape=shape, watch=board)
    if shape.rank != 0:
        return 0
    left = [run.collect()[1] for run in runs]
    board.count(runs)
    board.write()
    try:
        page = f"page in {write_report([out])}"
    except Exception as error:  # what is told of results does not undo them
        page = f"no page: {error}"
    bad = [row for row in board.rows() if row["state"] != "complete"]
    for row in bad:
        told = f": {row['error']}" if "error" in row else f", see {out / row['folder']}"
        print(f"{row['folder']}: {row['done']} of {row['instances']} done{told}")
    print(
        f"{len(runs) - len(bad)} of {len(runs)} runs complete, {sum(left)} instances left; "
        f"index in {out / INDEX}, {page}"
    )
    return exits.SOME_FAILED if bad else 0


def main() -> int:
    """Runs what is missing of the sweep; returns the exit code."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("sweep", type=Path, help="a sweep file, as above")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--only", nargs="+", metavar="SETTING", help="these settings and no others")
    arguments = cli.parse_args()
    try:
        with commanded():
            sweep = read_sweep(arguments.sweep)
            if arguments.only:
                sweep = sweep.only(arguments.only)
            return walk(sweep, arguments.out)
    except (ValueError, OSError, argparse.ArgumentError) as error:
        return exits.refused(error)


if __name__ == "__main__":
    sys.exit(main())
