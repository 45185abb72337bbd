"""The rollout against fields whose answer is known, and its gradient switch rung by rung."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlmteach.reasoners.base import Condition
from vlmteach.rollout import Noise, Prediction, draw_noise, gradient_span, rollout, sample_latents

CPU = torch.device("cpu")
LADDER = (1000.0, 700.0, 400.0)
SHAPE = (1, 2, 3, 1, 1)


class Field:
    """A reasoner that is only a velocity field; remembers which evaluations recorded gradient."""

    def __init__(self, u, first: Tensor | None = None) -> None:
        self.u = u
        self.first = first
        self.sigmas: list[float] = []
        self.recorded: list[bool] = []

    def velocity(self, z, sigma, condition):
        self.sigmas.append(sigma)
        self.recorded.append(torch.is_grad_enabled())
        return self.u(z, sigma)

    def impose(self, z0, condition):
        if self.first is None:
            return z0
        return torch.cat([self.first, z0[:, :, 1:]], dim=2)


def noise(dtype=torch.float64) -> Noise:
    draws = draw_noise(SHAPE, len(LADDER), seed=0, key="k", device=CPU)
    return Noise(draws.z1.to(dtype), tuple(draw.to(dtype) for draw in draws.renoise))


NOTHING = Condition(text=torch.zeros(1, 1, 1), first_latent=None)


def run(field, stop, grad_from, draws=None) -> Tensor:
    draws = draws or noise()
    return rollout(field, NOTHING, draws, LADDER, last_rung=stop, grad_from=grad_from)


@pytest.mark.parametrize("stop", range(len(LADDER)))
def test_a_point_mass_is_found_at_every_rung(stop):
    """All mass at x: u = (z - x) / sigma, and z0 = z - sigma u = x whatever the noise."""
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).view(SHAPE)
    field = Field(lambda z, sigma: (z - x) / sigma)
    torch.testing.assert_close(run(field, stop, 9), x, rtol=0, atol=1e-12)
    assert field.sigmas == [timestep / 1000 for timestep in LADDER[: stop + 1]]


def test_a_gaussian_follows_its_posterior_mean():
    """Data N(0, 1): u = (2 sigma - 1) z / v with v = (1-sigma)^2 + sigma^2, so that the
    prediction is (1 - sigma) z / v, and each rung starts from it and its own noise."""
    draws = noise()

    def u(z, sigma):
        return (2 * sigma - 1) * z / ((1 - sigma) ** 2 + sigma**2)

    z, expected = draws.z1, []
    for rung, timestep in enumerate(LADDER):
        s = timestep / 1000
        expected.append((1 - s) * z / ((1 - s) ** 2 + s**2))
        if rung + 1 < len(LADDER):
            after = LADDER[rung + 1] / 1000
            z = (1 - after) * expected[-1] + after * draws.renoise[rung]
    for stop, z0 in enumerate(expected):
        torch.testing.assert_close(run(Field(u), stop, 9, draws), z0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rung", range(len(LADDER)))
def test_what_was_predicted_is_not_evaluated_again(rung):
    def u(z, sigma):
        return torch.sin(z) + sigma

    first = torch.full((1, 2, 1, 1, 1), 7.0, dtype=torch.float64)
    whole: Any = Field(u, first)
    rest: Any = Field(u, first)
    after = Prediction(rung, run(Field(u), rung, 9))
    expected = sample_latents(whole, NOTHING, noise(), LADDER)
    assert torch.equal(sample_latents(rest, NOTHING, noise(), LADDER, after=after), expected)
    assert rest.sigmas == whole.sigmas[rung + 1 :]


def test_the_known_first_frame_is_imposed():
    first = torch.full((1, 2, 1, 1, 1), 7.0, dtype=torch.float64)
    z0 = run(Field(lambda z, sigma: 0 * z, first), 2, 9)
    assert torch.equal(z0[:, :, :1], first)
    assert not torch.any(z0[:, :, 1:] == 7.0)


@pytest.mark.parametrize(
    ("mode", "recorded"),
    [
        ("first", [True]),
        ("last", [False, False, True]),
        ("full", [True, True, True]),
        (0, [True]),
        (1, [False, True]),
        (2, [False, False, True]),
    ],
)
def test_gradient_reaches_exactly_the_rungs_of_the_mode(mode, recorded):
    """One parameter per rung: those of recorded rungs get the hand-derived gradient, others none.

    u = a_k z gives z0_k = (1 - s_k a_k) z_k, hence every derivative in closed form.
    """
    a = nn.ParameterList(nn.Parameter(torch.tensor(0.3 + 0.1 * k).double()) for k in range(3))
    sigmas = [timestep / 1000 for timestep in LADDER]
    field = Field(lambda z, sigma: a[sigmas.index(sigma)] * z)
    draws = noise()
    stop, grad_from = gradient_span(mode, len(LADDER))
    run(field, stop, grad_from, draws).sum().backward()
    assert field.recorded == recorded

    keep = [1 - s * p.item() for s, p in zip(sigmas, a, strict=True)]  # z0_k = keep_k z_k
    z = [draws.z1]
    for k in range(stop):
        z.append((1 - sigmas[k + 1]) * keep[k] * z[k] + sigmas[k + 1] * draws.renoise[k])
    for k, parameter in enumerate(a):
        if k > stop or not recorded[k]:
            assert parameter.grad is None
            continue
        chain = 1.0  # d z0_stop / d z0_k
        for j in range(k + 1, stop + 1):
            chain *= (1 - sigmas[j]) * keep[j]
        expected = (-sigmas[k] * z[k] * chain).sum()
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-12, atol=1e-14)
        assert abs(expected) > 1e-3


def test_the_modes_differ_in_gradient_not_in_value():
    a = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    field = Field(lambda z, sigma: a * z)
    draws = noise()
    last, full = run(field, 2, 2, draws), run(field, 2, 0, draws)
    assert torch.equal(last, full)
    (g_last,) = torch.autograd.grad(last.sum(), a)
    (g_full,) = torch.autograd.grad(full.sum(), a)
    assert abs(g_last - g_full) > 1e-3


def test_sampling_records_nothing():
    a = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    field: Any = Field(lambda z, sigma: a * z)
    z0 = sample_latents(field, NOTHING, noise(), LADDER)
    assert not z0.requires_grad
    assert field.recorded == [False] * 3


@pytest.mark.parametrize("mode", [3, -1])
def test_a_rung_outside_the_ladder_is_refused(mode):
    with pytest.raises(ValueError, match=r"got rung -?\d, expected 0 to 2; the ladder has 3"):
        gradient_span(mode, 3)


def test_the_noise_belongs_to_seed_key_and_role():
    def draw(seed=0, key="a", rungs=4):
        return draw_noise((1, 2, 3, 4, 5), rungs, seed=seed, key=key, device=CPU)

    state = torch.get_rng_state()
    base, again = draw(), draw()
    assert torch.equal(torch.get_rng_state(), state)
    assert base.z1.dtype == torch.float32
    assert base.z1.shape == (1, 2, 3, 4, 5)
    assert len(base.renoise) == 3
    assert torch.equal(base.z1, again.z1)
    tensors = [base.z1, *base.renoise, draw(seed=1).z1, draw(key="b").z1]
    for i, one in enumerate(tensors):
        assert all(not torch.equal(one, other) for other in tensors[i + 1 :])
    # A shorter ladder sees the same noise where both have a rung.
    short = draw(rungs=2)
    assert torch.equal(short.z1, base.z1)
    assert torch.equal(short.renoise[0], base.renoise[0])
