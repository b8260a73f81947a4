"""Momentum: the papers' recursions written out, the plain solvers as a limit, orders, regions of stability in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.errors import ArgumentError
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.explain.sampling.stability import growth, predicted_boundary, real_boundary, stability
from sfumato.noise import VariancePreserving
from sfumato.sample import PRESETS, Momentum, dpm_solver, ipndm, run, uniform_log_snr, unipc
from sfumato.sample.judges.consistency import measured_order

PROCESS = VariancePreserving()
LAW = GaussianMixture(
    None, torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64), [SpectralCovariance.isotropic(2, v) for v in (0.25, 0.4)]
)
TIMES = uniform_log_snr(PROCESS, 9, 0.9, 0.02)
ADAMS = {1: (1,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def combination(steps, b):
    """GHVB's coefficients as printed, times 1/beta."""
    printed = {
        1: (b,),
        2: ((2 + b) / 2, -(2 - b) / 2),
        3: ((18 + 5 * b) / 12, -(24 - 8 * b) / 12, (6 - b) / 12),
        4: ((46 + 9 * b) / 24, -(78 - 19 * b) / 24, (42 - 5 * b) / 24, -(10 - b) / 24),
    }
    return [c / b for c in printed[steps]]


def written_out(kind, steps, beta, x):
    """The recursion with its velocity kept, in `v = x / alpha` over the ratio."""
    denoise = LAW.denoiser(PROCESS)
    t = torch.tensor(TIMES, dtype=torch.float64)
    alpha, ratio = PROCESS.alpha(t), PROCESS.ratio(t)
    v, noises, velocities = x / alpha[0], [], []
    for i in range(len(TIMES) - 1):
        noises.insert(0, denoise.noise(alpha[i] * v, TIMES[i]))
        if kind == "ghvb":
            old = velocities[0] if velocities else noises[0]
            velocities.insert(0, (1 - beta) * old + beta * noises[0])
            n = min(steps, len(velocities))
            u = sum(c * e for c, e in zip(combination(n, beta), velocities, strict=False))
        else:
            n = min(steps, len(noises))
            p = sum(c * g for c, g in zip(ADAMS[n], noises, strict=False))
            velocities.insert(0, (1 - beta) * (velocities[0] if velocities else noises[0]) + beta * p)
            u = velocities[0] if kind == "heavy-ball" else (1 - beta) * velocities[0] + beta * p
        v = v + (ratio[i + 1] - ratio[i]) * u
    return alpha[-1] * v


