from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.metrics import gaussian_w2
from sfumato.noise import EDM, BetaTable, Cosine, FlowMatching, SubVariancePreserving, Trigonometric, VarianceExploding, VariancePreserving
from sfumato.sample import Exponential, Linearisation, response, run, uniform_log_snr
from sfumato.seeds import noise

PROCESS = VariancePreserving()
PROCESSES = [
    VariancePreserving(),
    SubVariancePreserving(),
    Cosine(),
    VarianceExploding(),
    EDM(),
    FlowMatching(),
    Trigonometric(),
    BetaTable.linear(50, 1e-3, 0.3),
]


class Units:
    """Draws that are unit vectors: draw `j` has `at[j]` in the batch's row `rows[j]`, else zero."""

    def __init__(self, program, dim, first):
        self.blocks = {j: first + n * dim for n, j in enumerate(program.draws)}
        self.dim, self.batch = dim, first + len(program.draws) * dim

    def draw(self, j):
        out = torch.zeros(self.batch, self.dim, dtype=torch.float64)
        out[self.blocks[j] : self.blocks[j] + self.dim] = torch.eye(self.dim, dtype=torch.float64)
        return out


def pushed(program, law):
    """Mean and Jacobians of a walk by running it: row 0 starts at 0, the next `dim` rows at unit vectors, the others draw unit vectors."""
    dim = law.dim
    flat = Gaussian(law.mean, law.covariance)
    draws = Units(program, dim, 1 + dim)
    x = torch.zeros(draws.batch, dim, dtype=torch.float64)
    x[1 : 1 + dim] = torch.eye(dim, dtype=torch.float64)
    denoiser = flat.denoiser(program.process)
    out = run(program, denoiser.denoise, x, draws)
    columns = (out[1:] - out[0]).reshape(-1, dim, dim).transpose(1, 2)
    return out[0], columns[0], list(columns[1:])


def operator(law, spectrum):
    return law.covariance.basis.scale(spectrum, torch.eye(law.dim, dtype=torch.float64))


