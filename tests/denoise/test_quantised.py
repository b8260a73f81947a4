"""Quantisation: integers are integers, errors are those of rounding, ranges are chosen as said, inputs are those of a run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoise import ConvNet, ResidualMLP, Wrapped
from sfumato.denoise.networks.quantised import affine, choose, layers, observe, quantise, symmetric
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn.repairs.quantisation_inputs import leaning_times, run_inputs
from sfumato.noise import VariancePreserving
from sfumato.sample import Sampler, ddim, uniform_time


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_layer_computes_what_integers_compute():
    """With steps that are powers of two the simulated layer equals int64 arithmetic to the last bit."""
    layer = nn.Linear(16, 8)
    with torch.no_grad():
        layer.weight.copy_(normal(8, 16)).clamp_(-1, 1)[:, 0] = 127 / 128
        layer.weight.mul_(0.99999).clamp_(-127 / 128, 127 / 128)
        layer.weight[:, 0] = 127 / 128
        layer.bias.copy_(torch.round(normal(8) * 64) / 64)
    x = normal(5, 16).clamp(-1, 127 / 128)
    x[0, 0], x[0, 1] = -1.0, 127 / 128
    made = quantise(nn.Sequential(layer), lambda m: m(x), metric="range")[0]
    assert float(made.of_input.step) == 1 / 128
    assert made.of_weight.step.flatten().tolist() == [1 / 128] * 8
    a = (made.of_input.integers(x) - made.of_input.zero).to(torch.int64)
    w = (made.of_weight.integers(layer.weight.detach()) - 128).to(torch.int64)
    assert int(a.min()) == -128
    assert torch.equal(made(x), (a @ w.T).float() / 128**2 + layer.bias.detach())


def test_rounding_error_is_that_of_a_uniform_grid():
    """s^2/12 inside the range, so 64 times more for three bits fewer; zero is exact."""
    z = torch.linspace(-1, 2, 100_001, dtype=torch.float64)
    errors = [float((affine(-1.0, 2.0, bits)(z) - z).square().mean()) for bits in (5, 8)]
    assert errors[1] == pytest.approx((3 / 255) ** 2 / 12, rel=0.02)
    assert errors[0] / errors[1] == pytest.approx((255 / 31) ** 2, rel=0.05)
    assert float(affine(-0.3, 1.0, 4)(torch.zeros(1))) == 0
    assert affine(0.5, 1.0, 8).zero == 0  # a range is widened to hold 0


def test_channels_have_steps_of_their_own():
    weight = torch.stack([normal(64), 100 * normal(64, seed=1), torch.zeros(64)])
    rounded = symmetric(weight, 8)(weight)
    assert ((rounded - weight).abs().amax(1) <= 0.5001 * weight.abs().amax(1) / 127).all()


@pytest.mark.parametrize("metric", ["percentile", "mse", "l1", "cosine", "kl"])
def test_chosen_ranges_clip_outliers_where_that_pays(metric):
    """At four bits a single far value costs all others their digits; every metric but the plain range gives it up."""
    z = torch.cat([normal(20_000), torch.tensor([12.0, -12.0])])
    plain, chosen = choose(z, 4, "range"), choose(z, 4, metric)
    assert float(chosen.step) < 0.8 * float(plain.step)
    inside = z[:-2]
    assert float((chosen(inside) - inside).square().mean()) < 0.7 * float((plain(inside) - inside).square().mean())


def test_ends_keep_eight_bits_and_the_left_out_stay():
    network = ResidualMLP((4,), 8, 2)
    nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(1))
    x, c = normal(64, 4), torch.linspace(-1, 1, 64)
    made = quantise(network, lambda m: m(x, c), 4, 4, ends=("first", "last"), leave=("embed",))
    assert made.first.of_input.bits == 8
    assert made.layers[0].of_input.bits == 4
    assert isinstance(made.embed, nn.Linear)
    assert isinstance(network.first, nn.Linear)  # the original is untouched
    error = [float((quantise(network, lambda m: m(x, c), b, b)(x, c) - network(x, c)).detach().square().mean()) for b in (4, 8)]
    assert 20 < error[0] / error[1] < 2000


def test_convolutions_are_quantised_too():
    network = ConvNet((1, 4, 4), 8, 1)
    nn.init.normal_(network.last.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    x, c = normal(8, 1, 4, 4), torch.zeros(8)
    with torch.no_grad():
        truth, made = network(x, c), quantise(network, lambda m: m(x, c))(x, c)
    assert 0 < float((made - truth).norm() / truth.norm()) < 0.05
    assert any(isinstance(m, nn.Conv2d) for m in layers(network).values())


def test_states_of_a_run_come_with_the_time_they_belong_to():
    """On a Gaussian law every state of a fine run has the variance of the marginal at the time that is returned with it."""
    law, process = Gaussian(torch.zeros(1), SpectralCovariance.isotropic(1, 0.1)).to(torch.float32), VariancePreserving()
    sampler = Sampler(law.denoiser(process), ddim().compile(process, uniform_time(40)), (1,))
    x, t = run_inputs(sampler, torch.tensor([0.1, 0.6], dtype=torch.float64).repeat(1000), 1)
    for n in (0, 1):
        alpha, sigma = (float(v) for v in process.levels(t[n]))
        assert float(x[n::2].var()) == pytest.approx(alpha**2 * 0.1 + sigma**2, rel=0.15)
    reversed_variance = float(process.alpha(1 - t[0]) ** 2 * 0.1 + process.sigma(1 - t[0]) ** 2)
    assert abs(float(x[0::2].var()) / reversed_variance - 1) > 0.5
    drawn = leaning_times(20_000, 0.4, 0.1)
    assert float(drawn.mean()) == pytest.approx(0.4, abs=0.005)
    assert float(leaning_times(1000).min()) == 0


def test_observe_sees_each_call_and_leaves_no_hooks():
    network = ResidualMLP((2,), 4, 1)
    belief = Wrapped(lambda x, t, c: network(x, t), VariancePreserving(), "noise")
    seen = observe(network, lambda m: [belief.denoise(normal(3, 2), t) for t in (0.2, 0.7)], ["first"])
    assert [tuple(x.shape) for x in seen["first"]] == [(3, 2), (3, 2)]
    assert not network.first._forward_pre_hooks


def test_refuses_nonsense():
    model, x = nn.Sequential(nn.Linear(2, 2)), normal(4, 2)
    with pytest.raises(ArgumentError, match="ends"):
        quantise(model, lambda m: m(x), ends=("nowhere",))
    with pytest.raises(ArgumentError, match="bits"):
        quantise(model, lambda m: m(x), bits_a=1)
    with pytest.raises(ArgumentError, match="use"):
        quantise(model, lambda m: None)
    with pytest.raises(ArgumentError, match="low, high"):
        quantise(model, lambda m: m(0 * x))
    with pytest.raises(ArgumentError, match="mean, std"):
        leaning_times(3, 1.4)
