"""The step of greatest likelihood: exact laws at any step size, its place among all steps, its published parameters, and refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample import Ancestral, MaximumLikelihood, Program, Row, Sampler, ddim, karras, response, uniform_log_snr, uniform_time
from sfumato.sample.compilers.maximum_likelihood import gaussian_spread, path_log_likelihood, published_parameters, score_spread
from sfumato.sample.steps.anchor import Anchored
from sfumato.sample.steps.reverse_sde import ReverseSDE

PROCESS = VariancePreserving()
LINE = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))
START, END = (float(PROCESS.time(v)) for v in (-4.0, 2.0))
SPREAD = gaussian_spread(LINE)
ROUND = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.isotropic(3, 0.7))


def weak(solver, times, process=PROCESS) -> float:
    out = response(solver.compile(process, times), LINE)
    return abs(float(out.variance(LINE.through(process, times[0]).covariance.rest) / out.target) - 1)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16])
def test_the_variance_is_exact_at_any_step(steps):
    """With the spread, to rounding; without it, and by Euler-Maruyama, far off."""
    times = uniform_time(steps, START, END)
    assert weak(MaximumLikelihood(SPREAD), times) < 1e-12
    assert weak(MaximumLikelihood(), times) > 0.3
    assert steps == 16 or weak(ReverseSDE(), times) > 0.3


@pytest.mark.parametrize("process", [PROCESS, EDM(), FlowMatching()], ids=lambda p: p.kind)
def test_the_variance_is_exact_down_to_clean(process):
    """Under any scalar process, from no signal (flow matching) to no noise, where the last answer's spread is put back."""
    times = karras(process, 5)
    start = LINE.through(process, times[0]).covariance.rest
    out = response(MaximumLikelihood(SPREAD).compile(process, times), LINE)
    assert float(out.variance(start) / 0.3) == pytest.approx(1, abs=1e-12)
    without = MaximumLikelihood().compile(process, times)
    assert not without.rows[-1].noise


def test_without_the_spread_it_is_ancestral():
    times = uniform_log_snr(PROCESS, 7)
    tables = [s.compile(PROCESS, times).dense() for s in (MaximumLikelihood(), Ancestral(1.0))]
    assert max(float((a - b).abs().max()) for a, b in zip(*tables, strict=True)) < 1e-14


def test_published_parameters_give_the_same_step():
    """`x + beta h ((1/2 + w) x + (1 + k) s)` with their `k` and `w`; both vanish with the step, which is Euler-Maruyama's then."""
    t, s = 0.6, 0.45
    k, w = published_parameters(PROCESS, t, s)
    rate, (alpha, sigma) = float(PROCESS.diffusion_squared(t)) * (t - s), (float(v) for v in PROCESS.levels(t))
    row = MaximumLikelihood().compile(PROCESS, (t, s)).rows[1]
    assert float(row.states[0]) == pytest.approx(1 + rate * (0.5 + w) - rate * (1 + k) / sigma**2, abs=1e-13)
    assert float(row.data[0]) == pytest.approx(rate * (1 + k) * alpha / sigma**2, abs=1e-13)
    assert max(abs(v) for v in published_parameters(PROCESS, t, t - 1e-5)) < 1e-4


def scaled(program: Program, part: str, factor: float) -> Program:
    rows = [Row(), *(replace(row, **{part: {j: c * factor for j, c in getattr(row, part).items()}}) for row in program.rows[1:])]
    return replace(program, rows=tuple(rows))


@pytest.mark.parametrize("part", ["states", "data", "noise"])
@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_no_step_is_likelier(part, factor):
    """Any of the three coefficients 5 percent aside costs likelihood."""
    best = MaximumLikelihood(SPREAD).compile(PROCESS, uniform_time(6, START, END))
    assert path_log_likelihood(best, SPREAD, 0.3) > path_log_likelihood(scaled(best, part, factor), SPREAD, 0.3) + 1e-4


