"""Encoded diffusion: discrete against continuous depth, both parametrisations, marginals, and VDM inside it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.errors import ArgumentError
from sfumato.learn.forward.encoded_forward import (
    EncodedForward,
    MonotoneLogSNR,
    SoftmaxDecoder,
    encoded_bound,
    levels,
    sample_encoded,
    step_variance,
)
from sfumato.seeds import noise


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.6, dtype=torch.float64))

    def forward(self, x, lam):
        return torch.tanh(self.a * x + 0.3 * lam[:, None])


def _draws(n: int = 9):
    generator = torch.Generator().manual_seed(0)
    x, eps, said = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    return x, eps, said, torch.linspace(-5, 5, n, dtype=torch.float64)


@pytest.mark.parametrize("encoder", [None, _Net()], ids=["fixed", "trained"])
def test_the_velocity_form_is_the_data_form(encoder):
    x, eps, said, lam = _draws()
    forward = EncodedForward(encoder)
    alpha, sigma = (c[:, None] for c in levels(lam))
    v_said = (alpha * forward.sample(x, lam, eps) - said) / sigma
    expected = forward.data_loss(x, said, lam)
    torch.testing.assert_close(forward.velocity_loss(x, v_said, lam, eps), expected, rtol=1e-10, atol=1e-12)
    wrong = (alpha * forward.sample(x, lam, -eps) - said) / sigma
    assert float((forward.velocity_loss(x, wrong, lam, eps) / expected - 1).detach().abs().max()) > 0.1  # the control: other noise


def test_with_the_data_as_the_encoding_it_is_vdm_at_the_enlarged_prediction():
    x, _, said, lam = _draws()
    found = EncodedForward(lambda x, lam: x).data_loss(x, said, lam)
    plain = 0.5 * torch.exp(lam) * (x - (1 + torch.sigmoid(-lam))[:, None] * said).square().sum(1)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)


def test_steps_divided_by_their_length_become_the_continuous_density():
    """The first order in the step: halving it halves the difference."""
    x, _, said, lam = _draws()
    forward = EncodedForward(_Net())
    with torch.no_grad():
        exact = forward.data_loss(x, said, lam)
        errors = [float((forward.step_loss(x, said, lam, lam + h) / h - exact).abs().max()) for h in (2e-3, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)


def test_reverse_steps_keep_the_marginals():
    """From `q(z_t | x)` with `x_hat` such that `mu_P = mu_Q`, i.e. no gap, the mean and variance of `q(z_s | x)` come out."""
    x, _, _, lam = _draws()
    forward = EncodedForward(_Net())
    with torch.no_grad():
        t, s = lam[3].expand(9), lam[5].expand(9)
        here, there = forward.encode(x, t), forward.encode(x, s)
        pull, lean = -math.expm1(float(t[0] - s[0])), float((s - t)[0] * torch.sigmoid(-t[0]))
        said = (pull * here + there - here) / (pull + lean)
        assert float(forward.step_gap(x, said, t, s).abs().max()) < 1e-12
        alpha, _ = levels(t)
        end = sample_encoded(lambda z, u: said, alpha[:, None] * here, (float(t[0]), float(s[0])), noise(0, 9, (2,), dtype=x.dtype), 0.0)
    torch.testing.assert_close(end, there)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = levels(t[0]), levels(s[0])
    keep = alpha_t * sigma_s**2 / (alpha_s * sigma_t**2)
    assert float(keep**2 * sigma_t**2 + step_variance(t[0], s[0])) == pytest.approx(float(sigma_s**2), rel=1e-12)


def test_the_best_ratio_of_variances_is_the_least_bound():
    x, _, said, lam = _draws()
    forward, t, s = EncodedForward(None), lam[4].expand(9), lam[6].expand(9)
    best = forward.best_ratio(x, said, t, s)
    costs = [float(forward.step_loss(x, said, t, s, w * best).mean()) for w in (0.97, 1.0, 1.03)]
    assert costs[1] < min(costs[0], costs[2])
    assert costs[1] < float(forward.step_loss(x, said, t, s).mean())


def test_the_bound_of_an_exact_encoded_gaussian_is_tight_and_its_chain_samples_it():
    """Unit data, `y = x`: the prediction `alpha z / (1 + sigma^2)` is the mean divided by the model's factor."""
    x = torch.randn(300, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lams = torch.linspace(-7, 7, 321, dtype=torch.float64).tolist()

    def predictor(z, lam):
        return (levels(lam)[0] / (1 + torch.sigmoid(-lam)))[:, None] * z

    found = encoded_bound(EncodedForward(lambda x, lam: x), predictor, x, lams)
    exact = 0.5 * math.log(2 * math.pi) + 0.5 * float(x.square().mean())
    assert float(found.total.mean()) == pytest.approx(exact, abs=0.2)
    wrong = encoded_bound(EncodedForward(lambda x, lam: x), lambda z, lam: 0.8 * predictor(z, lam), x, lams)
    assert float(wrong.total.mean()) > exact + 1
    draws = noise(0, 1000, (1,), dtype=torch.float64)
    end = sample_encoded(predictor, draws.draw(500), lams[::16], draws)
    assert float(end.std()) == pytest.approx(1.0, abs=0.08)


def test_a_learned_schedule_does_not_change_an_integral():
    schedule = MonotoneLogSNR(-2.0, 3.0, 4)
    with torch.no_grad():
        schedule.shares.copy_(torch.tensor([0.5, -1.0, 0.2, 0.0], dtype=torch.float64))
        lam, rate = schedule((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    assert bool((lam.diff() < 0).all())
    assert float((rate * torch.sigmoid(lam)).mean()) == pytest.approx(math.log1p(math.exp(3)) - math.log1p(math.exp(-2)), rel=1e-5)


def test_the_softmax_decoder_is_bayes_rule_over_levels():
    decoder = SoftmaxDecoder(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    said, log_variance = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor(math.log(0.25), dtype=torch.float64)
    mass = torch.tensor([math.exp(-((0.3 - v) ** 2) / 0.5) for v in (-1, 0, 1)], dtype=torch.float64)
    mass = mass / mass.sum()
    for i, level in enumerate((-1.0, 0.0, 1.0)):
        found = decoder(torch.full((1, 1), level, dtype=torch.float64), said, log_variance)
        assert float(found) == pytest.approx(-math.log(mass[i]), rel=1e-12)
    uniform = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = decoder.draw(said.expand(4000, 1), log_variance, uniform)
    assert float((drawn == 0).double().mean()) == pytest.approx(float(mass[1]), abs=0.03)


def test_bad_input():
    x, _, said, lam = _draws()
    forward = EncodedForward(None)
    with pytest.raises(ArgumentError, match="more signal"):
        forward.step_loss(x, said, lam, lam - 1)
    with pytest.raises(ArgumentError, match="ratio"):
        forward.step_loss(x, said, lam, lam + 1, 0.0)
    with pytest.raises(ArgumentError, match="rising"):
        encoded_bound(forward, lambda z, u: z, x, (1.0, 0.0))
    with pytest.raises(ArgumentError):
        MonotoneLogSNR(2.0, 1.0)
