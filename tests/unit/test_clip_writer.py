"""Clips written beside the work: the same bytes, in order, and nothing left behind."""

import threading
import time
from pathlib import Path

import pytest
import torch

from vlmteach import clip_writer
from vlmteach.clip_writer import ClipWriter
from vlmteach.video import GivenUp, write_video


def noise(seed, frames=4, size=32):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, size, size, 3), dtype=torch.uint8, generator=draw)


@pytest.fixture(autouse=True)
def no_thread_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture
def gate(monkeypatch):
    """Holds the encoder until it is set, or its clip given up."""
    opened = threading.Event()

    def write(path, frames, fps, given_up, comment):
        while not opened.wait(0.005):
            if given_up():
                raise GivenUp
        write_video(path, frames, fps, given_up, comment)

    monkeypatch.setattr(clip_writer, "write_video", write)
    return opened


def test_same_bytes_in_the_order_they_came(tmp_path):
    with ClipWriter() as clips:
        for seed in range(4):
            clips.write(tmp_path / f"{seed}.mp4", noise(seed), 8)
        clips.write(tmp_path / "0.mp4", noise(5), 8)
    for seed, name in ((5, "0"), (1, "1"), (2, "2"), (3, "3")):
        write_video(tmp_path / "alone.mp4", noise(seed), 8)
        assert (tmp_path / "alone.mp4").read_bytes() == (tmp_path / f"{name}.mp4").read_bytes()


def test_the_work_goes_on_and_may_change_its_frames(tmp_path, gate):
    frames = noise(0)
    with ClipWriter() as clips:
        clips.write(tmp_path / "a.mp4", frames, 8)
        frames.zero_()
        assert list(tmp_path.iterdir()) == []
        gate.set()
        clips.wait()
        assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    write_video(tmp_path / "alone.mp4", noise(0), 8)
    assert (tmp_path / "alone.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


def test_one_clip_is_held_and_the_next_one_waits(tmp_path, gate):
    with ClipWriter() as clips:
        clips.write(tmp_path / "a.mp4", noise(0), 8)
        threading.Timer(0.1, gate.set).start()
        clips.write(tmp_path / "b.mp4", noise(1), 8)
        assert (tmp_path / "a.mp4").exists()


def write_and(clips, path, then, *, frames=None):
    with clips:
        clips.write(path, noise(0) if frames is None else frames, 8)
        then(clips)


@pytest.mark.parametrize(
    "then",
    [
        lambda clips: clips.wait(),
        lambda clips: clips.write(Path("b.mp4"), noise(0), 8),
        lambda clips: None,
    ],
    ids=["wait", "write", "leave"],
)
def test_an_error_is_raised_by_the_next_call(tmp_path, then):
    with pytest.raises(FileNotFoundError):
        write_and(ClipWriter(), tmp_path / "nowhere" / "a.mp4", then)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_where_the_work_fails_the_clip_is_given_up(tmp_path, error):
    """Encoding it would take seconds."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    failed_at = []

    def fail(_):
        while len(list(tmp_path.iterdir())) == 1:  # until the encoder is at work
            time.sleep(0.001)
        failed_at.append(time.perf_counter())
        raise error("stopped")

    frames = noise(0, frames=2, size=512).repeat(60, 1, 1, 1)
    with pytest.raises(error, match="stopped"):
        write_and(ClipWriter(), path, fail, frames=frames)
    assert time.perf_counter() - failed_at[0] < 1.5
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_bytes() == b"old"


def test_the_error_of_the_work_goes_before_that_of_the_clip(tmp_path):
    def fail(_):
        raise RuntimeError("of the work")

    with pytest.raises(RuntimeError, match="of the work"):
        write_and(ClipWriter(), tmp_path / "nowhere" / "a.mp4", fail)
