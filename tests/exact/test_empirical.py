"""The empirical law: against float64 by brute force at every noise level, in float32 too; ties, duplicates, weights; derivatives."""

import math

import pytest
import torch

from sfumato.errors import ArgumentError, DataError
from sfumato.exact import Empirical, GaussianMixture, SpectralCovariance
from sfumato.exact.laws.softmax import COARSE, PointSet
from sfumato.noise import EDM, FlowMatching, VariancePreserving

F64 = torch.float64
LEVELS = [0.01, 0.1, 1.0, 10.0, 100.0]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def brute(points, weights, y, k):
    """The soft nearest point and the log-mass, in float64 from differences."""
    half = torch.stack([(v.double() - points.double()).square().sum(1) / 2 for v in y])
    logits = torch.log(weights) - half / k**2
    return torch.softmax(logits, 1) @ points.double(), torch.logsumexp(logits, 1)


def data(kind, n=1500, d=192):
    """Point sets that are hard in different ways, of unit size per coordinate (but for the offset)."""
    g = generator(0)
    points = torch.randn(n, d, generator=g)
    if kind == "duplicates":
        points = points[torch.randint(15, (n,), generator=g)]
    if kind == "clusters":
        points = points[torch.randint(15, (n,), generator=g)] + 0.003 * points
    if kind == "offset":
        points = points + 50
    return points


def queries(points, k):
    """Noisy points, and (near) ties: midpoints of pairs."""
    noisy = points[:12] + k * torch.randn(12, points.shape[1], generator=generator(1))
    return torch.cat([noisy, (points[:4] + points[5:9]) / 2])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["separate", "duplicates", "clusters", "offset"])
@pytest.mark.parametrize("k", LEVELS)
def test_float32_points_give_the_float64_answer_to_1e_5_of_the_datas_range(kind, k, weighted):
    points = data(kind)
    weights = torch.rand(len(points), dtype=F64, generator=generator(2)) ** 4 if weighted else torch.ones(len(points), dtype=F64)
    law = Empirical(points, weights if weighted else None)
    y = queries(points, k)
    expected, mass = brute(points, weights / weights.sum(), y, k)
    process = EDM(100.0)
    got = law.denoiser(process).denoise(y.double(), k / 100)
    span = float(points.max() - points.min())
    assert float((got - expected).abs().max()) < 1e-5 * span
    density = law.through(process, k / 100).log_prob(y) + 0.5 * points.shape[1] * math.log(2 * math.pi * k**2)
    torch.testing.assert_close(density, mass, rtol=1e-12, atol=1e-4)


def test_negative_control_plain_float32_squared_distances_fail_at_small_noise():
    """At k = 0.01 the form x.y - |y|^2/2 over k^2 in float32 weighs close points wrongly, by far more than the tolerance above."""
    points, k = data("clusters"), 0.01
    y = queries(points, k)
    expected, _ = brute(points, torch.ones(len(points), dtype=F64), y, k)
    naive = torch.softmax((y @ points.T - points.square().sum(1) / 2) / k**2, 1) @ points
    assert float((naive - expected).abs().max()) > 1e-3
    ours, _ = PointSet(points, None).soft_nearest(y.double(), torch.full((len(y),), k, dtype=F64))
    assert float((ours - expected).abs().max()) < 5e-6


def test_many_ties_take_the_float64_path_and_agree():
    """1,500 copies of two points are more than are put back one by one, at a noise where float32 alone cannot hold the tie."""
    points = torch.randn(2, 192, generator=generator(0))[torch.arange(1500) % 2]
    y, k = points[:2].mean(0, keepdim=True) + 1e-4 * points[:1], 0.05
    assert 6e-8 * 192 / k**2 > COARSE
    expected, _ = brute(points, torch.ones(len(points), dtype=F64), y, k)
    ours, _ = PointSet(points, None).soft_nearest(y.double(), torch.tensor([k], dtype=F64))
    assert float((ours - expected).abs().max()) < 1e-5 * float(points.max() - points.min())


