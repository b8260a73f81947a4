"""The order table: what every preset states and what is measured in small worlds whose answer is known to 12 digits.

Deterministic presets run on G4 (four round Gaussians in the plane, variance preserving, half log-SNR from -4 to 2 in equal steps): the
slope of the largest error over 64 paths against DOP853 at 1e-12. Stochastic ones are judged on L1 (one dimension, variance 0.3) without a
sample: the weak order is that of the output's variance, the strong one that of the distance to finer steps on the same Brownian path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from benchmarks.figure import Figure, Row
from sfumato.atlas.solvers.worlds import PROCESS, g4, grid, l1, start_variance, weak_error
from sfumato.metrics.rate import Rate, fit_rate
from sfumato.sample import PRESETS, Band, Program, SASolver, Solver, strong_error
from sfumato.sample.compilers.runge_kutta import RungeKutta
from sfumato.sample.compilers.singlestep import Fast, Singlestep
from sfumato.sample.judges.consistency import measured_order

STEPS = {1: (40, 57, 80), 2: (40, 57, 80), 3: (80, 113, 160), 4: (120, 170, 240)}
"""Numbers of steps at which an order shows; of evaluations for those that make several a step."""
STOCHASTIC, FINE = (40, 80, 160), 640


def within(order: int) -> float:
    """How far a measured order may be from the stated one."""
    return 0.15 if order < 3 else 0.2


def order(solver: Solver) -> Rate:
    """Of a deterministic solver on G4. `Fast` is given multiples of 3, so that its steps end alike."""
    steps = STEPS[solver.order]
    if isinstance(solver, Singlestep | RungeKutta):
        steps = [round(n / solver.order) for n in steps]
    return measured_order(lambda n: solver.compile(PROCESS, grid(n)), g4(), (60, 84, 120) if isinstance(solver, Fast) else steps)


def steady(solver: Solver) -> Solver:
    """A solver that keeps its noise over the whole way: an order is that of one rule, not of a rule and where it is switched."""
    return replace(solver, tau=Band(), finish="full") if isinstance(solver, SASolver) else solver


@cache
def _runs(solver: Solver) -> tuple[Program, ...]:
    """Nested runs of `STOCHASTIC` steps, and one of `FINE` steps that stands for the exact one."""
    times = grid(FINE)
    return tuple(steady(solver).compile(PROCESS, times[:: FINE // n]) for n in (*STOCHASTIC, FINE))


def weak_order(solver: Solver) -> Rate:
    """Of a stochastic solver on L1: the output's variance; exact."""
    return fit_rate([1 / n for n in STOCHASTIC], [abs(weak_error(run)) for run in _runs(solver)[:-1]])


def strong_order(solver: Solver) -> Rate:
    """Of a stochastic solver on L1: the root mean square distance to `FINE` steps on one Brownian path; exact."""
    *runs, fine = _runs(solver)
    return fit_rate([1 / n for n in STOCHASTIC], [strong_error(run, fine, l1(), start_variance()) for run in runs])


def measure(quick: bool = False) -> Figure:
    rows, facts = [], {}
    for solver in PRESETS.values():
        if quick and solver.order > 2:
            continue
        for row, rate in _rows(solver):
            rows.append(row)
            facts[row.name] = rate.to_dict()
    return Figure(rows, facts)


def _rows(solver: Solver) -> Iterator[tuple[Row, Rate]]:
    states = solver.order
    if solver.deterministic:
        rate = order(solver)
        yield Row(solver.name, rate.slope, f"{states} ± {within(states)}", abs(rate.slope - states) <= within(states), "G4"), rate
        return
    rate = weak_order(solver)
    about = "L1, more than stated: errors of the variance cancel" if rate.slope > states + within(states) else "L1"
    yield Row(f"{solver.name}: weak", rate.slope, f">= {states} - {within(states)}", rate.slope >= states - within(states), about), rate
    rate = strong_order(solver)
    name = f"{solver.name}: strong"
    yield Row(name, rate.slope, "1 ± 0.15", abs(rate.slope - 1) <= within(1), "L1; noise inside a step is not resolved"), rate
