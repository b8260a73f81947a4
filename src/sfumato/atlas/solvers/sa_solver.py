"""002: one noise level moves a solver from the probability flow to the reverse SDE and beyond, at one evaluation a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, within
from sfumato.atlas.solvers.pictures import LOOKS, weak_errors
from sfumato.atlas.solvers.worlds import PROCESS, grid, l1, order, start_variance, weak_error, weak_order
from sfumato.sample import Ancestral, Program, SASolver, Solver, ddim, strong_error
from sfumato.sample import Row as Line
from sfumato.sample.compilers.sa_solver import Band

_ODE, _SDE = Band(0.0), Band(1.0)
_FINE = 320


def _gap(one: Solver, other: Solver) -> float:
    tables = [solver.compile(PROCESS, grid(12)).dense() for solver in (one, other)]
    return max(float((a - b).abs().max()) for a, b in zip(*tables, strict=True))


def _changed(program: Program, change: Callable[[int, Line], Line]) -> Program:
    return replace(program, rows=tuple(change(i, row) for i, row in enumerate(program.rows)))


def _half_drift(_: int, row: Line) -> Line:
    """The answers without their factor `1 + tau^2 = 2`."""
    return replace(row, data={j: c / 2 for j, c in row.data.items()})


def _own_draw(i: int, row: Line) -> Line:
    """Every row, also a corrected one, with a draw of its own: that of its number."""
    return replace(row, noise=dict(zip([i], row.noise.values(), strict=False)))


def _deterministic() -> Iterator[Check]:
    for p, c in ((1, 0), (2, 0), (3, 0), (1, 2), (2, 3), (3, 4)):
        solver = SASolver(p, c, _ODE)
        slack = 0.15 if solver.order < 3 else 0.2
        yield close(f"order at tau = 0, predictor {p}, corrector {c}", order(solver), solver.order, absolute=slack)
    pair = SASolver(2, 3, _ODE)
    yield control(within("order 3 without the corrector", order(replace(pair, corrector=0)), 2.8, 3.2))
    yield at_most("distance of its table to DDIM's at tau = 0", _gap(SASolver(1, 0, _ODE), ddim()), 1e-12)
    yield at_most("distance of its table to the ancestral one at tau = 1", _gap(SASolver(1, 0, _SDE), Ancestral(1.0)), 1e-12)
    yield control(at_most("the same at tau = 0.9", _gap(SASolver(1, 0, Band(0.9)), Ancestral(1.0)), 1e-12))


def _weak() -> Iterator[Check]:
    for p, c, claimed in ((1, 0, 1), (2, 0, 2), (3, 4, 2)):
        yield close(f"weak order at tau = 1, predictor {p}, corrector {c}", weak_order(SASolver(p, c, _SDE)), claimed, absolute=0.15)
    yield close("weak order at tau = 1, predictor 3, no corrector", weak_order(SASolver(3, 0, _SDE), (160, 320)), 2, absolute=0.15)
    errors = {p: abs(weak_error(SASolver(p, c, _SDE).compile(PROCESS, grid(40)))) for p, c in ((1, 0), (2, 0), (3, 4))}
    yield close("error of the variance at 40 steps, predictor 1", errors[1], 0.13, relative=0.05)
    yield close("error of the variance at 40 steps, predictor 2", errors[2], 0.011, relative=0.05)
    yield at_least("the error of predictor 1 over that of 2", errors[1] / errors[2], 5)
    yield at_least("the error of predictor 2 over that of 3 with corrector 4", errors[2] / errors[3], 3)
    table = SASolver(2, 0, _SDE).compile(PROCESS, grid(80))
    yield control(
        at_most("error of the variance at 80 steps, drift without 1 + tau^2", abs(weak_error(_changed(table, _half_drift))), 5e-3)
    )
    table = SASolver(3, 4, _SDE).compile(PROCESS, grid(80))
    yield at_most("error of the variance at 80 steps, one draw for predictor and corrector", abs(weak_error(table)), 2e-3)
    yield control(at_most("the same with two draws", abs(weak_error(_changed(table, _own_draw))), 2e-3))


def _strong() -> Iterator[Check]:
    truth = SASolver(2, 0, _SDE).compile(PROCESS, grid(_FINE))

    def error(solver: Solver, steps: int) -> float:
        return strong_error(solver.compile(PROCESS, grid(_FINE)[:: _FINE // steps]), truth, l1(), start_variance())

    for p, c in ((1, 0), (2, 0), (3, 4)):
        coarse, fine = (error(SASolver(p, c, _SDE), n) for n in (20, 40))
        yield close(f"strong order at tau = 1, predictor {p}, corrector {c}", math.log2(coarse / fine), 1, absolute=0.2)


def _prediction() -> Iterator[Check]:
    def errors(tau: float) -> Mapping[str, float]:
        kinds = ("data", "noise")
        return {kind: abs(weak_error(SASolver(2, 0, Band(tau), kind).compile(PROCESS, grid(10)))) for kind in kinds}  # type: ignore[arg-type]

    calm, wild = errors(0.5), errors(2.0)
    yield at_most("error of the variance at 10 steps and tau = 2, data form", wild["data"], 0.5)
    yield control(at_most("the same, noise form", wild["noise"], 0.5))
    yield within("noise form over data form at tau = 0.5", calm["noise"] / calm["data"], 0.5, 2)


def figure(ax: Any) -> None:
    """Error of the samples' variance in 10 steps, from the flow (tau = 0) to more noise than the reverse SDE's (tau = 1): two answers a
    step in the form of data stay accurate, in the form of noise they do not.
    """
    levels = [i / 5 for i in range(8)]
    cases: dict[str, Callable[[float], Solver]] = {
        "order 2, data": lambda tau: SASolver(2, 0, Band(tau)),
        "order 2, noise": lambda tau: SASolver(2, 0, Band(tau), "noise"),
        "order 1": lambda tau: SASolver(1, 0, Band(tau)),
    }
    for i, (name, solver) in enumerate(cases.items()):
        found = [weak_errors(solver(tau), (10,))[0] for tau in levels]
        ax.semilogy(levels, found, LOOKS[i], color=f"C{i}", markersize=4, label=name)
    ax.set_xlabel("noise level tau")
    ax.set_ylabel("relative error of the variance")
    ax.legend()


ROW = Row(
    id="002",
    slug="sa-solver",
    title="SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models",
    authors="Shuchen Xue, Mingyang Yi, Weijian Luo, Shifeng Zhang, Jiacheng Sun, Zhenguo Li, Zhi-Ming Ma",
    year=2023,
    arxiv="2309.05019",
    claim="Adams predictors and correctors in data prediction solve the reverse SDE of any noise level at one evaluation a step, with the "
    "deterministic orders of multistep methods at tau = 0, and with error O(tau h + h^p): weak order 2 and strong order 1 at tau > 0.",
    reproduced="yes",
    checks=(_prediction, _deterministic, _weak, _strong),
    figure=figure,
)
