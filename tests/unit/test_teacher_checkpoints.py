"""Teachers from checkpoints as others save them: the same bits, or a refusal by name."""

import builtins
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from benchmarks.hostile.plants import change
from vlmteach.builtin.paths import builtin_path
from vlmteach.checkpoints.files import CheckpointError
from vlmteach.checkpoints.tokenizers import load_tokenizer
from vlmteach.config import TeacherConfig
from vlmteach.families import TEACHERS
from vlmteach.teachers import processor_files, templates
from vlmteach.teachers.loading import beside, load_teacher
from vlmteach.teachers.network import load_network

EMBEDDING = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"


def copied(family: str, to: Path) -> Path:
    return Path(shutil.copytree(builtin_path(f"random/{family}"), to / family))


@pytest.fixture
def folder(tmp_path):
    return copied("qwen3_vl", tmp_path)


def rename(folder: Path, renamed: Any) -> None:
    held = load_file(folder / "model.safetensors")
    save_file(
        {renamed(name): tensor for name, tensor in held.items()}, folder / "model.safetensors"
    )


def weights(folder: Path, family: str = "qwen3_vl") -> dict[str, torch.Tensor]:
    network = load_network(folder, family=family, dtype=torch.float32)
    return network.state_dict()


@pytest.fixture(scope="module")
def right() -> dict[str, dict[str, torch.Tensor]]:
    return {f: weights(builtin_path(f"random/{f}"), f) for f in ("qwen3_vl", "qwen2_5_vl")}


