"""The chain leaves the joint law of data and level alone, its levels are drawn from their exact posterior, and a classifier learns it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.learn.repairs.noise_level import NoiseLevelClassifier, fit_noise_levels
from sfumato.noise import EDM, VariancePreserving
from sfumato.sample import Heun, karras, run
from sfumato.sample.steps.denoising_mcmc import DenoisingMCMC, ExactLevels, descend, log_levels
from sfumato.sample.steps.langevin import PredictorCorrector
from sfumato.sample.steps.restart import Churned
from sfumato.sample.steps.reverse_sde import ReverseSDE
from sfumato.sample.steps.step import Stream, TableStep
from sfumato.seeds import noise

PROCESS, DIM, LEVELS = EDM(10.0), 16, 30
TIMES = log_levels(PROCESS, LEVELS, 0.1, 10.0)
CLOCK = torch.tensor(TIMES, dtype=torch.float64)
MEANS = 0.8 * noise(8, 3, (DIM,), dtype=torch.float64).draw(0)
LAW = GaussianMixture(None, MEANS, [SpectralCovariance.isotropic(DIM, 0.15)] * 3)
EXACT = ExactLevels(LAW, PROCESS, TIMES)


def joint(n: int, seed: int = 0):
    """Draws of the joint law, every level equally often."""
    level = torch.arange(n) % LEVELS
    return PROCESS.sample(LAW.sample(n, seed), CLOCK[level], noise(seed + 1, n, (DIM,), dtype=torch.float64).draw(3)), level


def chain(**options) -> DenoisingMCMC:
    return DenoisingMCMC(LAW.denoiser(PROCESS), TIMES, EXACT, **{"kappa": 0.3, "variance": 0.15, **options})


def shift(method: DenoisingMCMC, sweeps: int = 15, n: int = 300) -> float:
    x, level = joint(n)
    chains, stream = method.start(x, level), Stream.of(2, x)
    for _ in range(sweeps):
        chains = method.sweep(chains, stream)
    return float(chains.level.double().mean()) - (LEVELS - 1) / 2


def test_levels_are_equally_spaced_in_the_logarithm():
    ratios = PROCESS.ratio(CLOCK)
    torch.testing.assert_close(ratios[1:] / ratios[:-1], torch.full((LEVELS - 1,), 100 ** (1 / (LEVELS - 1)), dtype=torch.float64))


def test_exact_levels_are_bayes_rule():
    """On a Gaussian the joint density is known in one line; a prior adds its logarithm."""
    law = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.isotropic(3, 0.5))
    x, prior = noise(0, 5, (3,), dtype=torch.float64).draw(0), [0.2, 0.8]
    times = log_levels(PROCESS, 2, 0.5, 2.0)
    variance = 0.5 + torch.tensor([0.25, 4.0], dtype=torch.float64)
    exact = torch.distributions.Normal(0.0, variance.sqrt()).log_prob(x[..., None]).sum(1) + torch.tensor(prior, dtype=torch.float64).log()
    torch.testing.assert_close(ExactLevels(law, PROCESS, times, prior)(x), exact)


def test_the_level_is_drawn_from_its_posterior():
    """3000 draws at one state: every level's frequency lies within 4 standard errors of its probability, fixed seed."""
    x = joint(LEVELS)[0][12:13].expand(3000, DIM).contiguous()
    method = chain(kappa=1e-12)  # the data stay
    chains = method.sweep(method.start(x, torch.zeros(3000, dtype=torch.long)), Stream.of(5, x))
    exact = torch.softmax(EXACT(x[:1]), 1)[0]
    found = torch.bincount(chains.level, minlength=LEVELS) / 3000
    assert bool(((found - exact).abs() < 4 * torch.sqrt(exact * (1 - exact) / 3000) + 1e-3).all())


def test_adjusted_moves_leave_the_joint_law_alone_and_large_plain_ones_do_not():
    """The mean level drifts by chance less than 1.5 of 30; the negative control is the unadjusted step."""
    assert abs(shift(chain(kappa=0.4, adjusted=True))) < 1.5
    assert abs(shift(chain(kappa=0.05))) < 1.5
    assert shift(chain(kappa=1.0)) > 3


