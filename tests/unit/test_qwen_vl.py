"""The Qwen-VL teachers: exact sharing, right gradients, what they are told, what they refuse."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from PIL import Image
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRMSNorm

from vlmteach.builtin.qwen_vl import save_random_qwen2_5_vl, save_random_qwen3_vl
from vlmteach.families import TEACHERS, family_class
from vlmteach.teachers import pixels
from vlmteach.teachers.qwen_vl import QwenVLTeacher

FAMILIES = {"qwen3_vl": save_random_qwen3_vl, "qwen2_5_vl": save_random_qwen2_5_vl}
FACTOR = {"qwen3_vl": 32, "qwen2_5_vl": 28}
QUERIES = [
    "Does the ball reach the red square by the end of the video?",
    "Is it blue?",
    "Does the object stay on the path without a change of shape, and move only to the target?",
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Any:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    path = tmp_path_factory.mktemp(family)
    FAMILIES[family](path)
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
    for norm in (Qwen2_5_VLRMSNorm, Qwen3VLTextRMSNorm):
        monkeypatch.setattr(norm, "forward", rms_norm)


def _load(folder, family, **changes) -> QwenVLTeacher:
    arguments: dict[str, Any] = {
        "dtype": torch.float32,
        "device": "cpu",
        "frame_pixels": 1 << 20,
        "share_video": True,
    }
    return family_class(TEACHERS, family).load(folder, **arguments | changes)


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
def test_one_shared_pass_equals_a_pass_per_query(family, folder, float64, answer):
    side = FACTOR[family]
    frames = _frames(5, 2 * side, side, torch.float64)
    found = []
    for share in (True, False):
        teacher = _load(folder, family, dtype=torch.float64, share_video=share)
        teacher.answer_ids = teacher.tokenizer.encode(answer)
        found.append(_scores_and_gradient(teacher, frames, QUERIES))
        prepared = teacher.prepare(QUERIES, _times(5), 2 * side, side)
        assert len(prepared.passes) == (1 if share else 3)
    (shared, shared_gradient), (alone, alone_gradient) = found
    assert shared.dtype == torch.float64
    assert len(set(shared.tolist())) == 3
    torch.testing.assert_close(shared, alone, rtol=1e-12, atol=0)
    difference = (shared_gradient - alone_gradient).norm() / alone_gradient.norm()
    assert difference <= 1e-11


# Finite differences also leave [0, 1] at the saturated pixels, where nothing clamps unresized
# frames. Resized frames stay off the ends, so that the straight-through clamp does not act.
@pytest.mark.parametrize("resized", [False, True])
def test_gradient_is_that_of_finite_differences(family, folder, float64, resized):
    side = FACTOR[family]
    height, width = (2 * side - 9, side + 5) if resized else (2 * side, side)
    teacher = _load(folder, family, dtype=torch.float64)
    frames = 0.4 + 0.2 * _frames(3, height, width, torch.float64)
    if not resized:
        frames[0, :, :4], frames[1, :, :4] = 0, 1
    prepared = teacher.prepare(QUERIES[:2], _times(3), height, width)
    assert (prepared.size != (height, width)) == resized

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
def test_equals_the_plain_model_asked_token_by_token(family, folder, answer):
    """Eq. 4 by its words: no packing, no kept logits, the convolution in place."""
    side = FACTOR[family]
    teacher = _load(folder, family)
    network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert isinstance(network.model.visual.patch_embed.proj, torch.nn.Conv3d)
    frames = _frames(4, side, 2 * side).requires_grad_()
    prepared = teacher.prepare(QUERIES[:1], _times(4), side, 2 * side)
    prompt = prepared.passes[0].ids[0].tolist()  # before the answer: "Yes" is one token

    teacher.answer_ids = teacher.tokenizer.encode(answer)
    ours = teacher.log_p_yes(frames, teacher.prepare(QUERIES[:1], _times(4), side, 2 * side))
    (gradient,) = torch.autograd.grad(ours.sum(), frames)

    rows = pixels.patches(frames, prepared.size, teacher._video)
    total = torch.zeros(())
    for place, token in enumerate(teacher.answer_ids):
        ids = torch.tensor([prompt + teacher.answer_ids[:place]])
        seconds = {} if family == "qwen3_vl" else {"second_per_grid_ts": [0.5]}
        logits = network(
            input_ids=ids,
            mm_token_type_ids=2 * (ids == network.config.video_token_id).int(),
            pixel_values_videos=rows,
            video_grid_thw=prepared.grid,
            **seconds,
        ).logits
        total = total + logits[0, -1].log_softmax(-1)[token]
    torch.testing.assert_close(ours[0], total, rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(total, frames)
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_saturated_frames_keep_their_gradient(family, folder, value):
    side = FACTOR[family]
    for height in (side, side + 7):
        _, gradient = _scores_and_gradient(
            _load(folder, family), torch.full((4, 3, height, side), value), QUERIES
        )
        assert gradient.isfinite().all()
        assert (gradient != 0).float().mean() > 0.99


def test_frames_over_the_budget_are_shrunk(family, folder):
    side = FACTOR[family]
    teacher = _load(folder, family, frame_pixels=4 * side * side)
    assert teacher.prepare(QUERIES, [0], 2 * side, 2 * side).size == (2 * side, 2 * side)
    prepared = teacher.prepare(QUERIES, [0], 8 * side, 2 * side)
    assert prepared.size == (4 * side, side)
    assert teacher.log_p_yes(_frames(1, 8 * side, 2 * side), prepared).shape == (3,)


def test_frame_times_are_told(family, folder):
    side = FACTOR[family]
    teacher = _load(folder, family)
    frames = _frames(5, side, side)
    slow = teacher.prepare(QUERIES[:1], [0, 2, 4, 6, 8], side, side)
    fast = teacher.prepare(QUERIES[:1], [0, 0.5, 1, 1.5, 2], side, side)
    told = teacher.tokenizer.decode(slow.passes[0].ids[0])
    if family == "qwen3_vl":
        # The mean of each pair; the last frame, alone, fills its pair.
        assert [f"<{t} seconds>" in told for t in (1.0, 5.0, 8.0)] == [True] * 3
    else:
        # 4 seconds per temporal patch, 2 positions per second.
        is_video = slow.passes[0].ids[0] == teacher.network.config.video_token_id
        t = slow.passes[0].positions[0, 0, is_video]
        assert (t - t[0]).tolist() == [0, 8, 16]
    assert teacher.log_p_yes(frames, slow) != teacher.log_p_yes(frames, fast)


def test_checkpointing_gives_the_same_gradient_for_less_memory(family, folder):
    side = FACTOR[family]
    scores, gradients, held = [], [], []
    for checkpointing in (False, True):
        teacher = _load(folder, family, checkpointing=checkpointing)
        prepared = teacher.prepare(QUERIES, _times(4), 2 * side, 2 * side)
        frames = _frames(4, 2 * side, 2 * side).requires_grad_()
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


def test_writing_is_greedy_and_leaves_no_trace(family, folder):
    side = FACTOR[family]
    teacher = _load(folder, family)
    prepared = teacher.prepare(QUERIES, _times(2), side, side)
    frames = _frames(2, side, side)
    before = teacher.log_p_yes(frames, prepared)
    state = torch.get_rng_state()
    picture = Image.new("RGB", (90, 50), "red")
    texts = {teacher.write("Describe the object.", [picture], 6) for _ in range(3)}
    assert len(texts) == 1
    assert teacher.write("Describe the object.", [], 6) not in texts
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(teacher.log_p_yes(frames, prepared), before)


def test_images_are_shrunk_to_the_budget(family, folder):
    side = FACTOR[family]
    teacher = _load(folder, family, frame_pixels=4 * side * side)
    rows, grid = teacher._image_patches(Image.new("RGB", (4 * side, 4 * side)))
    assert grid.tolist() == [[1, 4, 4]]
    assert len(rows) == 16


def test_thinking_is_switched_off_or_refused(family, folder, tmp_path):
    switchable = "{% if enable_thinking is false %}plain<|video_pad|>{% else %}<think>\n{% endif %}"
    for template, accepted in ((switchable, True), ("<|video_pad|><think>\n", False)):
        copy = shutil.copytree(folder, tmp_path / str(accepted))
        (copy / "chat_template.jinja").write_text(template)
        if accepted:
            teacher = _load(copy, family)
            ids = teacher.prepare(QUERIES, [0.0], 32, 32).passes[0].ids[0]
            assert teacher.tokenizer.decode(ids).startswith("plain")
        else:
            with pytest.raises(ValueError, match="Instruct"):
                _load(copy, family)


def test_bfloat16_scores_in_float32(family, folder):
    side = FACTOR[family]
    scores, gradient = _scores_and_gradient(
        _load(folder, family, dtype=torch.bfloat16), _frames(4, side, side), QUERIES
    )
    exact, exact_gradient = _scores_and_gradient(
        _load(folder, family), _frames(4, side, side), QUERIES
    )
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact, atol=0.1, rtol=0)
    assert torch.cosine_similarity(gradient.flatten(), exact_gradient.flatten(), dim=0) > 0.99


def test_refusals(family, folder, tmp_path):
    side = FACTOR[family]
    teacher = _load(folder, family)
    with pytest.raises(ValueError, match="at least one question"):
        teacher.prepare([], [0.0], side, side)
    for times in ([], [1.0, 1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="ascending"):
            teacher.prepare(QUERIES, times, side, side)
    for text in ("Is <|video_pad|> red?", "<|im_end|>"):
        with pytest.raises(ValueError, match="special token"):
            teacher.prepare([text], [0.0], side, side)
        with pytest.raises(ValueError, match="special token"):
            teacher.write(text, [], 1)
    prepared = teacher.prepare(QUERIES, [0.0], side, side)
    with pytest.raises(ValueError, match="prepare again"):
        teacher.log_p_yes(_frames(2, side, side), prepared)
    with pytest.raises(ValueError, match="frame_pixels"):
        _load(folder, family, frame_pixels=side * side - 1)
    (other,) = FAMILIES.keys() - {family}
    with pytest.raises(ValueError, match="model_type"):
        _load(folder, other)

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    config = json.loads((broken / "config.json").read_text())
    config.get("text_config", config)["attention_dropout"] = 0.1
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="dropout"):
        _load(broken, family)
    (broken / "chat_template.json").unlink()
    tokenizer = json.loads((broken / "tokenizer_config.json").read_text())
    (broken / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in tokenizer.items() if k != "chat_template"})
    )
    with pytest.raises(ValueError, match="chat template"):
        _load(broken, family)
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        _load(broken, family)


WITHOUT_TORCHVISION = """
import sys
sys.modules["torchvision"] = None  # an import of it now fails
import torch
from PIL import Image
from vlmteach.families import TEACHERS, family_class
teacher = family_class(TEACHERS, sys.argv[2]).load(sys.argv[1], dtype=torch.float32, device="cpu",
                                                 frame_pixels=1 << 20, share_video=True)
