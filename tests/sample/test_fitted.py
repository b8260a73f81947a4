from __future__ import annotations

import inspect
import json
from typing import NamedTuple

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, GaussianMixture, Law, SpectralCovariance
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.sample import Exponential, Linearisation, Program, Trajectory, fit_program, reference, reference_times, run
from sfumato.seeds import noise

PROCESS = VariancePreserving()
TIMES = reference_times(PROCESS, 48)
PLACES = [[0, 12, 20, 26, 32], [8, 14, 19, 24, 28, 33], [8, 20, 30]]
FIT, JUDGE = 1, 2  # seeds: whoever fits must judge on other noise


class World(NamedTuple):
    law: Law
    gaussian: Gaussian
    fit: Trajectory
    judge: Trajectory

    def denoise(self, x, t):
        return self.law.denoiser(PROCESS).denoise(x, t)

    def rms(self, program):
        """Root mean square distance to the flow's ends, from starts that were not fitted to."""
        return float((run(program, self.denoise, self.judge.states[0]) - self.judge.end).square().mean().sqrt())

    def base(self, places):
        """The same nodes, without a fit."""
        kept = [*([0] if places[0] else []), *places, len(TIMES) - 1]
        return Exponential(Linearisation.gaussian(self.gaussian), 2, teleport=places[0] != 0).compile(PROCESS, [TIMES[i] for i in kept])


def trajectory(law, gaussian, seed, n=192, times=TIMES):
    x = noise(seed, n, law.event_shape, dtype=torch.float64).draw(0)
    return reference(law.denoiser(PROCESS).denoise, x, PROCESS, gaussian, times)


def world(law, gaussian):
    return World(law, gaussian, trajectory(law, gaussian, FIT), trajectory(law, gaussian, JUDGE))


@pytest.fixture(scope="module")
def full(g4):
    """Every direction is a mode."""
    return world(g4, g4.gaussian())


@pytest.fixture(scope="module")
def thin(g4):
    """The mixture turned into a plane of six dimensions: two modes, four directions that share one row."""
    generator = torch.Generator().manual_seed(2)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    means = torch.cat([g4.means, torch.zeros(4, 4, dtype=torch.float64)], 1) @ turn.T
    law = GaussianMixture(g4.weights, means, [SpectralCovariance.isotropic(6, float(c.rest)) for c in g4.covariances], (2, 3))
    return world(law, law.gaussian(2))


