"""Every entrance has `auto` settled in the same place, before the models are loaded."""

import pytest
import torch

from vlmteach import models
from vlmteach.config import Config, FitConfig
from vlmteach.plan import loaded, price


@pytest.mark.parametrize(("asked", "settled"), [("auto", "selective"), ("full", "full")])
def test_auto_is_what_the_plan_chooses_and_else_the_config(monkeypatch, asked, settled):
    monkeypatch.setattr(price, "chosen", lambda config, device: "selective")
    monkeypatch.setattr(models, "load", lambda config, device: (config.fit.checkpointing, device))
    place = torch.device("cpu")
    config = Config(fit=FitConfig(checkpointing=asked))
    assert loaded.load(config, place) == (settled, place)
