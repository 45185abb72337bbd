"""Every decoder of the table keeps the contract, and each reasoner's own beside them."""

import pytest
import torch

from tests.contract.decoder_contract import DecoderContract, latents
from tests.families import cases
from vlmteach.decoders.base import Decoder

SMALL = {name: make for case in cases("decoder").values() for name, make in case.small.items()}


class TestFamilies(DecoderContract):
    @pytest.fixture(scope="class", params=SMALL)
    def decoder(self, request, tmp_path_factory) -> Decoder:
        return SMALL[request.param](tmp_path_factory.mktemp("decoder"))

    def test_both_ends_of_the_range_are_reached(self, decoder):
        pixels = decoder.decode(latents(decoder))
        assert 0 == pixels.min() < pixels.max() == 1

    def test_the_remedy_for_wrong_latents_is_said(self, decoder):
        wrong = torch.zeros(1, decoder.facts.latent_channels + 1, 2, 2, 2)
        with pytest.raises(ValueError, match=r"latents: got shape .*expected .*reasoner's VAE"):
            decoder.decode(wrong)
