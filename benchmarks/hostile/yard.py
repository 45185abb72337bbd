"""Where hostile input is planted, and what a command that is given it does there."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.processes import alive

LIMIT = 60.0
"""Seconds after which a command hangs."""
LONG = 10.0
"""Seconds that a command which refuses its input may take, its imports apart."""
HINT = re.compile(r"^\(|^$|UserWarning|^usage:|^ {4,}")
"""Lines that do not tell what was wrong."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_POLL = 0.02


class Yard:
    """A folder with a home, a place for scratch files and a working directory.

    Args:
        root: a folder of its own; emptied for each case.
        cache: of the package's random checkpoints, shared by all cases.
    """

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.home, self.scratch, self.work = root / "home", root / "scratch", root / "work"
        self.out = self.work / "out"
        """The output folder of a case; a tar is `out.tar`."""
        self.canary = root / "executed"
        """A file that only the input's own code would make."""
        self.log = root / "log"
        self.caches = root.parent / "caches"

    def clear(self) -> None:
        """Empties it."""
        shutil.rmtree(self.root, ignore_errors=True)
        for folder in (self.home, self.scratch, self.work):
            folder.mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        """What a command sees: little, and no place outside."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        own = {"HOME": self.home, "TMPDIR": self.scratch, "VLMTEACH_CACHE": self.cache}
        # Lightning imports matplotlib and torch's compiler, which make these two, once a user.
        own |= {"MPLCONFIGDIR": self.caches, "TORCHINDUCTOR_CACHE_DIR": self.caches}
        return kept | {
            **{name: str(path) for name, path in own.items()},
            **{"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"},
        }

    def files(self) -> dict[str, tuple[int, ...]]:
        """All that lies outside the output: name -> what would change with its content."""
        found = {}
        for top in (self.home, self.scratch, self.work, self.cache):
            for folder, folders, files in os.walk(top):
                for name in (*folders, *files):
                    path = Path(folder, name)
                    if path in (self.out, self.work / "out.tar"):
                        continue
                    stat = path.lstat()
                    is_folder = path.is_dir()
                    found[str(path)] = (0,) if is_folder else (stat.st_size, stat.st_mtime_ns)
                folders[:] = [name for name in folders if Path(folder, name) != self.out]
        return found

    def run(self, module: str, *words: object) -> None:
        """A command before the one that counts.

        Raises:
            RuntimeError: it did not end well.
        """
        launch = Launch(self, [module, *map(str, words)])
        if launch.wait(LIMIT) != 0:
            raise RuntimeError(self.log.read_text(errors="replace"))


Command = list[str]
"""A module and its words."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A hostile input, and what is right to say of it.

    Args:
        part: of the whole, such as "checkpoints".
        name: in words; unique.
        plant: makes the input in an empty yard; returns the command.
        codes: exit codes that are right.
        told: a regular expression that the output must match.
        stdin: what the command may read.
        environment: laid over the yard's own.
        cold: the command is a process of its own from the beginning; without, a fork of one that
            has everything imported.
        meanwhile: called again and again with the yard and the process's number until it returns
            True.
        after: what is wrong with what lies in the yard afterwards, in words.
    """

    part: str
    name: str
    plant: Callable[[Yard], Command]
    codes: tuple[int, ...] = (2,)
    told: str
    stdin: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    cold: bool = False
    meanwhile: Callable[[Yard, int], bool] | None = None
    after: Callable[[Yard], str] | None = None


@dataclass
class Outcome:
    """What came back."""

    part: str
    name: str
    cold: bool
    expected: str
    code: int | None = None
    seconds: float = 0.0
    cpu: float = 0.0
    told: str = ""
    executed: bool = False
    hung: bool = False
    traceback: bool = False
    outside: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        """Whether anything was."""
        return any((self.executed, self.hung, self.traceback, self.outside, self.other))


class Launch:
    """A command under way, the leader of a session."""

    def __init__(
        self,
        yard: Yard,
        command: Command,
        *,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        cold: bool = False,
    ) -> None:
        environment = {**yard.environment(), **(environment or {})}
        given = yard.root / "stdin"
        given.write_text(stdin)
        self.usage: Any = None
        self._process: subprocess.Popen[Any] | None = None
        with given.open("rb") as read, yard.log.open("wb") as log:
            if cold:
                words = [sys.executable, "-m", *command]
                streams: dict[str, Any] = {"stdin": read, "stdout": log, "stderr": log}
                # Kept: of one that is dropped, `subprocess` would take the exit code before `wait`.
                process = subprocess.Popen(
                    words, cwd=yard.work, env=environment, start_new_session=True, **streams
                )
                self._process, self.pid = process, process.pid
                return
            sys.stdout.flush()
            sys.stderr.flush()
            self.pid = os.fork()
            if self.pid == 0:
                os.setsid()
                for number, stream in enumerate((read, log, log)):
                    os.dup2(stream.fileno(), number)
                _become(command, yard.work, environment)

    def wait(
        self, seconds: float, meanwhile: Callable[[int], bool] = lambda pid: True
    ) -> int | None:
        """The exit code, as a shell would tell it; None where it had to be killed."""
        limit, settled = time.monotonic() + seconds, False
        while time.monotonic() < limit:
            settled = settled or meanwhile(self.pid)
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.usage = usage
                code = self._ended(status)
                return 128 - code if code < 0 else code
            time.sleep(_POLL)
        os.killpg(self.pid, signal.SIGKILL)
        _, status, self.usage = os.wait4(self.pid, 0)
        self._ended(status)
        return None

    def _ended(self, status: int) -> int:
        """The exit code of a status; a process of `subprocess` is told, or it would go on waiting
        for a number that may soon be another's."""
        code = os.waitstatus_to_exitcode(status)
        if self._process is not None:
            self._process.returncode = code
        return code

    def left(self) -> list[int]:
        """Processes of its session that go on."""
        return alive({self.pid})


