"""Steps and programs agree where they are the same thing; correctors keep laws; what each sample gets depends on its own draws alone."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.metrics import energy_distance
from sfumato.noise import EDM, FlowMatching, VarianceExploding, VariancePreserving
from sfumato.sample import Heun, Program, Row, ddim, response, run, uniform_log_snr, uniform_time
from sfumato.sample.compilers.ancestral import Ancestral
from sfumato.sample.compilers.chain import chain, quiet_end
from sfumato.sample.steps.langevin import Corrected, NormLangevin, PredictorCorrector, sweeps
from sfumato.sample.steps.replacement import Replaced
from sfumato.sample.steps.reverse_sde import ImprovedEuler, ReverseSDE, reverse_drift
from sfumato.sample.steps.step import Stream, Tables, TableStep, walk
from sfumato.seeds import noise

VP, VE = VariancePreserving(), VarianceExploding(0.01, 50.0)
SOLVERS = [Heun(), Ancestral(1.0), ReverseSDE("euler"), ReverseSDE("diffusion"), ReverseSDE("large"), ImprovedEuler(), PredictorCorrector()]
L1 = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))


def times_of(process, n: int):
    return uniform_log_snr(process, n, float(process.time(-3.0)), float(process.time(2.0)))


def start(n: int, seed: int = 0):
    return noise(seed, n, (2,), dtype=torch.float64).draw(0)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
def test_a_one_step_solver_walked_step_by_step_is_its_program(g4, solver):
    x, times = start(16), times_of(VP, 6)
    whole = walk(solver, g4.denoiser(VP), VP, x, times, Stream.of(1, x))
    again = run(solver.compile(VP, times), g4.denoiser(VP).denoise, x, noise(1, 16, (2,), dtype=torch.float64))
    torch.testing.assert_close(whole, again, rtol=0, atol=0)
    if solver.deterministic:
        steps = walk(TableStep(solver), g4.denoiser(VP), VP, x, times, Stream.of(1, x))
        torch.testing.assert_close(steps, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.name)
def test_samples_with_times_of_their_own_are_those_of_their_own_programs(g4, solver):
    x, columns = start(6), [times_of(VP, 5), times_of(VP, 5)[:1] + uniform_time(4, 0.4, 0.02)]
    which = torch.tensor([0, 1, 1, 0, 1, 0])
    grid = torch.tensor(columns, dtype=torch.float64)[which].T
    together = walk(solver, g4.denoiser(VP), VP, x, grid, Stream.of(3, x))
    alone = [walk(solver, g4.denoiser(VP), VP, x, columns[j], Stream.of(3, x))[i] for i, j in enumerate(which.tolist())]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-12)


def test_a_sample_does_not_depend_on_its_batch(g4):
    x, step = start(8), Corrected(TableStep(ReverseSDE("diffusion")), NormLangevin(norms="sample"))
    many = walk(step, g4.denoiser(VP), VP, x, times_of(VP, 5), Stream.of(2, x))
    few = walk(step, g4.denoiser(VP), VP, x[:3], times_of(VP, 5), Stream.of(2, x[:3]))
    torch.testing.assert_close(many[:3], few, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [VP, VE], ids=lambda p: p.kind)
@pytest.mark.parametrize("rule", ["euler", "diffusion", "large"])
def test_the_reverse_sde_is_of_weak_order_one(process, rule):
    """The output's variance in a Gaussian world, exactly: its error halves as the steps do."""
    errors = []
    for n in (200, 400):
        times = times_of(process, n)
        found = response(ReverseSDE(rule).compile(process, times), L1)
        before = float(process.alpha(times[0]) ** 2 * 0.3 + process.sigma(times[0]) ** 2)
        errors.append(abs(float(found.variance(before)[0] / found.target[0] - 1)))
    assert abs(math.log2(errors[0] / errors[1]) - 1) < 0.15
    assert errors[1] < 0.1


