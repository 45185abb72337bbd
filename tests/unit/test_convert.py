"""Weights as first published, and a base, to a folder that can be loaded: whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.families.networks import as_published
from vlmteach import cli, convert
from vlmteach.builtin.wan import save_random_wan, save_random_wan_a14b

FILE = "diffusion_pytorch_model.safetensors"
Q = "blocks.1.self_attn.q.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "base"
    save_random_wan(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base) -> dict[str, Tensor]:
    """What the base's transformer became, by diffusers' names."""
    return {n: t + 0.01 for n, t in load_file(base / "transformer" / FILE).items()}


@pytest.fixture(scope="module")
def published(trained) -> dict[str, Tensor]:
    return as_published(trained)


def run(base: Path, out: Path, *words: object) -> int:
    return cli.main(["convert", *map(str, words), "--base", str(base), "--out", str(out)])


def made(out: Path, part: str = "transformer") -> dict[str, Tensor]:
    network: Any = WanTransformer3DModel
    return dict(network.from_pretrained(out, subfolder=part).state_dict())


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 0) -> None:
    assert got.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(got[name].float(), weight.float(), rtol=0, atol=atol, msg=name)


def test_names_are_those_that_diffusers_converts(trained, published):
    assert len(published) == len(trained)
    assert {"head.modulation", "blocks.0.norm3.bias", "time_projection.1.weight"} < set(published)
    assert_same(convert_wan_transformer_to_diffusers(dict(published)), trained)


def wrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As FSDP saves a network that another one holds."""
    inner = ("blocks.0.", "blocks.0._fsdp_wrapped_module.")
    return {f"model._fsdp_wrapped_module.{k.replace(*inner)}": t for k, t in state.items()}


def write_pickle(path: Path, held: object) -> Path:
    torch.save(held, path)
    return path


def write(path: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, path)
    return path


