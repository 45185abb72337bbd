"""Video files: what goes in comes out, the same bytes each time."""

import numpy as np
import pytest
import torch

from vlmteach.video import read_video, to_uint8, write_video


def pixels(frames=5, height=48, width=64):
    """A smooth gradient that brightens with time: little for 4:2:0 chroma to lose."""
    y, x = torch.meshgrid(
        torch.linspace(0, 0.8, height), torch.linspace(0, 0.8, width), indexing="ij"
    )
    still = torch.stack([x, y, torch.full_like(x, 0.3)])
    return torch.stack([still + 0.02 * t for t in range(frames)])


def test_to_uint8_rounds_half_to_even_and_clamps():
    values = torch.tensor(
        [-0.5, 0.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 0.9999, 1.0, 7.0], dtype=torch.float64
    )
    clip = values[None, None, None].expand(1, 3, 1, 8)
    levels = to_uint8(clip)
    assert levels.shape == (1, 1, 8, 3)
    assert levels.dtype == torch.uint8
    assert levels[0, 0, :, 1].tolist() == [0, 0, 0, 2, 2, 255, 255, 255]


def test_to_uint8_equals_diffusers():
    from diffusers.image_processor import VaeImageProcessor

    clip = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = VaeImageProcessor.numpy_to_pil(clip.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(to_uint8(clip).numpy(), np.stack([np.asarray(i) for i in theirs]))


def test_round_trip(tmp_path):
    frames = to_uint8(pixels())
    write_video(tmp_path / "clip.mp4", frames, 24)
    back, fps = read_video(tmp_path / "clip.mp4")
    assert back.shape == frames.shape
    assert back.dtype == torch.uint8
    assert fps == 24
    assert (back.float() - frames.float()).abs().max() <= 12
    assert (back.float() - frames.float()).abs().mean() < 2.5


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 120, 30)])
def test_flat_colours_survive(tmp_path, colour):
    write_video(tmp_path / "c.mp4", np.full((3, 32, 32, 3), colour, np.uint8), 8)
    back, _ = read_video(tmp_path / "c.mp4")
    assert (back.int() - torch.tensor(colour)).abs().max() <= 3


def test_same_frames_same_bytes_whatever_the_memory_held(tmp_path):
    frames = to_uint8(pixels(height=64, width=48))
    draw = np.random.default_rng(0)
    seen = set()
    for turn in range(25):
        # Leaves freed blocks full of noise for the encoder to be handed.
        blocks = [draw.integers(0, 255, int(n), np.uint8) for n in draw.integers(64, 60_000, 60)]
        del blocks[::2]
        write_video(tmp_path / "a.mp4", frames if turn % 2 else frames.numpy(), 24)
        seen.add((tmp_path / "a.mp4").read_bytes())
    assert len(seen) == 1


def test_bytes_read_like_the_file(tmp_path):
    write_video(tmp_path / "a.mp4", to_uint8(pixels()), 23.976)
    frames, fps = read_video(tmp_path / "a.mp4")
    again, _ = read_video((tmp_path / "a.mp4").read_bytes())
    assert torch.equal(frames, again)
    assert fps == pytest.approx(23.976, abs=1e-6)


def test_odd_sizes_repeat_their_last_row_and_column(tmp_path):
    frames = to_uint8(pixels(height=33, width=47))
    write_video(tmp_path / "odd.mp4", frames, 8)
    back, _ = read_video(tmp_path / "odd.mp4")
    assert back.shape == (5, 34, 48, 3)
    grown = np.pad(frames.numpy(), ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    assert np.abs(back.numpy().astype(int) - grown).mean() < 2.5


def test_one_tiny_frame(tmp_path):
    write_video(tmp_path / "one.mp4", np.full((1, 4, 6, 3), 200, np.uint8), 24)
    assert read_video(tmp_path / "one.mp4")[0].shape == (1, 4, 6, 3)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    import av

    def fail(*_, **__):
        raise RuntimeError("disk full")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_video(path, to_uint8(pixels()), 24)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_other_frames_are_refused(tmp_path, frames):
    with pytest.raises(ValueError, match="expected uint8"):
        write_video(tmp_path / "x.mp4", frames, 24)


@pytest.mark.parametrize("fps", [0, -1, 1e-9, 0.009, 1001, float("nan"), float("inf")])
def test_no_frame_rate_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match=r"expected 0\.01 to 1000"):
        write_video(tmp_path / "x.mp4", np.zeros((1, 8, 8, 3), np.uint8), fps)


@pytest.mark.parametrize("fps", [0.01, 0.0337, 0.1, 1000])
def test_slow_and_fast_clips_keep_their_rate(tmp_path, fps):
    write_video(tmp_path / "x.mp4", np.zeros((3, 8, 8, 3), np.uint8), fps)
    frames, back = read_video(tmp_path / "x.mp4")
    assert len(frames) == 3
    assert back == pytest.approx(fps, rel=1e-3)


@pytest.mark.parametrize("data", [b"", b"junk", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"])
def test_what_is_no_mp4_is_refused(data):
    with pytest.raises(ValueError, match="expected an mp4 video"):
        read_video(data)


def test_small_clips_keep_a_colour_per_pixel(tmp_path):
    """Red and blue columns one pixel wide: with halved chroma they would come back purple."""
    stripes = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
    stripes[:, :, ::2, 0] = 255
    stripes[:, :, 1::2, 2] = 255
    write_video(tmp_path / "small.mp4", stripes, 8)
    back, _ = read_video(tmp_path / "small.mp4")
    assert (back.int() - stripes.int()).abs().max() < 40
