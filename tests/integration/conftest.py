"""A small data set and the command line in a process of its own."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.integration.warm import Warm

FAST = [
    "--config=random",
    "--clip.frames=5",
    "--clip.max_pixels=1024",
    "--teacher.frames=4",
    "--lora.rank=2",
    "--fit.steps=2",
    "--query.source=generic",  # what the random teacher writes is refused, and takes most of a run
]


def _first_frame(number: int) -> bytes:
    """A ball at a place that depends on the number."""
    image = Image.new("RGB", (96, 96), "white")
    x = 10 + 12 * number % 60
    ImageDraw.Draw(image).ellipse((x, 30, x + 24, 54), fill=(200, 40 * number % 256, 30))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _sample(number: int) -> dict[str, bytes]:
    key = f"move/ball_{number:02d}"
    return {
        f"{key}.prompt.txt": f"Move the ball number {number} to the right edge.".encode(),
        f"{key}.first.png": _first_frame(number),
        f"{key}.final.png": b"held out: decoding this would fail",
        f"{key}.gt.mp4": b"held out: decoding this would fail",
    }


def _write_tar(path: Path, samples: list[dict[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for members in samples:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def _environment() -> dict[str, str]:
    """Without what a test runner or an earlier launch left behind."""
    dropped = ("WANDB", "VLMTEACH_LAUNCH", "LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return kept | {"OMP_NUM_THREADS": "1"}


def _start_fit(
    *arguments: object, launcher: tuple[str, ...] = (), before: list[str] = FAST
) -> subprocess.Popen:
    """`python -m vlmteach.fit` with the random models, shrunk; leads a process group."""
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "vlmteach.fit", *before, *map(str, arguments)],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _run_unshrunk_fit(*arguments: object) -> str:
    process = _start_fit(*arguments, before=[])
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


# The functions above as fixtures: with importlib's import mode, tests cannot import a conftest.
@pytest.fixture(scope="session")
def start_fit():
    return _start_fit


@pytest.fixture(scope="session")
def warm():
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="session")
def run_module(warm):
    """(module, arguments) -> the exit code and the output of a process that skips the imports."""

    def run(module: str, *arguments: object) -> tuple[int, str]:
        return warm.run(module, list(map(str, arguments)), _environment())

    return run


@pytest.fixture(scope="session")
def run_in(warm):
    """As `run_module`, in a folder."""

    def run(folder: Path, module: str, words: list[str]) -> tuple[int, str]:
        return warm.run(module, words, _environment() | {"WANDB_MODE": "disabled"}, folder)

    return run


@pytest.fixture(scope="session")
def run_fit(run_module):
    def run(*arguments: object, expect: int = 0, launcher: tuple[str, ...] = ()) -> str:
        if launcher:
            process = _start_fit(*arguments, launcher=launcher)
            output, _ = process.communicate(timeout=600)
            code = process.returncode
        else:
            code, output = run_module("vlmteach.fit", *FAST, *arguments)
        assert code == expect, output
        return output

    return run


@pytest.fixture(scope="session")
def run_unshrunk_fit():
    return _run_unshrunk_fit


@pytest.fixture(scope="session")
def write_tar():
    return _write_tar


@pytest.fixture(scope="session")
def sample():
    return _sample
