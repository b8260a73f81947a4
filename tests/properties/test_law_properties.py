"""Exact laws of any shape: what moving, mixing, permuting and adding noise must do to their answers."""

from __future__ import annotations

import math

import pytest
import torch
from generated import (
    F64,
    batches,
    events,
    everyday,
    examples,
    gaussians,
    mixtures,
    numbers,
    orthogonal,
    processes,
    seeds,
    tensor,
)
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Empirical, Gaussian, GaussianMixture, SpectralCovariance
from sfumato.noise import EDM, FlowMatching

inside = numbers(0.05, 0.95)


@st.composite
def empiricals(draw, event):
    """Sets of up to eight points, with or without weights, some of them the same."""
    n, seed = draw(st.integers(1, 8)), draw(seeds)
    points = tensor((n, *event), seed)
    if n > 2 and draw(st.booleans()):
        points[1] = points[0]
    weights = draw(st.none() | st.lists(numbers(0.05, 1.0), min_size=n, max_size=n))
    return Empirical(points, weights)


smooth = events.flatmap(lambda e: st.one_of(gaussians(e), mixtures(e)))
axes = events.filter(bool)
"""What points must have: a batch axis and one more."""
laws = st.one_of(events.flatmap(lambda e: st.one_of(gaussians(e, singular=True), mixtures(e))), axes.flatmap(empiricals))


def flat(x):
    return x.reshape(len(x), -1)


def size(*values):
    return 1 + sum(float(v.abs().max()) for v in values if v.numel())


@examples(60)
@given(laws, everyday, inside, batches, seeds, st.booleans())
def test_a_batch_is_its_rows_in_any_order(law, process, t, batch, seed, each):
    """A permuted batch has permuted answers, every row has the answer it has alone, and an empty batch has none."""
    x = tensor((batch, *law.event_shape), seed, scale=2.0)
    time = torch.linspace(0.1, 0.9, batch, dtype=F64) if each else t
    answer = law.posterior_mean(x, process, time)
    assert (answer.shape, answer.dtype) == (x.shape, F64)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    turned = law.posterior_mean(x[order], process, time[order] if each else t)
    torch.testing.assert_close(turned, answer[order], rtol=1e-9, atol=1e-10)
    for i in range(batch):
        alone = law.posterior_mean(x[i : i + 1], process, float(time[i]) if each else t)
        torch.testing.assert_close(alone[0], answer[i], rtol=1e-9, atol=1e-10)
    noisy = law.through(process, t)
    whole = noisy.log_prob(x)
    assert whole.shape == (batch,)
    for i in range(batch):
        assert float(noisy.log_prob(x[i : i + 1])) == pytest.approx(float(whole[i]), rel=1e-9, abs=1e-9)


def moved(law, turn, shift, factor):
    """The law of `factor turn x + shift`, put together from the parts of the law."""
    if isinstance(law, Empirical):
        flat = law.cloud.points * factor @ turn.T + shift
        return Empirical(flat.reshape(-1, *law.event_shape), law.weights)

    def carried(c):
        return SpectralCovariance.from_dense(factor**2 * turn @ c.dense() @ turn.T)

    if isinstance(law, Gaussian):
        return Gaussian(factor * turn @ law.mean + shift, carried(law.covariance), law.event_shape)
    means = factor * law.means @ turn.T + shift
    return GaussianMixture(law.weights, means, [carried(c) for c in law.covariances], law.event_shape)


@examples(60)
@given(laws, inside, seeds, numbers(0.3, 3.0))
def test_the_answer_moves_with_the_law(law, t, seed, factor):
    """Under `x -> a R x + alpha b` with the noise scaled by `a`, the posterior mean is `a R D + b` of the old one."""
    process, scaled = EDM(2.0), EDM(2.0 * factor)
    turn, shift = orthogonal(law.dim, seed), tensor((law.dim,), seed + 1)
    x = tensor((3, *law.event_shape), seed + 2)
    other = (factor * flat(x) @ turn.T + shift).reshape(x.shape)
    before = law.posterior_mean(x, process, t).reshape(3, -1)
    after = moved(law, turn, shift, factor).posterior_mean(other, scaled, t).reshape(3, -1)
    torch.testing.assert_close(after, factor * before @ turn.T + shift, rtol=1e-7, atol=1e-7)


@examples(30)
@given(st.data(), events, everyday, inside, seeds)
def test_equal_components_are_one(data, event, process, t, seed):
    """A mixture of one component, and one of copies of it, is the Gaussian: denoiser, score and density."""
    plain = data.draw(gaussians(event))
    x = tensor((3, *event), seed, scale=2.0)
    for k in (1, 3):
        mixture = GaussianMixture([0.2 + i for i in range(k)], plain.mean.expand(k, -1), [plain.covariance] * k, event)
        near = {"rtol": 1e-9, "atol": 1e-9}
        torch.testing.assert_close(mixture.posterior_mean(x, process, t), plain.posterior_mean(x, process, t), **near)
        torch.testing.assert_close(mixture.score(x), plain.score(x), **near)
        torch.testing.assert_close(mixture.log_prob(x), plain.log_prob(x), **near)


