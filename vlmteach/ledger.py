"""Who works on which instance: claims on disk, shared by all ranks and by later runs.

Files need no network, and balance, resume and re-claim are one mechanism. A claim is a file
`<out>/.claims/<folder>.<k>`, made with O_EXCL, so that of any number of processes exactly one gets
it. Claims are never deleted and k only grows: a process that decided on old news loses the race for
`k + 1` instead of taking a number twice.

When claim k stands, k + 1 may be made only if the owner of k

1. **let go**: `release` sets the file's time to the epoch; or
2. **is known to be dead**: it ran on this machine (same host name, same boot, same process
   namespace) and no process with its number and its start time is running; or
3. **went silent**: the file's time, which `touch` renews at each step, is older than the lease.

A claim of another launch that is alive on another node is therefore safe for as long as it touches
it, and a claim whose node is gone is free after one lease. The launch id takes no part in the
decision, since no rank can know that a launch elsewhere is over; it is kept in the file so that a
person can see which launch a claim belonged to. Ages are taken on the file system's own clock,
so nodes whose clocks differ agree.

A process that is alive but silent for longer than its lease can be overtaken. `touch` then tells
it so. Both may finish: results are written by atomic rename and are the same bits, so that costs
time and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DONE = "done.json"
"""Written last into the folder of an instance that was solved."""
ERROR = "error.json"
"""Written into the folder of an instance that was given up."""

_PART = r"[A-Za-z0-9+=,-](?:[A-Za-z0-9+=,._-]*[A-Za-z0-9+=,-])?"
_PLAIN = re.compile(rf"{_PART}(?:/{_PART})*")
_RESERVED = {"wandb", "config.yaml", "results.jsonl", "table.json"}
_LONGEST = 120
"""Characters; file systems allow 255 bytes, and claims and scratch files add to the name."""


def folder_name(key: str) -> str:
    """One safe folder name for a key: never nested, never outside, different for different keys.

    A plain key keeps its name, with "/" written as "__": `task/00000` gives `task__00000`. Any
    other key (other characters, "..", "__", a leading dot, too long, a name the run itself uses)
    gives what is readable of it, "~" and 16 hexadecimal digits of its sha256. Plain names hold no
    "~", so the two kinds cannot meet. Names differ on a case-sensitive file system.
    """
    flat = key.replace("/", "__")
    if _PLAIN.fullmatch(key) and "__" not in key and len(flat) <= _LONGEST and key not in _RESERVED:
        return flat
    # surrogatepass: a key may carry bytes of a file name that are not UTF-8.
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9+=,-]+", "_", key).strip("_")[:80]
    return f"{readable}~{digest}"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of this process to work on an instance, while it keeps touching it."""

    key: str
    path: Path
    number: int
    """k, from 1."""