@pytest.mark.parametrize("rule", ["euler", "diffusion"])
def test_the_flow_form_is_of_order_one_and_draws_nothing(rule):
    errors = []
    for n in (100, 200):
        found = response(ReverseSDE(rule, flow=True).compile(VP, times_of(VP, n)), L1)
        errors.append(abs(float(found.start[0] / found.flow_start[0] - 1)))
    assert abs(math.log2(errors[0] / errors[1]) - 1) < 0.15
    assert ReverseSDE(rule, flow=True).compile(VP, times_of(VP, 4)).draws == ()


def test_large_has_the_mean_of_the_exact_posterior_and_more_noise():
    large, exact = (solver.compile(VP, (0.5, 0.3)).rows[1] for solver in (ReverseSDE("large"), Ancestral(1.0)))
    for part in ("states", "data"):
        torch.testing.assert_close(getattr(large, part)[0], getattr(exact, part)[0], rtol=1e-12, atol=0)
    forward = VP.transition(0.3, 0.5)
    torch.testing.assert_close(large.noise[1][0], torch.sqrt(forward.covariance))
    assert float(exact.noise[1]) < float(large.noise[1])


def test_improved_euler_is_of_weak_order_two():
    errors = []
    for n in (80, 160):
        times = times_of(VP, n)
        found = response(ImprovedEuler().compile(VP, times), L1)
        before = float(VP.alpha(times[0]) ** 2 * 0.3 + VP.sigma(times[0]) ** 2)
        errors.append(abs(float(found.variance(before)[0] / found.target[0] - 1)))
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.15


def test_langevin_sweeps_reach_the_levels_variance_from_anywhere():
    """The stationary variance of `x <- (1 - c) x + sqrt(2 e) eps` is `2 e / (1 - (1 - c)^2)`, with `c = e / var`: the table's own limit."""
    t, size = 0.4, 0.01
    alpha, sigma = (float(v) for v in VP.levels(t))
    variance = alpha**2 * 0.3 + sigma**2
    found = response(sweeps(VP, t, size, 600), L1)
    contraction = 1 - size / variance
    assert float(found.variance(1.0)[0]) == pytest.approx(2 * size / (1 - contraction**2), rel=1e-5)
    assert float(found.variance(9.0)[0]) == pytest.approx(variance, rel=0.02)


def test_a_corrector_repairs_a_coarse_flow_and_steps_of_own_norm_do_not(g4):
    """Fixed seeds; the energy distance of 800 samples is known to about 0.003."""
    belief, end = g4.denoiser(VE), float(VE.time_of_ratio(0.01))
    truth, x = g4.sample(800, 9), VE.prior_sample(start(800, 3))
    step = TableStep(ReverseSDE("euler", flow=True))

    def distance(method, levels):
        return energy_distance(walk(method, belief, VE, x, uniform_time(levels, 1.0, end), Stream.of(5, x)), truth).value

    alone = distance(step, 40)
    assert distance(Corrected(step, NormLangevin()), 20) < alone / 3
    assert distance(Corrected(step, NormLangevin(norms="sample")), 20) > alone


def test_a_predictor_corrector_is_a_table_that_ends_without_noise():
    program = PredictorCorrector(ReverseSDE("diffusion"), 2, 0.2).compile(VP, uniform_time(3))
    assert program.evaluations == 9
    assert not program.rows[-1].noise
    assert program.times[:4] == (1.0, 1.0, 1.0, program.times[3])
    size = 2 * float(VP.transition(program.times[3], 1.0).phi) ** 2 * (0.2 * float(VP.sigma(1.0))) ** 2
    assert float(program.rows[1].noise[1]) == pytest.approx(math.sqrt(2 * size), rel=1e-12)
    # no signal is kept by a first step from pure noise: it is not corrected
    assert PredictorCorrector(Ancestral(1.0), 1).compile(FlowMatching(), uniform_time(3)).evaluations == 5


