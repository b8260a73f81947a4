"""The bound's two parts have their closed forms on a Gaussian, and a model of the noisy data takes the mismatch away."""

from __future__ import annotations

import json
import math

import pytest
import torch
from matplotlib.figure import Figure

from sfumato.denoiser import Denoiser, to_data
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.explain import time_tradeoff
from sfumato.learn import fit_start, sample_from
from sfumato.metrics import wasserstein_1d
from sfumato.noise import VariancePreserving
from sfumato.sample import ddim, uniform_log_snr

F64 = torch.float64
PROCESS = VariancePreserving()


class Biased(Denoiser):
    def __init__(self, inner, bias):
        self.inner, self.process, self.bias = inner, inner.process, bias

    def denoise(self, x, t, condition=None):
        return to_data(self.inner.score(x, t) + self.bias, "score", x, t, self.process)


def test_a_gaussians_parts_and_the_path_bound_they_add_up_to():
    """G = b^2 B(T) / 2; KL of two Gaussians; and E log pi(x_T) - I + R = E log pi - G + log(V_T / V_0) / 2 (Song 2021, path integral)."""
    mean, var, b, Ts = 0.7, 0.3, 0.2, [0.3, 0.7, 1.0]
    law = Gaussian(torch.tensor([mean], dtype=F64), SpectralCovariance.isotropic(1, var))
    out = time_tradeoff(Biased(law.denoiser(PROCESS), b), law, Ts)
    for T, G, kl, bound in zip(Ts, out.score_error, out.mismatch, out.bound, strict=True):
        alpha, sigma = (float(v) for v in PROCESS.levels(T))
        B, v, m, pi = -2 * math.log(alpha), alpha**2 * var + sigma**2, alpha * mean, PROCESS.prior_std**2
        assert pytest.approx(b**2 * B / 2, abs=2e-5) == G
        assert kl == pytest.approx(0.5 * ((v + m**2) / pi - 1 - math.log(v / pi)), abs=1e-9)
        start = -0.5 * (math.log(2 * math.pi * pi) + (v + m**2) / pi)
        assert bound == pytest.approx(start - b**2 * B / 2 + 0.5 * math.log(v / var), abs=3e-5)


def test_a_score_with_errors_has_a_best_time_inside_and_an_exact_one_has_not():
    law = GaussianMixture([0.3, 0.7], torch.tensor([[-2.0], [2.0]], dtype=F64), [SpectralCovariance.isotropic(1, 0.05)] * 2)
    Ts = [0.3, 0.5, 0.7, 1.0]
    out = time_tradeoff(Biased(law.denoiser(PROCESS), 0.1), law, Ts)
    assert out.best == 0.7
    assert "start is wrong" in out.meaning
    assert time_tradeoff(law.denoiser(PROCESS), law, Ts).best == 1.0
    ax = Figure().subplots()
    out.plot(ax)
    assert len(ax.get_legend().get_texts()) == 3
    json.dumps(out.to_dict(), allow_nan=False)


def test_a_fitted_start_takes_the_mismatch_away_and_samples_come_from_it():
    law = GaussianMixture([0.3, 0.7], torch.tensor([[-2.0], [2.0]], dtype=F64), [SpectralCovariance.isotropic(1, 0.05)] * 2)
    data, T = law.sample(4000, 0), 0.2
    mixture, gaussian = fit_start(PROCESS, data, T, 2), fit_start(PROCESS, data, T)
    belief = law.denoiser(PROCESS)
    fitted, single = (time_tradeoff(belief, law, [T], start).mismatch[0] for start in (mixture, gaussian))
    assert fitted < 0.005 < 0.1 < single  # five parameters cost about 5 / 2n nats
    x = sample_from(belief, mixture, ddim(), uniform_log_snr(PROCESS, 20, T, 1e-3), 2000, 3)
    truth = law.sample(2000, 9)[:, 0]
    assert wasserstein_1d(x[:, 0], truth, p=1) < 0.2  # two draws of 2000 differ by 4 * 0.0145 in the modes' shares, and more


def test_bad_input(g4):
    line = Gaussian(torch.zeros(1, dtype=F64), SpectralCovariance.isotropic(1, 0.3))
    with pytest.raises(ShapeError, match="law"):
        time_tradeoff(g4.denoiser(PROCESS), g4, [0.5])
    for times in ([], [0.5, 0.4], [1.5]):
        with pytest.raises(ArgumentError, match="times, first"):
            time_tradeoff(line.denoiser(PROCESS), line, times)
    with pytest.raises(ArgumentError, match="components"):
        fit_start(PROCESS, line.sample(10, 0), 0.5, 0)
    with pytest.raises(ArgumentError, match="t, components"):
        fit_start(PROCESS, line.sample(10, 0), 0.0)
