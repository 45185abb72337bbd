"""Our tiles, tokens and answers against the official InternVL processor.

The official side runs once, in a process of its own: see official_processors.py.
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

from vlmteach.builtin.internvl import save_random_internvl
from vlmteach.teachers import tiles
from vlmteach.teachers.chat import INSTRUCTION
from vlmteach.teachers.internvl import InternVLTeacher

TILE = 56
QUERY = "Does the red ball reach the blue square?"
REMEDY = "python -m pip install --no-deps --target .parity torchvision==0.28.0"
VIDEOS = [(4, TILE, TILE), (3, 100, 75), (5, 40, 50), (1, 333, 250)]
"""Frames, height and width; the first needs no resize."""
IMAGES = {"one tile": (TILE, TILE), "wide": (60, 230), "many": (300, 410), "small": (30, 45)}


def _clip(count, height, width):
    """Blocks of colour under noise, uint8: resizing has edges to overshoot at."""
    generator = torch.Generator().manual_seed(count + height + width)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    blocks = torch.nn.functional.interpolate(coarse, size=(height, width), mode="nearest")
    noise = 0.1 * torch.rand(count, 3, height, width, generator=generator)
    return ((blocks + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def _cases():
    """Name -> (frames, what the script is told)."""
    about = {"kind": "video", "text": f"{QUERY} {INSTRUCTION}", "fps": 4.0, "budget": 0}
    cases = {}
    for shape in VIDEOS:
        cases[f"{shape} uint8"] = _clip(*shape), about
        cases[f"{shape} float"] = _clip(*shape) / 255, about
    for name, shape in IMAGES.items():
        cases[name] = _clip(1, *shape), {"kind": "image", "text": QUERY}
    return cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("internvl")
    save_random_internvl(path)
    return path


@pytest.fixture(scope="module")
def official(folder, tmp_path_factory):
    """Case -> field -> tensor, as the official processor returns it."""
    beside = Path(__file__).parents[2] / ".parity"
    if not beside.is_dir() and importlib.util.find_spec("torchvision") is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"the official processor needs torchvision; in the repository: {REMEDY}")
    work = tmp_path_factory.mktemp("official")
    cases = _cases()
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
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def teacher(folder) -> InternVLTeacher:
    return InternVLTeacher.load(
        folder, dtype=torch.float32, device="cpu", frame_pixels=1 << 20, share_video=True
    )


def _prepared(teacher, shape):
    return teacher.prepare([QUERY], [i / 4 for i in range(shape[0])], *shape[1:])


def _grey(pixels, spec):
    """[N, 3, H, W] in grey levels 0..255."""
    std, mean = (torch.tensor(x).view(3, 1, 1) for x in (spec.std, spec.mean))
    return (pixels * std + mean) * 255


# In grey levels of 255, largest and mean difference. Measured: float 8e-6; uint8 up to 15.3 and
# 0.3 where a clip is enlarged, as the CPU's kernel clips and rounds between its two passes.
@pytest.mark.parametrize(("kind", "most", "mean"), [("float", 1e-3, 1e-4), ("uint8", 18, 0.5)])
@pytest.mark.parametrize("shape", VIDEOS)
def test_video_pixels(teacher, official, shape, kind, most, mean):
    spec = teacher._video
    ours = _grey(tiles.frame_tiles(_clip(*shape) / 255, spec), spec)
    theirs = _grey(official[f"{shape} {kind}"]["pixel_values"], spec)
    assert ours.shape == theirs.shape == (shape[0], 3, TILE, TILE)
    # On floats the official path lets bicubic overshoot the range; on uint8 it clips, as we do.
    difference = (ours - theirs.clamp(0, 255)).abs()
    print(f"{shape} {kind}: max {difference.max():.1e}, mean {difference.mean():.1e}")
    assert difference.max() <= (1e-3 if shape == VIDEOS[0] else most)
    assert difference.mean() <= mean


@pytest.mark.parametrize("shape", VIDEOS)
def test_tokens_equal(teacher, official, shape):
    (packed,) = _prepared(teacher, shape).passes
    assert packed.ids.tolist() == official[f"{shape} uint8"]["input_ids"].tolist()


@pytest.mark.parametrize(("shape", "kind"), [(VIDEOS[0], "uint8"), (VIDEOS[0], "float")])
def test_answers_equal_the_official_model_on_official_inputs(
    teacher, official, network, shape, kind
):
    with torch.no_grad():
        logits = network(**official[f"{shape} {kind}"], use_cache=False).logits[0, -1]
    ours = teacher.log_p_yes(_clip(*shape) / 255, _prepared(teacher, shape))
    (yes,) = teacher.answer_ids
    expected = logits.log_softmax(-1)[yes]
    print(f"{kind}: {(ours[0] - expected).abs():.1e}")
    torch.testing.assert_close(ours[0], expected, atol=2e-5, rtol=0)


# Grey levels again.
@pytest.mark.parametrize(
    ("name", "count", "most"),
    [("one tile", 1, 1e-3), ("wide", 4 + 1, 12), ("many", 12 + 1, 12), ("small", 6 + 1, 12)],
)
def test_image_pixels(teacher, official, name, count, most):
    spec = teacher._image
    ours = _grey(teacher._image_tiles(_picture(name)), spec)
    theirs = _grey(official[name]["pixel_values"], spec)
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs()
    print(f"{name}: {len(ours)} tiles, max {difference.max():.1e}, mean {difference.mean():.1e}")
    assert len(ours) == count
    assert difference.max() <= most


@pytest.mark.parametrize("name", ["one tile", "many"])
def test_writes_what_the_official_model_writes(teacher, official, network, name, monkeypatch):
    theirs = official[name]
    given = {}

    def record(**arguments):
        given.update(arguments)
        return generate(**arguments)

    generate = teacher.network.generate
    monkeypatch.setattr(teacher.network, "generate", record)
    written = teacher.write(QUERY, [_picture(name)], 12)
    assert torch.equal(given["input_ids"], theirs["input_ids"])
    if name == "one tile":
        torch.testing.assert_close(given["pixel_values"], theirs["pixel_values"], atol=1e-5, rtol=0)
        tokens = network.generate(
            **theirs, max_new_tokens=12, do_sample=False, repetition_penalty=1.0
        )
        new = tokens[0, theirs["input_ids"].shape[1] :]
        expected = teacher.tokenizer.decode(new, skip_special_tokens=True)
        assert written == expected.strip()


def _picture(name):
    return Image.fromarray(_clip(1, *IMAGES[name])[0].permute(1, 2, 0).numpy())
