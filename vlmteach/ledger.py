"""Who works on which instance: claims on disk, shared by all ranks and by later runs.

Files need no network, and balance, resume and re-claim are one mechanism. A claim is a file
`<out>/.claims/<folder>.<k>` that names its owner, put there whole by a hard link, so that of any
number of processes exactly one gets it. Claims are never deleted and k only grows: a process that
decided on old news loses the race for `k + 1` instead of taking a number twice.

When claim k stands, k + 1 may be made only if the owner of k

1. **let go**: `release` sets the file's time to the epoch; or
2. **is known to be dead**: it ran on this machine (same host name, same boot, same process
   namespace) and no process with its number and its start time is running; or
3. **went silent**: the file's time, which the owner renews at each step and every quarter of a
   lease, is older than the lease, or has stood still for a lease while this process looked on,
   whatever the clocks say; or
4. **is nobody**: the file is empty or holds anything but an owner.

A claim of another launch that is alive on another node is therefore safe for as long as it touches
it, and a claim whose node is gone is free after one lease. The launch id takes no part in the
decision, since no rank can know that a launch elsewhere is over; it is kept in the file so that a
person can see which launch a claim belonged to. Ages are taken on the file system's own clock,
so nodes whose clocks differ agree.

A process that is alive but silent for longer than its lease (stopped, or cut off from the disk) can
be overtaken. `touch` then tells it so. Both may finish: results are written by atomic rename and
are the same bits, so that costs time and nothing else.

A claim that was never let go is a death. One that crashed says so itself: what Python's
`faulthandler` has to say goes into the claim. One without a word was ended from outside (`kill -9`,
a node gone, the kernel short of memory), and weighs a tenth.
"""

from __future__ import annotations

import faulthandler
import functools
import hashlib
import json
import os
import re
import socket
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

DONE = "done.json"
"""Written last into the folder of an instance that was solved."""
ERROR = "error.json"
"""Written into the folder of an instance that was given up."""

_PART = r"[A-Za-z0-9+=,-](?:[A-Za-z0-9+=,._-]*[A-Za-z0-9+=,-])?"
_PLAIN = re.compile(rf"{_PART}(?:/{_PART})*")
_RESERVED = {"wandb", "config.yaml", "results.jsonl", "runs.jsonl", "table.json", "report.html"}
_RESERVED |= {"sweep.yaml", "applied.json", "compare.html"}
_LONGEST = 120
"""Characters; file systems allow 255 bytes, and claims and scratch files add to the name."""
_SILENT_DEATHS = 10
"""Deaths without a word that weigh as much as a crash."""

_Standing = list[tuple[Path, float]]