@pytest.fixture(params=["full", "thin"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("places", PLACES, ids=str)
def test_unseen_starts_end_far_closer_to_the_flow_than_without_the_fit(either, places):
    """Measured: 4.5 to 7.1 times closer, in both worlds and at all three sets of nodes."""
    program = fit_program(either.denoise, either.fit, places, either.gaussian)
    assert program.evaluations == len(places)
    assert program.times == either.base(places).times
    assert either.rms(program) < either.rms(either.base(places)) / 3.5


@pytest.mark.parametrize("places", PLACES, ids=str)
def test_a_table_fitted_to_another_laws_flow_gains_nothing(full, places):
    """Negative control: the gain is of this flow, and not of any fit."""
    means = torch.tensor([[2.0, 0.0], [-2.0, 0.5]], dtype=torch.float64)
    other = GaussianMixture([0.5, 0.5], means, [SpectralCovariance.isotropic(2, 0.1)] * 2)
    path = trajectory(other, full.gaussian, FIT)
    foreign = fit_program(other.denoiser(PROCESS).denoise, path, places, full.gaussian)
    assert full.rms(foreign) > full.rms(full.base(places)) / 1.5


@pytest.mark.parametrize("places", PLACES, ids=str)
def test_an_endless_ridge_returns_the_base_step(either, places):
    fitted = fit_program(either.denoise, either.fit, places, either.gaussian, ridge=1e14)
    for a, b in zip(fitted.dense(), either.base(places).dense(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_less_ridge_is_closer_to_what_was_fitted(full):
    """The fitted batch's own error falls as the pull towards the base step weakens."""

    def own(ridge):
        program = fit_program(full.denoise, full.fit, PLACES[0], full.gaussian, ridge=ridge)
        return float((run(program, full.denoise, full.fit.states[0]) - full.fit.end).square().mean())

    errors = [own(ridge) for ridge in (1e6, 1.0, 1e-2, 1e-6)]
    assert errors == sorted(errors, reverse=True)


def test_the_last_row_is_the_least_squares_solution(either):
    """Without a ridge, what the last step misses is orthogonal to all it could add: in each mode, and pooled over other directions."""
    law = either.gaussian
    U = law.covariance.basis.columns()

    def modes(v):
        inside = v @ U
        outside = v - inside @ U.T
        return [*inside.T, *([outside.flatten()] if law.covariance.rank < law.dim else [])]

    def cosines(a, b):
        return [abs(float(p @ q / (p.norm() * q.norm()))) for p, q in zip(modes(a), modes(b), strict=True)]

    def walk(program):
        states, answers = [], []

        def keep(event):
            states.append(event.state.flatten(1) - program.levels[0][event.node] * law.mean)
            answers.append(None if event.denoised is None else event.denoised.flatten(1) - law.mean)

        run(program, either.denoise, either.fit.states[0], None, keep)
        return states, answers

    program = fit_program(either.denoise, either.fit, PLACES[2], law, ridge=0.0)
    states, answers = walk(program)
    end = either.fit.end.flatten(1) - law.mean
    split = Linearisation.gaussian(law)
    features = [states[-2]]
    for node in program.evaluated:
        alpha, sigma = (float(level[node]) for level in program.levels)
        features.append(answers[node] - law.covariance.basis.scale(split.gain(alpha, sigma), states[node]))
    for feature in features:
        assert max(cosines(end - states[-1], feature)) < 1e-9
    # negative control: what the base step misses is not orthogonal
    base = walk(either.base(PLACES[2]))[0]
    assert max(cosines(end - base[-1], features[0])) > 1e-2


@pytest.mark.parametrize("places", [[0, 5], [0, 2, 10], [3, 8]], ids=str)
def test_a_gaussian_law_is_exact_from_the_start(full_gaussian, thin_gaussian, places):
    """It leaves no residual, so the base step is the answer and the fit must not spoil it, rounding as it may be all it sees."""
    for law in (full_gaussian, thin_gaussian):
        path = trajectory(law, law, FIT, n=32, times=reference_times(PROCESS, 12))
        program = fit_program(law.denoiser(PROCESS).denoise, path, places, law)
        x = noise(JUDGE, 32, (3, 4), dtype=torch.float64).draw(0)
        end = run(program, law.denoiser(PROCESS).denoise, x)
        torch.testing.assert_close(end, law.flow(PROCESS, 1.0, 0.0)(x), rtol=0, atol=1e-11)


def test_a_shorter_history_reads_fewer_answers(full):
    for history in (1, 2):
        program = fit_program(full.denoise, full.fit, PLACES[0], full.gaussian, history=history)
        assert [len(row.data) for row in program.rows[1:]] == [min(history, i) for i in range(1, 6)]
    every = fit_program(full.denoise, full.fit, PLACES[0], full.gaussian)
    assert [len(row.data) for row in every.rows[1:]] == [1, 2, 3, 4, 5]
    assert full.rms(every) < full.rms(fit_program(full.denoise, full.fit, PLACES[0], full.gaussian, history=1))


def test_the_fit_asks_once_a_node(full):
    asked = []

    def ask(x, t):
        asked.append(t)
        return full.denoise(x, t)

    fit_program(ask, full.fit, PLACES[1], full.gaussian)
    assert asked == [TIMES[i] for i in PLACES[1]]


def test_fits_repeat_and_survive_json(either):
    program = fit_program(either.denoise, either.fit, PLACES[0], either.gaussian, name="mine")
    again = fit_program(either.denoise, either.fit, PLACES[0], either.gaussian)
    back = Program.from_dict(json.loads(json.dumps(program.to_dict())), either.gaussian)
    assert back.name == "mine"
    for a, b, c in zip(program.dense(), again.dense(), back.dense(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_the_event_shape_folds_the_fit_only(thin):
    """Flat events give the same table."""
    flat = GaussianMixture(thin.law.weights, thin.law.means, thin.law.covariances)
    gaussian = Gaussian(thin.gaussian.mean, thin.gaussian.covariance)
    path = Trajectory(PROCESS, TIMES, tuple(x.reshape(-1, 6) for x in thin.fit.states))
    folded = fit_program(thin.denoise, thin.fit, PLACES[2], thin.gaussian)
    unfolded = fit_program(flat.denoiser(PROCESS).denoise, path, PLACES[2], gaussian)
    for a, b in zip(folded.dense(), unfolded.dense(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_single_precision_trajectories_fit_as_well(full):
    states = tuple(x.float() for x in full.fit.states)
    program = fit_program(full.denoise, Trajectory(PROCESS, TIMES, states), PLACES[0], full.gaussian)
    assert full.rms(program) < full.rms(full.base(PLACES[0])) / 3.5


def test_a_start_without_signal_is_fitted_too(full):
    process = FlowMatching()
    times = reference_times(process, 48)
    denoise = full.law.denoiser(process).denoise
    fit, judge = (
        reference(denoise, noise(seed, 256, (2,), dtype=torch.float64).draw(0), process, full.gaussian, times) for seed in (FIT, JUDGE)
    )
    places = [0, 13, 21, 27, 33]
    program = fit_program(denoise, fit, places, full.gaussian)
    base = Exponential(Linearisation.gaussian(full.gaussian), 2).compile(process, tuple(times[i] for i in [*places, 48]))
    fitted, unfitted = ((run(p, denoise, judge.states[0]) - judge.end).square().mean().sqrt() for p in (program, base))
    assert float(fitted) < float(unfitted) / 3.5


@pytest.mark.parametrize("places", [[], [3, 3], [5, 2], [-1, 4], [0, 48], [0, 50]], ids=str)
def test_nodes_that_do_not_rise_inside_the_trajectory_are_refused(full, places):
    with pytest.raises(ArgumentError, match="nodes"):
        fit_program(full.denoise, full.fit, places, full.gaussian)


def test_other_bad_arguments_are_refused(full):
    with pytest.raises(ArgumentError, match="ridge"):
        fit_program(full.denoise, full.fit, [0, 4], full.gaussian, ridge=-1.0)
    with pytest.raises(ArgumentError, match="ridge"):
        fit_program(full.denoise, full.fit, [0, 4], full.gaussian, ridge=float("nan"))
    with pytest.raises(ArgumentError, match="history"):
        fit_program(full.denoise, full.fit, [0, 4], full.gaussian, history=0)
    with pytest.raises(ArgumentError, match="power"):
        inspect.unwrap(fit_program)(full.denoise, full.fit, [0, 4], full.gaussian, power=2.0)