@pytest.mark.parametrize("kind", ["heavy-ball", "nesterov", "ghvb"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_tables_without_velocities_are_the_recursions_with_them(kind, steps):
    x = LAW.through(PROCESS, TIMES[0]).sample(5, 1)
    for beta in (0.2, 0.8):
        mine = run(Momentum(steps, beta, kind).compile(PROCESS, TIMES), LAW.denoiser(PROCESS).denoise, x)
        assert float((mine - written_out(kind, steps, beta, x)).abs().max()) < 1e-12


def test_dpm_solver_averages_its_bracket():
    """`m_0 + D/2` averaged, then multiplied by `alpha_t (1 - exp(-h))`."""
    denoise, beta = LAW.denoiser(PROCESS), 0.7
    x = LAW.through(PROCESS, TIMES[0]).sample(5, 1)
    t = torch.tensor(TIMES, dtype=torch.float64)
    alpha, sigma, lam = PROCESS.alpha(t), PROCESS.sigma(t), PROCESS.half_log_snr(t)
    state, answers, velocity = x, [], None
    for i in range(len(TIMES) - 1):
        answers.insert(0, denoise.denoise(state, TIMES[i]))
        h = lam[i + 1] - lam[i]
        bracket = answers[0]
        if i:
            bracket = bracket + h / (lam[i] - lam[i - 1]) / 2 * (answers[0] - answers[1])
        velocity = bracket if velocity is None else (1 - beta) * velocity + beta * bracket
        state = sigma[i + 1] / sigma[i] * state - alpha[i + 1] * torch.expm1(-h) * velocity
    mine = run(Momentum(2, beta, "heavy-ball", "data").compile(PROCESS, TIMES), denoise.denoise, x)
    assert float((mine - state).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["heavy-ball", "nesterov", "ghvb"])
def test_without_momentum_it_is_the_plain_solver_bit_for_bit(kind):
    for steps in (1, 2, 4):
        pair = [s.compile(PROCESS, (*TIMES, 0.0)).dense() for s in (Momentum(steps, 1.0, kind), ipndm(steps))]
        assert all(torch.equal(a, b) for a, b in zip(*pair, strict=True))


def test_without_momentum_it_is_dpm_solver_and_unipc():
    for steps in (2, 3):
        for corrector, plain in ((False, dpm_solver(steps)), (True, unipc(steps, final="full"))):
            pair = [s.compile(PROCESS, (*TIMES, 0.0)).dense() for s in (Momentum(steps, 1.0, "heavy-ball", "data", corrector), plain)]
            assert max(float((a - b).abs().max()) for a, b in zip(*pair, strict=True)) < 1e-14


@pytest.mark.parametrize(
    "solver",
    [Momentum(2, 0.8, "heavy-ball", "data"), Momentum(2, 0.8, "heavy-ball", "data", True), Momentum(2, 0.8, "nesterov"), Momentum(3, 0.5)],
    ids=lambda s: s.name,
)
def test_orders(solver):
    start, end = (float(PROCESS.time(v)) for v in (-4.0, 2.0))
    rate = measured_order(lambda n: solver.compile(PROCESS, uniform_log_snr(PROCESS, n, start, end)), LAW, (120, 170, 240), n=16)
    assert abs(rate.slope - solver.order) < 0.15


def test_one_answer_a_step_however_long_the_memory():
    """Momentum costs no history: two states and as many answers as without."""
    program = Momentum(2, 0.3).compile(PROCESS, uniform_log_snr(PROCESS, 40, 0.9, 0.02))
    assert program.evaluations == 40
    assert max(len(row.data) for row in program.rows) == 2
    assert max(len(row.states) for row in program.rows) == 2


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (Momentum(2, 0.5, "heavy-ball"), 3.0),
        (Momentum(4, 0.2, "heavy-ball"), 2.7),
        (Momentum(2, 0.2), 1.8),
        (Momentum(4, 0.8), 6 / 17),
        (Momentum(3, 0.5, "nesterov"), 9 / 11),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_the_boundary_of_stability_is_its_closed_form(solver, expected):
    assert math.isclose(predicted_boundary(solver), expected, rel_tol=1e-12)
    assert math.isclose(real_boundary(solver), expected, rel_tol=1e-3)


def test_growth_of_eulers_method_is_its_polynomial():
    z = torch.tensor([-0.3 + 0.4j, -1.9, 0.1j, -2.5 + 1j], dtype=torch.complex128)
    assert float((growth(ipndm(1), z) / (1 + z).abs() - 1).abs().max()) < 1e-9


def test_without_momentum_the_order_is_the_plain_solvers():
    assert [Momentum(n, 1.0, "ghvb").order for n in (1, 2, 3)] == [ipndm(n).order for n in (1, 2, 3)]
    assert Momentum(2, 1.0, "heavy-ball", "data", True).order == unipc(2, final="full").order == 3
    assert [Momentum(n, 0.9, "ghvb").order for n in (1, 2, 3)] == [1, 2, 2]


def test_published_damping():
    """The presets have the velocities and shares of Wizadwongsa et al. 2023 (arXiv 2307.11118): PLMS4 at 0.8, GHVB 1.8 and 3.1."""
    found = {(s.steps, s.beta, s.kind) for s in PRESETS.values() if isinstance(s, Momentum)}
    assert found == {(4, 0.8, "heavy-ball"), (2, 0.8, "ghvb"), (4, 0.1, "ghvb")}


def test_a_report_of_stability():
    found = stability(Momentum(2, 0.5, "heavy-ball"), 9)
    assert math.isclose(found.boundary / found.plain, 3, rel_tol=2e-3)
    assert "3 times as far" in found.meaning
    assert found.to_dict()["numbers"]["predicted"] == found.predicted
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    found.plot(ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [found.solver, "without momentum", "closed form on the axis"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Momentum(2, 0.0),
        lambda: Momentum(2, 1.5),
        lambda: Momentum(6, 0.5),
        lambda: Momentum(4, 0.5, "heavy-ball", "data"),
        lambda: Momentum(2, 0.5, "ghvb", "data"),
        lambda: Momentum(2, 0.5, "heavy-ball", "noise", True),
        lambda: Momentum(2, 0.5, "adam"),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises((ArgumentError, TypeCheckError)):
        make()
