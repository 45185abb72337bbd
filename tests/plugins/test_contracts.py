"""Families from outside keep the contracts of those inside."""

import pytest
import torch

from tests.contract.decoder_contract import DecoderContract
from tests.contract.reasoner_contract import ReasonerContract
from tests.contract.teacher_contract import TeacherContract
from tests.plugins.toy_decoder import LoadedToyDecoder
from tests.plugins.toy_reasoner import ToyReasoner
from tests.plugins.toy_teacher import ToyTeacher
from vlmteach.decoders.base import Decoder, LoadedDecoder
from vlmteach.reasoners.base import Reasoner
from vlmteach.teachers.base import Teacher

CPU = torch.device("cpu")
# What a type checker is told: the toys have the protocols' members, with the protocols' types.
REASONER: type[Reasoner] = ToyReasoner
DECODER: type[LoadedDecoder] = LoadedToyDecoder
TEACHER: type[Teacher] = ToyTeacher


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    ToyReasoner.save(path)
    return str(path)


class TestReasoner(ReasonerContract):
    @pytest.fixture(scope="class")
    def source(self, checkpoint) -> str:
        return checkpoint

    @pytest.fixture(scope="class", params=["image", "text", "both"])
    def reasoner(self, request, source) -> Reasoner:
        return REASONER.load(
            source,
            dtype=torch.float32,
            vae_dtype=torch.float32,
            device=CPU,
            accepts=request.param,
            distillation_lora=None,
            checkpointing=False,
            ladder=(800.0,),
            rungs=range(1),
        )


class TestDecoder(DecoderContract):
    @pytest.fixture(scope="class")
    def decoder(self, checkpoint) -> Decoder:
        return DECODER.load(checkpoint, dtype=torch.float32, device=CPU)


class TestTeacher(TeacherContract):
    @pytest.fixture(scope="class")
    def teacher(self) -> Teacher:
        return TEACHER.load(
            "nowhere",
            dtype=torch.float32,
            device=CPU,
            frame_pixels=1 << 18,
            share_video=True,
            checkpointing=False,
        )
