"""Every reasoner of the table keeps the contract, whatever kind of instance it accepts."""

from typing import Any

import pytest
import torch

from tests.contract.reasoner_contract import ReasonerContract, carriers, conditions, latents
from tests.families import cases
from vlmteach import models
from vlmteach.config import Config, DecoderConfig, ReasonerConfig
from vlmteach.families import REASONERS, family_class
from vlmteach.reasoners.base import Reasoner
from vlmteach.types import ClipSpec


@pytest.fixture(
    scope="class", params=[(f, a) for f in REASONERS for a in ("image", "text", "both")]
)
def saved(request, tmp_path_factory) -> Any:
    family, accepts = request.param
    folder = tmp_path_factory.mktemp(family)
    cases("reasoner")[family].save(folder, accepts)
    return family, accepts, str(folder)


class TestFamilies(ReasonerContract):
    @pytest.fixture(scope="class")
    def source(self, saved) -> str:
        return saved[2]

    @pytest.fixture(scope="class")
    def reasoner(self, saved) -> Reasoner:
        family, accepts, folder = saved
        return family_class(REASONERS, family).load(
            folder,
            dtype=torch.float32,
            vae_dtype=torch.float32,
            device=torch.device("cpu"),
            accepts=accepts,
            distillation_lora=None,
            checkpointing=False,
            ladder=(800.0,),
            rungs=range(1),
        )

    def test_many_layers_can_carry_the_adapter_and_the_last_cannot(self, reasoner):
        assert len(carriers(reasoner, "all_linear")) > 10
        with pytest.raises(ValueError, match=r"got 'proj_out', expected"):
            reasoner.comfyui_key("proj_out")


@pytest.mark.parametrize("family", REASONERS)
def test_the_vae_may_be_bfloat16(family, tmp_path):
    """It encodes the first frame, decodes the clip, and is the decoder `full`."""
    cases("reasoner")[family].save(tmp_path, "image")
    loaded = {}
    for vae_dtype in ("float32", "bfloat16"):
        reasoner = ReasonerConfig(
            family=family,
            checkpoint=str(tmp_path),
            dtype="float32",
            vae_dtype=vae_dtype,
            accepts="image",
            ladder=(800.0,),
        )
        config = Config(reasoner=reasoner, decoder=DecoderConfig(family="full"))
        loaded[vae_dtype] = models.load(config, torch.device("cpu"))
    exact, half = loaded["float32"], loaded["bfloat16"]
    assert {p.dtype for p in half.reasoner.vae.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.reasoner.network.parameters()} == {torch.float32}
    facts = exact.reasoner.facts
    side = facts.size_multiple
    clip = ClipSpec(frames=facts.temporal_stride + 1, height=side, width=side, fps=8.0)
    told, again = (next(conditions(m.reasoner, clip)) for m in (exact, half))
    for name in ("text", "first_latent", "known"):
        one, two = getattr(told, name, None), getattr(again, name, None)
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert two.dtype == torch.float32
            torch.testing.assert_close(two, one, rtol=0.1, atol=0.1)
    z0 = latents(exact.reasoner, clip)
    pixels = half.reasoner.decode(z0)
    assert pixels.dtype == torch.float32
    assert 0 < (pixels - exact.reasoner.decode(z0)).abs().max() < 0.1
    z0.requires_grad_()
    watched = half.decoder.decode(z0)
    torch.testing.assert_close(watched.detach(), pixels, rtol=0, atol=0.02)
    (gradient,) = torch.autograd.grad(watched.mean(), z0)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
