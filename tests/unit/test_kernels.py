"""A process's threads and kernels: exact in earnest, and as they were afterwards."""

import os
from dataclasses import replace

import pytest
import torch

from vlmteach.config import RunConfig
from vlmteach.kernels import settled

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def now() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        getattr(torch.utils.deterministic, "fill_uninitialized_memory"),  # noqa: B009
        torch.backends.cudnn.benchmark,
    )


@pytest.mark.parametrize("only_warns", [False, True])
def test_kernels_are_exact_for_the_span_and_as_they_were_afterwards(monkeypatch, only_warns):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    outside = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=only_warns)
    before = now()
    try:
        with settled(RunConfig(threads=2)):
            assert now() == (2, True, False, False, False)
        assert now() == before
        with settled(RunConfig(deterministic=False)):
            assert now() == (1, False, False, False, True)
        assert now() == before
    finally:
        torch.use_deterministic_algorithms(outside)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, ":4096:8"),
        (":16:8", ":16:8"),
        (":4096:8", ":4096:8"),
        (":0:0", ":4096:8"),  # no workspace of its own: another order from run to run
        (":4096:2:16:8", ":4096:8"),  # several streams, which torch refuses at the first product
        ("", ":4096:8"),
    ],
)
def test_cublas_gets_a_workspace_with_which_it_adds_in_one_order(monkeypatch, given, kept):
    monkeypatch.setenv(VARIABLE, "unset")
    if given is None:
        monkeypatch.delenv(VARIABLE)
    else:
        monkeypatch.setenv(VARIABLE, given)
    with settled(replace(RunConfig(), deterministic=False)):
        assert os.environ.get(VARIABLE) == given
    with settled(RunConfig()):
        assert os.environ[VARIABLE] == kept
