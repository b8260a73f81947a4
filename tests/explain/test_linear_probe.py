from __future__ import annotations

import json
import math

import pytest
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance, fit_gaussian
from sfumato.explain import linear_loss, linear_probe
from sfumato.noise import EDM, VariancePreserving
from sfumato.seeds import noise


@pytest.fixture(scope="module")
def mixture():
    """Three components in 6 dimensions, far from one Gaussian."""
    means = 1.5 * noise(1, 3, (6,), dtype=torch.float64).draw(0)
    return GaussianMixture([0.5, 0.3, 0.2], means, [SpectralCovariance.isotropic(6, v) for v in (0.1, 0.2, 0.3)])


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()], ids=lambda p: p.kind)
def test_no_affine_denoiser_beats_the_gaussians(mixture, process):
    """The expected loss of `W x + b` is a quadratic of the two moments alone; a quasi-Newton method finds the same optimum."""
    t, law = float(process.time_of_ratio(0.7)), mixture.gaussian()
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    cov, m = law.covariance.dense(), law.mean

    def loss(flat):
        W, b = flat[:36].reshape(6, 6), flat[36:]
        shift = (alpha * W - torch.eye(6, dtype=torch.float64)) @ m + b
        gap = alpha * W - torch.eye(6, dtype=torch.float64)
        return (gap @ cov @ gap.T).trace() + sigma**2 * W.square().sum() + shift.square().sum()

    def with_gradient(flat):
        v = torch.from_numpy(flat).requires_grad_()
        value = loss(v)
        return float(value.detach()), torch.autograd.grad(value, v)[0].numpy()

    found = minimize(with_gradient, torch.zeros(42, dtype=torch.float64).numpy(), jac=True, method="BFGS", options={"gtol": 1e-11})
    W = alpha * cov @ torch.linalg.inv(alpha**2 * cov + sigma**2 * torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(torch.from_numpy(found.x[:36]).reshape(6, 6), W, rtol=0, atol=1e-7)
    assert found.fun == pytest.approx(float(linear_loss(law, process, t)), rel=1e-12)
    # the Gaussian's own denoiser is that map
    x = noise(0, 4, (6,), dtype=torch.float64).draw(0)
    torch.testing.assert_close(law.denoiser(process).denoise(x, t), x @ W.T + m - alpha * W @ m)


def test_a_singular_law_loses_nothing_where_nothing_varies():
    law = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)))
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    got = linear_loss(law, EDM(2.0), times)
    torch.testing.assert_close(got, torch.tensor([0.0, 1 / 2 + 3 / 4, 4 / 5 + 12 / 7], dtype=torch.float64))


class Affine(Denoiser):
    """`D = m + (x - m) W^T`, whatever the noise."""

    def __init__(self, W, m):
        self.process, self.W, self.m = EDM(), W, m

    def denoise(self, x, t, condition=None):
        return self.m + (x - self.m) @ self.W.T


def test_an_affine_denoiser_is_recovered_to_rounding(mixture):
    """Both estimates, in the law's eigenbasis; and every measure of the deviation, from the matrices themselves."""
    law = mixture.gaussian()
    W = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probe = linear_probe(Affine(W, law.mean), law, mixture.sample(300, 0), [0.5])
    U = law.covariance.basis.columns()
    inside = U.T @ W @ U
    torch.testing.assert_close(probe.matrices[0], inside, rtol=0, atol=1e-10)
    torch.testing.assert_close(probe.jacobians[0], inside, rtol=0, atol=1e-12)
    (level,) = probe.levels
    assert level.nonlinear == pytest.approx(0, abs=1e-12)
    assert level.antisymmetric == pytest.approx(float((W - W.T).norm() / (W + W.T).norm()))
    best = U.T @ law.covariance.map(lambda v: v / (v + 0.25)).dense() @ U
    assert level.distance == pytest.approx(float((inside - best).norm() / best.norm()))
    assert level.cosine == pytest.approx(float((inside * best).sum() / inside.norm() / best.norm()))
    assert level.off_diagonal == pytest.approx(1 - float(inside.diagonal().square().sum() / inside.square().sum()))
    assert level.verdict == "off"