@functools.lru_cache(maxsize=100_000)
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
        max_deaths: how many crashes, or ten times as many deaths without a word, an instance may
            have without a result before it counts as poisoned; at least 1.
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
        self._done: set[str] = set()
        self._watched: dict[Path, tuple[float, float]] = {}
        """The time of a claim under way, and since when it has been seen to stand still."""

    def claim(self, key: str) -> Claim | None:
        """Takes the instance, or None: it has a result, is being worked on, or is poisoned."""
        if self.is_done(key):
            return None
        standing = self._standing(key)
        if self._is_held(standing) or self._is_poisoned(standing):
            return None
        number = len(standing) + 1
        claim = Claim(key, self._path(key, number), number)
        if not self._make(claim):
            return None
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

    def release_own(self) -> None:
        """Lets go of all that this process holds, wherever in its work it was stopped."""
        us = _identity()
        for path in self._claims.iterdir():
            released = path.name[0] == "." or _is_released(path.stat().st_mtime)
            owner = None if released else _read(path)[0]
            if owner and all(owner[name] == value for name, value in us.items()):
                os.utime(path, (0, 0))

    @contextmanager
    def last_words(self, claim: Claim) -> Iterator[None]:
        """For the span of a `with`, a crash of the interpreter is written into the claim, and the
        lease is renewed, however long a stage of the work takes."""
        before = faulthandler.is_enabled()
        with self._renewed(claim), claim.path.open("a", encoding="utf-8") as file:
            faulthandler.enable(file, all_threads=False)
            try:
                yield
            finally:
                faulthandler.disable()
                if before and sys.__stderr__ is not None:
                    faulthandler.enable(sys.__stderr__)

    @contextmanager
    def _renewed(self, claim: Claim) -> Iterator[None]:
        """Touches the claim now and then from a thread, for the span of a `with`."""
        over = Event()

        def renew() -> None:
            while not over.wait(self.lease_seconds / 4):
                with suppress(OSError):  # of a network, say
                    self.touch(claim)

        thread = Thread(target=renew, name="vlmteach-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:  # nothing renews what is let go
            over.set()
            thread.join()

    def is_done(self, key: str) -> bool:
        """Whether the instance has a result: solved (`done.json`) or given up (`error.json`).

        A result once seen is not looked for again, until `forget`.
        """
        if key not in self._done:
            folder = f"{self.folder}/{folder_name(key)}/"
            if os.path.exists(folder + DONE) or os.path.exists(folder + ERROR):
                self._done.add(key)
        return key in self._done

    def forget(self) -> None:
        """Looks for every result anew: some were taken away."""
        self._done.clear()

    def is_pending(self, key: str) -> bool:
        """Whether `claim` would give the key now."""
        return not self.is_done(key) and self._is_open(self._standing(key))

    def pending(self, keys: Iterable[str]) -> list[str]:
        """Keys that `claim` would give now: no result, nobody at work, not too many deaths."""
        return [key for key, standing in self._open_keys(keys) if self._is_open(standing)]

    def unfinished(self, keys: Iterable[str]) -> list[str]:
        """Keys that may yet get a result: pending, or somebody is at work on them."""
        return [
            key
            for key, standing in self._open_keys(keys)
            if self._is_held(standing) or not self._is_poisoned(standing)
        ]

    def held(self, keys: Iterable[str]) -> list[str]:
        """Keys on which somebody is at work, with or without a result."""
        return [key for key in keys if self._is_held(self._standing(key))]

    def poisoned(self, keys: Iterable[str]) -> list[str]:
        """Keys without a result, nobody at work, in which too many processes died."""
        return [
            key
            for key, standing in self._open_keys(keys)
            if self._is_poisoned(standing) and not self._is_held(standing)
        ]

    def suspects(self, keys: Iterable[str]) -> list[str]:
        """Keys in which more than one process died."""
        return [
            key
            for key, standing in self._open_keys(keys)
            if sum(not _is_released(time) for _, time in standing) > 1
        ]

    def finished(self, keys: Iterable[str]) -> int:
        """How many keys have a result."""
        keys = list(keys)
        return len(keys) - len(self._open_keys(keys))

    def _path(self, key: str, number: int) -> Path:
        return self._claims / f"{folder_name(key)}.{number}"

    def _open_keys(self, keys: Iterable[str]) -> list[tuple[str, _Standing]]:
        """Keys without a result and their claims; two listings instead of a look for each key."""
        folders = set(_names(self.folder))
        claims = Counter(name.rpartition(".")[0] for name in _names(self._claims))
        found = []
        for key in keys:
            name = folder_name(key)
            if key not in self._done and (name not in folders or not self.is_done(key)):
                found.append((key, self._standing(key, claims[name])))
        return found

    def _standing(self, key: str, at_most: int | None = None) -> _Standing:
        """(path, time) of every claim ever made on the key, in order."""
        standing: _Standing = []
        while at_most is None or len(standing) < at_most:
            path = self._path(key, len(standing) + 1)
            try:
                standing.append((path, os.stat(path).st_mtime))
            except FileNotFoundError:
                break
        return standing

    def _make(self, claim: Claim) -> bool:
        """Puts the claim there, unless one of its number is there."""
        words = json.dumps({"key": claim.key, "launch": self.launch, **_identity()}) + "\n"
        scratch = self._claims / f".{uuid.uuid4().hex}"
        try:
            scratch.write_text(words, encoding="utf-8")
            os.link(scratch, claim.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: a moment of emptiness, then
            try:
                with claim.path.open("x", encoding="utf-8") as file:
                    file.write(words)
            except FileExistsError:
                return False
        finally:
            scratch.unlink(missing_ok=True)
        return True

    def _is_open(self, standing: _Standing) -> bool:
        return not self._is_held(standing) and not self._is_poisoned(standing)

    def _is_poisoned(self, standing: _Standing) -> bool:
        """Whether too many claims ended without being let go, where none is under way."""
        if len(standing) < self.max_deaths:
            return False
        dead = [_read(path) for path, time in standing if not _is_released(time)]
        crashes = sum(bool(words) for owner, words in dead if owner)
        silent = sum(not words for owner, words in dead if owner)
        return crashes + silent // _SILENT_DEATHS >= self.max_deaths

    def _is_held(self, standing: _Standing) -> bool:
        """Whether the latest claim still binds: rules 1 to 4 of the module's docstring."""
        if not standing or _is_released(standing[-1][1]):
            return False
        path, touched = standing[-1]
        owner, _ = _read(path)
        if owner is None or _is_known_dead(owner):
            return False
        now = monotonic()
        if self._watched.get(path, (None,))[0] != touched:
            self._watched[path] = touched, now
        return max(now - self._watched[path][1], self._now() - touched) <= self.lease_seconds

    def _now(self) -> float:
        """The file system's time, which a network file system takes from its server."""
        clock = self._claims / ".now"
        clock.touch()
        return clock.stat().st_mtime


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _is_released(time: float) -> bool:
    return time < 1


def _read(claim: Path) -> tuple[dict[str, Any] | None, str]:
    """A claim's owner, None where it names none, and its last words."""
    try:
        first, _, words = claim.read_text(encoding="utf-8", errors="replace").partition("\n")
        owner = json.loads(first)
        return {**owner, "pid": int(owner["pid"]), "started": owner["started"]}, words
    except PermissionError:  # another person's: all that can be seen is whether it is touched
        return {"machine": None, "pid": 0, "started": None}, ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, ""


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


def _is_known_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner ran here and runs no more; in doubt, False, and the lease decides."""
    return owner.get("machine") == _machine() and _start_time(owner["pid"]) != owner["started"]
