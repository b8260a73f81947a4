"""Training samplers that grow: the criterion is exact, the two-score loss has the right gradient, students find the mean of each size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoise import ResidualMLP
from sfumato.denoise.amended import Amended
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.explain.sampling.scale_criterion import scale_criterion
from sfumato.learn import FitSettings
from sfumato.learn.students.distribution_matching import DistributionMatching, patches, token_loss
from sfumato.learn.students.kernels import polynomial
from sfumato.learn.students.scale_wise import distil_scale_wise
from sfumato.noise import FlowMatching
from sfumato.sample.steps.scale_wise import BySize, ScaleWise

PROCESS = FlowMatching()
PLAN = ScaleWise(PROCESS, (1.0, 0.6, 0.0), (2, 4))


class Constant(nn.Module, Denoiser):
    """Answers a learned constant, whatever it sees."""

    def __init__(self, value=0.0):
        super().__init__()
        self.process, self.value = PROCESS, nn.Parameter(torch.tensor(value, dtype=torch.float64))

    def denoise(self, x, t, condition=None):
        return self.value + 0 * x


def gaussian(mean, variance, size):
    return Gaussian(
        torch.full((size * size,), mean, dtype=torch.float64), SpectralCovariance.isotropic(size * size, variance), (1, size, size)
    )


def test_the_criterion_is_the_variance_that_the_flow_loses():
    """A mode of variance S that starts as pure noise of the level ends with S (1 - lost), exactly."""
    law = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.3))
    spectrum, waves = torch.tensor([5.0, 0.3], dtype=torch.float64), torch.tensor([1.0, 9.0], dtype=torch.float64)
    times = torch.tensor([0.2, 0.5], dtype=torch.float64)
    found = scale_criterion(spectrum, waves, PROCESS, (8,), tolerance=0.1, times=times)
    for n, t in enumerate(times):
        ends = law.flow(PROCESS, t, 0.0)(PROCESS.sigma(t) * torch.ones(1, 2, dtype=torch.float64))
        assert float(ends[0, 0] ** 2) == pytest.approx(0.3 * (1 - float(found.lost[0, n])), rel=1e-12)
    at_bound = scale_criterion(
        spectrum, waves, PROCESS, (8,), times=PROCESS.time_of_ratio(torch.tensor([found.needed[0]], dtype=torch.float64))
    )
    assert float(at_bound.lost) == pytest.approx(0.1, rel=1e-9)
    assert found.numbers == {"noise_needed_for_8": found.needed[0]}
    assert "8 points" in found.meaning
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    found.plot(ax)
    assert len(ax.lines) == 3


def test_two_scores_pull_towards_the_data_and_rest_where_laws_agree():
    teacher, student = gaussian(1.0, 0.2, 2).denoiser(PROCESS), gaussian(0.0, 0.2, 2)
    x = student.sample(200, 1).requires_grad_(True)

    def network():
        made = Amended(student.denoiser(PROCESS), ResidualMLP((1, 2, 2), 4, 1).double())
        return DistributionMatching(teacher, made, updates=0)

    (pull,) = torch.autograd.grad(network()(x, x), x)
    assert float(pull.max()) < 0  # descending goes up, to the data
    same = DistributionMatching(teacher, Amended(teacher, ResidualMLP((1, 2, 2), 4, 1).double()), updates=0)
    assert not torch.autograd.grad(same(x, x), x)[0].any()


def test_the_second_score_learns_the_samples():
    fake = Constant(0.0)
    loss = DistributionMatching(gaussian(0.0, 1.0, 2).denoiser(PROCESS), fake, rate=0.05, updates=60)
    x = gaussian(0.8, 0.01, 2).sample(64, 1)
    loss(x, x)
    assert float(fake.value.detach()) == pytest.approx(0.8, abs=0.05)


def test_token_losses():
    """The pseudo-Huber loss by hand, and a linear kernel's against the unbiased distance of means."""
    x = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3)
    tokens = patches(x)
    assert tokens[0].tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    by_hand = (0.25 + 1e-6) ** 0.5 - 1e-3
    assert float(token_loss(tokens, tokens + 0.5)) == pytest.approx(by_hand, rel=1e-12)
    away = float((0.5**2 * torch.ones(4)).sum()) - 2 * float(tokens[0].var(0).sum()) / 4
    assert float(token_loss(tokens, tokens + 0.5, polynomial(1))) == pytest.approx(away / 4, rel=1e-9)


def test_training_finds_the_mean_of_each_size():
    """With the tokens' means as the only loss the best constants are the data's."""
    student = BySize({2: Constant(0.4), 4: Constant(0.4)})
    data = gaussian(0.6, 0.01, 4).sample(300, 1)
    losses = [(1.0, lambda a, b: token_loss(patches(a), patches(b)))]
    distil_scale_wise(student, PLAN, data, losses, FitSettings(100, 32, 0.02, warmup=0, ema_decay=0.9))
    assert [float(p.detach()) for p in student.parameters()] == pytest.approx([0.6, 0.6], abs=0.03)


def test_refuses_nonsense():
    with pytest.raises(ArgumentError, match="losses"):
        distil_scale_wise(BySize({2: Constant()}), PLAN, torch.zeros(2, 1, 4, 4), [], FitSettings(1))
    with pytest.raises(ArgumentError, match="fake"):
        DistributionMatching(Constant(), nn.Linear(1, 1))
    with pytest.raises(ArgumentError, match="sizes"):
        scale_criterion(torch.ones(2), torch.ones(2), PROCESS, (64,))
