"""A whole fit with families from outside, which the command knows by their class paths alone."""

import gc
import json
import os

import pytest
import torch
from safetensors.torch import load_file

from tests.plugins.toy_reasoner import ToyReasoner
from tests.plugins.toy_teacher import QUERIES
from vlmteach import fit


@pytest.fixture
def process_left_as_it_was():
    """The command sets its process up for itself; here it runs in that of the tests."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    environment = dict(os.environ)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    gc.unfreeze()
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]


@pytest.mark.usefixtures("process_left_as_it_was")
@pytest.mark.parametrize("decoder", ["full", "tests.plugins.toy_decoder.LoadedToyDecoder"])
def test_the_toys_are_fitted_as_any_family(tmp_path, write_tar, sample, decoder):
    toy = tmp_path / "toy.safetensors"
    ToyReasoner.save(toy)
    tar = write_tar(tmp_path / "data.tar", [sample(0), sample(1)])
    words = {
        "--config": "random",
        "--instances": tar,
        "--out": tmp_path / "out",
        "--accelerator": "cpu",
        "--wandb.mode": "disabled",
        "--clip.frames": 5,
        "--clip.max_pixels": 1024,
        "--reasoner.family": "tests.plugins.toy_reasoner.ToyReasoner",
        "--reasoner.checkpoint": toy,
        "--decoder.family": decoder,
        "--decoder.checkpoint": toy,
        "--teacher.family": "tests.plugins.toy_teacher.ToyTeacher",
        "--teacher.checkpoint": tmp_path,
        "--fit.steps": 5,
        "--fit.threshold": 0,
    }
    assert fit.main([str(word) for pair in words.items() for word in pair]) == 0
    done = sorted((tmp_path / "out").glob("*/done.json"))
    assert len(done) == 2
    for folder in (path.parent for path in done):
        record = json.loads((folder / "fit.json").read_text())
        assert record["teacher_layout"] == "toy: mean colours"
        assert record["queries"]["source"] == "teacher"
        asked = [query["text"] for query in record["queries"]["queries"]]
        assert asked == [QUERIES["goal"], *QUERIES["process"]]
        losses = [reading["loss"] for reading in record["readings"]]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0] - 1e-3
        adapter = load_file(folder / "adapter.safetensors")
        assert {key.split(".lora_")[0] for key in adapter} == {
            f"transformer.{block}.{layer}" for block in ("look", "hear") for layer in "qkvo"
        }
        assert any(v.abs().max() > 0 for k, v in adapter.items() if "lora_B" in k)
        assert (folder / "clip.mp4").read_bytes() != (folder / "base.mp4").read_bytes()