def test_the_argmax_and_a_frozen_level_change_the_law():
    x, level = joint(300)
    stuck = chain(draw="frozen")
    chains = stuck.sweep(stuck.start(x, level), Stream.of(2, x))
    assert torch.equal(chains.level, level)
    best = chain(draw="argmax")
    chains = best.sweep(best.start(x, level), Stream.of(2, x))
    assert torch.equal(chains.level, chains.logits.argmax(1))


def test_an_adjusted_chain_finds_a_gaussians_variance():
    """All levels frozen at one: MALA's stationary law is `N(0, 0.5 + sigma^2)`; 8000 numbers give its variance to 4 standard errors."""
    law = Gaussian(torch.zeros(20, dtype=torch.float64), SpectralCovariance.isotropic(20, 0.5))
    times = log_levels(PROCESS, 2, 0.5, 2.0)
    x = math.sqrt(0.75) * noise(0, 400, (20,), dtype=torch.float64).draw(0)
    method = DenoisingMCMC(law.denoiser(PROCESS), times, ExactLevels(law, PROCESS, times), 0.5, 0.5, adjusted=True, draw="frozen")
    chains, stream = method.start(x, torch.zeros(400, dtype=torch.long)), Stream.of(3, x)
    for _ in range(20):
        chains = method.sweep(chains, stream)
    rate = float(chains.accepted.double().mean()) / 20
    assert 0.5 < rate < 1
    assert abs(float(chains.x.var()) / 0.75 - 1) < 4 * math.sqrt(2 / 8000)


def test_blocks_emit_the_last_state_or_the_lowest():
    x, level = joint(60)
    last, least = [], []
    for keep, out in (("last", last), ("least", least)):
        method = chain()
        out += list(itertools.islice(method.blocks(method.start(x, level), Stream.of(4, x), 3, keep), 2))
    assert all(torch.equal(state.x, emitted.x) for state, emitted in last)
    assert all(bool((emitted.level <= state.level).all()) for state, emitted in least)
    assert torch.equal(last[1][0].x, least[1][0].x)  # what is emitted does not move the chain


@pytest.mark.parametrize(
    "method",
    [
        ReverseSDE("euler"),
        ReverseSDE("diffusion"),
        PredictorCorrector(ReverseSDE("diffusion")),
        Heun(),
        TableStep(Heun()),
        Churned(TableStep(Heun()), 0.1),
    ],
    ids=["euler", "reverse-diffusion", "predictor-corrector", "heun", "heun-step", "churn"],
)
def test_every_integrator_comes_down_from_levels_of_their_own(method):
    """Near data, from where 12 points are fine, all of them land on the mixture: its density there is what samples of it have."""
    x, level = joint(90)
    t = CLOCK[level].clamp(max=TIMES[8])
    x = PROCESS.sample(LAW.sample(90, 0), t, noise(1, 90, (DIM,), dtype=torch.float64).draw(3))
    got = descend(LAW.denoiser(PROCESS), x, t, TIMES[0], Stream.of(6, x), 12, method)
    exact, found = LAW.log_prob(LAW.sample(90, 3)), LAW.log_prob(got)
    # the last clean answer is a mean, a little nearer to the centres than data
    assert abs(float(found.mean() - exact.mean())) < 2.5
    assert not bool((got - x).abs().max() < 1e-6)


def test_a_sample_on_the_lowest_level_is_only_denoised_and_others_take_their_own_grid():
    x, _ = joint(4)
    t = CLOCK[torch.tensor([0, 5, 9, 0])]
    got = descend(LAW.denoiser(PROCESS), x, t, TIMES[0], Stream.of(6, x), 4)
    torch.testing.assert_close(got[[0, 3]], LAW.posterior_mean(x[[0, 3]], PROCESS, TIMES[0]))
    times = karras(PROCESS, 4, ratio_max=float(PROCESS.ratio(t[2])), ratio_min=0.1)[:-1]
    alone = run(Heun().compile(PROCESS, times), LAW.denoiser(PROCESS).denoise, x[2:3])
    torch.testing.assert_close(got[2:3], LAW.posterior_mean(alone, PROCESS, times[-1]), rtol=0, atol=1e-8)