@pytest.fixture(params=["full_gaussian", "thin_gaussian"])
def law(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("consistent", [True, False])
def test_the_response_is_what_running_the_table_on_unit_vectors_gives(random_program, law, spectral, consistent):
    for seed in range(3):
        program = random_program(PROCESS, law if spectral else None, 6, seed, consistent)
        answer = response(program, law)
        mean, start, noises = pushed(program, law)
        torch.testing.assert_close(operator(law, answer.start), start, rtol=0, atol=1e-12)
        torch.testing.assert_close(operator(law, answer.mean) @ law.mean, mean, rtol=0, atol=1e-12)
        assert len(noises) == len(answer.noise)
        for c, columns in zip(answer.noise, noises, strict=True):
            torch.testing.assert_close(operator(law, c), columns, rtol=0, atol=1e-12)
        if consistent and not spectral:
            torch.testing.assert_close(
                answer.mean + answer.start * program.levels[0][0],
                answer.mean.new_full((1,), program.levels[0][-1].item()).expand_as(answer.mean),
                rtol=0,
                atol=1e-12,
            )


@pytest.mark.parametrize("spectral", [True, False])
def test_w2_and_the_endpoint_error_are_those_of_the_pushed_gaussian(random_program, law, spectral):
    """Against the dense distance of `metrics`, and the dense second moments of the distance to the flow."""
    for seed in range(3):
        program = random_program(PROCESS, law if spectral else None, 5, seed, consistent=False)
        # an end at which there is noise left, and alpha is not 1
        program = replace(program, times=tuple(0.2 + 0.8 * t for t in program.times))
        answer = response(program, law)
        mean, start, noises = pushed(program, law)
        prior = 0.8
        covariance = prior * start @ start.T + sum(c @ c.T for c in noises)
        true = law.through(PROCESS, program.times[-1])
        expected = gaussian_w2(mean, (covariance + covariance.T) / 2, true.mean, true.covariance.dense())
        assert answer.w2(prior) == pytest.approx(expected, rel=1e-9)
        flow = Gaussian(law.mean, law.covariance).flow(PROCESS, program.times[0], program.times[-1])
        zero, unit = torch.zeros(1, 12, dtype=torch.float64), torch.eye(12, dtype=torch.float64)
        flow_mean = flow(zero)[0]
        flow_start = (flow(unit) - flow_mean).T
        error = prior * (start - flow_start).square().sum() + sum(c.square().sum() for c in noises) + (mean - flow_mean).square().sum()
        truth = prior * flow_start.square().sum() + flow_mean.square().sum()
        assert answer.endpoint_error(prior) == pytest.approx(float(error / truth) ** 0.5, rel=1e-10)


def test_a_start_may_have_another_variance_in_each_mode(full_gaussian):
    program = Exponential(Linearisation.data(), 2).compile(PROCESS, uniform_log_snr(PROCESS, 4))
    answer = response(program, full_gaussian)
    own = full_gaussian.through(PROCESS, 1.0).covariance.spectrum
    torch.testing.assert_close(answer.variance(own), answer.start**2 * own, rtol=1e-15, atol=0)
    assert answer.w2(own) != answer.w2(1.0)


def rounding(program):
    """Ten units in the last place of what a row adds up: extrapolation over a thousandfold step multiplies rounding by a thousand."""
    A, B, _ = program.dense()
    return 10 * 2.2e-16 * max(1.0, float(A.abs().sum(1).max()), float(B.abs().sum(1).max()))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("teleport", [False, True])
@pytest.mark.parametrize(("steps", "corrector"), [(1, False), (2, False), (3, True)])
def test_the_laws_own_split_is_exact_on_the_law(process, teleport, steps, corrector, law):
    """At any times, however few; the law leaves no residual, so nothing is left to interpolate."""
    for times in ((0.97, 0.5, 0.31, 0.3, 0.001), (1.0, 1e-5, 0.0), uniform_log_snr(process, 5)):
        program = Exponential(Linearisation.gaussian(law), steps, corrector, teleport).compile(process, times)
        answer, bound = response(program, law), rounding(program)
        torch.testing.assert_close(answer.start, answer.flow_start, rtol=0, atol=bound * float(answer.flow_start.max()))
        torch.testing.assert_close(answer.mean, answer.flow_mean, rtol=0, atol=bound)
        assert answer.endpoint_error(process.prior_std**2) < bound
        if steps < 3:
            assert answer.endpoint_error(process.prior_std**2) < 1e-13


@settings(max_examples=15)
@given(
    cuts=st.lists(st.integers(1, 999), min_size=1, max_size=5, unique=True),
    power=st.sampled_from([0.25, 0.5, 1.0]),
    process=st.sampled_from(PROCESSES),
)
def test_random_times_are_as_exact_as_chosen_ones(cuts, power, process):
    law = Gaussian(torch.ones(3, dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([4.0, 0.3, 0.0], dtype=torch.float64)))
    times = (1.0, *(c / 1000 for c in sorted(cuts, reverse=True)), 0.0)
    program = Exponential(Linearisation.gaussian(law, power), 3, True).compile(process, times)
    assert response(program, law).endpoint_error(1.0) < rounding(program)


@pytest.mark.parametrize("process", [VariancePreserving(), FlowMatching(), EDM()], ids=lambda p: p.kind)
def test_another_split_is_not_exact_on_the_law(process, full_gaussian):
    """Negative control: the mean variance in place of the spectrum, and data prediction."""
    times = uniform_log_snr(process, 5)
    start = process.prior_std**2
    for split in (Linearisation.isotropic(0.4), Linearisation.data()):
        assert response(Exponential(split, 2).compile(process, times), full_gaussian).endpoint_error(start) > 1e-3


def test_a_split_of_another_law_is_not_exact_when_run(full_gaussian, thin_gaussian):
    """Negative control by running: the thin law's table on the full law's belief, and on its own."""
    times = uniform_log_snr(PROCESS, 5)
    x = noise(0, 4, (3, 4), dtype=torch.float64).draw(0)
    program = Exponential(Linearisation.gaussian(thin_gaussian), 2).compile(PROCESS, times)

    def apart(world):
        end = run(program, world.denoiser(PROCESS).denoise, x)
        return float((end - world.flow(PROCESS, 1.0, 0.0)(x)).abs().max())

    assert apart(thin_gaussian) < 1e-12
    assert apart(full_gaussian) > 1e-2


def test_teleporting_is_the_exact_flow_to_where_it_lands(thin_gaussian):
    """The first step costs nothing; what it leaves out is the residual alone."""
    times = (1.0, 0.4, 0.1, 0.0)
    plain = Exponential(Linearisation.gaussian(thin_gaussian), 2).compile(PROCESS, times)
    jump = Exponential(Linearisation.gaussian(thin_gaussian), 2, teleport=True).compile(PROCESS, times)
    assert (plain.evaluations, jump.evaluations) == (3, 2)
    x = noise(1, 2, (3, 4), dtype=torch.float64).draw(0)
    states = {}
    run(jump, lambda y, t: y, x, None, lambda e: states.setdefault(e.node, e.state))
    torch.testing.assert_close(states[1], thin_gaussian.flow(PROCESS, 1.0, 0.4)(x), rtol=1e-13, atol=1e-13)


def test_more_steps_of_a_convergent_table_come_closer(full_gaussian):
    """Order 2 at the law itself, without sampling: a quarter of the error at half the step."""
    errors = [
        response(
            Exponential(Linearisation.data(), 2).compile(PROCESS, uniform_log_snr(PROCESS, n, 0.99, 0.01)), full_gaussian
        ).endpoint_error(1.0)
        for n in (40, 80, 160)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


def test_a_spectral_table_has_no_response_in_another_law(full_gaussian, thin_gaussian):
    program = Exponential(Linearisation.gaussian(thin_gaussian), 1).compile(PROCESS, (1.0, 0.0))
    with pytest.raises(ArgumentError, match="own law"):
        response(program, full_gaussian)