@pytest.mark.parametrize("k", LEVELS)
def test_a_query_does_not_know_its_batch(k):
    points = data("separate")
    cloud, y = PointSet(points, None), queries(points, k).double()
    levels = torch.full((len(y),), k, dtype=F64)
    together, _ = cloud.soft_nearest(y, levels)
    alone = torch.cat([cloud.soft_nearest(v[None], levels[:1])[0] for v in y])
    torch.testing.assert_close(alone, together, rtol=0, atol=4e-5)
    mixed = torch.tensor([0.01, 1.0, 10.0, 100.0], dtype=F64).repeat(4)
    many, mass = cloud.soft_nearest(y, mixed)
    for i, v in enumerate(y):
        expected, log = brute(points, torch.full((len(points),), 1 / len(points), dtype=F64), v[None], mixed[i])
        torch.testing.assert_close(many[i], expected[0], rtol=0, atol=4e-5)
        torch.testing.assert_close(mass[i], log[0], rtol=1e-12, atol=1e-4)


def test_chunks_and_blocks_are_invisible(monkeypatch):
    points = data("separate").double()
    y, levels = queries(points, 1.0), torch.ones(16, dtype=F64)
    whole = PointSet(points, None).soft_nearest(y, levels)
    monkeypatch.setattr("sfumato.exact.laws.softmax.BLOCK", 97)
    monkeypatch.setattr("sfumato.exact.laws.softmax.SCORES", 5 * len(points))
    monkeypatch.setattr("sfumato.exact.laws.softmax.GATHER", 3 * points.shape[1])
    for part, all_at_once in zip(PointSet(points, None).soft_nearest(y, levels), whole, strict=True):
        torch.testing.assert_close(part, all_at_once, rtol=1e-12, atol=1e-11)


