"""Consistency distillation: the fixed point is the formula's, boundary and noise are where they belong, adversaries pull the right way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import FitSettings
from sfumato.learn.students.adversary import Adversary
from sfumato.learn.students.consistency_distillation import Teacher, distil_consistency, fixed_point, one_step
from sfumato.learn.training.descent import descend
from sfumato.noise import Trigonometric, VariancePreserving
from sfumato.sample import Ancestral, ddim, run
from sfumato.sample.steps.renoising import Renoising

PROCESS = Trigonometric()
LAW = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 1.0))


def times(steps, top=6.0):
    return (*PROCESS.time(torch.linspace(-top, top, steps + 1, dtype=torch.float64)).tolist(), 0.0)


def recursion(eta, steps, variance=1.0):
    """`c_n = c_{n-1} (alpha_{n-1} a_n + sqrt(sigma_{n-1}^2 - v^2) e_n)` from the clean end up, written out by hand."""
    nodes = times(steps)[:-1][::-1]
    alpha, sigma = (PROCESS.levels(torch.tensor(nodes, dtype=torch.float64))[i].tolist() for i in (0, 1))
    c = variance * alpha[0] / (alpha[0] ** 2 * variance + sigma[0] ** 2)  # the last jump is to the posterior mean
    for n in range(1, len(nodes)):
        total = alpha[n] ** 2 * variance + sigma[n] ** 2
        a, e = alpha[n] * variance / total, sigma[n] / total
        between = 1 - (alpha[n] * sigma[n - 1] / (alpha[n - 1] * sigma[n])) ** 2
        c *= alpha[n - 1] * a + math.sqrt(sigma[n - 1] ** 2 * (1 - eta**2 * between)) * e
    return c**2 * total / variance


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.6])
def test_fixed_point_is_the_recursion(eta):
    ratio, spent = fixed_point(Teacher(LAW.denoiser(PROCESS), times(50), Ancestral(eta), 1), LAW)
    assert float(ratio[0]) == pytest.approx(recursion(eta, 50), rel=1e-10)
    # what is averaged away and what is kept make up the teacher's own variance, nearly the law's
    assert float(ratio[0] + spent[0]) == pytest.approx(1, abs=0.15)


def test_a_deterministic_teacher_keeps_the_variance_and_a_stochastic_one_does_not():
    ratios = [float(fixed_point(Teacher(LAW.denoiser(PROCESS), times(200), Ancestral(eta), 1), LAW)[0][0]) for eta in (0.0, 0.2)]
    assert ratios[0] == pytest.approx(0.970, abs=5e-4)
    assert ratios[1] == pytest.approx(0.617, abs=5e-4)


class Table(nn.Module, Denoiser):
    """One gain a node, 1 at the clean end: the student for which the loss is a quadratic form."""

    def __init__(self, nodes):
        super().__init__()
        self.process, self.nodes = PROCESS, torch.tensor(nodes, dtype=torch.float64)
        self.gains = nn.Parameter(torch.full((len(nodes) - 1,), 0.5, dtype=torch.float64))

    def denoise(self, x, t, condition=None):
        gains = torch.cat([self.gains, self.gains.new_ones(1)])
        which = (self.nodes[None] - torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1)).abs().argmin(1)
        return gains[which][:, None] * x


def slope(eta, gains_of):
    """The gradient of the loss over 60,000 examples at a student whose gains are the fixed point of a teacher with `gains_of`."""
    nodes = times(4, 2.5)
    student = Table(nodes)
    for n in range(len(nodes) - 1):
        ratio, _ = fixed_point(Teacher(LAW.denoiser(PROCESS), nodes[n:], Ancestral(gains_of), 2), LAW)
        alpha, sigma = PROCESS.levels(nodes[n])
        student.gains.data[n] = torch.sqrt(ratio[0] / (alpha**2 + sigma**2))
    teacher = Teacher(LAW.denoiser(PROCESS), nodes, Ancestral(eta), 2)
    distil_consistency(student, teacher, LAW.sample(4000, 1), FitSettings(1, 60_000, 1e-9, warmup=0, clip=math.inf))
    return float(student.gains.grad.abs().max())


def test_the_loss_is_stationary_at_the_fixed_point_and_nowhere_near():
    assert slope(0.6, 0.6) < 4e-3
    assert slope(0.6, 0.0) > 5e-2  # the flow's own map, which the deterministic teacher has
    assert slope(0.0, 0.0) < 4e-3


def test_renoising_with_the_exact_consistency_function_has_the_right_law():
    """A Gaussian's consistency function is `x / sqrt(V_t)`: renoising keeps the variance; with the posterior mean it shrinks."""
    program = Renoising().compile(PROCESS, (1.0, 0.6, 0.3, 0.0))
    assert program.evaluations == 3
    assert program.draws == (1, 2)
    a, _, c = program.dense()
    assert not a.any()
    variance, shrunk = 1.0, 1.0
    for t, s in ((1.0, 0.6), (0.6, 0.3), (0.3, 0.0)):
        (alpha, sigma), (alpha_s, sigma_s) = ([float(v) for v in PROCESS.levels(u)] for u in (t, s))
        variance = alpha_s**2 * variance / (alpha**2 + sigma**2) + sigma_s**2
        shrunk = alpha_s**2 * alpha**2 * shrunk + sigma_s**2
    assert variance == pytest.approx(1)
    assert shrunk < 0.9
    torch.testing.assert_close(c[1, 1, 0], PROCESS.sigma(0.6))

    class Draws:
        def draw(self, j):
            return torch.zeros(4, 1, dtype=torch.float64)

    x = torch.ones(4, 1, dtype=torch.float64)
    torch.testing.assert_close(run(program, lambda y, t: 2 * y, x, Draws()), 8 * float(PROCESS.alpha(0.6) * PROCESS.alpha(0.3)) * x)


