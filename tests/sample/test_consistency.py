"""What every table must satisfy, whatever the solver, the process and the times.

Constants stay constants, and point masses are denoised exactly: both are exact identities of the tables, so the tolerance is rounding.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import (
    EDM,
    BetaTable,
    Cosine,
    FlowMatching,
    ScalarProcess,
    SubVariancePreserving,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
)
from sfumato.sample import Exponential, Linearisation, Program, Row, karras, response, run, uniform_log_snr, uniform_time
from sfumato.sample.compilers.ancestral import Ancestral
from sfumato.sample.compilers.multistep import unipc
from sfumato.sample.judges.consistency import consistency
from sfumato.sample.presets import PRESETS
from sfumato.sample.solver import Solver

PROCESSES = [
    VariancePreserving(),
    SubVariancePreserving(),
    Cosine(),
    VarianceExploding(),
    EDM(),
    FlowMatching(),
    FlowMatching(3.0),
    Trigonometric(),
    BetaTable.linear(),
]
SOLVERS = [*PRESETS.values(), Ancestral(0.5), Ancestral(0.3, 2), unipc(4, "bh1", final="full"), Exponential(Linearisation.data(), 6, True)]
LAW = Gaussian(
    torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64),
    SpectralCovariance.diagonal(torch.tensor([2.0, 0.3, 0.0], dtype=torch.float64)),
)
LOW_RANK = Gaussian(
    torch.ones(4, dtype=torch.float64), SpectralCovariance.low_rank(torch.eye(4, 2, dtype=torch.float64), torch.tensor([3.0, 0.5]), 0.01)
)


def asks_for_signal(solver: Solver) -> bool:
    """Noise prediction cannot start at `alpha = 0`: it says so, and is tested below."""
    return "noise" in str(getattr(solver, "prediction", "")) or solver.name.startswith(("deis", "ipndm"))


def schedule(process: ScalarProcess, kind: str, n: int) -> tuple[float, ...]:
    if kind == "uniform":
        return uniform_time(n)
    if kind == "karras":
        return karras(process, n)
    return uniform_log_snr(process, max(n, 2))


def rounding(program: Program) -> float:
    """1e-12, or what a sum of as many terms of the table's size loses: over huge steps large coefficients cancel."""
    largest = max(float(table.abs().max()) for table in program.dense()) * max(float(level.max()) for level in program.levels)
    return max(1e-12, 4e-16 * len(program.times) * largest)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SOLVERS), st.sampled_from(PROCESSES), st.sampled_from(["uniform", "log-snr", "karras"]), st.integers(1, 12))
def test_constants_and_point_masses_are_exact(solver, process, kind, n):
    """Finite tables whose data and noise defects are rounding, for all solvers, processes, schedules and numbers of steps from 1 on."""
    times = schedule(process, kind, n)
    if asks_for_signal(solver) and float(process.alpha(times[0])) == 0:
        with pytest.raises(ArgumentError, match="signal"):
            solver.compile(process, times)
        return
    program = solver.compile(process, times)
    assert program.times[0] == times[0]
    assert program.times[-1] == times[-1]
    defects = consistency(program)
    assert max(defects.data, defects.noise) < rounding(program)
    assert defects.law is None


@pytest.mark.parametrize("law", [LAW, LOW_RANK], ids=["spanned", "low-rank"])
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_gaussian_linearisation_is_exact_on_its_law(law, process, power):
    """In every mode, at any number of steps; the score's (`power = 1`) keeps constants besides, but for a teleport, which asks nothing."""
    for steps, corrector, teleport in ((1, False, False), (2, True, False), (3, True, True)):
        for n in (3, 8):
            program = Exponential(Linearisation.gaussian(law, power), steps, corrector, teleport).compile(process, karras(process, n))
            defects = consistency(program)
            assert defects.law < rounding(program)
            assert power < 1 or teleport or defects.data < rounding(program)


def test_other_powers_keep_constants_in_the_limit():
    """With `power = 1/2` constants are kept to the method's order, so the data defect falls: a convergence, not an identity."""
    process = VariancePreserving()
    split = Linearisation.gaussian(LAW)
    defects = [consistency(Exponential(split, 2).compile(process, uniform_log_snr(process, n, end=0.01))).data for n in (20, 40, 80)]
    assert defects[0] > 3 * defects[1] > 9 * defects[2]
    assert defects[2] > 1e-6


