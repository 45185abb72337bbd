"""A judge on this machine: a small LLaVA, wired by hand to say one sentence."""

import json
import shutil

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.judges import JudgeError, Turn
from benchmarks.judges.local import LocalJudge, model_types, weights_digest
from benchmarks.ruler.__main__ import make_judge, parser
from benchmarks.ruler.asking import parse
from benchmarks.ruler.export import Exported

SENTENCE = ["<think>", "fine", "</think>", "<answer>", '["Good",', '"Poor"]', "</answer>"]
SIZE = 64
"""Words, and with one direction per word the width of the language model."""


def save_llava(folder, sentence):
    """Writes a checkpoint whose language model says `sentence` after the word "JUDGE:"."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = ["<unk>", "<end>", "<image>", "JUDGE:", *sentence]
    tokens = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        unk_token="<unk>",
        eos_token="<end>",
        pad_token="<end>",
        extra_special_tokens={"image_token": "<image>"},
    )
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8}
        ),
        tokenizer=tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{{ m.role }} {% for p in m.content %}"
        "{{ '<image>' if p.type == 'image' else p.text }} {% endfor %}{% endfor %}JUDGE:",
    ).save_pretrained(folder)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    text = LlamaConfig(
        vocab_size=SIZE,
        hidden_size=SIZE,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=2)
    model = LlavaForConditionalGeneration(config)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()  # what goes in comes out: the state is the last word
        follow = weights["lm_head.weight"].zero_()
        weights["model.language_model.embed_tokens.weight"].copy_(torch.eye(SIZE))
        follow[1] = 0.01
        for word, after in zip([3, *range(4, len(words))], [*range(4, len(words)), 1], strict=True):
            follow[after, word] = 1
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("judge") / "llava", SENTENCE)


TURNS = (
    Turn("system", ("Rate the video.",)),
    Turn("user", ("Video:", Image.new("RGB", (12, 9), "red"), Image.new("RGB", (12, 9)), "1. Q?")),
)


def test_a_checkpoint_judges(checkpoint):
    judge = LocalJudge(checkpoint, device="cpu")
    reply = judge.reply(TURNS)
    assert parse(reply.text, 2) == (("Good", "Poor"), "fine")
    assert reply.tokens["completion_tokens"] == len(SENTENCE) + 1
    # Two images of (8 / 4)^2 patches each.
    assert reply.tokens["prompt_tokens"] >= 8
    again = (*TURNS, Turn("assistant", ("no",)), Turn("user", ("Again.",)))
    assert judge.reply(again).text == reply.text


def test_its_name_tells_its_weights(checkpoint, tmp_path):
    judge = LocalJudge(checkpoint, device="cpu")
    digest = weights_digest(checkpoint)
    assert judge.name == f"llava (local, {digest[:12]})"
    other = save_llava(tmp_path / "llava", SENTENCE[:-1])
    assert weights_digest(other) != digest


def test_what_it_cannot_read_is_its_error(checkpoint):
    """A prompt may spell the token that stands for an image."""
    judge = LocalJudge(checkpoint, device="cpu")
    with pytest.raises(JudgeError):
        judge.reply((Turn("user", ("one <image> too many", Image.new("RGB", (9, 9)))),))


def test_whatever_a_template_raises_is_that_conversations_error(checkpoint, monkeypatch):
    judge = LocalJudge(checkpoint, device="cpu")
    refusing = "{{ raise_exception('no system turn') }}"
    monkeypatch.setattr(judge._processor, "chat_template", refusing)
    with pytest.raises(JudgeError, match="no system turn"):
        judge.reply(TURNS)


def judge_of(folder, tmp_path, *, teacher):
    arguments = ["judge", "--instances", "x.tar", "--videos", "v", "--rows", "r"]
    options = parser().parse_args([*arguments, "--local", str(folder)])
    return make_judge(options, [Exported("m", tmp_path, teacher, {})])


def test_a_judge_of_the_teachers_family_is_refused(checkpoint, tmp_path):
    assert judge_of(checkpoint, tmp_path, teacher="qwen3_vl").name.startswith("llava")
    assert model_types(checkpoint) == ["llava", "llama", "clip_vision_model"]
    for config, teacher in (
        ({"model_type": "qwen2_5_vl"}, "qwen3_vl"),
        ({"model_type": "llava_onevision", "text_config": {"model_type": "qwen2"}}, "qwen3_vl"),
        ({"model_type": "qwen3_vl"}, "internvl"),
        ({"model_type": "internvl"}, "qwen2_5_vl"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="of the family"):
            judge_of(tmp_path, tmp_path, teacher=teacher)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "config.json cannot be read"),
        ({"config.json": "[]"}, "without a model_type"),
        ({"config.json": '{"model_type": "llava"}'}, "safetensors"),
        (
            {"config.json": '{"model_type": "llava"}', "pytorch_model.bin": "x"},
            "safetensors",
        ),
        (
            {
                "config.json": '{"model_type": "x", "auto_map": {"AutoConfig": "evil.C", '
                '"AutoProcessor": "evil.P"}}',
                "evil.py": "raise SystemExit('ran')",
                "model.safetensors": "",
            },
            "got auto_map",
        ),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        judge_of(tmp_path, tmp_path, teacher="qwen3_vl")


def test_weights_that_are_missing_or_no_numbers_are_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "llava")
    held = load_file(folder / "model.safetensors")
    name = next(iter(held))
    for changed, told in (
        ({f"student.{n}": t for n, t in held.items()}, "weights missing"),
        (held | {name: held[name] * float("nan")}, "NaN or infinite weights"),
    ):
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=told):
            LocalJudge(folder, device="cpu")
