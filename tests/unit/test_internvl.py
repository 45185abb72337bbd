"""The InternVL teacher: exact sharing, right gradients, what it is told, what it refuses."""

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from PIL import Image
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from vlmteach.builtin.internvl import save_random_internvl
from vlmteach.teachers import tiles
from vlmteach.teachers.internvl import InternVLTeacher
from vlmteach.teachers.tiles import TileSpec

TILE = 56
QUERIES = [
    "Does the ball reach the red square by the end of the video?",
    "Is it blue?",
    "Does the object stay on the path without a change of shape, and move only to the target?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("internvl")
    save_random_internvl(path)
    return path


@pytest.fixture
def float64(monkeypatch):
    """Lets a float64 model compute in float64: transformers casts to float32 here and there."""
    to_float = torch.Tensor.float

    def keep(tensor, *args, **kwargs):
        return tensor if tensor.dtype is torch.float64 else to_float(tensor, *args, **kwargs)

    def rms_norm(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, True) + self.variance_epsilon)

    monkeypatch.setattr(torch.Tensor, "float", keep)
    monkeypatch.setattr(Qwen2RMSNorm, "forward", rms_norm)


def _load(folder, **changes) -> InternVLTeacher:
    arguments: dict[str, Any] = {
        "dtype": torch.float32,
        "device": "cpu",
        "frame_pixels": 1 << 20,
        "share_video": True,
    }
    return InternVLTeacher.load(folder, **arguments | changes)


def _frames(count, height, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, height, width, generator=generator, dtype=dtype)


def _times(count):
    return [i / 4 for i in range(count)]


def _scores_and_gradient(teacher, frames, queries):
    frames = frames.clone().requires_grad_()
    prepared = teacher.prepare(queries, _times(len(frames)), *frames.shape[-2:])
    scores = teacher.log_p_yes(frames, prepared)
    weights = torch.arange(1, len(queries) + 1, dtype=scores.dtype)
    (gradient,) = torch.autograd.grad((scores * weights).sum(), frames)
    return scores.detach(), gradient


@pytest.mark.parametrize("answer", ["Yes", "Yes, it reaches the target"])
def test_one_shared_pass_equals_a_pass_per_query(folder, float64, answer):
    found = []
    for share in (True, False):
        teacher = _load(folder, dtype=torch.float64, share_video=share)
        teacher.answer_ids = teacher.tokenizer.encode(answer)
        found.append(_scores_and_gradient(teacher, _frames(3, TILE, TILE, torch.float64), QUERIES))
        assert len(teacher.prepare(QUERIES, _times(3), 9, 9).passes) == (1 if share else 3)
    (shared, shared_gradient), (alone, alone_gradient) = found
    assert shared.dtype == torch.float64
    assert len(set(shared.tolist())) == 3
    torch.testing.assert_close(shared, alone, rtol=1e-12, atol=0)
    difference = (shared_gradient - alone_gradient).norm() / alone_gradient.norm()
    assert difference <= 1e-11


# Resized frames stay off 0 and 1, where the straight-through clamp would act.
@pytest.mark.parametrize("resized", [False, True])
def test_gradient_is_that_of_finite_differences(folder, float64, resized):
    height, width = (2 * TILE - 9, TILE - 5) if resized else (TILE, TILE)
    teacher = _load(folder, dtype=torch.float64)
    frames = 0.4 + 0.2 * _frames(3, height, width, torch.float64)
    if not resized:
        frames[0, :, :4], frames[1, :, :4] = 0, 1
    prepared = teacher.prepare(QUERIES[:2], _times(3), height, width)
    frames.requires_grad_()
    (gradient,) = torch.autograd.grad(teacher.log_p_yes(frames, prepared).sum(), frames)
    for index in [(0, 0, 1, 2), (1, 1, 2, 3), (2, 2, height - 1, width - 1), (1, 0, 20, 11)]:
        step = torch.zeros_like(frames)
        step[index] = 1e-5
        with torch.no_grad():
            up = teacher.log_p_yes(frames + step, prepared).sum()
            down = teacher.log_p_yes(frames - step, prepared).sum()
        expected = ((up - down) / 2e-5).item()
        assert gradient[index].item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("answer", ["Yes", "Yes, it is"])