@pytest.mark.parametrize("part", ["states", "data"])
def test_a_broken_coefficient_is_seen(part):
    """Negative control: a change of 1e-9 in one coefficient is a defect of that size."""
    program = PRESETS["dpm-solver++-2m"].compile(VariancePreserving(), uniform_time(6))
    row = program.rows[4]
    coefficients = {j: c + 1e-9 for j, c in getattr(row, part).items()}
    rows = [*program.rows[:4], dataclasses.replace(row, **{part: coefficients}), *program.rows[5:]]
    defects = consistency(dataclasses.replace(program, rows=tuple(rows)))
    assert max(defects.data, defects.noise) > 1e-10


def test_the_defects_are_those_of_a_run():
    """The table's word against the runner's: a point mass, run from its exact marginal with a broken table, ends off by the defects."""
    process, point = VariancePreserving(), torch.tensor([[2.0]], dtype=torch.float64)
    program = PRESETS["ddim"].compile(process, uniform_time(4, end=0.1))
    row = program.rows[-1]
    broken = dataclasses.replace(program, rows=(*program.rows[:-1], Row({j: 1.1 * c for j, c in row.states.items()}, row.data)))
    eps = torch.tensor([[0.7]], dtype=torch.float64)
    alpha, sigma = (level.tolist() for level in program.levels)
    out = run(broken, lambda x, t: point.expand_as(x), alpha[0] * point + sigma[0] * eps)
    off = out - alpha[-1] * point - sigma[-1] * eps
    defects = consistency(broken)
    assert float(off) == pytest.approx(2.0 * defects.data + 0.7 * defects.noise, rel=1e-12)


def test_ddpm_draws_from_the_exact_posterior():
    """Row by row against Bayes' rule on `process.transition`: the law of `x_s` given `x_t` and `x_0 = D`."""
    for process in (VariancePreserving(), EDM(), FlowMatching(), Trigonometric()):
        times = (0.9, 0.55, 0.2, 0.03)
        program = Ancestral(1.0).compile(process, times)
        for i, (t, s) in enumerate(pairwise(times), start=1):
            step, alpha, sigma = process.transition(s, t), process.alpha(s), process.sigma(s)
            precision = 1 / sigma**2 + step.phi**2 / step.covariance
            row = program.rows[i]
            assert float(row.states[i - 1]) == pytest.approx(float(step.phi / step.covariance / precision), rel=1e-12)
            assert float(row.data[i - 1]) == pytest.approx(float(alpha / sigma**2 / precision), rel=1e-12)
            assert float(row.noise[i]) == pytest.approx(float(precision**-0.5), rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_one_ancestral_step_from_pure_noise_to_data_is_the_denoiser(eta):
    """Both limits at once: alpha = 0 above and sigma = 0 below."""
    program = Ancestral(eta).compile(FlowMatching(), (1.0, 0.0))
    row = program.rows[1]
    assert (dict(row.states), dict(row.noise)) == ({}, {})
    assert float(row.data[0]) == 1.0


@dataclasses.dataclass
class Drawn:
    """Draws of a whole batch at once, for batches too large to be made sample by sample."""

    n: int

    def draw(self, j: int) -> torch.Tensor:
        return torch.randn(self.n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(100 + j))


@pytest.mark.parametrize("steps", [1, 2])
def test_ancestral_samples_have_the_variance_of_the_table(steps):
    """A run with real draws meets what the table says exactly: 40000 samples of N(0, 0.3) in 20 steps, 4.5 standard errors of a variance,
    false alarms below 1e-5.
    """
    process, n = VariancePreserving(), 40000
    law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))
    program = Ancestral(1.0, steps).compile(process, uniform_log_snr(process, 20))
    x = run(program, law.denoiser(process).denoise, process.prior_sample(Drawn(n).draw(0)), Drawn(n))
    expected = float(response(program, law).variance(process.prior_std**2))
    assert abs(float(x.var()) / expected - 1) < 4.5 * (2 / n) ** 0.5


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_too_little_is_a_defect_as_too_much_is(factor):
    """All answers of the last row scaled: constants end off by a tenth of what the answers carry."""
    program = PRESETS["ddim"].compile(VariancePreserving(), uniform_time(4))
    row = program.rows[-1]
    scaled = Row(row.states, {j: factor * c for j, c in row.data.items()})
    carried = sum(float(c) for c in row.data.values())
    assert consistency(dataclasses.replace(program, rows=(*program.rows[:-1], scaled))).data == pytest.approx(0.1 * carried, rel=1e-9)
