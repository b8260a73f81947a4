"""The loss is minimised by what theory says, times follow their laws, and weights are the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from sfumato.denoise import from_data
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import DenoisingLoss, EDMWeight, LogNormalRatio, MinSNRWeight, SNRWeight, Times, Uniform, UniformLogSNR, UniformTime
from sfumato.noise import EDM, Cosine, FlowMatching, VarianceExploding, VariancePreserving

PROCESSES = [VariancePreserving(), EDM(), FlowMatching(), VarianceExploding(), Cosine()]
FAR = 1e-4
"""False-alarm rate of each statistical test here; seeds are fixed."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ratio_given(low, high):
    return UniformLogSNR(-math.log(high), -math.log(low))


@pytest.mark.parametrize("view", ["data", "noise", "velocity", "v"])
def test_best_linear_denoiser_at_one_noise_level_is_the_gaussian_one_whatever_the_data_and_the_view(view):
    """Wang & Vastola 2023, linear optimum: W* = alpha S (alpha^2 S + sigma^2)^-1 for ANY law with mean mu and covariance S.

    The data are four points (no Gaussian); the gradient of the loss at (W*, b*) vanishes in expectation: its standardised mean over
    examples stays within the two-sided bound of `FAR` for 6 numbers, and does not at 0.9 W* (the negative control).
    """
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0], [5.0, 1.0]], dtype=torch.float64)
    law = Gaussian(points.mean(0), SpectralCovariance.from_dense(torch.cov(points.T, correction=0)))
    process, t, n = VariancePreserving(), 0.4, 40000
    weight = EDMWeight(1.0)
    loss = DenoisingLoss(weight, view=view, times=ratio_given(float(process.ratio(t)), float(process.ratio(t)) * (1 + 1e-9)))
    examples = loss.examples(process, points[torch.randint(4, (n,), generator=generator())], generator(1))
    alpha, sigma = process.alpha(t), process.sigma(t)
    covariance = law.covariance.dense()
    best = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=torch.float64))
    offset = law.mean - alpha * best @ law.mean

    def scores(factor):
        # one row of parameters per example, so that each example has its own gradient
        W = (factor * best).expand(n, 2, 2).clone().requires_grad_()
        b = offset.expand(n, 2).clone().requires_grad_()
        losses = loss(lambda x, t, c: (W @ x[:, :, None])[:, :, 0] + b, process, examples)
        g = torch.cat([v.flatten(1) for v in torch.autograd.grad(losses.sum(), (W, b))], dim=1)
        return (g.mean(0) / (g.std(0) / n**0.5)).abs()

    bound = stats.norm.isf(FAR / 2 / 6)
    assert float(scores(1.0).max()) < bound
    assert float(scores(0.9).max()) > 2 * bound


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("view", ["noise", "velocity", "v", "score"])
def test_regression_of_a_view_is_the_weighted_regression_of_the_data(process, view):
    """|view(D) - view(x_0)|^2 computed from the views themselves, and the identity noise + 1 = data + SNR."""
    clean = torch.randn(64, 3, generator=generator(), dtype=torch.float64)
    loss = DenoisingLoss(Uniform(), view=view, times=UniformLogSNR(-2.0, 3.0))
    examples = loss.examples(process, clean, generator(1))

    def denoise(x, t, c):
        return torch.tanh(x)

    answer, truth = (from_data(d, view, examples.noisy, examples.t, process) for d in (torch.tanh(examples.noisy), clean))
    direct = (answer - truth).square().mean(1)
    torch.testing.assert_close(loss(denoise, process, examples), direct, rtol=1e-9, atol=1e-9)
    if view == "noise":
        snr = DenoisingLoss(SNRWeight(), times=loss.times)
        weighted = snr(denoise, process, snr.examples(process, clean, generator(1)))
        torch.testing.assert_close(weighted, direct, rtol=1e-9, atol=1e-9)


def test_true_noise_makes_the_loss_zero():
    process, clean = FlowMatching(), torch.randn(32, 2, 2, generator=generator(), dtype=torch.float64)
    loss = DenoisingLoss()
    assert float(loss(lambda x, t, c: clean, process, loss.examples(process, clean, generator(1))).max()) == 0.0