def test_equals_the_plain_model_asked_token_by_token(folder, answer):
    """Eq. 4 by its words: no packing, no kept logits."""
    teacher = _load(folder)
    network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    frames = _frames(4, TILE, 40).requires_grad_()
    prepared = teacher.prepare(QUERIES[:1], _times(4), TILE, 40)
    prompt = prepared.passes[0].ids[0].tolist()  # before the answer: "Yes" is one token

    teacher.answer_ids = teacher.tokenizer.encode(answer)
    ours = teacher.log_p_yes(frames, teacher.prepare(QUERIES[:1], _times(4), TILE, 40))
    (gradient,) = torch.autograd.grad(ours.sum(), frames)

    shown = tiles.frame_tiles(frames, teacher._video)
    assert shown.shape == (4, 3, TILE, TILE)
    total = torch.zeros(())
    for place, token in enumerate(teacher.answer_ids):
        ids = torch.tensor([prompt + teacher.answer_ids[:place]])
        logits = network(input_ids=ids, pixel_values=shown).logits
        total = total + logits[0, -1].log_softmax(-1)[token]
    torch.testing.assert_close(ours[0], total, rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(total, frames)
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_saturated_frames_keep_their_gradient(folder, value):
    _, gradient = _scores_and_gradient(_load(folder), torch.full((2, 3, 70, 60), value), QUERIES)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.99


def test_frames_are_numbered_and_one_tile_each(folder):
    teacher = _load(folder)
    ids = teacher.prepare(QUERIES[:1], _times(3), 200, 100).passes[0].ids[0]
    told = teacher.tokenizer.decode(ids)
    tile = "<img>" + 4 * "<IMG_CONTEXT>" + "</img>"
    assert f"Frame1: {tile}\nFrame2: {tile}\nFrame3: {tile}\n{QUERIES[0]} Answer" in told


def test_checkpointing_gives_the_same_gradient_for_less_memory(folder):
    scores, gradients, held = [], [], []
    for checkpointing in (False, True):
        teacher = _load(folder, checkpointing=checkpointing)
        prepared = teacher.prepare(QUERIES, _times(4), TILE, TILE)
        frames = _frames(4, TILE, TILE).requires_grad_()
        sizes = []

        def count(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with saved_tensors_hooks(count, lambda tensor: tensor):
            scores.append(teacher.log_p_yes(frames, prepared))
        assert not any(module.training for module in teacher.network.modules())
        gradients.append(torch.autograd.grad(scores[-1].sum(), frames)[0])
        held.append(sum(sizes))
    assert torch.equal(*scores)
    assert torch.equal(*gradients)
    assert held[1] < held[0] / 2


def test_writing_is_greedy_and_listens_to_images_in_order(folder):
    teacher = _load(folder)
    state = torch.get_rng_state()
    pictures = [Image.new("RGB", (90, 50), "red"), Image.new("RGB", (60, 60), "blue")]
    texts = {teacher.write("Describe the object.", pictures, 6) for _ in range(2)}
    assert len(texts) == 1
    others = [pictures[::-1], pictures[:1], []]
    assert len({teacher.write("Describe the object.", shown, 6) for shown in others} | texts) == 4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("source", "most", "expected"),
    [
        ((448, 448), 12, (1, 1)),
        ((900, 900), 12, (2, 2)),
        ((1000, 1000), 12, (3, 3)),
        ((400, 800), 12, (1, 2)),
        ((1400, 700), 12, (4, 2)),
        ((10, 100), 12, (1, 10)),
        ((100, 10), 3, (3, 1)),
        ((900, 900), 1, (1, 1)),
    ],
)
def test_canvas(source, most, expected):
    assert tiles.canvas(source, (448, 448), most) == expected


def test_images_are_cut_into_tiles_within_the_budget(folder):
    spec = TileSpec(size=(2, 2), mean=(0.0,) * 3, std=(1.0,) * 3)
    image = torch.arange(8).reshape(1, 1, 2, 4).expand(1, 3, 2, 4) / 255
    cut = tiles.image_tiles(image, spec, 12) * 255
    assert cut.shape == (3, 3, 2, 2)
    assert cut[:2, 0].round().tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]

    wide = Image.new("RGB", (4 * TILE, TILE))
    for budget, count in ((TILE**2, 1), (3 * TILE**2 + 5, 3 + 1), (1 << 20, 4 + 1)):
        assert len(_load(folder, frame_pixels=budget)._image_tiles(wide)) == count


def test_bfloat16_scores_in_float32(folder):
    frames = _frames(4, TILE, TILE)
    scores, gradient = _scores_and_gradient(_load(folder, dtype=torch.bfloat16), frames, QUERIES)
    exact, exact_gradient = _scores_and_gradient(_load(folder), frames, QUERIES)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact, atol=0.15, rtol=0)
    assert torch.cosine_similarity(gradient.flatten(), exact_gradient.flatten(), dim=0) > 0.99


# Preprocessor files


def _change(folder, name, **fields):
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


def test_a_video_file_of_another_size_is_passed_over_with_a_warning(folder, tmp_path, caplog):
    copy = shutil.copytree(folder, tmp_path / "copy")
    default = json.loads((copy / "preprocessor_config.json").read_text())
    default |= {"size": {"height": 384, "width": 384}, "image_mean": [0.48, 0.46, 0.41]}
    (copy / "video_preprocessor_config.json").write_text(json.dumps(default))
    with caplog.at_level(logging.WARNING):
        _, video = tiles.tile_specs(copy, (TILE, TILE))
    assert video == tiles.tile_specs(folder, (TILE, TILE))[1]
    assert "384" in caplog.text

    default["size"] = {"height": TILE, "width": TILE}
    (copy / "video_preprocessor_config.json").write_text(json.dumps(default))
    image, video = tiles.tile_specs(copy, (TILE, TILE))
    assert video.mean == (0.48, 0.46, 0.41) != image.mean