def new(name: str) -> str:
    """A name of the older style in today's."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name[:6] == "model." else name


def old(name: str) -> str:
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def nested(name: str) -> str:
    """As programs write it in which the language model is a causal model of its own."""
    return name if name.startswith("visual.") else f"language_model.{name}"


@pytest.mark.parametrize(
    ("family", "renamed"),
    [
        ("qwen3_vl", old),
        ("qwen3_vl", lambda name: name.removeprefix("model.")),
        ("qwen3_vl", lambda name: nested(old(name))),
        ("qwen2_5_vl", new),
        ("qwen2_5_vl", nested),
    ],
)
def test_older_and_newer_names_give_the_same_bits(family, renamed, right, tmp_path):
    folder = copied(family, tmp_path)
    rename(folder, renamed)
    found = weights(folder, family)
    assert found.keys() == right[family].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in right[family].items())


@pytest.mark.parametrize("prefix", ["base_model.model.", "module.", "_orig_mod.", "student."])
@pytest.mark.parametrize("family", ["qwen3_vl", "internvl"])
def test_weights_under_another_prefix_are_refused(family, prefix, tmp_path):
    folder = copied(family, tmp_path)
    rename(folder, lambda name: prefix + name)
    with pytest.raises(CheckpointError, match=r"weights missing \(.*and \d+ more\).*own names"):
        weights(folder, family)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        (lambda held: held | {"extra.weight": held[EMBEDDING] + 1}, r"no place for \(extra"),
        (lambda held: held | {"model.norm.weight": torch.ones(64)}, "two mean the same tensor"),
        (
            lambda held: held | {old(n): t + 1 for n, t in held.items() if "visual" in n},
            "two mean the same tensor",
        ),
        (lambda held: held | {EMBEDDING: held[EMBEDDING][:, :63].contiguous()}, "another shape"),
        (
            lambda held: held | {EMBEDDING: held[EMBEDDING] * float("nan")},
            r"infinite .*embed",
        ),
        (lambda held: held | {EMBEDDING: held[EMBEDDING] / 0}, "NaN or infinite"),
        (lambda held: {n: t for n, t in held.items() if n != EMBEDDING}, r"missing \(.*embed_tok"),
        (lambda held: {EMBEDDING: held[EMBEDDING]}, "weights for a config.json that describes"),
    ],
)
def test_every_tensor_is_used_or_refused_by_name(folder, tensors, told):
    save_file(tensors(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=told):
        weights(folder)


@pytest.mark.parametrize("top", [True, False, None])
@pytest.mark.parametrize("text", [True, False, None])
def test_tied_weights_may_be_stated_at_either_level(folder, right, top, text):
    config = json.loads((folder / "config.json").read_text())
    for part, value in ((config, top), (config["text_config"], text)):
        del part["tie_word_embeddings"]
        part.update({} if value is None else {"tie_word_embeddings": value})
    (folder / "config.json").write_text(json.dumps(config))
    if not top and not text:
        with pytest.raises(CheckpointError, match=r"1 weights missing \(lm_head"):
            weights(folder)
        return
    found = weights(folder)
    assert torch.equal(found[HEAD], found[EMBEDDING])
    assert torch.equal(found[HEAD], right["qwen3_vl"][HEAD])


def test_a_head_in_the_file_is_used_whatever_the_config_says_of_ties(folder):
    held = load_file(folder / "model.safetensors")
    save_file(held | {HEAD: held[EMBEDDING] + 1}, folder / "model.safetensors")
    found = weights(folder)
    assert torch.equal(found[HEAD], held[EMBEDDING] + 1)
    assert torch.equal(found[EMBEDDING], held[EMBEDDING])
    save_file(
        {n: t for n, t in held.items() if n != EMBEDDING} | {HEAD: held[EMBEDDING]},
        folder / "model.safetensors",
    )
    assert torch.equal(weights(folder)[EMBEDDING], held[EMBEDDING])


def teacher_of(folder: Path, family: Any = "qwen3_vl") -> Any:
    config = TeacherConfig(family=family, checkpoint=str(folder), dtype="float32")
    return load_teacher(config, torch.device("cpu"), False)


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("config.json", {"text_config": {"num_attention_heads": 3}}, "another shape"),
        ("config.json", {"text_config": {"hidden_size": 1 << 20}}, "config.json that describes"),
        ("config.json", {"text_config": {"rope_theta": 0}}, "got log P.* nan of a grey frame"),
        ("config.json", {"text_config": {"rope_scaling": {"mrope_section": None}}}, "TypeError"),
        ("config.json", {"text_config": {"hidden_act": "no"}}, "could not be loaded .KeyError"),
        ("config.json", {"text_config": 3}, "could not be loaded"),
        ("config.json", {"model_type": "no_such"}, "could not be loaded"),
        ("config.json", {"video_token_id": 5}, "for the video token .* expected 5"),
        ("config.json", {"image_token_id": 5}, "for the image token .* expected 5"),
        ("preprocessor_config.json", {"patch_size": 8}, "other patches than the vision tower"),
        ("preprocessor_config.json", {"merge_size": 0}, "got 0 where a size should be"),
        ("preprocessor_config.json", {"size": {"longest_edge": -1}}, "got -1 where a size"),
        ("preprocessor_config.json", {"size": None}, "got no field 'shortest_edge'"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "where three numbers should be"),
        ("preprocessor_config.json", {"image_std": [0.5, 0, 0.5]}, "where three numbers"),
        ("preprocessor_config.json", {"image_std": "half"}, "half where three numbers"),
    ],
)
def test_garbage_in_a_config_is_told_when_the_teacher_is_loaded(folder, file, fields, told):
    change(folder / file, **fields)
    with pytest.raises(CheckpointError, match=told) as refused:
        teacher_of(folder)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_of_another_model_is_refused(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([f"<more_{i}>" for i in range(600)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="tokens for an embedding of 512"):
        teacher_of(folder)


def test_nested_preprocessors_of_transformers_5_are_read(tmp_path):
    for family in ("qwen3_vl", "qwen2_5_vl"):
        folder = copied(family, tmp_path)
        expected = processor_files.patch_specs(folder)
        found = {}
        for kind in ("image", "video"):
            path = folder / f"{'video_' * (kind == 'video')}preprocessor_config.json"
            if path.exists():
                found[f"{kind}_processor"] = json.loads(path.read_text())
                path.unlink()
        change(folder / "processor_config.json", processor_class="Any", **found)
        assert processor_files.patch_specs(folder) == expected
        change(folder / "processor_config.json", image_processor=None)
        with pytest.raises(CheckpointError, match="nor an image_processor"):
            processor_files.patch_specs(folder)


PLAIN = "<|vision_start|><|video_pad|><|vision_end|>{{ messages[0].content[-1].text }}"


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.json"])
@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ([("default", PLAIN), ("tool_use", "no")], PLAIN),
        ([("tool_use", "no"), ("default", PLAIN)], PLAIN),
        ([("only", PLAIN)], PLAIN),
        ([("tool_use", "no"), ("rag", "no")], None),
    ],
)
def test_of_a_list_of_templates_the_default_is_taken(folder, where, listed, found):
    (folder / "chat_template.json").unlink()
    entries = [{"name": name, "template": template} for name, template in listed]
    change(folder / where, chat_template=entries)
    if found is None:
        with pytest.raises(CheckpointError, match=r"expected a chat template in .* named default"):
            teacher_of(folder)
        return
    teacher = teacher_of(folder)
    assert teacher.chat([{"type": "video"}, {"type": "text", "text": "Is it?"}]).endswith("Is it?")


def _turn(teacher: Any, folder: Path) -> str:
    """A turn as a folder's template writes it."""
    teacher._template = templates.chat_template(folder, teacher.tokenizer)
    return teacher.chat([{"type": "video"}, {"type": "text", "text": "Is it?"}])


@pytest.fixture(scope="module")
def teacher():
    return teacher_of(builtin_path("random/qwen3_vl"))