def test_preconditioned_target_has_loss_one_at_every_noise_level_for_gaussian_data():
    """With the EDM weight a silent isotropic network has the expected loss 1 at every sigma (Karras et al. 2022, B.6)."""
    s, process = 0.7, VariancePreserving()
    loss, n = DenoisingLoss(EDMWeight(s), LogNormalRatio(0.0, 2.0)), 20000
    clean = s * torch.randn(n, 1, generator=generator(), dtype=torch.float64)
    examples = loss.examples(process, clean, generator(1))
    law = Gaussian(torch.zeros(1), SpectralCovariance.isotropic(1, s**2))
    losses = loss(lambda x, t, c: law.posterior_mean(x, process, t), process, examples)
    for part in losses[examples.t.argsort()].chunk(4):
        # each is a chi-square of one degree of freedom
        assert abs(float(part.mean()) - 1) < stats.norm.isf(FAR / 8) * (2 / len(part)) ** 0.5


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_times_follow_their_laws(process):
    n = 4000
    log_normal = LogNormalRatio(-0.6, 1.2, stratified=False).draw(process, n, generator())[0]
    top = -float(process.half_log_snr(1.0))
    law = stats.truncnorm(-math.inf, (top + 0.6) / 1.2, loc=-0.6, scale=1.2)
    assert stats.kstest(-process.half_log_snr(log_normal).numpy(), law.cdf).pvalue > FAR
    even = UniformLogSNR(-3.0, 4.0, stratified=False).draw(process, n, generator())[0]
    assert stats.kstest(process.half_log_snr(even).numpy(), stats.uniform(-3, 7).cdf).pvalue > FAR
    assert stats.kstest(UniformTime(stratified=False).draw(process, n, generator())[0].numpy(), "uniform").pvalue > FAR


@pytest.mark.parametrize("times", [UniformTime(), LogNormalRatio(), UniformLogSNR(-3.0, 4.0)], ids=repr)
def test_stratified_times_have_one_draw_in_every_slice_of_every_group(times):
    process, batch = FlowMatching(), 16
    slices = {UniformTime: lambda t: t, LogNormalRatio: None, UniformLogSNR: lambda t: (4 - process.half_log_snr(t)) / 7}[type(times)]
    if slices is None:
        slices = lambda t: torch.special.ndtr((-process.half_log_snr(t) + 1.2) / 1.2)  # noqa: E731
    drawn = times.draw(process, batch, generator(), groups=3)
    places = (slices(drawn) * batch * (1 - 1e-9)).floor()
    assert torch.equal(places, torch.arange(batch).to(places).expand(3, batch))
    assert not torch.equal(drawn[0], drawn[1])


def test_a_law_that_leaves_the_process_is_cut_at_its_end():
    """VariancePreserving ends at a ratio of 150; a log-normal about 1000 is the part of it below."""
    process = VariancePreserving()
    t = LogNormalRatio(math.log(1000), 1.0).draw(process, 1000, generator())[0]
    assert float(t.max()) <= 1
    assert 0.9 < float(t.median()) < 1
    with pytest.raises(ArgumentError, match="low"):
        UniformLogSNR(-9.0, 1.0).draw(process, 4, generator())


def test_weights_are_their_formulas():
    process, t = VariancePreserving(), torch.tensor([0.05, 0.3, 0.9], dtype=torch.float64)
    k, snr = process.ratio(t), process.alpha(t) ** 2 / process.sigma(t) ** 2
    torch.testing.assert_close(EDMWeight(0.5)(process, t), (k**2 + 0.25) / (k * 0.5) ** 2)
    torch.testing.assert_close(SNRWeight()(process, t), snr)
    torch.testing.assert_close(MinSNRWeight(5.0)(process, t), snr.clamp(max=5))
    assert Uniform()(process, t).tolist() == [1, 1, 1]
    # at alpha = 0 the weight is its limit
    assert EDMWeight(0.5)(FlowMatching(), torch.tensor([1.0])).item() == 4.0


def test_labels_are_dropped_at_their_rate_and_otherwise_kept():
    n, rate = 20000, 0.15
    loss, labels = DenoisingLoss(label_dropout=rate), torch.arange(n) % 10
    got = loss.examples(EDM(), torch.zeros(n, 1), generator(), labels).condition
    kept = got >= 0
    assert torch.equal(got[kept], labels[kept])
    assert stats.binomtest(int((~kept).sum()), n, rate).pvalue > FAR
    assert bool((DenoisingLoss(label_dropout=0.0).examples(EDM(), torch.zeros(n, 1), generator(), labels).condition == labels).all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: DenoisingLoss(label_dropout=1.5),
        lambda: EDMWeight(0.0),
        lambda: MinSNRWeight(-1.0),
        lambda: LogNormalRatio(0.0, 0.0),
        lambda: UniformLogSNR(2.0, 1.0),
    ],
)
def test_meaningless_arguments_are_refused(make):
    with pytest.raises(ArgumentError):
        make()


def test_times_is_a_contract():
    with pytest.raises(TypeError):
        Times()