def test_the_limit_without_noise_is_the_nearest_point_and_ties_share_by_weight():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 5.0]])
    x = torch.tensor([[0.4, 0.1], [1.0, 0.0], [1.0, 9.0]])
    for weights, tie in ((None, [1.0, 0.0]), ([3.0, 1.0, 1.0], [0.5, 0.0])):
        law = Empirical(points, weights)
        expected = torch.tensor([[0.0, 0.0], tie, [0.0, 5.0]])
        torch.testing.assert_close(law.posterior_mean(x, EDM(), 0.0), expected, rtol=0, atol=0)
        torch.testing.assert_close(law.posterior_mean(x, EDM(), 1e-9), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(law.posterior_mean(x, FlowMatching(), 1.0), law.mean.expand(3, 2), rtol=0, atol=0)
        torch.testing.assert_close(law.posterior_mean(x, FlowMatching(), 1 - 1e-12), law.mean.expand(3, 2), rtol=0, atol=1e-6)


def test_through_noise_it_is_the_mixture_of_isotropic_gaussians():
    points = torch.randn(40, 2, 3, dtype=F64, generator=generator(0))
    weights = torch.rand(40, dtype=F64, generator=generator(1))
    first, second = VariancePreserving(), FlowMatching()
    law = Empirical(points, weights).through(first, 0.2)
    alpha, sigma = float(first.alpha(0.2)), float(first.sigma(0.2))
    mixture = GaussianMixture(weights, alpha * points, [SpectralCovariance.isotropic(6, sigma**2)] * 40, (2, 3))
    x = torch.randn(5, 2, 3, dtype=F64, generator=generator(2))
    torch.testing.assert_close(law.log_prob(x), mixture.log_prob(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(law.score(x), mixture.score(x), rtol=0, atol=1e-11)
    for t in (0.0, 0.3, 0.9, 1.0):
        torch.testing.assert_close(law.posterior_mean(x, second, t), mixture.posterior_mean(x, second, t), rtol=0, atol=1e-11)
        torch.testing.assert_close(law.through(second, t).log_prob(x), mixture.through(second, t).log_prob(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(law.sample(9, 4), mixture.sample(9, 4), rtol=0, atol=1e-12)


def test_derivatives_are_the_covariance_over_the_noise():
    """gradcheck of the denoiser and of the log-density, which autograd does not see into."""
    points = torch.randn(25, 3, dtype=F64, generator=generator(0))
    law, process = Empirical(points, torch.rand(25, generator=generator(3))), VariancePreserving()
    x = torch.randn(4, 3, dtype=F64, generator=generator(1), requires_grad=True)
    torch.autograd.gradcheck(lambda v: law.posterior_mean(v, process, 0.2), x)
    noisy = law.through(process, 0.2)
    torch.autograd.gradcheck(noisy.log_prob, x)
    gradient = torch.autograd.grad(noisy.log_prob(x).sum(), x)[0]
    torch.testing.assert_close(gradient, noisy.score(x.detach()), rtol=0, atol=1e-11)


def test_samples_are_the_points_as_often_as_their_weights_say():
    """Binomial counts of 4,000 samples within 4.5 standard deviations: a false alarm once in 50,000 seeds; the seed is fixed."""
    law = Empirical(torch.tensor([[0.0], [1.0], [2.0]]), [0.2, 0.0, 0.8])
    share = float((law.sample(4000, 0) == 0).double().mean())
    assert abs(share - 0.2) < 4.5 * (0.2 * 0.8 / 4000) ** 0.5
    assert len(law) == 2


def test_bad_input_is_refused_by_name():
    with pytest.raises(DataError, match="at least one point"):
        Empirical(torch.zeros(0, 3))
    with pytest.raises(DataError, match="NaN"):
        Empirical(torch.tensor([[0.0, math.nan]]))
    with pytest.raises(ArgumentError, match="weights"):
        Empirical(torch.zeros(2, 3), [0.0, 0.0])
    with pytest.raises(ArgumentError, match="density"):
        Empirical(torch.zeros(2, 3)).log_prob(torch.zeros(1, 3))
    x = torch.zeros(1, 3, requires_grad=True)
    with pytest.raises(ArgumentError, match="differentiate"):
        Empirical(torch.zeros(2, 3)).posterior_mean(x, EDM(), 0.0).sum().backward()


def test_a_query_at_the_centre_has_no_error_and_says_nothing_of_the_others():
    """Its greatest score is 0 there, exactly; the error of the other stays the rounding of a score of its size."""
    cloud = PointSet(torch.tensor([[0.0], [1.0], [-1.0]]), None)
    y, variance = torch.tensor([[0.0], [2.7]], dtype=F64), torch.ones(2, dtype=F64)
    top, error = cloud._top(y, variance, cloud._scores(y, variance, torch.float32))
    torch.testing.assert_close(top, torch.tensor([0.0, 2.2], dtype=F64), rtol=1e-6, atol=0)
    eps = torch.finfo(torch.float32).eps
    assert float(error[0]) == 0
    assert 0.5 * eps <= float(error[1]) / (2.7 + 0.5) <= eps


@pytest.mark.parametrize("offset", [0.0, 40.0])
def test_the_error_of_scores_is_relative_to_their_terms(offset):
    """Greatest scores that are off by 1e-3 and 3e-3 of `|q.x| + |x - c|^2/2 + k^2 |log w|`: the root mean square of that, times the size.

    Far from the origin blocks are centred, and so is the product.
    """
    points, weights = offset + torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=F64), torch.tensor([0.25, 0.75], dtype=F64)
    y, variance = offset + torch.tensor([[2.0, -1.0], [-1.0, 3.0]], dtype=F64), torch.tensor([0.5, 2.0], dtype=F64)
    cloud, centre = PointSet(points, weights), weights @ points
    products = ((y - centre) * (points - centre if offset else points)).sum(1)  # of each query and the point that scores highest
    half, prior = (points - centre).square().sum(1) / 2, variance * weights.log()
    scores = cloud._scores(y, variance, F64)
    assert scores.argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(scores.diagonal(), products - half + prior, rtol=1e-12, atol=1e-12)
    size = products.abs() + half - prior
    scores.diagonal().add_(torch.tensor([1e-3, 3e-3], dtype=F64) * size)
    top, error = cloud._top(y, variance, scores)
    torch.testing.assert_close(top, scores.diagonal(), rtol=0, atol=0)
    torch.testing.assert_close(error, 5**0.5 * 1e-3 * size, rtol=1e-9, atol=0)