FORMS: dict[str, Callable[[Path, dict[str, Tensor]], list[object]]] = {
    "model.pt by fsdp": lambda at, w: [write_pickle(at / "model.pt", wrapped(w))],
    "one set in a pickle": lambda at, w: [
        write_pickle(at / "model.pth", {"generator": wrapped(w), "step": 600})
    ],
    "parameters": lambda at, w: [
        write_pickle(at / "model.pt", {k: torch.nn.Parameter(t) for k, t in w.items()})
    ],
    "one of two sets": lambda at, w: [
        write_pickle(at / "m.pt", {"ema": w, "generator": {k: t + 1 for k, t in w.items()}}),
        *("--entry", "ema"),
    ],
    "one safetensors": lambda at, w: [write(at / "m.safetensors", w)],
    "comfyui's prefix": lambda at, w: [
        write(at / "m.safetensors", {f"model.diffusion_model.{k}": t for k, t in w.items()})
    ],
    "compiled": lambda at, w: [
        write(at / "m.safetensors", {f"module._orig_mod.{k}": t for k, t in w.items()})
    ],
    "shards": lambda at, w: [
        write(at / f"m-{part}.safetensors", dict(list(w.items())[part::2])) for part in range(2)
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_weights_bit_for_bit(base, trained, published, tmp_path, form, capsys):
    out = tmp_path / "out"
    files = tmp_path / "files"
    files.mkdir()
    assert run(base, out, *FORMS[form](files, published)) == 0, capsys.readouterr().err
    assert f"{len(trained)} tensors -> " in capsys.readouterr().out
    assert_same(load_file(out / "transformer" / FILE), trained)
    for path in base.rglob("*"):
        if path.is_file() and path.name != FILE:
            assert (out / path.relative_to(base)).read_bytes() == path.read_bytes(), path
    assert {p.name for p in tmp_path.iterdir()} == {"out", "files"}


def test_diffusers_own_names_are_taken_too(base, trained, tmp_path):
    assert run(base, tmp_path / "out", write(tmp_path / "m.safetensors", trained)) == 0
    assert_same(made(tmp_path / "out"), trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_floats_keep_their_dtype(base, published, tmp_path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in published.items()}
    assert run(base, tmp_path / "out", write(tmp_path / "m.safetensors", state)) == 0
    written = load_file(tmp_path / "out" / "transformer" / FILE)
    assert {tensor.dtype for tensor in written.values()} == {dtype}
    assert torch.equal(written["blocks.1.attn1.to_q.weight"], state[Q])


def fp8(state: dict[str, Tensor], style: str) -> dict[str, Tensor]:
    """Matrices in fp8, as the styles in use have them."""
    found = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)} if style == "comfyui" else {}
    for name, tensor in state.items():
        found[name] = tensor
        if tensor.ndim != 2 or style == "plain":
            found[name] = tensor.to(torch.float8_e4m3fn if tensor.ndim == 2 else tensor.dtype)
            continue
        layer = name.removesuffix(".weight")
        axis = 1 if style == "rows" else None
        largest = tensor.abs().amax(axis, keepdim=True) if axis else tensor.abs().max()
        scale = largest / 448
        found[name] = (tensor / scale).to(torch.float8_e4m3fn)
        found[f"{layer}.{'scale_weight' if style == 'comfyui' else 'weight_scale'}"] = scale
        found[f"{layer}.{'scale_input' if style == 'comfyui' else 'input_scale'}"] = torch.ones(1)
        if style == "noted":
            note = b'{"format": "float8_e4m3fn"}'
            found[f"{layer}.comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)
    return found


@pytest.mark.parametrize("style", ["plain", "comfyui", "rows", "noted"])
def test_fp8_is_scaled_back_and_written_in_bfloat16(base, trained, published, tmp_path, style):
    state = fp8(published, style)
    assert run(base, tmp_path / "out", write(tmp_path / "m.safetensors", state)) == 0
    written = load_file(tmp_path / "out" / "transformer" / FILE)
    for name, weight in trained.items():
        is_matrix = weight.ndim == 2
        assert written[name].dtype == (torch.bfloat16 if is_matrix else torch.float32)
        bound = 0.07 * weight.abs().max().item() if is_matrix else 0
        torch.testing.assert_close(written[name].float(), weight, rtol=0, atol=bound, msg=name)


def test_large_weights_are_written_in_shards(base, trained, published, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "SHARD", "100KB")
    assert run(base, tmp_path / "out", write(tmp_path / "m.safetensors", published)) == 0
    folder = tmp_path / "out" / "transformer"
    assert (folder / f"{FILE}.index.json").is_file()
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert_same(made(tmp_path / "out"), trained)


def test_the_experts_of_a14b_are_converted_one_after_the_other(tmp_path):
    base, first, second = tmp_path / "base", tmp_path / "first", tmp_path / "second"
    save_random_wan_a14b(base)
    parts = ("transformer", "transformer_2")
    trained = {
        part: {n: t - 0.5 for n, t in load_file(base / part / FILE).items()} for part in parts
    }
    for part, source, out in zip(parts, (base, first), (first, second), strict=True):
        file = write(tmp_path / f"{part}.safetensors", as_published(trained[part]))
        assert run(source, out, file, "--part", part) == 0
    for part in parts:
        assert_same(made(second, part), trained[part])


def test_an_index_without_expand_timesteps_is_completed(base, published, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(base, old)
    index = json.loads((old / "model_index.json").read_text())
    del index["expand_timesteps"]
    (old / "model_index.json").write_text(json.dumps(index))
    assert run(old, tmp_path / "out", write(tmp_path / "m.safetensors", published)) == 0
    written = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert written == index | {"expand_timesteps": True}


class _Runs:
    """A pickle of it makes a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def lacking(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


REFUSED: dict[str, tuple[Callable[[Path, dict[str, Tensor]], object], str]] = {
    "a tensor is missing": (
        lambda at, w: write(at / "m.safetensors", lacking(w, Q)),
        r"without 1 of 69 tensors \(blocks.1.attn1.to_q.weight\)",
    ),
    "a tensor too many": (
        lambda at, w: write(at / "m.safetensors", w | {"blocks.0.extra.weight": torch.ones(1)}),
        r"with 1 of 70 tensors that have no place \(blocks.0.extra.weight\)",
    ),
    "all in one": (
        lambda at, w: write(
            at / "m.safetensors",
            {f"model.diffusion_model.{k}": t for k, t in w.items()} | {"vae.conv1": torch.ones(1)},
        ),
        r"1 of 70 tensors that have no place \(vae.conv1\)",
    ),
    "another width": (
        lambda at, w: write(at / "m.safetensors", w | {Q: torch.ones(3, 48)}),
        r"self_attn.q.weight: got shape \[3, 48\], expected \[48, 48\]",
    ),
    "whole numbers": (
        lambda at, w: write(at / "m.safetensors", w | {Q: w[Q].to(torch.int8)}),
        "got torch.int8, torch.strided, cpu, expected float or fp8",
    ),
    "a sparse layer": (
        lambda at, w: write_pickle(at / "m.pt", w | {Q: w[Q].to_sparse()}),
        "got torch.float32, torch.sparse_coo, cpu",
    ),
    "a layer without numbers": (
        lambda at, w: write_pickle(at / "m.pt", w | {Q: w[Q].to("meta")}),
        "got torch.float32, torch.strided, meta",
    ),
    "a quantised layer": (
        lambda at, w: write(
            at / "m.safetensors",
            w
            | {
                "blocks.0.ffn.0.comfy_quant": torch.tensor(
                    list(b'{"format": "convrot_w4a4"}'), dtype=torch.uint8
                )
            },
        ),
        "no place .*comfy_quant",
    ),
    "a scale of another shape": (
        lambda at, w: write(at / "m.safetensors", w | {f"{Q[:-6]}scale_weight": torch.ones(5)}),
        r"a scale of shape \[5\]",
    ),
    "not finite": (
        lambda at, w: write(at / "m.safetensors", w | {Q: w[Q] / 0}),
        "values that are not finite",
    ),
    "no transformer": (
        lambda at, w: write(at / "m.safetensors", {"encoder.conv1.weight": torch.ones(1)}),
        "got 0 tensors named patch_embedding.weight among 1",
    ),
    "two transformers": (
        lambda at, w: write(
            at / "m.safetensors", {f"{n}.{k}": t.clone() for n in "ab" for k, t in w.items()}
        ),
        "got 2 tensors named patch_embedding.weight",
    ),
    "two sets": (
        lambda at, w: write_pickle(at / "m.pt", {"generator": w, "ema": {"model": w}}),
        "the sets of weights ema.model, generator, expected one to be named; add --entry",
    ),
    "no tensors": (lambda at, w: write_pickle(at / "m.pt", [1, 2]), r"weights \(none\)"),
    "code": (
        lambda at, w: (at / "m.pt").write_bytes(pickle.dumps(_Runs(at / "ran"))) and at / "m.pt",
        "cannot be read safely",
    ),
    "code beside tensors": (
        lambda at, w: write_pickle(at / "m.pt", {**w, "x": _Runs(at / "ran")}),
        "cannot be read safely .it holds (getattr|pathlib)",
    ),
    "a pointer": (
        lambda at, w: (
            (at / "m.pt").write_text("version https://git-lfs.github.com/spec/v1\n") and at / "m.pt"
        ),
        "a Git LFS pointer, .* `git lfs pull`",
    ),
    "cut": (lambda at, w: cut(write_pickle(at / "m.pt", w)), "cannot be read safely"),
    "cut too": (lambda at, w: cut(write(at / "m.safetensors", w)), "cannot be read safely"),
    "another ending": (lambda at, w: write(at / "m.gguf", w), "its ending is none of .safetens"),
    "empty": (lambda at, w: at.joinpath("m.pt").touch() or at / "m.pt", "got an empty file"),
    "absent": (lambda at, w: at / "m.pt", "got a broken link, a folder or a device"),
    "a folder": (lambda at, w: at, "got a broken link, a folder or a device"),
}


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-5000])
    return path


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_exactly_the_transformer_is_refused(base, published, tmp_path, what, capsys):
    make, told = REFUSED[what]
    files = tmp_path / "files"
    files.mkdir()
    assert run(base, tmp_path / "out", make(files, published)) == 2
    error = capsys.readouterr().err
    line, hint = error.splitlines()
    assert line.startswith(("error: weights: ", f"error: {files}"))
    assert hint == "(vlmteach convert --help lists the options)"
    assert re.search(told, line), line
    assert [p.name for p in tmp_path.iterdir()] == ["files"]
    assert not (files / "ran").exists()


def test_a_base_may_be_of_the_hub(base, trained, published, tmp_path, monkeypatch):
    asked = []
    fetch = lambda name, kind: asked.append((name, kind)) or base  # noqa: E731
    monkeypatch.setattr("vlmteach.checkpoints.find.fetch", fetch)
    file = write(tmp_path / "m.safetensors", published)
    assert run(Path("owner/name"), tmp_path / "out", file) == 0
    assert_same(load_file(tmp_path / "out" / "transformer" / FILE), trained)
    assert asked == [("owner/name", "reasoner")]


def test_a_full_disk_is_one_line_and_leaves_nothing(base, published, tmp_path, monkeypatch, capsys):
    file = write(tmp_path / "m.safetensors", published)
    shared = tmp_path / "shared"
    shutil.copytree(base, shared)
    for path in sorted(shared.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def full(*arguments: object, **named: object) -> None:
        raise SafetensorError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        assert run(shared, tmp_path / "out", file) == 2
    assert "could not be written (No space left" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"m.safetensors", "shared"}
    assert run(shared, tmp_path / "out", file) == 0
    made = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert all(path.stat().st_mode & 0o200 for path in made)


def test_a_signal_leaves_nothing(base, published, tmp_path, monkeypatch):
    file = write(tmp_path / "m.safetensors", published)

    def stopped(*arguments: object, **named: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("safetensors.torch.save_file", stopped)
    with pytest.raises(SystemExit) as end:
        run(base, tmp_path / "out", file)
    assert end.value.code == 143
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_same_file_twice_is_refused(base, published, tmp_path, capsys):
    file = write(tmp_path / "m.safetensors", published)
    assert run(base, tmp_path / "out", file, file) == 2
    assert "twice, the second in" in capsys.readouterr().err


def test_bases_and_places_that_will_not_do_are_refused(base, published, tmp_path, capsys):
    file = write(tmp_path / "m.safetensors", published)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "model_index.json").write_text("{")
    for told, source, out, *words in (
        ("--part: got transformer_2", base, tmp_path / "out", "--part", "transformer_2"),
        ("is there already", base, other),
        ("which is in the base", base, base / "out"),
        ("got broken JSON", other, tmp_path / "out"),
        ("which is no file or folder", tmp_path / "nothing", tmp_path / "out"),
        ("which could not be read", tmp_path, base.parent / "out"),
    ):
        assert run(source, out, file, *words) == 2
        error = capsys.readouterr().err
        assert told in error
        assert len(error.splitlines()) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"m.safetensors", "other"}
    assert not (base / "out").exists()
