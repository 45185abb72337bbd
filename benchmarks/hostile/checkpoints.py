"""Hostile and broken checkpoints, LoRA files, adapters and pickles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.hostile.plants import (
    POINTER,
    Evil,
    change,
    checkpoint,
    code,
    fitted,
    fitted_with,
    pickled,
    picture,
)
from benchmarks.hostile.yard import Case, Command, Yard

BUILTINS = ("random/qwen3_vl", "random/wan", "random/taehv.safetensors")
YES = "y\ny\nyes\n" * 3


def _pointer(path: Path) -> None:
    path.write_bytes(POINTER)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff\x00 no such thing" * 9)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def _array(path: Path) -> None:
    path.write_text("[]")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _zero(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _variant(path: Path) -> None:
    path.rename(path.with_suffix(".fp16.safetensors"))


def _bin(path: Path) -> None:
    path.rename(path.with_suffix(".bin"))


def _huge_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}" * 50)


def _missing_shard(path: Path) -> None:
    names = load_file(path)
    path.rename(path.with_name("model-00001-of-00002.safetensors"))
    weight_map = {
        name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(names)
    }
    path.with_suffix(".safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _climbing_shard(path: Path) -> None:
    weight_map = dict.fromkeys(load_file(path), "../../etc/model.safetensors")
    path.unlink()
    path.with_suffix(".safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _renamed(path: Path) -> None:
    save_file({f"base.{name}": tensor for name, tensor in load_file(path).items()}, path)


def _nan(path: Path) -> None:
    held = load_file(path)
    name = sorted(
        n
        for n, t in held.items()
        if t.is_floating_point() and ("block" in n or "decoder" in n or "layers" in n)
    )[0]
    held[name].view(-1)[-1] = float("nan")
    save_file(held, path)


def _no_tokenizer(path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (path.parent / name).unlink(missing_ok=True)


WEIGHTS, CONFIG, TOKENS = "model.safetensors", "config.json", "tokenizer.json"
VAE = "vae/diffusion_pytorch_model.safetensors"


def _damaged(part: str, file: str, damage: Callable[[Path], None], told: str) -> Case:
    def plant(yard: Yard) -> Command:
        made = checkpoint(yard, part)
        damage(made / file if file else made)
        return fitted_with(yard, part)

    name = f"{part}'s {file or 'file'}: {damage.__name__.strip('_').replace('_', ' ')}"
    return Case(part="checkpoint files", name=name, plant=plant, told=told, stdin=YES)


FILES = tuple(
    _damaged(*words)
    for words in (
        ("teacher", WEIGHTS, _pointer, "LFS pointer"),
        ("teacher", WEIGHTS, _half, "cut short"),
        ("teacher", WEIGHTS, _empty, "empty"),
        ("teacher", WEIGHTS, _garbage, "cut short or no safetensors"),
        ("teacher", WEIGHTS, _huge_header, "cut short or no safetensors"),
        ("teacher", WEIGHTS, _pipe, "a device"),
        ("teacher", WEIGHTS, _zero, "a device"),
        ("teacher", WEIGHTS, _variant, "fp16"),
        ("teacher", WEIGHTS, _bin, "may run code"),
        ("teacher", WEIGHTS, _missing_shard, "00002-of-00002"),
        ("teacher", WEIGHTS, _climbing_shard, "weights|shard|outside"),
        ("teacher", WEIGHTS, _renamed, "weights"),
        ("teacher", WEIGHTS, _nan, "NaN"),
        ("teacher", CONFIG, _half, "broken JSON"),
        ("teacher", CONFIG, _deep, "broken JSON"),
        ("teacher", CONFIG, _array, "expected an object"),
        ("teacher", CONFIG, _zero, "a device"),
        ("teacher", TOKENS, _pointer, "LFS pointer"),
        ("teacher", TOKENS, _no_tokenizer, "tokenizer"),
        ("reasoner", "model_index.json", _array, "expected an object"),
        ("reasoner", VAE, _half, "cut short"),
        ("reasoner", VAE, _nan, "NaN"),
        ("reasoner", "text_encoder/model.safetensors", _pointer, "LFS pointer"),
        ("decoder", "", _pointer, "LFS pointer|pointer"),
        ("decoder", "", _half, "cut short|safetensors"),
        ("decoder", "", _nan, "NaN"),
    )
)


def _says(
    part: str, file: str, fields: dict[str, Any], told: str, codes: tuple[int, ...] = (2,)
) -> Case:
    def plant(yard: Yard) -> Command:
        change(checkpoint(yard, part) / file, **fields)
        return fitted_with(yard, part)

    shown = json.dumps(fields)
    name = f"{part}'s {file}: {shown if len(shown) < 70 else shown[:70] + '...'}"
    return Case(part="configs", name=name, plant=plant, told=told, codes=codes, stdin=YES)


LOOP = "{% for i in range(99999) %}"
CONFIGS = (
    *(
        _says("teacher", CONFIG, fields, told)
        for fields, told in (
            ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
            ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
            ({"text_config": {"num_attention_heads": -4}}, "num_attention_heads"),
            ({"text_config": {"hidden_size": "64"}}, "hidden_size"),
            ({"vision_config": {"patch_size": 0}}, "patch_size"),
            ({"text_config": {"vocab_size": 10**12}}, "vocab_size"),
            ({"text_config": {"rope_theta": 0}}, "nan of a grey frame"),
            ({"attn_implementation": "evil/kernel"}, "kernel|attn_implementation"),
            (
                {"text_config": {"_attn_implementation": "evil/kernel:fn"}},
                "kernel|attn_implementation",
            ),
        )
    ),
    _says("teacher", CONFIG, {"architectures": ["os.system"]}, "2 done", (0,)),
    _says("teacher", "preprocessor_config.json", {"patch_size": -1}, "patch_size"),
    _says(
        "teacher",
        "preprocessor_config.json",
        {"size": {"longest_edge": 0, "shortest_edge": 0}},
        "size|edge|done",
        (0, 2),
    ),
    _says("reasoner", "transformer/config.json", {"num_layers": 0}, "num_layers"),
    _says("reasoner", "vae/config.json", {"z_dim": -16}, "z_dim"),
    _says(
        "reasoner",
        "scheduler/scheduler_config.json",
        {"shift": float("nan")},
        "shift|done|number",
        (0, 2),
    ),
    *(
        _says("teacher", "chat_template.json", {"chat_template": template}, told)
        for template, told in (
            (LOOP * 3 + "{% endfor %}" * 3, "steps"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
            ("{{ 9 ** 9 ** 9 }}", "power or product"),
            (
                "{% set n = namespace(s='a') %}{% for i in range(60) %}"
                "{% set n.s = n.s ~ n.s %}{% endfor %}",
                "MemoryError",
            ),
            ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "SecurityError|writes"),
            ("{% if %}", "error"),
        )
    ),
)


def _brings_code(
    part: str, file: str, fields: dict[str, Any], codes: tuple[int, ...] = (2,)
) -> Case:
    def plant(yard: Yard) -> Command:
        made = checkpoint(yard, part)
        change(made / file, **fields)
        for folder in (made, (made / file).parent):
            (folder / "evil.py").write_text(code(yard) + "class Evil: pass\n")
        return fitted_with(yard, part)

    return Case(
        part="code",
        name=f"{part}'s {file} names its own: {json.dumps(fields)}",
        plant=plant,
        told="code|auto_map|2 done",
        stdin=YES,
        codes=codes,
    )


def _auto(name: str) -> dict[str, Any]:
    return {"auto_map": {name: ["evil.Evil", "evil.Evil"] if "Tokenizer" in name else "evil.Evil"}}


def _pickled(name: str, told: str, plant: Callable[[Yard, bytes], Command]) -> Case:
    def planted(yard: Yard) -> Command:
        return plant(yard, pickled(code(yard)))

    return Case(part="code", name=f"a pickle as {name}", plant=planted, told=told, stdin=YES)


def _as_weights(yard: Yard, data: bytes) -> Command:
    (checkpoint(yard, "teacher") / WEIGHTS).write_bytes(data)
    return fitted_with(yard, "teacher")


def _as_bin(yard: Yard, data: bytes) -> Command:
    made = checkpoint(yard, "teacher")
    (made / WEIGHTS).unlink()
    (made / "pytorch_model.bin").write_bytes(data)
    return fitted_with(yard, "teacher")


def _as_surrogate(yard: Yard, data: bytes) -> Command:
    (yard.work / "taehv.pth").write_bytes(data)
    return fitted(yard, "--decoder.checkpoint=./taehv.pth")


def _as_lora(yard: Yard, data: bytes) -> Command:
    (yard.work / "lora.safetensors").write_bytes(data)
    return fitted(yard, "--reasoner.distillation_lora=./lora.safetensors")


def _as_adapter(yard: Yard, data: bytes) -> Command:
    (yard.work / "adapter.safetensors").write_bytes(data)
    (yard.work / "a.png").write_bytes(picture())
    words = ["--config=random", "--adapter", "adapter.safetensors", "--out", "out"]
    return ["vlmteach", "apply", "a.png", "Go.", *words]


def _to_convert(yard: Yard, data: bytes) -> Command:
    checkpoint(yard, "reasoner")
    (yard.work / "model.pt").write_bytes(data)
    return ["vlmteach", "convert", "model.pt", "--base", "./reasoner", "--out", "out"]


def _to_convert_zipped(yard: Yard, data: bytes) -> Command:
    command = _to_convert(yard, data)
    torch.save({"weights": Evil(yard)}, yard.work / "model.pt")
    return command


def _converted(name: str, make: Callable[[Path], object], told: str) -> Case:
    def plant(yard: Yard) -> Command:
        command = _to_convert(yard, b"x")
        make(yard.work / "model.pt")
        return command

    return Case(part="convert", name=name, plant=plant, told=told)


CODE = (
    _brings_code("teacher", "tokenizer_config.json", _auto("AutoTokenizer")),
    _brings_code("teacher", CONFIG, _auto("AutoConfig")),
    _brings_code("teacher", "preprocessor_config.json", _auto("AutoImageProcessor")),
    _brings_code("teacher", "processor_config.json", _auto("AutoProcessor")),
    _brings_code("reasoner", "tokenizer/tokenizer_config.json", _auto("AutoTokenizer")),
    _brings_code("reasoner", "text_encoder/config.json", _auto("AutoModel")),
    _brings_code("reasoner", "model_index.json", {"transformer": ["evil", "Evil"]}, (0, 2)),
    _brings_code("reasoner", "transformer/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
    _pickled("the teacher's model.safetensors", "no safetensors", _as_weights),
    _pickled("the teacher's pytorch_model.bin", "may run code", _as_bin),
    _pickled("the surrogate", "pth|safetensors", _as_surrogate),
    _pickled("a LoRA", "safetensors", _as_lora),
    _pickled("an adapter", "safetensors|adapter", _as_adapter),
    _pickled("weights to convert", "code|pickle|weights", _to_convert),
    _pickled("weights to convert, as torch saves them", "code|pickle|weights", _to_convert_zipped),
)


def _lora(name: str, held: dict[str, torch.Tensor], told: str) -> Case:
    def plant(yard: Yard) -> Command:
        save_file(held, yard.work / "lora.safetensors")
        return fitted(yard, "--reasoner.distillation_lora=./lora.safetensors")

    return Case(part="LoRA", name=name, plant=plant, told=told)


OFFLINE = {"HF_HUB_OFFLINE": "1"}
OTHERS = (
    _converted("an LFS pointer", _pointer, "LFS pointer"),
    _converted("garbage", _garbage, "pickle|weights|read"),
    _converted("empty", _empty, "empty"),
    _converted("a pipe", _pipe, "a device|pipe"),
    _converted("no tensors", lambda path: torch.save({"a": 1}, path), "tensors|weights"),
    _converted(
        "one tensor too many", lambda path: torch.save({"x.weight": torch.ones(2)}, path), "weight"
    ),
    _lora("half a pair", {"blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 4)}, "lora"),
    _lora(
        "a layer that is not there",
        {"no.such.lora_A.weight": torch.ones(2, 4), "no.such.lora_B.weight": torch.ones(4, 2)},
        "no.such",
    ),
    _lora("nothing", {}, "lora|LoRA|tensor"),
    Case(
        part="hub",
        name="offline, an empty cache",
        plant=lambda yard: fitted(yard, "--teacher.checkpoint=Qwen/Qwen3-VL-4B-Instruct"),
        told="HF_HUB_OFFLINE",
        environment=OFFLINE,
        cold=True,
    ),
    Case(
        part="hub",
        name="no network, an empty cache",
        plant=lambda yard: fitted(yard, "--teacher.checkpoint=Qwen/Qwen3-VL-4B-Instruct"),
        told="network|reach|hub",
        environment={"HF_ENDPOINT": "http://127.0.0.1:9"},
        cold=True,
    ),
    Case(
        part="hub",
        name="a path that is none",
        plant=lambda yard: fitted(yard, "--teacher.checkpoint=./nowhere"),
        told="no file or folder",
    ),
    Case(
        part="hub",
        name="a URL",
        plant=lambda yard: fitted(yard, "--teacher.checkpoint=https://127.0.0.1:9/m"),
        told="no file or folder",
    ),
)
CASES = (*FILES, *CONFIGS, *CODE, *OTHERS)