LOOP = "{% for i in range(99999) %}"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (LOOP * 3 + "{% endfor %}" * 3, "RuntimeError: more than 1000000 steps"),
        ("{% for i in range(99999) %}" + LOOP + "x{% endfor %}{% endfor %}", "more than"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% for i in range(10**9) %}{% endfor %}", "a power or product"),
        ("{{ 'a' * 9 }}", "a power or product"),
        ("{{ 9 ** 9 ** 9 }}", "a power or product"),
        ("{{ 'a' | center(99999999999) }}", "a number in it beyond a million"),
        ("{{ '%99999999999d' % 1 }}", "MemoryError|OverflowError|ValueError"),
        (
            "{% set n = namespace(s='a') %}{% for i in range(60) %}"
            "{% set n.s = n.s ~ n.s %}{% endfor %}",
            "MemoryError",
        ),
        (LOOP + "some words that come again{% endfor %}", "characters from the chat template"),
        ("{{ messages[0].__class__.__mro__ }}", "SecurityError|writes"),
        ("{% if %}", "an error in it"),
        ("x" * (1 << 17), "131072 characters"),
        ("{{ raise_exception('no') }}", "TemplateError: no"),
        ("{{ messages[7].content }}", "UndefinedError"),
    ],
)
def test_a_hostile_template_is_stopped(teacher, tmp_path, template, told):
    (tmp_path / "chat_template.jinja").write_text(template)
    start = time.monotonic()
    with pytest.raises(ValueError, match=told):
        _turn(teacher, tmp_path)
    assert time.monotonic() - start < 10


def test_a_template_that_turns_hostile_later_is_stopped_too(folder):
    turns = "{% if 'now' in messages[0].content[-1].text %}" + LOOP * 2 + "{% endfor %}" * 2
    (folder / "chat_template.jinja").write_text(turns + "{% endif %}" + PLAIN)
    teacher = teacher_of(folder)
    with pytest.raises(CheckpointError, match="more than"):
        teacher.chat([{"type": "video"}, {"type": "text", "text": "now"}])
    assert teacher.chat([{"type": "video"}, {"type": "text", "text": "then"}]).endswith("then")


def test_bounds_leave_what_is_traced_and_the_limits_as_they_were():
    import resource
    import sys

    before = resource.getrlimit(resource.RLIMIT_AS)
    trace = sys.gettrace()
    assert templates.within_bounds(lambda: "text") == "text"
    with pytest.raises(CheckpointError):
        templates.within_bounds(lambda: 1 / 0)  # pyright: ignore[reportArgumentType]
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert sys.gettrace() is trace


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_of_a_checkpoint_s_never_runs_whatever_stdin_says(folder, file, monkeypatch):
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    names = ("AutoConfig", "AutoProcessor", "AutoModelForImageTextToText")
    auto_map: dict[str, Any] = dict.fromkeys(names, "evil.Evil")
    change(folder / file, auto_map=auto_map | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    with pytest.raises(CheckpointError, match=f"{file}: got auto_map"):
        teacher_of(folder)
    assert not (folder / "ran").exists()


def test_images_of_different_sizes_are_seen_as_each_alone(folder):
    teacher = teacher_of(folder)
    plain: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    pictures = [
        Image.effect_noise(size, 60).convert("RGB") for size in ((320, 256), (256, 384), (320, 256))
    ]
    for shown in (pictures[:2], pictures[::2], pictures, pictures[1:]):
        _, vision = teacher._image_arguments(shown)
        rows, grid = vision["pixel_values"], vision["image_grid_thw"]
        with torch.no_grad():
            found = teacher.network.model.visual(rows, grid_thw=grid)
            expected = plain.model.visual(rows, grid_thw=grid)
        for ours, theirs in zip(
            (found.pooler_output, *found.deepstack_features),
            (expected.pooler_output, *expected.deepstack_features),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert teacher.write("Describe both.", pictures[:2], 2) is not None


@pytest.mark.parametrize("family", sorted(TEACHERS))
def test_a_model_beside_a_teacher_is_of_its_own_family(family):
    """A judge need not be of the teacher's kind; its checkpoint says what it is."""
    teacher = TeacherConfig(checkpoint="builtin:mini/teacher", frames=5, frame_pixels=4096)
    other = beside(teacher, f"builtin:random/{family}")
    assert other == replace(teacher, checkpoint=f"builtin:random/{family}", family=family)
    assert load_teacher(other, torch.device("cpu"), False).facts.family == family


def test_a_model_beside_a_guests_teacher_is_the_guests():
    guest = TeacherConfig(checkpoint="theirs", family="my_package.module.Teacher")
    assert beside(guest, "other") == replace(guest, checkpoint="other")