def test_predictor_and_corrector_are_those_of_diffusers():
    """The same answers, noise and noise levels: one corrector sweep and one predictor step agree to rounding of float32 levels."""
    from diffusers import ScoreSdeVeScheduler

    process = VarianceExploding(0.01, 50.0)
    peer = ScoreSdeVeScheduler(num_train_timesteps=20, snr=0.16, sigma_min=0.01, sigma_max=50.0)
    peer.set_timesteps(20)
    peer.set_sigmas(20)
    levels = peer.discrete_sigmas.double().flip(0)
    t, s = (float(process.time_of_ratio(levels[i])) for i in (8, 9))
    x, law = 3 * start(5), L1
    x = x[:, :1]
    score = law.denoiser(process).score(x, t)

    class Same(Stream):
        """The draws of a torch generator, as the scheduler makes them."""

        def normal(self):
            return torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)

    corrected = peer.step_correct(score, x, generator=torch.Generator().manual_seed(7)).prev_sample
    ours, _ = NormLangevin(0.16)(law.denoiser(process), process, x, t, t, None, Same.of(0, x))
    torch.testing.assert_close(ours, corrected, rtol=1e-6, atol=1e-6)
    stepped = peer.step_pred(score, peer.timesteps[8], x, generator=torch.Generator().manual_seed(7))
    row = ReverseSDE("diffusion").compile(process, (t, s)).rows[1]
    mean = float(row.states[0]) * x + float(row.data[0]) * law.posterior_mean(x, process, t)
    torch.testing.assert_close(mean, stepped.prev_sample_mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean + float(row.noise[1]) * Same.of(0, x).normal(), stepped.prev_sample, rtol=1e-5, atol=1e-5)


def test_chained_programs_are_run_one_after_the_other(g4):
    belief, x, draws = g4.denoiser(VP), start(5), noise(0, 5, (2,), dtype=torch.float64)
    first, second = Ancestral(1.0).compile(VP, (0.9, 0.6, 0.4)), Heun().compile(VP, (0.4, 0.2, 0.1))
    both = run(chain([first, second]), belief.denoise, x, draws)
    torch.testing.assert_close(both, run(second, belief.denoise, run(first, belief.denoise, x, draws)), rtol=0, atol=0)
    quiet = run(quiet_end(first), belief.denoise, x, draws)
    noisy = run(first, belief.denoise, x, draws)
    torch.testing.assert_close(noisy - quiet, float(first.rows[2].noise[2]) * draws.draw(2))