def test_the_regression_of_any_exact_belief_is_the_gaussians(mixture):
    """At the Monte Carlo rate; and the mean Jacobian differs, since the noisy data are no Gaussian."""
    law, process = mixture.gaussian(), VariancePreserving()
    k = 0.8
    errors = []
    for n in (1_000, 16_000):
        probe = linear_probe(mixture.denoiser(process), law, mixture.sample(n, 0), [k], probes=n, jacobian=200)
        errors.append(probe.levels[0].distance)
    assert errors[1] < 0.03
    assert errors[1] < 0.5 * errors[0]
    (level,) = probe.levels
    assert level.leading_error < 0.02
    assert level.jacobian_distance > 0.05
    assert level.verdict == "mixture-like"
    assert level.jacobian_antisymmetric < 1e-10, "an exact score is a gradient"


def test_verdicts_follow_the_model(mixture):
    law, process = mixture.gaussian(), EDM()
    x0 = mixture.sample(600, 0)
    gaussian = linear_probe(law.denoiser(process), law, x0, [0.5, 5.0], jacobian=20)
    assert [level.verdict for level in gaussian.levels] == ["linear", "linear"]
    for level in gaussian.levels:
        assert level.distance < 1e-10
        assert level.jacobian_distance < 1e-10
        assert level.shrinkage == pytest.approx(level.theory)
    wide = Gaussian(law.mean, law.covariance.map(lambda v: 4 * v))
    assert linear_probe(wide.denoiser(process), law, x0, [1.0], jacobian=0).levels[0].verdict == "off"


def test_leading_components_of_a_large_low_rank_law():
    """4,000 dimensions, 5 modes: no matrix of the full size, and the same block that the law's spectrum asks for."""
    columns, _ = torch.linalg.qr(noise(0, 8, (4000,)).draw(0).T)
    law = Gaussian(torch.zeros(4000), SpectralCovariance.low_rank(columns[:, :5], torch.tensor([9.0, 5.0, 3.0, 2.0, 1.0]), 0.01), (4, 1000))
    probe = linear_probe(law.denoiser(EDM()), law, law.sample(250, 0), [0.5, 3.0], jacobian=2)
    assert probe.components == 5
    assert probe.dim == 4000
    for level in probe.levels:
        assert level.leading_error < 1e-3
        assert level.jacobian_distance < 1e-5
    two = linear_probe(law.denoiser(EDM()), law, law.sample(100, 0), [0.5], components=2, jacobian=0)
    assert two.levels[0].theory == pytest.approx([9 / 9.25, 5 / 5.25])


def test_modes_are_sorted_whatever_the_basis():
    variances = torch.tensor([0.5, 4.0, 1.0, 2.0], dtype=torch.float64)
    law = Gaussian(torch.ones(4, dtype=torch.float64), SpectralCovariance.diagonal(variances), (2, 2))
    probe = linear_probe(law.denoiser(EDM()), law, law.sample(200, 0), [1.0], components=3)
    assert probe.levels[0].shrinkage == pytest.approx([4 / 5, 2 / 3, 1 / 2])
    torch.testing.assert_close(probe.jacobians[0], torch.diag(torch.tensor([4 / 5, 2 / 3, 1 / 2], dtype=torch.float64)))


def test_numbers_words_pictures_and_plain_data(mixture):
    law = fit_gaussian([mixture.sample(500, 0)])
    seen = []
    probe = linear_probe(mixture.denoiser(EDM()), law, mixture.sample(500, 0), [0.3, 3.0], jacobian=0, progress=seen.append)
    assert seen[-1] == probe.probes == 300
    assert "mixture-like at" in probe.meaning or "linear at" in probe.meaning
    assert probe.numbers["cosine at 0.3"] == probe.levels[0].cosine
    axes = Figure().subplots()
    probe.plot(axes)
    assert {"mode 1, covariance", "mode 1, model", "non-linear share"} <= {line.get_label() for line in axes.lines}
    data = json.loads(json.dumps(probe.to_dict()))
    assert "matrices" not in data
    assert data["verdicts"] == [level.verdict for level in probe.levels]
    assert data["levels"][0]["jacobian_cosine"] is None
    assert math.isnan(probe.levels[0].jacobian_cosine)


class Blind(Denoiser):
    process = EDM()

    def denoise(self, x, t, condition=None):
        return x.detach()


def test_bad_input_is_named(mixture):
    law, x0 = mixture.gaussian(), mixture.sample(100, 0)
    model = mixture.denoiser(EDM())
    for arguments, name in (({"components": 9}, "components"), ({"probes": 20}, "probes")):
        with pytest.raises(ArgumentError, match=name):
            linear_probe(model, law, x0, [1.0], **arguments)
    with pytest.raises(ArgumentError, match="ratios"):
        linear_probe(model, law, x0, [0.0])
    with pytest.raises(ArgumentError, match="jacobian=0"):
        linear_probe(Blind(), law, x0, [1.0])
