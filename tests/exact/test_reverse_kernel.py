"""The reverse kernel is the law's own posterior, and the nearest Gaussian misses it by what quadrature and samples both say."""

from __future__ import annotations

import json
import math

import pytest
import torch
from matplotlib.figure import Figure

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import GaussianMixture, SpectralCovariance, gaussian_gap, gaussian_gap_1d, reverse_kernel
from sfumato.exact.laws.reverse_kernel import ReverseKernel
from sfumato.explain import kernel_gap
from sfumato.noise import FlowMatching, Trigonometric, VariancePreserving

F64 = torch.float64


def pair(std):
    return GaussianMixture(None, torch.tensor([[-1.0], [1.0]], dtype=F64), [SpectralCovariance.isotropic(1, std**2)] * 2)


@pytest.mark.parametrize("process", [VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
def test_it_is_the_posterior_of_the_less_noisy_state(process):
    """`law.through(s).given(phi I, x_t, sqrt(q))` goes another way (one observation at a time), and agrees to 1e-10; full covariances."""
    g = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 2, 2, generator=g, dtype=F64)
    law = GaussianMixture([0.3, 0.7], torch.randn(2, 2, generator=g, dtype=F64), [SpectralCovariance.from_dense(r @ r.T) for r in roots])
    t, s, x = 0.7, 0.3, torch.randn(3, 2, generator=g, dtype=F64)
    step, kernel = process.transition(s, t), reverse_kernel(law, process, x, t, s)
    for i in range(3):
        other = law.through(process, s).given(float(step.phi) * torch.eye(2, dtype=F64), x[i], math.sqrt(float(step.covariance)))
        y = torch.randn(5, 2, generator=g, dtype=F64)
        batch = torch.stack([y] * 3, 1)  # every y under all three states' kernels
        torch.testing.assert_close(kernel.log_prob(batch)[:, i], other.log_prob(y), atol=1e-10, rtol=1e-10)
    mean, covariance = kernel.moments()
    many = torch.stack([kernel.sample(g) for _ in range(4000)])
    assert float((many.mean(0) - mean).abs().max()) < 5 * float(covariance.diagonal(dim1=1, dim2=2).max().sqrt()) / 4000**0.5
    assert float((torch.stack([torch.cov(m.T) for m in many.unbind(1)]) - covariance).abs().max()) < 0.15 * float(covariance.abs().max())


def test_the_gap_is_that_of_two_separate_modes_and_zero_for_one_gaussian():
    """From no signal at all to the clean end: entropy of the matched Gaussian less (log 2 + that of a mode)."""
    std = 0.05
    kernel = reverse_kernel(pair(std), FlowMatching(), torch.zeros(1, 1, dtype=F64), 1.0, 0.0)
    expected = 0.5 * math.log((1 + std**2) / std**2) - math.log(2)
    assert float(gaussian_gap_1d(kernel)) == pytest.approx(expected, abs=1e-9)
    g = torch.Generator().manual_seed(1)
    many = kernel.sample(g).expand(1, 1, 1)
    many = torch.stack([kernel.sample(g) for _ in range(3000)])
    assert float(gaussian_gap(kernel, many)) == pytest.approx(expected, abs=0.05)
    one = GaussianMixture(None, torch.zeros(1, 1, dtype=F64), [SpectralCovariance.isotropic(1, 0.3)])
    assert abs(float(gaussian_gap_1d(reverse_kernel(one, FlowMatching(), torch.zeros(1, 1, dtype=F64), 0.9, 0.1)))) < 1e-9


def test_gaps_by_quadrature_and_by_samples_agree_and_fall_with_the_steps(g4):
    process = Trigonometric()
    line = kernel_gap(pair(0.2), process, (0.95, 0.5, 0.02))
    plane = GaussianMixture(None, torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=F64), [SpectralCovariance.isotropic(2, 0.04)] * 2)
    flat = kernel_gap(plane, process, (0.95, 0.5, 0.02), states=4000)
    # the second direction is Gaussian and adds nothing
    assert flat.gaps == pytest.approx(line.gaps, abs=0.04)
    finer = kernel_gap(pair(0.2), process, torch.linspace(0.95, 0.02, 17).tolist())
    assert finer.numbers["sum"] < 0.2 * line.numbers["sum"]
    ax = Figure().subplots()
    line.plot(ax)
    assert len(ax.get_legend().get_texts()) == 2
    assert "2 steps" in line.meaning
    json.dumps(line.to_dict(), allow_nan=False)


def test_bad_input(g4):
    with pytest.raises(ArgumentError, match="t, s"):
        reverse_kernel(g4, VariancePreserving(), g4.sample(2, 0), 0.3, 0.5)
    with pytest.raises(ShapeError, match="x"):
        reverse_kernel(g4, VariancePreserving(), torch.zeros(2, 3, dtype=F64), 0.5, 0.3)
    kernel = reverse_kernel(g4, VariancePreserving(), g4.sample(2, 0), 0.5, 0.3)
    with pytest.raises(ArgumentError, match="one dimension"):
        gaussian_gap_1d(kernel)
    # of two widths it is the narrower that a grid has to resolve
    both = ReverseKernel(torch.full((1, 2), 0.5, dtype=F64), torch.zeros(1, 2, 1, dtype=F64), torch.tensor([[[1e-8]], [[1.0]]], dtype=F64))
    with pytest.raises(ArgumentError, match="points"):
        gaussian_gap_1d(both)
    narrow = reverse_kernel(pair(1e-4), FlowMatching(), torch.zeros(1, 1, dtype=F64), 1.0, 0.0)
    with pytest.raises(ArgumentError, match="points"):
        gaussian_gap_1d(narrow)
    with pytest.raises(ArgumentError, match="times, states"):
        kernel_gap(g4, VariancePreserving(), (0.3, 0.5))