class Ledger:
    """The claims and results below one output folder.

    Args:
        folder: the run's output folder; an instance's results lie in `folder / folder_name(key)`.
        launch: identifies this launch in the claims it makes.
        max_deaths: how many claims on one instance may end without a result and without being
            released before it counts as poisoned; at least 1.
        lease_seconds: how long a claim holds without being touched. Must be longer than the
            slowest step.
    """

    def __init__(
        self, folder: Path, *, launch: str, max_deaths: int, lease_seconds: float = 600.0
    ) -> None:
        if max_deaths < 1 or lease_seconds <= 0:
            raise ValueError(
                f"ledger: got max_deaths {max_deaths} and lease_seconds {lease_seconds}, "
                "expected at least 1 and above 0"
            )
        self.folder = Path(folder)
        self.launch = launch
        self.max_deaths = max_deaths
        self.lease_seconds = lease_seconds
        self._claims = self.folder / ".claims"
        self._claims.mkdir(parents=True, exist_ok=True)

    def claim(self, key: str) -> Claim | None:
        """Takes the instance, or None: it has a result, is being worked on, or is poisoned."""
        if self.is_done(key):
            return None
        standing = self._standing(key)
        if not self._is_open(standing):
            return None
        number = len(standing) + 1
        claim = Claim(key, self._path(key, number), number)
        try:
            handle = os.open(claim.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"key": key, "launch": self.launch, **_identity()}, file)
        # The last owner may have finished and left between the first look and this claim.
        if self.is_done(key):
            self.release(claim)
            return None
        return claim

    def touch(self, claim: Claim) -> bool:
        """Renews the lease; False when another process has overtaken this claim."""
        os.utime(claim.path)
        return not self._path(claim.key, claim.number + 1).exists()

    def release(self, claim: Claim) -> None:
        """Lets go: the result is written, or the work was stopped on purpose.

        A released claim does not count as a death.
        """
        os.utime(claim.path, (0, 0))

    def is_done(self, key: str) -> bool:
        """Whether the instance has a result: solved (`done.json`) or given up (`error.json`)."""
        folder = self.folder / folder_name(key)
        return (folder / DONE).exists() or (folder / ERROR).exists()

    def pending(self, keys: Iterable[str]) -> list[str]:
        """Keys that `claim` would give now: no result, nobody at work, not too many deaths."""
        return [k for k in keys if not self.is_done(k) and self._is_open(self._standing(k))]

    def poisoned(self, keys: Iterable[str]) -> list[str]:
        """Keys without a result, nobody at work, in which too many processes died."""
        return [k for k in keys if not self.is_done(k) and self._is_poisoned(self._standing(k))]

    def _path(self, key: str, number: int) -> Path:
        return self._claims / f"{folder_name(key)}.{number}"

    def _standing(self, key: str) -> list[tuple[Path, float]]:
        """(path, time) of every claim ever made on the key, in order."""
        standing = []
        while True:
            path = self._path(key, len(standing) + 1)
            try:
                standing.append((path, path.stat().st_mtime))
            except FileNotFoundError:
                return standing

    def _is_open(self, standing: list[tuple[Path, float]]) -> bool:
        return not self._is_held(standing) and _unreleased(standing) < self.max_deaths

    def _is_poisoned(self, standing: list[tuple[Path, float]]) -> bool:
        return _unreleased(standing) >= self.max_deaths and not self._is_held(standing)

    def _is_held(self, standing: list[tuple[Path, float]]) -> bool:
        """Whether the latest claim still binds: rules 1 to 3 of the module's docstring."""
        if not standing:
            return False
        path, time = standing[-1]
        if _is_released(time) or _is_known_dead(path):
            return False
        return self._now() - time <= self.lease_seconds

    def _now(self) -> float:
        """The file system's time, which a network file system takes from its server."""
        with tempfile.NamedTemporaryFile(dir=self._claims, prefix=".now") as probe:
            return os.fstat(probe.fileno()).st_mtime


def _is_released(time: float) -> bool:
    return time < 1


def _unreleased(standing: list[tuple[Path, float]]) -> int:
    """Deaths, where no claim is under way: claims that ended without being let go."""
    return sum(not _is_released(time) for _, time in standing)


def _identity() -> dict[str, str | int | None]:
    """Names this process so that another one can tell whether it still runs."""
    return {"machine": _machine(), "pid": os.getpid(), "started": _start_time(os.getpid())}


@functools.cache
def _machine() -> str:
    """Processes can be looked up across two claims only where all of this is equal.

    The host name alone does not do: containers share it, and see different processes.
    """
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:  # not Linux
            parts.append("")
    return " ".join(parts)


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None where there is no such process.

    A zombie counts as gone: it only waits for its parent to take note. Where there is no /proc,
    a running process gives 0.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0
    fields = stat.rpartition(")")[2].split()  # the command before it may hold spaces
    return None if fields[0] in "ZX" else int(fields[19])


def _is_known_dead(path: Path) -> bool:
    """Whether the owner ran here and runs no more; in doubt, False, and the lease decides."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        machine, pid, started = owner["machine"], int(owner["pid"]), owner["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # just created and not yet written, or not ours
    return machine == _machine() and _start_time(pid) != started
