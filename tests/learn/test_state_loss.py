"""The denoising loss under linear SDEs: its minimiser is the exact belief, whatever the view, and a trained model samples the data."""

from __future__ import annotations

import pytest
import torch

from sfumato.denoise import StateBelief, StateDenoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, GaussianMixture, PushedDenoiser, SpectralCovariance
from sfumato.learn import StateLoss
from sfumato.metrics import energy_distance
from sfumato.noise import cld, convert, ir_sde
from sfumato.sample import LinearAncestral, run_linear, uniform_time
from sfumato.seeds import noise

GAUSSIAN = Gaussian(torch.tensor([0.7, -0.2], dtype=torch.float64), SpectralCovariance.isotropic(2, 0.3))


def rng(seed):
    return torch.Generator().manual_seed(seed)


VIEWS = [(make, view) for make in (cld, ir_sde) for view in ("data", "score", "cholesky noise", "velocity")] + [(ir_sde, "noise")]


@pytest.mark.parametrize(("make", "view"), VIEWS)
def test_least_squares_on_the_targets_finds_the_exact_belief(make, view):
    """For Gaussian data every view of the belief is affine in the state and the condition, so regression at one time is exact in the limit:
    its prediction is within 0.05 of the exact one, in units of the target's spread.
    """
    process, n, t = make(), 8000, 0.4
    y = torch.randn(n, 2, dtype=torch.float64, generator=rng(1)) if process.conditions else None
    examples = StateLoss(view, first=t, last=t).examples(process, GAUSSIAN.sample(n, 0), rng(2), y)
    known = [examples.noisy.flatten(1), torch.ones(n, 1, dtype=torch.float64)] + ([] if y is None else [y])
    features = torch.cat(known, 1)
    said = features @ torch.linalg.lstsq(features, examples.target.flatten(1)).solution
    rows = [0, 1, 2]
    for i in rows:
        own = None if y is None else y[i]
        x = examples.noisy[i : i + 1]
        exact = PushedDenoiser(GAUSSIAN, process, own).denoise(x, t)
        expected = convert(process, exact, "data", view, x, t, None if own is None else own[None])
        assert float((said[i] - expected.flatten()).abs().max() / examples.target.std()) < 0.05


def test_a_belief_of_any_view_is_the_same_belief():
    process = cld()
    exact, x = PushedDenoiser(GAUSSIAN, process), torch.randn(4, 2, 2, dtype=torch.float64, generator=rng(0))
    model = StateDenoiser(lambda z, t, y: exact.score(z, t), process, "score")
    assert isinstance(model, StateBelief)
    assert isinstance(exact, StateBelief)
    assert torch.allclose(model.denoise(x, 0.4), exact.denoise(x, 0.4), rtol=0, atol=1e-10)
    assert torch.allclose(model.score(x, 0.4), exact.score(x, 0.4), rtol=0, atol=1e-12)
    data = StateDenoiser(lambda z, t, y: exact.denoise(z, t), process)
    assert torch.allclose(data.score(x, 0.4), exact.score(x, 0.4), rtol=0, atol=1e-8)


def test_a_condition_reaches_the_model_and_the_conversion():
    process, x, y = ir_sde(), torch.randn(4, 2, dtype=torch.float64, generator=rng(0)), torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    exact = PushedDenoiser(GAUSSIAN, process, y[0])

    def predict(z, t, given):
        assert given.shape == z.shape
        assert bool((given == y).all())
        return exact.score(z, t)

    model = StateDenoiser(predict, process, "score").given(y)
    assert torch.allclose(model.denoise(x, 0.4), exact.denoise(x, 0.4), rtol=0, atol=1e-10)


def test_a_model_trained_under_momentum_samples_two_modes():
    """Ridge regression on 100 random features, once for each time of the sampler; far nearer to the data than a Gaussian of their mean and
    variance is.
    """
    process, view = cld(), "cholesky noise"
    law = GaussianMixture([0.4, 0.6], torch.tensor([[-1.0], [0.8]], dtype=torch.float64), [SpectralCovariance.isotropic(1, 0.02)] * 2)
    clean, weights = law.sample(1200, 0), torch.randn(3, 100, dtype=torch.float64, generator=rng(7))

    def features(x):
        plain = torch.cat([x.flatten(1), torch.ones(len(x), 1, dtype=torch.float64)], 1)
        return torch.cat([torch.tanh(2 * plain @ weights), plain], 1)

    program = LinearAncestral().compile(process, uniform_time(24, 1.0, 0.0, 2.0))
    fitted = {}
    for node in program.evaluated:
        t = program.times[node]
        examples = StateLoss(view, first=t, last=t).examples(process, clean, rng(node))
        known = features(examples.noisy)
        gram = known.T @ known + 1e-3 * torch.eye(known.shape[1], dtype=torch.float64)
        fitted[t] = torch.linalg.solve(gram, known.T @ examples.target.flatten(1))

    model = StateDenoiser(lambda x, t, y: (features(x) @ fitted[float(t[0])]).reshape(x.shape), process, view)
    n = 400
    draws = noise(1, n, (2, 1), dtype=torch.float64)
    out = run_linear(program, model.denoise, process.prior_sample(draws.draw(0)), draws)[:, 0]
    truth = law.sample(n, 3)
    gaussian = truth.mean() + truth.std() * torch.randn(n, 1, dtype=torch.float64, generator=rng(4))
    assert energy_distance(out, truth).value < energy_distance(gaussian, truth).value / 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: StateLoss(first=0.5, last=0.4), "first <= last"),
        (lambda: StateLoss("score", first=0.0, last=0.0).examples(cld(), GAUSSIAN.sample(3, 0), rng(0)), "inverse"),
        (lambda: StateLoss().examples(ir_sde(), GAUSSIAN.sample(3, 0), rng(0)), "condition"),
    ],
)
def test_what_means_nothing_is_refused(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        wrong()
