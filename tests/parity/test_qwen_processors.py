"""Our pixels, tokens, positions and answers against the official Qwen-VL processors.

The official side runs once per family in a process of its own: see official_processors.py.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vlmteach.builtin.qwen_vl import save_random_qwen2_5_vl, save_random_qwen3_vl
from vlmteach.families import TEACHERS, family_class
from vlmteach.teachers import pixels
from vlmteach.teachers.chat import INSTRUCTION

FAMILIES = {
    "qwen3_vl": (save_random_qwen3_vl, 32),
    "qwen2_5_vl": (save_random_qwen2_5_vl, 28),
}
QUERY = "Does the red ball reach the blue square?"
REMEDY = "python -m pip install --no-deps --target .parity torchvision==0.28.0"

FITS = [(4, 4.0), (5, 7.3), (8, 24.0), (2, 1.0)]
"""Frames and frames per second of the clips that need no resize, 2 x 3 blocks of patches."""
RESIZED = [(100, 75), (333, 250), (50, 70)]
BUDGET = 40_000
SHARED = [(4, 270), (4, 297), (2, 180), (6, 450), (4, 900)]
"""Frames of 352 x 480 pixels, and tokens that they share: multiples of 9 for Qwen2.5-VL, whose
processor takes 0.9 of a number. All fit into the last."""
IMAGES = {"fits": None, "down": (300, 500), "up": (90, 64)}


def _clip(count, height, width):
    """Blocks of colour under noise, uint8: resizing has edges to overshoot at."""
    generator = torch.Generator().manual_seed(count + height + width)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    blocks = torch.nn.functional.interpolate(coarse, size=(height, width), mode="nearest")
    noise = 0.1 * torch.rand(count, 3, height, width, generator=generator)
    return ((blocks + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def _cases(side):
    """Name -> (frames, what the script is told)."""
    cases = {}
    about = {"kind": "video", "text": f"{QUERY} {INSTRUCTION}", "budget": 1 << 20}
    for count, fps in FITS:
        clip = _clip(count, 2 * side, 3 * side)
        cases[f"fits {count} uint8"] = clip, {**about, "fps": fps}
        cases[f"fits {count} float"] = clip / 255, {**about, "fps": fps}
    for shape in RESIZED:
        clip = _clip(4, *shape)
        cases[f"resized {shape} uint8"] = clip, {**about, "fps": 1.0, "budget": BUDGET}
        cases[f"resized {shape} float"] = clip / 255, {**about, "fps": 1.0, "budget": BUDGET}
    for count, tokens in SHARED:
        given = {**about, "fps": 1.0, "tokens": tokens}
        cases[f"shared {count} {tokens}"] = _clip(count, 352, 480), given
    for name, shape in IMAGES.items():
        clip = _clip(1, *(shape or (10 * side, 10 * side)))
        cases[f"image {name}"] = clip, {"kind": "image", "text": QUERY}
    cases["image pair"] = _clip(2, 10 * side, 10 * side), {"kind": "image", "text": QUERY}
    return cases


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def side(family):
    return FAMILIES[family][1]


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    path = tmp_path_factory.mktemp(family)
    FAMILIES[family][0](path)
    return path


@pytest.fixture(scope="module")
def official(folder, side, tmp_path_factory):
    """Case -> field -> tensor, as the official processor returns it."""
    beside = Path(__file__).parents[2] / ".parity"
    if not beside.is_dir() and importlib.util.find_spec("torchvision") is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"the official video processors need torchvision; in the repository: {REMEDY}")
    work = tmp_path_factory.mktemp("official")
    cases = _cases(side)
    save_file(
        {name: frames.contiguous() for name, (frames, _) in cases.items()},
        work / "cases.safetensors",
        metadata={"cases": json.dumps({name: about for name, (_, about) in cases.items()})},
    )
    script = Path(__file__).with_name("official_processors.py")
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
    if beside.is_dir():
        environment["PARITY_TORCHVISION"] = str(beside)
    files = [str(work / "cases.safetensors"), str(work / "out.safetensors")]
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *files],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = defaultdict(dict)
    for name, tensor in load_file(files[1]).items():
        case, field = name.rsplit("/", 1)
        out[case][field] = tensor
    assert out.keys() == cases.keys()
    return out


@pytest.fixture(scope="module")
def network(folder) -> Any:
    """The official class as its users load it: with the convolution, without our changes."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def _teacher(folder, family, frame_pixels=1 << 20, **options):
    return family_class(TEACHERS, family).load(
        folder,
        dtype=torch.float32,
        device="cpu",
        frame_pixels=frame_pixels,
        share_video=True,
        **options,
    )


def _grey(rows, spec):
    """Patches [N, C * ...] in grey levels 0..255: their columns run over C first."""
    std, mean = (torch.tensor(x).view(3, 1) for x in (spec.std, spec.mean))
    return (rows.unflatten(1, (3, -1)) * std + mean) * 255


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize(("count", "fps"), FITS)
def test_pixels_equal_where_no_resize_is_needed(family, folder, official, side, count, fps, kind):
    theirs = official[f"fits {count} {kind}"]
    teacher = _teacher(folder, family)
    prepared = teacher.prepare([QUERY], [i / fps for i in range(count)], 2 * side, 3 * side)
    ours = pixels.patches(_clip(count, 2 * side, 3 * side) / 255, prepared.size, teacher._video)
    assert prepared.grid.tolist() == theirs["video_grid_thw"].tolist()
    torch.testing.assert_close(ours, theirs["pixel_values_videos"], atol=1e-5, rtol=0)


