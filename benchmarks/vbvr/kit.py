"""A user's EvalKit checkout: what it is, and its evaluators in a process of their own.

The process has its own interpreter because the kit needs an OpenCV that the rest need not have:
with 5.x some of its scorers fail, and count the failure as score 0.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

from benchmarks.vbvr.layout import Place

WORKER = Path(__file__).with_name("worker.py")
SECONDS = 600.0
"""A video that takes longer is an error; one takes 2 to 4 s on a CPU core."""
UNKNOWN = "unknown"
REMEDY = (
    'make an environment for it (python -m venv kit-env && kit-env/bin/pip install "opencv-python'
    '-headless<5" numpy pillow) and give --python kit-env/bin/python'
)


class KitError(RuntimeError):
    """The kit gave no score for a video."""


def identity(kit: Path) -> dict[str, Any]:
    """What a score must be told with: the checkout's commit, whether it was changed, its source.

    `commit` is `unknown` where the folder is not itself the root of a git tree; `source_sha256`,
    over every Python file of the package, tells versions apart even then.

    Raises:
        ValueError: a folder that is no EvalKit.
    """
    package = kit / "vbvr_bench"
    if not (package / "evaluators" / "__init__.py").is_file():
        raise ValueError(
            f"--kit: got {kit}, expected a checkout of github.com/Video-Reason/VBVR-EvalKit, "
            "with vbvr_bench/evaluators in it"
        )
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        for part in (path.relative_to(kit).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    commit, dirty = UNKNOWN, None
    root = _git(kit, "rev-parse", "--show-toplevel")
    if root is not None and Path(root).resolve() == kit.resolve():
        commit = _git(kit, "rev-parse", "HEAD") or UNKNOWN
        dirty = bool(_git(kit, "status", "--porcelain", "--", "vbvr_bench"))
    return {"commit": commit, "dirty": dirty, "source_sha256": digest.hexdigest()}


def _git(folder: Path, *words: str) -> str | None:
    """What git says, or None where there is no git or no tree."""
    try:
        command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Kit:
    """The evaluators of a checkout, behind a process that is started again when it dies.

    Args:
        path: the checkout.
        python: the interpreter that has its OpenCV.
        log: where what the kit prints goes.

    Raises:
        ValueError: no EvalKit, an interpreter that cannot run it, or OpenCV 5 or later.
    """

    def __init__(self, path: Path, python: str, log: Path) -> None:
        self.path = path.resolve()
        self.python = python
        self.identity = identity(self.path)
        self._log = log.open("a", encoding="utf-8")
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            self.identity |= self._start()
        except BaseException:
            self.close()
            raise

    def score(self, data: Path, place: Place, video: Path) -> dict[str, Any]:
        """Both numbers of one video, from one call.

        Returns:
            `task_specific`, what the kit's `run_evaluation.py` prints; `weighted`, what its
            `evaluate.py` prints; `dimensions`, the five that are weighed; `category`.

        Raises:
            KitError: the kit failed, died, hung or gave no number in [0, 1].
        """
        reply = self.call(data, place, video, task_specific_only=False)
        try:
            task_specific = reply["dimensions"]["task_specific"]
        except KeyError as error:
            raise KitError(f"got dimensions {reply['dimensions']}, no task_specific") from error
        return {
            "task_specific": task_specific,
            "weighted": reply["score"],
            "dimensions": reply["dimensions"],
            "category": reply["category"],
        }

    def call(
        self, data: Path, place: Place, video: Path, *, task_specific_only: bool
    ) -> dict[str, Any]:
        """One call of `evaluate`: `score` in [0, 1], `dimensions`, `category`. Raises KitError."""
        truth = (data / place.folder).resolve()
        info = {
            "video_path": str(video.resolve()),
            "task_name": place.task,
            "gt_path": str(truth),
            "gt_video_path": str(truth / "ground_truth.mp4"),
            "gt_first_frame": str(truth / "first_frame.png"),
            "gt_final_frame": str(truth / "final_frame.png"),
            "prompt": (truth / "prompt.txt").read_text(encoding="utf-8").strip(),
            "no_ssim_fallback": True,  # as run_evaluation.py passes it
        }
        request = {"task": place.task, "info": info, "task_specific_only": task_specific_only}
        reply = self._ask(request)
        if "error" in reply:
            raise KitError(reply["error"])
        numbers = (reply["score"], *reply["dimensions"].values())
        if not all(math.isfinite(number) and number <= 1 for number in numbers) or min(numbers) < 0:
            raise KitError(f"got {numbers}, expected scores in [0, 1]")
        return reply

    def close(self) -> None:
        """Ends the process."""
        self._end()
        self._log.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def _start(self) -> dict[str, Any]:
        """Starts the process; returns its versions."""
        self._end()
        try:
            process = subprocess.Popen(
                [self.python, str(WORKER), str(self.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # the checkout stays as it is
            )
        except OSError as error:
            raise ValueError(f"--python: got {error}, expected an interpreter") from error
        self._process, self._replies = process, queue.SimpleQueue()
        threading.Thread(target=_pump, args=(process, self._replies), daemon=True).start()
        ready = self._reply()
        if ready.get("refused") == "opencv":
            raise ValueError(
                f"--python: got OpenCV {ready['opencv']}, expected one below 5, with which all the "
                f"kit's scorers work; {REMEDY}"
            )
        if "refused" in ready or "error" in ready:
            raise ValueError(
                f"--python: got {ready['error']} from {self.python}, expected an interpreter "
                f"that imports the kit; {REMEDY}"
            )
        return ready

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": f"the kit's process ended with {self._process.wait()}"}
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process is not None
        try:
            line = self._replies.get(timeout=SECONDS)
        except queue.Empty:
            self._end()
            return {"error": f"no reply within {SECONDS:g} s"}
        if not line:
            return {"error": f"the kit's process ended with {self._process.wait()}"}
        return json.loads(line)


def _pump(process: subprocess.Popen[str], replies: queue.SimpleQueue[str]) -> None:
    """Hands on the replies as they come; an empty one when the process has ended."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            replies.put(line)
    replies.put("")
