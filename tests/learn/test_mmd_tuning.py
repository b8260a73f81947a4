"""Tuning through the sampler: its gradient is plain backpropagation's, and it finds the optimum where that is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoise import ResidualMLP
from sfumato.denoise.amended import Amended
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import FitSettings
from sfumato.learn.students.kernels import gaussian
from sfumato.learn.students.mmd_tuning import generate, tune_by_mmd
from sfumato.learn.training.descent import descend
from sfumato.noise import VariancePreserving
from sfumato.sample import Ancestral, ddim, run, uniform_time

PROCESS = VariancePreserving()
PROGRAM = ddim().compile(PROCESS, uniform_time(3))
LAW = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))


class Scaled(nn.Module, Denoiser):
    """The exact answer times one learned number: the three-step sampler's gain is a known function of it."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.process = PROCESS

    def denoise(self, x, t, condition=None):
        alpha, sigma = (float(c) for c in PROCESS.levels(t))
        return self.gain * alpha * 0.3 / (alpha**2 * 0.3 + sigma**2) * x


def deviation(denoiser):
    return float(run(PROGRAM, denoiser.denoise, torch.ones(1, 1, dtype=torch.float64)).detach()) * PROCESS.prior_std


def test_finds_the_gain_that_repairs_three_steps():
    """The sampler is linear, so the discrepancy vanishes where its gain is the data's deviation, and nowhere else."""
    denoiser, truth = Scaled(), 0.3**0.5
    before = deviation(denoiser)
    data = LAW.sample(4000, 1)
    tune_by_mmd(denoiser, data, PROGRAM, FitSettings(80, 128, 0.1, warmup=0, ema_decay=0.9))
    assert abs(before / truth - 1) > 0.15
    assert abs(deviation(denoiser) / truth - 1) < 0.04
    assert abs(float(denoiser.gain.detach()) - 1) > 0.05  # it is no denoiser any more


def test_descending_minus_the_loss_goes_away():
    denoiser = Scaled()
    kernel = gaussian([0.2, 0.5])
    before = abs(deviation(denoiser) - 0.3**0.5)
    tune_by_mmd(denoiser, LAW.sample(500, 1), PROGRAM, FitSettings(40, 128, 2e-2, warmup=0, ema_decay=0.5), lambda a, b: -kernel(a, b))
    assert abs(deviation(denoiser) - 0.3**0.5) > 1.15 * before


@pytest.mark.parametrize("solver", [ddim(), Ancestral(1.0)])
def test_checkpointed_gradient_is_plain_backpropagation(solver):
    program = solver.compile(PROCESS, uniform_time(4))
    network = ResidualMLP((2,), 8, 1, seed=0).double()
    law = Gaussian(torch.ones(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.3))
    student = Amended(law.denoiser(PROCESS), network)
    with torch.no_grad():
        network.last.weight.normal_(generator=torch.Generator().manual_seed(3))
    like, seed = torch.zeros(5, 2, dtype=torch.float64), 7
    generate(student, program, like, torch.Generator().manual_seed(seed)).square().sum().backward()
    found = [p.grad.clone() for p in network.parameters()]
    generator = torch.Generator().manual_seed(seed)

    class Draws:
        def draw(self, j):
            return torch.randn(5, 2, generator=generator, dtype=torch.float64)

    end = run(program, student.denoise, PROCESS.prior_sample(Draws().draw(0)), Draws())
    plain = torch.autograd.grad(end.square().sum(), list(network.parameters()))
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_amended_starts_as_its_base_and_stays_it_without_noise():
    network = ResidualMLP((1,), 8, 1, seed=0).double()
    student, x = Amended(LAW.denoiser(PROCESS), network), LAW.sample(6, 0)
    assert torch.equal(student.denoise(x, 0.4), LAW.denoiser(PROCESS).denoise(x, 0.4))
    with torch.no_grad():
        network.last.bias.fill_(2.0)
    torch.testing.assert_close(student.denoise(x, 0.0), x)
    assert float((student.denoise(x, 0.4) - LAW.denoiser(PROCESS).denoise(x, 0.4)).abs().min().detach()) > 0.1
    assert all(name.startswith("network.") for name, _ in student.named_parameters())


def test_parts_are_averaged():
    """Four parts of a fixed loss make the step that one makes."""
    ends = []
    for parts in (1, 4):
        denoiser = Scaled()
        descend(denoiser, lambda generator, d=denoiser: (d.gain - 3) ** 2, FitSettings(5, 1, 0.1, warmup=0), parts=parts)
        ends.append(float(denoiser.gain.detach()))
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)


def test_refuses_nonsense():
    settings, data = FitSettings(1, 4), LAW.sample(10, 0)
    with pytest.raises(ArgumentError, match="denoiser"):
        tune_by_mmd(nn.Linear(1, 1), data, PROGRAM, settings)
    with pytest.raises(DataError):
        tune_by_mmd(Scaled(), data[:1], PROGRAM, settings)
    with pytest.raises(ShapeError):
        tune_by_mmd(Scaled(), data, PROGRAM, settings, labels=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ArgumentError, match="finite"):
        tune_by_mmd(Scaled(), data, PROGRAM, settings, lambda a, b: (a @ b.T) * float("nan"))
    with pytest.raises(ArgumentError, match="sigma_data"):
        Amended(LAW.denoiser(PROCESS), nn.Linear(1, 1), 0.0)