@examples(30)
@given(st.data(), events, everyday, inside, seeds)
def test_components_may_be_told_in_any_order_and_in_parts(data, event, process, t, seed):
    """A component of weight `w` is two of `w/3` and `2w/3`; one of weight 0 is none; the order says nothing."""
    law = data.draw(mixtures(event))
    x = tensor((3, *event), seed, scale=2.0)
    weights = torch.cat([law.weights[:1] / 3, 2 * law.weights[:1] / 3, law.weights[1:], torch.zeros(1, dtype=F64)])
    means = torch.cat([law.means[:1], law.means, law.means[:1] + 1])
    parts = [law.covariances[0], *law.covariances, law.covariances[0]]
    order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(seed)).tolist()
    other = GaussianMixture(weights[order], means[order], [parts[i] for i in order], event)
    torch.testing.assert_close(other.posterior_mean(x, process, t), law.posterior_mean(x, process, t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.log_prob(x), law.log_prob(x), rtol=1e-9, atol=1e-9)


@examples(60)
@given(laws, seeds)
def test_no_noise_leaves_the_state_and_no_signal_the_mean(law, seed):
    """At `sigma = 0` states of the law stay (every direction has variance, or the points are theirs); at `alpha = 0` all are the mean."""
    process = FlowMatching()
    drawn = law.sample(3, seed)
    still = law.posterior_mean(drawn, process, 0.0)
    torch.testing.assert_close(still, drawn, rtol=1e-9, atol=1e-9)
    nearly = law.posterior_mean(drawn, process, 1e-9)
    torch.testing.assert_close(nearly, drawn, rtol=1e-6, atol=1e-6)
    x = tensor((3, *law.event_shape), seed + 1)
    mean = law.mean.reshape(law.event_shape).expand_as(x)
    torch.testing.assert_close(law.posterior_mean(x, process, 1.0), mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(law.posterior_mean(x, process, 1 - 1e-10), mean, rtol=1e-6, atol=1e-6)


def check_score(law, denoiser, process, t, x):
    """The score is the gradient of the log-density of the noisy law, and the denoiser's view of it."""
    noisy = law.through(process, t)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(noisy.log_prob(leaf).sum(), leaf)
    torch.testing.assert_close(noisy.score(x), gradient, rtol=1e-8, atol=1e-8 * size(gradient))
    torch.testing.assert_close(denoiser.score(x, t), gradient, rtol=1e-7, atol=1e-7 * size(gradient, x / process.sigma(t) ** 2))


@examples(50)
@given(laws, everyday, numbers(0.1, 0.95), seeds)
def test_the_score_is_the_gradient_of_the_log_density(law, process, t, seed):
    check_score(law, law.denoiser(process), process, t, tensor((3, *law.event_shape), seed, scale=2.0))


@examples(60)
@given(laws, everyday, numbers(0.1, 0.95), seeds)
def test_adding_noise_twice_is_adding_it_once(law, process, t, seed):
    """`through` a time, then the rest of the way by an exploding process, has the density of the levels together."""
    x = tensor((2, *law.event_shape), seed, scale=2.0)
    alpha, sigma = (float(v) for v in process.levels(t))
    once = law.through(EDM(1.0), 0.5).through(EDM(2.0), 0.5)
    torch.testing.assert_close(once.log_prob(x), law.through(EDM(1.25**0.5), 1.0).log_prob(x), rtol=1e-8, atol=1e-8)
    both = law.through(process, t)
    torch.testing.assert_close(both.mean, alpha * law.mean, rtol=1e-9, atol=1e-9)
    # the density of alpha x_0 + sigma eps from that of x_0 + (sigma / alpha) eps
    ratio = sigma / alpha
    assume(ratio < 1e3)
    plain = law.through(EDM(max(ratio, 1e-3)), 1.0)
    expected = plain.log_prob(x / alpha) - law.dim * math.log(alpha)
    torch.testing.assert_close(both.log_prob(x), expected, rtol=1e-7, atol=1e-7)


@examples(60)
@given(laws, everyday, inside, seeds, st.sampled_from([torch.float32, torch.bfloat16, torch.float16, F64]))
def test_the_states_dtype_is_kept_and_only_rounds(law, process, t, seed, dtype):
    x = tensor((3, *law.event_shape), seed, dtype)
    answer = law.denoiser(process).denoise(x, t)
    assert (answer.dtype, answer.shape) == (dtype, x.shape)
    exact = law.posterior_mean(x.to(F64), process, t)
    assert torch.equal(answer, exact.to(dtype))


@examples(50)
@given(axes.flatmap(empiricals), st.floats(1e-160, 1e160), seeds, numbers(0.0, 1e3), st.sampled_from([torch.float32, F64]))
@example(Empirical(torch.tensor([[0.5]], dtype=F64)), 1e-160, 0, 0.0, F64)
@example(Empirical(torch.tensor([[-1.0], [0.0], [1.0]], dtype=F64)), 1e-3, 0, 0.0, torch.float32)
def test_points_have_answers_at_any_noise(law, noise, seed, far, dtype):
    """From noise far below the points' distances to far above: finite, inside the points' hull, the mean in the end."""
    law = law.to(dtype)
    x = tensor((3, *law.event_shape), seed, scale=far)
    answer = law.posterior_mean(x, EDM(noise), 1.0)
    assert bool(torch.isfinite(answer).all())
    points = law.cloud.points.reshape(len(law), *law.event_shape).to(F64)
    slack = 1e-5 if dtype == torch.float32 else 1e-9
    assert bool((answer <= points.amax(0) + slack).all() and (answer >= points.amin(0) - slack).all())
    if noise > 1e12:
        torch.testing.assert_close(answer, law.mean.to(F64).reshape(law.event_shape).expand_as(answer), rtol=1e-4, atol=1e-5)


@examples(50)
@given(laws, numbers(1e-5, 1.0), seeds, st.sampled_from([torch.float32, F64]))
def test_one_query_leaves_the_others_alone(law, noise, seed, dtype):
    """A state at the mean, where scores vanish, and one that is no number beside three others, whose answers are theirs."""
    law, process = law.to(dtype), EDM(noise)
    x = law.through(process, 1.0).sample(3, seed).to(F64)
    mean, nothing = law.mean.to(F64).reshape(1, *law.event_shape), torch.full_like(x[:1], math.nan)
    among = law.posterior_mean(torch.cat([mean, x, nothing]), process, 1.0)
    slack = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(among[1:4], law.posterior_mean(x, process, 1.0), rtol=slack, atol=slack)


@examples(60)
@given(axes.flatmap(empiricals), processes, inside, seeds)
def test_points_are_a_mixture_without_spread(law, process, t, seed):
    """The soft nearest point against a mixture of isotropic components: two implementations of one law."""
    alpha, sigma = (float(v) for v in process.levels(t))
    assume(alpha > 1e-3 and sigma / alpha > 0.05)
    noisy = law.through(process, t)
    points = law.cloud.points
    parts = [SpectralCovariance.isotropic(law.dim, sigma**2)] * len(points)
    mixture = GaussianMixture(law.weights, alpha * points, parts, law.event_shape)
    x = tensor((3, *law.event_shape), seed, scale=max(alpha, sigma))
    torch.testing.assert_close(noisy.log_prob(x), mixture.log_prob(x), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(noisy.score(x), mixture.score(x), rtol=1e-7, atol=1e-7 / min(sigma, 1) ** 2)


@examples(40)
@given(smooth, seeds, st.integers(1, 3), numbers(0.1, 2.0))
def test_an_observation_moves_density_by_bayes_rule(law, seed, m, noise):
    """`log p(x | y) - log p(x) - log p(y | x)` is one number, whatever `x` is."""
    A, y = tensor((m, law.dim), seed), tensor((m,), seed + 1)
    x = tensor((4, *law.event_shape), seed + 2)
    likelihood = -0.5 * ((y - flat(x) @ A.T) / noise).square().sum(1)
    evidence = law.given(A, y, noise).log_prob(x) - law.log_prob(x) - likelihood
    torch.testing.assert_close(evidence, evidence[:1].expand_as(evidence), rtol=1e-6, atol=1e-6)


@examples(40)
@given(laws, st.integers(0, 6), st.integers(0, 6), seeds)
def test_samples_belong_to_their_numbers(law, first, n, seed):
    whole = law.sample(12, seed)
    torch.testing.assert_close(law.sample(n, seed, first=first), whole[first : first + n], rtol=0, atol=1e-12)


@examples(40)
@given(laws, st.sampled_from([(4, 7), (2, 5, 5), (3, 3, 2)]))
def test_events_of_another_shape_are_refused(law, shape):
    with pytest.raises(ShapeError, match="x"):
        law.posterior_mean(torch.zeros(shape, dtype=F64), EDM(), 0.5)


def test_a_wrong_denoiser_is_seen():
    """Negative control: an answer off by 1e-4 of itself is not the gradient's."""
    law, process = Gaussian(torch.ones(2, dtype=F64), SpectralCovariance.isotropic(2, 0.5)), EDM(2.0)
    right, x = law.denoiser(process), tensor((3, 2), 0)

    class Off(type(right)):
        def denoise(self, x, t, condition=None):
            return 1.0001 * super().denoise(x, t, condition)

    check_score(law, right, process, 0.5, x)
    with pytest.raises(AssertionError):
        check_score(law, Off(law, process), process, 0.5, x)
    with pytest.raises(ArgumentError, match="condition"):
        right.denoise(x, 0.5, x)
