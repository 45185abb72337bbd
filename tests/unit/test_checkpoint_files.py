"""What is said of a checkpoint's files before any is loaded: one line with file and remedy."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file

from benchmarks.hostile.plants import change
from vlmteach import exits, fit, models
from vlmteach.builtin.paths import builtin_path
from vlmteach.checkpoints import find as finding
from vlmteach.checkpoints.files import CheckpointError
from vlmteach.checkpoints.find import find
from vlmteach.checkpoints.weights import tensors
from vlmteach.config import Config, DecoderConfig, ReasonerConfig, TeacherConfig

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4096\n"
CODE = {"auto_map": {"AutoConfig": "evil.Config"}}


@pytest.fixture
def teacher(tmp_path):
    return Path(shutil.copytree(builtin_path("random/qwen3_vl"), tmp_path / "teacher"))


@pytest.fixture
def reasoner(tmp_path):
    return Path(shutil.copytree(builtin_path("random/wan"), tmp_path / "reasoner"))


def pointer(path):
    path.write_bytes(POINTER)


def empty(path):
    path.write_bytes(b"")


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path):
    path.write_bytes(b"\xff\x00 no such thing" * 9)


def folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def dangling(path):
    path.unlink()
    path.symlink_to("nowhere")


def array(path):
    path.write_text("[]")


def deep(path):
    path.write_text("[" * 100_000)


def gone(path):
    path.unlink()


def variant(path):
    path.rename(path.with_suffix(".fp16.safetensors"))


def pickled(path):
    path.rename(path.with_suffix(".bin"))


WEIGHTS, CONFIG, TOKENS = "model.safetensors", "config.json", "tokenizer.json"


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        (WEIGHTS, pointer, "Git LFS pointer.*git lfs pull"),
        (WEIGHTS, empty, "empty file"),
        (WEIGHTS, half, "cut short or no safetensors"),
        (WEIGHTS, garbage, "cut short or no safetensors"),
        (WEIGHTS, folder, "a folder or a device, expected a file"),
        (WEIGHTS, pipe, "a folder or a device, expected a file"),
        (WEIGHTS, dangling, "got no weights"),
        (WEIGHTS, gone, "got no weights .*expected model.safetensors"),
        (WEIGHTS, variant, "only the variant model.fp16.safetensors.*rename"),
        (WEIGHTS, pickled, "only model.bin, which may run code.*with safetensors"),
        (CONFIG, pointer, "Git LFS pointer"),
        (CONFIG, half, "broken JSON"),
        (CONFIG, deep, "broken JSON"),
        (CONFIG, array, "got a JSON list, expected an object"),
        (CONFIG, garbage, "no UTF-8"),
        (CONFIG, pipe, "a folder or a device"),
        (CONFIG, dangling, "a broken link"),
        (CONFIG, gone, "no config.json"),
        (TOKENS, pointer, "Git LFS pointer"),
        (TOKENS, empty, "empty file"),
        ("merges.txt", pointer, "Git LFS pointer"),
        (TOKENS, dangling, "a broken link"),
        ("tokenizer_config.json", half, "broken JSON"),
        ("preprocessor_config.json", half, "broken JSON"),
    ],
)
def test_a_broken_file_is_told_in_one_line(teacher, file, damage, told):
    damage(teacher / file)
    with pytest.raises(CheckpointError, match=told) as refused:
        find(str(teacher), "teacher", "qwen3_vl")
    assert str(refused.value).startswith(str(teacher))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        (CONFIG, {"quantization_config": {"quant_method": "awq"}}, "quantised by awq"),
        (CONFIG, {"text_config": {"quantization_config": {"bits": 4}}}, "quantised"),
        (CONFIG, {"text_config": {"num_hidden_layers": 10**9}}, "from 1 to 1000"),
        (CONFIG, {"text_config": {"num_hidden_layers": 0}}, "num_hidden_layers 0"),
        (CONFIG, {"text_config": {"num_attention_heads": -4}}, "num_attention_heads -4"),
        (CONFIG, {"text_config": {"hidden_size": "64"}}, "hidden_size 64, expected a whole"),
        (CONFIG, {"text_config": {"vocab_size": 1e3}}, "vocab_size 1000.0"),
        (CONFIG, {"text_config": {"rope_scaling": {"mrope_section": [-4, 2, 2]}}}, "section -4"),
        (CONFIG, {"vision_config": {"patch_size": 0}}, "patch_size 0"),
        (CONFIG, {"image_seq_length": 10**9}, "image_seq_length 1000000000"),
        (CONFIG, {"rope_max_seq_len": 10**9}, "rope_max_seq_len 1000000000"),
        (CONFIG, {"num_res_blocks": 10**9}, "from 1 to 1000"),
        ("tokenizer_config.json", {"extra_ids": 10**9}, "extra_ids 1000000000"),
        (CONFIG, CODE, "config.json: got auto_map.*never run"),
        (CONFIG, {"vision_config": CODE}, "config.json: got auto_map"),
        ("tokenizer_config.json", CODE, "tokenizer_config.json: got auto_map"),
        ("processor_config.json", CODE, "processor_config.json: got auto_map"),
        ("preprocessor_config.json", CODE, "preprocessor_config.json: got auto_map"),
        ("video_preprocessor_config.json", CODE, "got auto_map"),
        ("generation_config.json", CODE, "generation_config.json: got auto_map"),
        (CONFIG, {"attn_implementation": "owner/kernel"}, "a kernel to be fetched"),
        (CONFIG, {"text_config": {"_attn_implementation": "owner/kernel:f"}}, "a kernel"),
        (CONFIG, {"attn_implementation": {"text_config": "owner/kernel@v1"}}, "a kernel"),
        (CONFIG, {"text_config": {"experts_implementation": "owner/kernel"}}, "a kernel"),
    ],
)
def test_a_config_is_refused_by_the_field(teacher, file, fields, told):
    change(teacher / file, **fields)
    with pytest.raises(CheckpointError, match=told):
        find(str(teacher), "teacher", "qwen3_vl")


def test_what_a_real_config_may_say_passes(teacher):
    for path, fields in {
        CONFIG: {"attn_implementation": "sdpa", "chunk_size_feed_forward": 0, "image_dim": None},
        "generation_config.json": {"no_repeat_ngram_size": 0},
    }.items():
        change(teacher / path, **fields)
    assert find(str(teacher), "teacher", "qwen3_vl") == str(teacher)


@pytest.mark.parametrize(
    ("kept", "passes"),
    [
        (("tokenizer.json",), True),
        (("vocab.json", "merges.txt"), True),
        (("vocab.json",), False),
        (("merges.txt",), False),
        ((), False),
    ],
)
def test_a_teacher_without_a_tokenizer_is_refused(teacher, kept, passes):
    for name in {"tokenizer.json", "vocab.json", "merges.txt"} - set(kept):
        (teacher / name).unlink()
    if passes:
        find(str(teacher), "teacher", "qwen3_vl")
        return
    with pytest.raises(CheckpointError, match="got no tokenizer"):
        find(str(teacher), "teacher", "qwen3_vl")


def sharded(teacher: Path) -> dict[str, Any]:
    """Splits the weights in two; returns what the index says."""
    held = load_file(teacher / WEIGHTS)
    (teacher / WEIGHTS).unlink()
    names = sorted(held)
    where = {name: f"model-0000{1 + (i > 9)}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(where.values()):
        save_file({n: held[n] for n in names if where[n] == shard}, teacher / shard)
    change(teacher / "model.safetensors.index.json", weight_map=where)
    return where


def test_shards_are_all_there_and_hold_what_the_index_says(teacher):
    whole = tensors(teacher)
    where = sharded(teacher)
    index, names = teacher / "model.safetensors.index.json", sorted(where)
    assert tensors(teacher) == whole
    for wrong, told in (
        ({**where, "new.weight": where[names[0]]}, r"other tensors than the index .*new\.weight"),
        ({n: where[n] for n in names[1:]}, "other tensors than the index"),
        ({**where, "new.weight": "model-00003-of-00003.safetensors"}, "got no model-00003"),
        ({**where, "new.weight": "../model.safetensors"}, "the name of a file beside it"),
        ({**where, "new.weight": 3}, "the name of a file beside it"),
        ({}, "without a weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(CheckpointError, match=told):
            tensors(teacher)
    index.write_text(json.dumps({"weight_map": where}))
    pointer(teacher / where[names[-1]])
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        tensors(teacher)
    (teacher / where[names[-1]]).unlink()
    with pytest.raises(CheckpointError, match=r"got no model-00002-of-00002"):
        tensors(teacher)


def test_a_tensor_in_two_files_is_refused(teacher):
    shutil.copy(teacher / WEIGHTS, teacher / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="in more than one of"):
        tensors(teacher)


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        ("transformer/diffusion_pytorch_model.safetensors", half, "cut short"),
        ("vae/diffusion_pytorch_model.safetensors", variant, "only the variant"),
        ("text_encoder/model.safetensors", pickled, "may run code"),
        ("text_encoder/config.json", half, "broken JSON"),
        ("tokenizer/tokenizer.json", pointer, "Git LFS pointer"),
        ("model_index.json", half, "broken JSON"),
    ],
)
def test_every_part_of_a_reasoner_is_looked_at(reasoner, file, damage, told):
    damage(reasoner / file)
    with pytest.raises(CheckpointError, match=told):
        find(str(reasoner), "reasoner", "wan")


def test_a_guest_s_checkpoint_may_have_any_layout(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"mine")
    assert find(str(tmp_path), "teacher", "my_package.Teacher") == str(tmp_path)


def _broken(tmp_path, kind: str) -> tuple[Config, Path]:
    """A config of which one checkpoint is cut short, and the file."""
    config = Config()
    surrogate = Path(shutil.copy(builtin_path("random/taehv.safetensors"), tmp_path))
    if kind == "decoder":
        return replace(config, decoder=DecoderConfig(checkpoint=str(surrogate))), surrogate
    name = {"teacher": "random/qwen3_vl", "reasoner": "random/wan"}[kind]
    copy = Path(shutil.copytree(builtin_path(name), tmp_path / kind))
    if kind == "teacher":
        return replace(config, teacher=TeacherConfig(checkpoint=str(copy))), copy / WEIGHTS
    changed = replace(config, reasoner=ReasonerConfig(checkpoint=str(copy)))
    return changed, copy / "vae" / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("kind", ["reasoner", "decoder", "teacher"])
def test_all_checkpoints_are_looked_at_before_the_first_byte_is_loaded(kind, tmp_path, monkeypatch):
    config, file = _broken(tmp_path, kind)
    half(file)
    for loads in ("_load_reasoner", "_load_decoder", "load_teacher"):
        monkeypatch.setattr(models, loads, lambda *_: pytest.fail("loaded"))
    with pytest.raises(CheckpointError, match=str(file)):
        models.load(config, torch.device("cpu"))


def test_the_command_ends_with_one_line_and_2(tmp_path, capsys):
    config, file = _broken(tmp_path, "teacher")
    pointer(file)
    words = ["--instances", "builtin:demo.tar", "--out", str(tmp_path / "out"), "--devices", "1"]
    words += ["--teacher.checkpoint", config.teacher.checkpoint, "--accelerator", "cpu"]
    assert fit.main(words) == exits.BAD_USE
    told = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(told) == 1
    assert told[0].startswith(f"error: {file}: got a Git LFS pointer")


class Unreachable(Exception):
    """As some HTTP client calls it."""


def _hub(monkeypatch, cache, offline=False) -> None:
    def no_answer(*_: Any, **__: Any) -> Any:
        raise Unreachable("Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(HfApi, "model_info", no_answer)


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_cache_serves_or_the_remedy_is_told(
    teacher, tmp_path, monkeypatch, offline
):
    _hub(monkeypatch, tmp_path / "cache", offline)
    said = "HF_HUB_OFFLINE is set" if offline else "no answer from http.*Name or service not known"
    with pytest.raises(CheckpointError, match=rf"not in the cache .*{said}.*`hf download o/n`"):
        find("o/n", "teacher", "qwen3_vl")
    snapshot = tmp_path / "cache" / "models--o--n" / "snapshots" / ("0" * 40)
    shutil.copytree(teacher, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(snapshot.name)
    assert find("o/n", "teacher", "qwen3_vl") == str(snapshot)
    (snapshot / WEIGHTS).unlink()  # half a download
    with pytest.raises(CheckpointError, match="got no weights"):
        find("o/n", "teacher", "qwen3_vl")


def test_small_files_are_fetched_and_looked_at_before_the_weights(reasoner, monkeypatch):
    asked: list[list[str]] = []

    class Info:
        sha = "1" * 40

    def download(name: str, *, allow_patterns: list[str], revision: str, **_: Any) -> str:
        assert (name, revision) == ("o/n", Info.sha)
        asked.append(allow_patterns)
        return str(reasoner)

    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: Info)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert finding.find("o/n", "reasoner", "wan") == str(reasoner)
    small, weights = asked
    assert not any("safetensors" in pattern for pattern in small)
    assert "vae/diffusion_pytorch_model.safetensors" in weights
    assert not any(pattern.startswith("tokenizer") for pattern in weights)
    change(reasoner / "transformer" / "config.json", num_layers=0)
    with pytest.raises(CheckpointError, match="num_layers 0"):
        finding.find("o/n", "reasoner", "wan")
    assert len(asked) == 3  # no weights