prepared = teacher.prepare(["Is it red?"], [0.0, 0.5], 56, 56)
frames = torch.rand(2, 3, 56, 56).requires_grad_()
teacher.log_p_yes(frames, prepared).sum().backward()
assert frames.grad.abs().sum() > 0
teacher.write("Describe it.", [Image.new("RGB", (56, 56))], 2)
assert sys.modules["torchvision"] is None
print("done")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="every other test here shows it"
)
def test_runs_without_torchvision(family, folder):
    words = [sys.executable, "-c", WITHOUT_TORCHVISION, str(folder), family]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr


def test_frames_are_seen_in_whole_blocks_and_pairs(family, folder):
    teacher, side = _load(folder, family, frame_pixels=1 << 18), FACTOR[family]
    for height, width in [(side, side), (3 * side, 2 * side)]:
        assert teacher.prepare(QUERIES, [0.0], height, width).size == (height, width)
    for height, width in [(side + 1, side), (3 * side - 1, 2 * side + 1), (2000, 1500)]:
        seen = teacher.prepare(QUERIES, [0.0], height, width).size
        assert seen[0] % side == seen[1] % side == 0
        assert seen != (height, width)
    for count in range(1, 6):
        times = list(range(count))
        assert teacher.prepare(QUERIES, times, side, side).grid[0, 0] == -(-count // 2)


def test_random_checkpoint_is_small_and_a_function_of_its_seed(family, folder, tmp_path):
    def digest(path):
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}

    state = torch.get_rng_state()
    FAMILIES[family](tmp_path / "same")
    FAMILIES[family](tmp_path / "other", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert digest(tmp_path / "same") == digest(folder)
    same, other = digest(tmp_path / "same"), digest(tmp_path / "other")
    assert {name for name in same if same[name] != other[name]} == {"model.safetensors"}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3e6


def test_random_checkpoint_has_the_real_layout(family, folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for answer in ("Yes", "No", "yes", "no", " Yes", " No"):
        assert len(tokenizer.encode(answer)) == 1
        assert tokenizer.decode(tokenizer.encode(answer)) == answer
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True
    )
    network, report = loaded
    assert {kind: list(found) for kind, found in report.items() if found} == {}
    config = network.config
    ids = {token: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for token in
           ("image_pad", "video_pad", "vision_start", "vision_end", "im_end")}  # fmt: skip
    assert [ids["image_pad"], ids["video_pad"]] == [config.image_token_id, config.video_token_id]
    assert [ids["vision_start"], ids["vision_end"]] == [
        config.vision_start_token_id,
        config.vision_end_token_id,
    ]
    assert ids["im_end"] in network.generation_config.eos_token_id
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith(
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert text.startswith("<|im_start|>" + ("user" if family == "qwen3_vl" else "system"))