def _become(command: Command, work: Path, environment: Mapping[str, str]) -> NoReturn:
    """In a fork: `python -m command`, to its end."""
    code: Any = 1
    try:
        os.chdir(work)
        os.environ.clear()
        os.environ.update(environment)
        sys.dont_write_bytecode = True  # the variable is read when the interpreter starts
        tempfile.tempdir = None
        sys.path.insert(0, str(work))
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = list(command)
        sys.modules.pop(command[0], None)  # imported by another; as a command it is read anew
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not the end of the process that it was forked from, which has things to clear away.
        os._exit(code if isinstance(code, int) else int(code is not None))


def told_by(text: str, expected: str) -> str:
    """The line of an output that says what happened: the expected one, an error, or the last."""
    lines = [line for line in text.splitlines() if not HINT.search(line)]
    errors = [line for line in lines if "error:" in line]
    right = [line for line in lines if re.search(expected, line)]
    return (errors or right or lines or [""])[-1].strip()


def try_case(case: Case, yard: Yard) -> Outcome:
    """Plants a case's input and gives its command, once."""
    codes = " or ".join(map(str, case.codes))
    found = Outcome(case.part, case.name, case.cold, f"{codes}: {case.told}")
    yard.clear()
    command = case.plant(yard)
    before, begun = yard.files(), time.monotonic()
    launch = Launch(yard, command, stdin=case.stdin, environment=case.environment, cold=case.cold)
    meanwhile = case.meanwhile
    found.code = launch.wait(LIMIT, lambda pid: meanwhile is None or meanwhile(yard, pid))
    found.seconds = time.monotonic() - begun
    found.cpu = launch.usage.ru_utime + launch.usage.ru_stime
    found.hung = found.code is None
    if left := launch.left():
        time.sleep(2)
        if left := launch.left():
            found.hung = True
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    text = yard.log.read_bytes().decode(errors="replace")
    found.told = _CONTROL.sub("?", told_by(text, case.told))
    found.traceback = "Traceback (most recent call last)" in text
    found.executed = yard.canary.exists()
    after = yard.files()
    if meanwhile is None:
        names = sorted(before.keys() | after.keys())
        found.outside = [name for name in names if before.get(name) != after.get(name)]
    else:  # the case itself changes its input
        found.outside = sorted(after.keys() - before.keys())
    if found.code == 2 and not re.search(r"(?m)^(\S+( \S+)*: )?error: ", text):
        found.other.append("no line of its own")
    if found.code not in case.codes:
        found.other.append(f"exit code {found.code}")
    if not re.search(case.told, text):
        found.other.append("other words")
    if _CONTROL.search(text):
        found.other.append("control characters")
    if found.code == 2 and found.cpu > LONG and not case.cold:
        found.other.append(f"{found.cpu:.0f} s of work")
    if case.after and (wrong := case.after(yard)):
        found.other.append(wrong)
    return found