def test_one_step_starts_from_the_prior():
    process = VariancePreserving()
    student = Preconditioned(ResidualMLP((1,), 4, 1).double(), process, 1.0)
    noise = torch.ones(3, 1, dtype=torch.float64)
    torch.testing.assert_close(one_step(student, process, 1.0, noise), student.denoise(process.prior_std * noise, 1.0))


@pytest.mark.parametrize("game", ["hinge", "softplus"])
def test_an_adversary_pulls_samples_to_the_data(game):
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.by = nn.Parameter(torch.zeros(()))

    judge = nn.Linear(1, 1)
    nn.init.constant_(judge.weight, 0.1)
    nn.init.zeros_(judge.bias)
    student, adversary = Shift(), Adversary(judge, game, 0.05)

    def objective(generator):
        real = torch.randn(128, 1, generator=generator) + 1
        return adversary(torch.randn(128, 1, generator=generator) + student.by, real)

    descend(student, objective, FitSettings(80, 128, 0.02, warmup=0, ema_decay=0.0))
    assert float(student.by.detach()) > 0.4
    assert all(p.requires_grad for p in adversary.judge.parameters())


def test_refuses_nonsense():
    teacher, data, settings = Teacher(LAW.denoiser(PROCESS), times(3), ddim(), 1), LAW.sample(8, 0), FitSettings(1, 4)
    with pytest.raises(ArgumentError, match="student"):
        distil_consistency(nn.Linear(1, 1), teacher, data, settings)
    with pytest.raises(ArgumentError, match="huber"):
        distil_consistency(Table(times(3)), teacher, data, settings, huber=0.0)
    with pytest.raises(ArgumentError, match="target_decay"):
        distil_consistency(Table(times(3)), teacher, data, settings, target_decay=1.0)
    with pytest.raises(ArgumentError, match="end at 0"):
        fixed_point(Teacher(LAW.denoiser(PROCESS), times(3)[:-1], ddim(), 1), LAW)
    with pytest.raises(ArgumentError, match="judge"):
        Adversary(nn.Flatten())