# In grey levels of 255, largest and mean difference. Measured: float 0; uint8 up to 10.3 and 0.3,
# as the CPU's uint8 kernel clips and rounds between its two passes.
@pytest.mark.parametrize(("kind", "most", "mean"), [("float", 1e-3, 1e-4), ("uint8", 12, 0.5)])
@pytest.mark.parametrize("shape", RESIZED)
def test_pixels_close_where_resized(family, folder, official, shape, kind, most, mean):
    theirs = official[f"resized {shape} {kind}"]
    teacher = _teacher(folder, family, BUDGET)
    prepared = teacher.prepare([QUERY], [0, 1, 2, 3], *shape)
    assert prepared.grid.tolist() == theirs["video_grid_thw"].tolist()
    assert prepared.size != shape
    spec = teacher._video
    ours = _grey(pixels.patches(_clip(4, *shape) / 255, prepared.size, spec), spec)
    # On floats the official path lets bicubic overshoot the range; on uint8 it clips, as we do.
    difference = (ours - _grey(theirs["pixel_values_videos"], spec).clamp(0, 255)).abs()
    assert difference.max() <= most
    assert difference.mean() <= mean


@pytest.mark.parametrize(("count", "tokens"), SHARED)
def test_frames_share_a_budget_as_the_official_ones(family, folder, official, count, tokens):
    theirs = official[f"shared {count} {tokens}"]
    teacher = _teacher(folder, family, video_tokens=tokens)
    assert teacher.frames_of(count, 352, 480) == count
    prepared = teacher.prepare([QUERY], list(map(float, range(count))), 352, 480)
    assert prepared.grid.tolist() == theirs["video_grid_thw"].tolist()
    (packed,) = prepared.passes
    assert packed.ids.tolist() == theirs["input_ids"].tolist()
    assert int(teacher._visual(packed.ids).sum()) <= tokens


@pytest.mark.parametrize(("count", "fps"), FITS)
def test_tokens_and_positions_equal(family, folder, official, network, side, count, fps):
    theirs = official[f"fits {count} uint8"]
    prepared = _teacher(folder, family).prepare(
        [QUERY], [i / fps for i in range(count)], 2 * side, 3 * side
    )
    (packed,) = prepared.passes
    assert packed.ids.tolist() == theirs["input_ids"].tolist()
    kinds = 2 * (packed.ids == network.config.video_token_id)
    assert kinds.tolist() == theirs["mm_token_type_ids"].tolist()
    positions, _ = network.model.get_rope_index(
        theirs["input_ids"],
        mm_token_type_ids=theirs["mm_token_type_ids"],
        video_grid_thw=theirs["video_grid_thw"],
        second_per_grid_ts=theirs.get("second_per_grid_ts"),
        attention_mask=theirs["attention_mask"],
    )
    assert packed.positions.tolist() == positions.tolist()


@pytest.mark.parametrize(("count", "fps"), FITS)
def test_answers_equal_the_official_model_on_official_inputs(
    family, folder, official, network, side, count, fps
):
    with torch.no_grad():
        logits = network(**official[f"fits {count} uint8"], use_cache=False).logits[0, -1]
    teacher = _teacher(folder, family)
    prepared = teacher.prepare([QUERY], [i / fps for i in range(count)], 2 * side, 3 * side)
    ours = teacher.log_p_yes(_clip(count, 2 * side, 3 * side) / 255, prepared)
    (yes,) = teacher.answer_ids
    torch.testing.assert_close(ours[0], logits.log_softmax(-1)[yes], atol=2e-5, rtol=0)


# Grey levels again; measured 3e-5, 2 and 6.
@pytest.mark.parametrize(("name", "most"), [("fits", 1e-3), ("down", 4), ("up", 8)])
def test_image_pixels(family, folder, official, side, name, most):
    theirs = official[f"image {name}"]
    teacher = _teacher(folder, family)
    ours, grid = teacher._image_patches(_picture(side, name))
    assert grid.tolist() == theirs["image_grid_thw"].tolist()
    spec = teacher._image
    difference = (_grey(ours, spec) - _grey(theirs["pixel_values"], spec)).abs()
    assert difference.max() <= most


@pytest.mark.parametrize(("name", "count"), [("fits", 1), ("pair", 2)])
def test_writes_what_the_official_model_writes(
    family, folder, official, network, side, name, count, monkeypatch
):
    theirs = official[f"image {name}"]
    teacher = _teacher(folder, family)
    given = {}

    def record(**arguments):
        given.update(arguments)
        return generate(**arguments)

    generate = teacher.network.generate
    monkeypatch.setattr(teacher.network, "generate", record)
    frames = _clip(count, 10 * side, 10 * side).permute(0, 2, 3, 1).numpy()
    written = teacher.write(QUERY, [Image.fromarray(frame) for frame in frames], 12)
    for field, tensor in theirs.items():
        torch.testing.assert_close(given[field], tensor, atol=1e-5, rtol=0, check_dtype=False)

    tokens = network.generate(**theirs, max_new_tokens=12, do_sample=False, repetition_penalty=1.0)
    new = tokens[0, theirs["input_ids"].shape[1] :]
    expected = teacher.tokenizer.decode(new, skip_special_tokens=True)
    assert written == expected.strip()


def _picture(side, name):
    clip = _clip(1, *(IMAGES[name] or (10 * side, 10 * side)))
    return Image.fromarray(clip[0].permute(1, 2, 0).numpy())