def test_the_likelihood_is_that_of_drawn_paths():
    """Against pairs of the forward process: two steps, four hundred thousand draws, within four standard errors."""
    times, n = (0.6, 0.4, 0.2), 400_000
    program = ReverseSDE().compile(PROCESS, times)
    draw = torch.Generator().manual_seed(3)
    x = math.sqrt(0.3) * torch.randn(n, generator=draw, dtype=torch.float64)
    path = {0.0: x}
    for before, after in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6)):
        move = PROCESS.transition(before, after)
        path[after] = float(move.phi) * path[before] + math.sqrt(float(move.covariance)) * torch.randn(
            n, generator=draw, dtype=torch.float64
        )
    total = torch.zeros(n, dtype=torch.float64)
    for i, row in enumerate(program.rows[1:], start=1):
        old, new, c = path[times[i - 1]], path[times[i]], float(row.noise[i])
        answer = LINE.denoiser(PROCESS).denoise(old[:, None], times[i - 1])[:, 0]
        away = new - float(row.states[i - 1]) * old - float(row.data[i - 1]) * answer
        total += -0.5 * math.log(2 * math.pi * c**2) - away**2 / (2 * c**2)
    assert abs(float(total.mean()) - path_log_likelihood(program, SPREAD, 0.3)) < 4 * float(total.std()) / math.sqrt(n)


def test_spread_of_a_score():
    """From predicted noise alone, against the closed form, within what 20000 samples in 3 dimensions scatter."""
    got, exact = score_spread(ROUND.denoiser(EDM()), ROUND.sample(20_000, 1)), gaussian_spread(ROUND)
    for k in (0.2, 1.0, 3.0):
        assert got(k) == pytest.approx(exact(k), rel=0.06)
    assert exact(math.inf) == pytest.approx(0.7)


def test_an_anchor_is_a_shift_of_the_law():
    """Differences to the anchor have the belief of the law moved; samples from around the anchor have the law's moments."""
    anchor, law = torch.tensor([[2.0]], dtype=torch.float64), Gaussian(torch.tensor([0.5]).double(), LINE.covariance)
    moved, x = Gaussian(torch.tensor([-1.5]).double(), LINE.covariance), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    belief = Anchored(law.denoiser(PROCESS))
    for t in (0.0, 0.3, 1.0):
        assert float((belief.denoise(x, t, anchor.expand(5, 1)) - moved.denoiser(PROCESS).denoise(x, t)).abs().max()) < 1e-12
    program = MaximumLikelihood(SPREAD).compile(PROCESS, uniform_time(5))
    out = Sampler(belief, program, (1,), torch.float64).sample(4000, 2, condition=anchor.expand(4000, 1)) + 2.0
    # four standard errors of 4000 draws
    assert float(out.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(0.3 / 4000))
    assert float(out.var()) == pytest.approx(0.3, rel=4 * math.sqrt(2 / 4000))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Anchored(LINE.denoiser(PROCESS)).denoise(torch.zeros(2, 1, dtype=torch.float64), 0.5),
        lambda: Anchored(LINE.denoiser(PROCESS)).denoise(torch.zeros(2, 1, dtype=torch.float64), 0.5, torch.zeros(1, 1)),
    ],
)
def test_anchors_are_one_per_sample(make):
    with pytest.raises(ArgumentError, match="anchors"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaximumLikelihood(lambda k: -1.0).compile(PROCESS, uniform_time(4)),
        lambda: MaximumLikelihood(lambda k: math.inf).compile(PROCESS, uniform_time(4)),
        lambda: published_parameters(PROCESS, 0.3, 0.5),
        lambda: published_parameters(FlowMatching(), 0.5, 0.3),
        lambda: path_log_likelihood(ddim().compile(PROCESS, uniform_time(4)), SPREAD, 0.3),
        lambda: path_log_likelihood(Ancestral(1.0, 2).compile(PROCESS, uniform_time(4, END)), SPREAD, 0.3),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises((ArgumentError, TypeCheckError)):
        make()


@pytest.mark.parametrize("value", [-1e-9, math.inf, math.nan])
def test_a_spread_that_is_no_mean_squared_error_is_named(value):
    """With the ratio at which it was asked."""
    with pytest.raises(ArgumentError, match="spread") as told:
        MaximumLikelihood(lambda k: value).compile(VariancePreserving(), (0.9, 0.5))
    assert f"at the ratio {float(VariancePreserving().ratio(0.9)):.6g}" in str(told.value)
