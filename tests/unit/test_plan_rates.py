"""A device's rates: measured here, or published."""

import pytest
import torch

from vlmteach.plan.rates import GIB, PUBLISHED, device_of, measure


def test_this_machine_is_measured():
    device = measure(torch.device("cpu"))
    assert device.is_measured
    assert device.shares_host
    assert 1e8 < device.flops["float32"] < 1e14
    assert 1e8 < device.copy < 1e13
    assert GIB / 8 < device.memory < 2**44


def test_published_devices_are_said_to_be_assumed():
    assert device_of("h100") is PUBLISHED["h100"]
    assert all("assumed" in each.name and not each.is_measured for each in PUBLISHED.values())


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "b200"):
        with pytest.raises(ValueError, match=rf"--device: got '{name}', expected auto, cpu"):
            device_of(name)