def test_a_classifier_learns_the_levels_posterior():
    """Its cross-entropy on fresh data comes within 0.15 nats of the exact posterior's; before training it is 1 nat away."""
    classifier = NoiseLevelClassifier((DIM,), LEVELS)
    data = LAW.sample(2000, 5)
    x, level = joint(900, 7)
    exact = torch.nn.functional.cross_entropy(EXACT(x), level)

    def loss() -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(classifier(x), level) - exact)

    assert loss() > 1
    history = fit_noise_levels(classifier, data, PROCESS, TIMES, 400, rate=1e-2)
    assert len(history) == 400
    assert -0.05 < loss() < 0.15
    with torch.no_grad():
        method = DenoisingMCMC(LAW.denoiser(PROCESS), TIMES, classifier, 0.05, 0.15)
        assert abs(shift(method)) < 3


def test_an_image_classifier_sees_images():
    classifier = NoiseLevelClassifier((1, 8, 8), 4, 8)
    x = noise(0, 5, (1, 8, 8)).draw(0)
    with torch.no_grad():
        assert classifier(x).shape == (5, 4)
        assert not torch.equal(classifier(x), classifier(3 * x))  # it knows how large they are
    with pytest.raises(ShapeError, match="events"):
        classifier(x[:, 0])


def test_it_starts_from_clean_samples_at_a_level():
    process = VariancePreserving()
    times = log_levels(process, 10, 0.1, 5.0)
    method = DenoisingMCMC(LAW.denoiser(process), times, ExactLevels(LAW, process, times), 0.1, 0.15)
    x = LAW.sample(3, 0)
    chains = method.begin(x, Stream.of(1, x), 0.5)
    near = int(chains.level[0])
    assert float(process.ratio(times[near])) == pytest.approx(0.5, rel=0.25)
    torch.testing.assert_close(chains.x, process.sample(x, times[near], noise(1, 3, (DIM,), dtype=torch.float64).draw(1)))


def test_bad_input():
    x, level = joint(4)
    with pytest.raises(ArgumentError, match="ExactLevels"):
        DenoisingMCMC(LAW.denoiser(PROCESS), TIMES, NoiseLevelClassifier((DIM,), LEVELS), adjusted=True)
    for wrong in ({"kappa": 0.0}, {"variance": -1.0}, {"eta": 0.0}, {"moves": 0}):
        with pytest.raises(ArgumentError, match="kappa"):
            chain(**wrong)
    with pytest.raises(ArgumentError, match="rise"):
        DenoisingMCMC(LAW.denoiser(PROCESS), TIMES[::-1], EXACT)
    with pytest.raises(ArgumentError, match="numbers of levels"):
        chain().start(x, level + LEVELS)
    with pytest.raises(ArgumentError, match="levels for each"):
        DenoisingMCMC(LAW.denoiser(PROCESS), TIMES[:5], EXACT).start(x, level)
    with pytest.raises(ArgumentError, match="sweeps"):
        next(chain().blocks(chain().start(x, level), Stream.of(0, x), 0))
    with pytest.raises(ArgumentError, match="points"):
        descend(LAW.denoiser(PROCESS), x, CLOCK[level], TIMES[0], Stream.of(0, x), 1)
    with pytest.raises(ArgumentError, match="times from"):
        descend(LAW.denoiser(PROCESS), x, CLOCK[level], TIMES[1], Stream.of(0, x))
    with pytest.raises(ArgumentError, match="prior"):
        ExactLevels(LAW, PROCESS, TIMES, [1.0])
    with pytest.raises(ArgumentError, match="low"):
        log_levels(PROCESS, 5, 2.0, 1.0)
    with pytest.raises(ArgumentError, match="30 times"):
        fit_noise_levels(NoiseLevelClassifier((DIM,), LEVELS), LAW.sample(4, 0), PROCESS, TIMES[:3])


def test_the_ends_of_the_unit_interval_draw_the_first_and_the_last_level():
    """A uniform number comes from a normal one through its distribution function, which rounds to 1 from 8.3 on."""

    class Fixed(Stream):
        def uniform(self):
            return torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)

    x = joint(LEVELS)[0][12:13].expand(3, DIM).contiguous()
    method = chain(kappa=1e-12)
    level = method.sweep(method.start(x, torch.zeros(3, dtype=torch.long)), Fixed(Stream.of(5, x).noise)).level
    below = torch.softmax(EXACT(x[:1]), 1)[0].cumsum(0)
    assert level.tolist() == [0, int((below <= 0.5).sum()), LEVELS - 1]
