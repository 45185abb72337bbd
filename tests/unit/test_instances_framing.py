"""The clip an instance gets, and its first frame at that size."""

import pytest
from PIL import Image

from vlmteach.config import ClipConfig
from vlmteach.instances import InstanceError, clip_spec, fit_first_frame
from vlmteach.types import ClipSpec, Instance


def spec(size=None, defaults=None, **fields):
    image = Image.new("RGB", size) if size else None
    instance = Instance("k", "Go.", image, "digest", **fields)
    clip = ClipConfig(**{"frames": 89, "max_pixels": 704 * 1280, **(defaults or {})})
    return clip_spec(instance, clip, size_multiple=32, temporal_stride=4)


def test_an_instance_may_ask_for_four_times_the_clip_and_no_more():
    small = {"frames": 9, "max_pixels": 64 * 64}
    assert spec((8, 8), small, frames=33).frames == 33
    assert spec((8, 8), small, height=128, width=128).height == 128
    for fields in (
        {"frames": 41},
        {"frames": 13, "height": 128, "width": 128},
        {"frames": 9997, "height": 8192, "width": 8192},
    ):
        with pytest.raises(InstanceError, match="at most 147456 pixels in all, 4 times the run's"):
            spec((8, 8), small, **fields)
    fixed = {"frames": 9, "max_pixels": 1, "height": 32, "width": 32}
    assert spec(None, fixed).width == 32  # the run's own clip is never too large
    with pytest.raises(InstanceError, match="at most 36864 pixels in all"):
        spec(None, fixed, height=128, width=128)


@pytest.mark.parametrize(
    ("size", "pixels", "expected"),
    [
        ((1024, 1024), 704 * 1280, (928, 928)),
        ((64, 64), 704 * 1280, (928, 928)),
        ((1280, 704), 704 * 1280, (704, 1280)),
        ((704, 1280), 704 * 1280, (1280, 704)),
        ((1920, 1080), 704 * 1280, (704, 1248)),
        ((832, 480), 480 * 832, (480, 832)),
        ((32, 32), 32 * 32, (32, 32)),
        ((4000, 10), 64 * 64, (32, 128)),
        ((10, 4000), 64 * 64, (128, 32)),
        (None, 704 * 1280, (704, 1280)),
        (None, 480 * 832, (480, 832)),
    ],
)
def test_size_from_the_first_frame(size, pixels, expected):
    clip = spec(size, {"max_pixels": pixels})
    assert (clip.height, clip.width) == expected
    assert clip.height * clip.width <= pixels


def test_the_instance_wins_over_the_run_and_the_run_over_the_picture():
    run = {"height": 96, "width": 64}
    assert spec((64, 64), run) == ClipSpec(89, 96, 64, 24.0)
    own = spec((64, 64), run, height=32, width=128, frames=9, fps=8.0)
    assert own == ClipSpec(9, 32, 128, 8.0)


@pytest.mark.parametrize("frames", [0, 2, 4, 90])
def test_frames_the_reasoner_cannot_make(frames):
    with pytest.raises(InstanceError, match=r"expected 4 \(t - 1\) \+ 1") as caught:
        spec(frames=frames)
    assert caught.value.field == "frames"


def test_refusals_name_values_that_work():
    with pytest.raises(InstanceError, match="take 89 or 93"):
        spec(frames=90)
    with pytest.raises(InstanceError, match=r"got 100 x 64, .* take 96 x 64"):
        spec(height=100, width=64)
    with pytest.raises(InstanceError, match="max_pixels: got 500"):
        spec((64, 64), {"max_pixels": 500})


def test_a_matching_picture_is_resized_as_diffusers_does():
    from diffusers.video_processor import VideoProcessor

    image = Image.effect_noise((192, 108), 90).convert("RGB")
    ours = fit_first_frame(image, ClipSpec(9, 64, 112, 24))
    theirs = VideoProcessor(vae_scale_factor=16).resize(image, 64, 112)
    assert isinstance(theirs, Image.Image)
    assert ours.tobytes() == theirs.tobytes()


def test_a_picture_of_the_right_size_is_untouched():
    image = Image.effect_noise((64, 32), 90).convert("RGB")
    assert fit_first_frame(image, ClipSpec(9, 32, 64, 24)).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [(64, 64), (128, 32)])
def test_another_aspect_ratio_is_padded_with_the_border_colour(size):
    image = Image.new("RGB", size, (10, 200, 30))
    inner = (size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4)
    image.paste((250, 0, 0), inner)
    fitted = fit_first_frame(image, ClipSpec(9, 64, 128, 24))
    assert fitted.size == (128, 64)
    assert fitted.getpixel((0, 0)) == (10, 200, 30)
    assert fitted.getpixel((127, 63)) == (10, 200, 30)
    assert fitted.getpixel((64, 32)) == (250, 0, 0)
    # The inner square keeps its shape and stands in the middle.
    box = fitted.getchannel("R").point([0] * 130 + [255] * 126).getbbox()
    assert box is not None
    left, top, right, bottom = box
    assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], abs=0.1)
    assert left == 128 - right
    assert top == 64 - bottom