def test_replacement_keeps_what_is_known_and_its_step_for_the_rest(g4):
    x, known = start(4), torch.tensor([0.7, 0.0], dtype=torch.float64)
    inner = TableStep(ddim())
    step = Replaced(inner, torch.tensor([True, False]), known)
    got = walk(step, g4.denoiser(VP), VP, x, (0.5, 0.0), Stream.of(1, x))
    plain = walk(inner, g4.denoiser(VP), VP, x, (0.5, 0.0), Stream.of(1, x))
    torch.testing.assert_close(got[:, 0], torch.full((4,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(got[:, 1], plain[:, 1])


def test_uniform_draws_are_uniform_and_new():
    """Kolmogorov's statistic of 4000 numbers passes 0.031 by chance once in a thousand times; the seed is fixed."""
    stream = Stream.of(11, torch.zeros(2000, 1, dtype=torch.float64))
    values = torch.cat([stream.uniform(), stream.uniform()]).sort().values
    edges = torch.arange(1, 4001, dtype=torch.float64) / 4000
    assert float((values - edges).abs().max()) < 0.031
    assert stream.used == 3
    assert float(torch.corrcoef(torch.stack([stream.uniform(), stream.normal()[:, 0]]))[0, 1].abs()) < 0.08


BAD = [
    (lambda: ReverseSDE("milstein"), "rule"),
    (lambda: ReverseSDE("large", flow=True), "flow"),
    (lambda: ReverseSDE("large").compile(FlowMatching(), (1.0, 0.5)), "times"),
    (lambda: ReverseSDE().compile(FlowMatching(), (1.0, 0.5)), "t:"),
    (lambda: ImprovedEuler().compile(VP, (0.5, 0.0)), "t:"),
    (lambda: reverse_drift(VP, 0.0), "t:"),
    (lambda: PredictorCorrector(ratio=0.0), "ratio"),
    (lambda: NormLangevin(kept=1.5), "kept"),
    (lambda: sweeps(VP, 0.0, 0.1, 1), "level with noise"),
    (lambda: chain([]), "at least one"),
    (lambda: chain([ddim().compile(VP, (1.0, 0.5)), ddim().compile(VP, (0.4, 0.2))]), "start"),
    (lambda: chain([ddim().compile(VP, (1.0, 0.5)), ddim().compile(EDM(), (0.5, 0.2))]), "one process"),
    (lambda: Tables.of([ddim().compile(VP, (1.0, 0.5)), ddim().compile(VP, (1.0, 0.5, 0.2))]), "same number"),
]


@pytest.mark.parametrize(("make", "says"), BAD)
def test_meaningless_settings_are_refused(make, says):
    from jaxtyping import TypeCheckError

    with pytest.raises((ArgumentError, TypeCheckError)) as caught:
        make()
    assert isinstance(caught.value, TypeCheckError) or says in str(caught.value)


def test_times_have_to_fall_and_to_fit_the_batch(g4):
    x = start(3)
    for method in (TableStep(Heun()), Heun()):
        with pytest.raises(ArgumentError, match="fall"):
            walk(method, g4.denoiser(VP), VP, x, (0.2, 0.5), Stream.of(0, x))
        with pytest.raises(ArgumentError, match="fall"):
            walk(method, g4.denoiser(VP), VP, x, (0.5, 0.2, 0.2), Stream.of(0, x))
    with pytest.raises(ShapeError, match="one column per sample"):
        walk(Heun(), g4.denoiser(VP), VP, x, torch.ones(4, 2), Stream.of(0, x))
    step = Replaced(TableStep(Heun()), torch.ones(3, dtype=torch.bool), torch.zeros(3))
    with pytest.raises(ShapeError, match="mask"):
        walk(step, g4.denoiser(VP), VP, x, (0.5, 0.2), Stream.of(0, x))


def test_a_classifier_that_is_exact_makes_the_components_own_belief():
    from sfumato.steer.classifier_guidance import ClassifierGuided

    means = torch.tensor([[1.5, 0.0], [-1.0, 1.2]], dtype=torch.float64)
    law = GaussianMixture([0.4, 0.6], means, [SpectralCovariance.isotropic(2, v) for v in (0.25, 0.4)])
    guided = ClassifierGuided(law.denoiser(VP), lambda x, t: torch.log(law.through(VP, t).responsibilities(x)[:, 1]))
    own = Gaussian(means[1], law.covariances[1]).denoiser(VP)
    torch.testing.assert_close(guided.denoise(start(9), 0.4), own.denoise(start(9), 0.4), rtol=1e-10, atol=1e-10)
    with pytest.raises(ArgumentError, match="weight"):
        ClassifierGuided(own, lambda x, t: x.sum(1), -1.0)
    with pytest.raises(ArgumentError, match="signal"):
        ClassifierGuided(law.denoiser(FlowMatching()), lambda x, t: x.sum(1)).denoise(start(2), 1.0)


def test_a_program_refuses_no_rows_that_chain_made(g4):
    program = chain([Heun().compile(VP, (0.9, 0.5)), Heun().compile(VP, (0.5, 0.2))])
    assert isinstance(program, Program)
    assert all(isinstance(row, Row) for row in program.rows)
    assert program.times == (0.9, 0.5, 0.5, 0.2, 0.2)


def test_draws_are_taken_one_after_the_other():
    """Draw 0 is the start's; what a step asks for next is the next draw of every sample, as a normal or as a uniform number."""
    x, single = torch.zeros(3, 2, dtype=torch.float64), noise(5, 3, (1,), dtype=torch.float64)
    stream, whole = Stream.of(5, x), noise(5, 3, (2,), dtype=torch.float64)
    assert torch.equal(stream.normal(), whole.draw(1))
    assert torch.equal(stream.uniform(), torch.special.ndtr(single.draw(2)[:, 0]))
    assert torch.equal(stream.normal(), whole.draw(3))