def test_specs_nested_in_the_processor_file_are_found(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    video = content | {"image_std": [0.3, 0.3, 0.3]}
    _change(copy, "processor_config.json", image_processor=content, video_processor=video)
    found = tiles.tile_specs(copy, (TILE, TILE))
    assert found[0] == tiles.tile_specs(folder, (TILE, TILE))[0]
    assert found[1].std == (0.3, 0.3, 0.3)


def test_the_first_conversions_template_is_taken(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    template = json.loads((copy / "chat_template.json").read_text())["chat_template"]
    (copy / "chat_template.jinja").write_text(template.replace("<IMG_CONTEXT>", "<image>"))
    picture = Image.new("RGB", (TILE, TILE), "red")
    written = {_load(path).write("Describe it.", [picture], 5) for path in (folder, copy)}
    assert len(written) == 1


def test_refusals(folder, tmp_path):
    teacher = _load(folder)
    for text in ("Is <video> red?", "<IMG_CONTEXT>", "<|im_end|>"):
        with pytest.raises(ValueError, match="special token"):
            teacher.prepare([text], [0.0], TILE, TILE)
        with pytest.raises(ValueError, match="special token"):
            teacher.write(text, [], 1)
    with pytest.raises(ValueError, match=rf"at least {TILE * TILE} .*raise it"):
        _load(folder, frame_pixels=TILE * TILE - 1)

    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ messages[0]['role'] }}")
    with pytest.raises(ValueError, match="chat template"):
        _load(copy).prepare(QUERIES, [0.0], TILE, TILE)
    _change(copy, "preprocessor_config.json", size={"height": 384, "width": 384})
    with pytest.raises(ValueError, match=r"got tiles of \(384, 384\).*expected.*56"):
        _load(copy)
    (copy / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"expected what the checkpoint's processor does"):
        _load(copy)

    copy = shutil.copytree(folder, tmp_path / "plain")
    tokenizer = json.loads((copy / "tokenizer_config.json").read_text())
    kept = {k: v for k, v in tokenizer.items() if not k.endswith(("image_token", "video_token"))}
    del kept["extra_special_tokens"]
    (copy / "tokenizer_config.json").write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"start_image_token.*-hf"):
        _load(copy)

    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["hidden_dropout_prob"] = 0.1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="hidden_dropout_prob"):
        _load(copy)
    _change(copy, "config.json", model_type="qwen3_vl")
    with pytest.raises(ValueError, match="model_type"):
        _load(copy)


def test_every_frame_is_seen_as_one_tile_of_its_own(folder):
    teacher = _load(folder, frame_pixels=1 << 18)
    for height, width in [(TILE, TILE), (3 * TILE - 1, 2 * TILE + 1), (2000, 1500)]:
        assert teacher.prepare(QUERIES, [0.0], height, width).size == (TILE, TILE)
    for count in range(1, 4):
        assert teacher.prepare(QUERIES, list(range(count)), TILE, TILE).grid[0, 0] == count


WITHOUT_TORCHVISION = """
import sys
sys.modules["torchvision"] = None  # an import of it now fails
import torch
from PIL import Image
from vlmteach.teachers.internvl import InternVLTeacher
teacher = InternVLTeacher.load(sys.argv[1], dtype=torch.float32, device="cpu",
                               frame_pixels=1 << 20, share_video=True)
prepared = teacher.prepare(["Is it red?"], [0.0, 0.5], 56, 56)
frames = torch.rand(2, 3, 56, 56).requires_grad_()
teacher.log_p_yes(frames, prepared).sum().backward()
assert frames.grad.abs().sum() > 0
teacher.write("Describe it.", [Image.new("RGB", (56, 56))], 2)
print("done")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="every other test here shows it"
)
def test_runs_without_torchvision(folder):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCHVISION, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr


def test_random_checkpoint_has_the_real_layout(folder, tmp_path):
    state = torch.get_rng_state()
    save_random_internvl(tmp_path / "same")
    assert torch.equal(torch.get_rng_state(), state)
    for file in folder.iterdir():
        assert (tmp_path / "same" / file.name).read_bytes() == file.read_bytes()
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True
    )
    network, report = loaded
    assert {kind: list(found) for kind, found in report.items() if found} == {}
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.context_image_token == "<IMG_CONTEXT>"
    assert tokenizer.context_image_token_id == network.config.image_token_id
    for answer in ("Yes", "No", " Yes"):
        assert len(tokenizer.encode(answer)) == 1
