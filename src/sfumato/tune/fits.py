r"""The fits of `sample/` behind one interface: trajectories in, a table of `n` evaluations out.

| name | what is fitted | by |
|---|---|---|
| least squares | every mode's row over all past answers, and the nodes | `fit_program`, `tune.search` |
| integration | a few scalars a step, to fine steps of the same solver (IIA) | `improved_integration` |
| distilled | one scalar a step, to the flow's states (D-ODE) | `distil` |
| statistics | the linear part of the belief, measured (DPM-Solver-v3) | `dpm_solver_v3` |
| search | every step's decisions and nodes (S3) | `search_solver` |
| bespoke | a warp of time and scale under Runge-Kutta | `fit_bespoke` |

All but the first and the last start where a teleport lands: their starts are carried there by the closed form, so that they learn to
undo what it missed, and no evaluation is spent above. Where a fit leaves something to choose, it chooses on a part of the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType

import numpy as np
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.metrics import endpoint_error
from sfumato.sample import (
    BespokeSettings,
    Program,
    Starts,
    Statistics,
    Trajectory,
    ddim,
    distil,
    dpm_solver,
    dpm_solver_v3,
    fit_bespoke,
    improved_integration,
    measure_statistics,
    run,
    teleport,
)
from sfumato.tune.proposals import Paths, Proposals, gather
from sfumato.tune.search import Bench, first_guesses, search
from sfumato.tune.solver_search import search_solver
from sfumato.tune.spacing import Ground
from sfumato.tune.teleport import predict_teleport

_HELD = 0.2
"""The share of the calibration that fits choose on."""
_BOTTOMS = (0.1, 0.2, 0.4)
_LEAST = 1e-3
"""Where programs end that cannot step to no noise, as a ratio in the law's scale."""
_TOLERANCE = 0.01
_PARTS = 3
_LEVELS, _PROBES, _PROBED = 24, 4, 128


@dataclass(frozen=True)
class Calibration:
    """What tables are fitted to.

    Arguments:
        denoiser: whose tables they are.
        paths: trajectories of its flow over a fine grid from `t = 1` to `t = 0`, and their draws.
        ground: the process and the law.
        landing: the ratio to which the closed form carries a sample; by default the lowest that costs 0.01 of its size.
        trials: tables that a search may try.
        seed: of a search's choices.
    """

    denoiser: Denoiser
    paths: Paths
    ground: Ground
    landing: float | None = None
    trials: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        times = self.paths.trajectory.times
        if times[0] != 1 or times[-1] != 0 or len(self.paths) < 16 or len(times) < 9:
            raise ArgumentError("paths", f"{len(self.paths)} from {times[0]:g} to {times[-1]:g}", "at least 16 fine paths from 1 to 0")

    @cached_property
    def bench(self) -> Bench:
        """The calibration in two parts, to fit to and to choose on."""
        cut = math.ceil(len(self.paths) * (1 - _HELD))
        path = self.paths.trajectory
        return Bench(self.denoiser.denoise, path[:cut], path[cut:], self.ground.law)

    @cached_property
    def top(self) -> float:
        """The ratio at which teleports land."""
        return predict_teleport(self.paths.trajectory, self.ground.law, _TOLERANCE).ratio if self.landing is None else self.landing

    @cached_property
    def statistics(self) -> Statistics:
        """The denoiser's, one for all directions and without drift: about the law's mean there is little."""
        law, ends = self.ground.law, self.paths.trajectory.end[:_PROBED]
        low, high = -math.log(self.top * 1.6), -math.log(_LEAST * self.ground.scale * 0.99)
        found = measure_statistics(self.denoiser, ends, np.linspace(low, high, _LEVELS).tolist(), self.seed, probes=_PROBES)
        jacobian, slope = (v.expand(-1, len(law.covariance.spectrum)) for v in (found.jacobian, found.slope))
        return replace(found, jacobian=jacobian, slope=slope, drift=torch.zeros_like(slope), space=law)

    def grids(self, n: int) -> Iterator[tuple[float, ...]]:
        """`n` places of the paths, equal in log-SNR from a landing, and the end."""
        times, bottoms = self.bench.fit.times, [self.ground.scale * b for b in _BOTTOMS[:2]]
        for nodes in first_guesses(self.bench.fit, n, [self.top], bottoms):
            yield (*(times[i] for i in nodes), 0.0)

    def carried(self, path: Trajectory, times: Sequence[float]) -> Trajectory:
        """The flow's states at the given times, but for the first: that is where the closed form lands."""
        here = self.ground.law.flow(path.process, path.times[0], times[0])(path.states[0])
        known = dict(zip(path.times, path.states, strict=True))
        return Trajectory(path.process, tuple(times), (here, *(known[t] for t in times[1:])))

    def landed(self, program: Program) -> Program:
        """A program from a landing, with the closed form before it."""
        return teleport(program, self.ground.law, program.times[0], start=1.0)

    def error(self, program: Program) -> float:
        """On the part to choose on; infinite if the end is not finite."""
        judge = self.bench.judge
        with torch.no_grad():
            value = endpoint_error(run(program, self.denoiser.denoise, judge.states[0]), judge.end).value
        return value if math.isfinite(value) else math.inf

    def best(self, makers: Sequence[Callable[[], Program]]) -> Program:
        """The best of what can be made.

        Raises:
            ArgumentError: nothing can.
        """
        made, skipped = gather((str(i), make) for i, make in enumerate(makers))
        if not made:
            raise ArgumentError("fit", "no table", "one that the solver does not refuse", next(iter(skipped.values()), "No spacing fits."))
        return min(made, key=self.error)


Fit = Callable[[Calibration, int], Program]
"""`(calibration, evaluations) -> table`; raises ArgumentError for what it cannot make."""


def _least_squares(calibration: Calibration, n: int) -> Program:
    bench, scale = calibration.bench, calibration.ground.scale
    guesses = first_guesses(bench.fit, n, [calibration.top * f for f in (0.7, 1.0, 1.5)], [scale * b for b in _BOTTOMS])
    found = search(bench, guesses, calibration.trials)
    return min(found, bench.best_ridge(found.nodes), key=lambda f: f.error).program


def _starts(calibration: Calibration, times: Sequence[float]) -> tuple[Starts, Trajectory]:
    path = calibration.carried(calibration.bench.fit, times)
    return Starts(path.process, times[0], path.states[0], calibration.paths.keys), path


def _integration(calibration: Calibration, n: int) -> Program:
    denoise = calibration.denoiser.denoise

    def made(times: tuple[float, ...], steps: bool) -> Program:
        starts, _ = _starts(calibration, times)
        solver = dpm_solver(2) if steps else ddim()
        fit = improved_integration(denoise, solver, starts, times, "steps" if steps else "answers", history=1 if steps else 2, parts=_PARTS)
        return calibration.landed(fit.program)

    return calibration.best([partial(made, times, steps) for times in calibration.grids(n) for steps in (False, True)])


def _distilled(calibration: Calibration, n: int) -> Program:
    denoise = calibration.denoiser.denoise

    def made(times: tuple[float, ...], multistep: bool) -> Program:
        starts, path = _starts(calibration, times)
        if multistep:
            return calibration.landed(distil(denoise, dpm_solver(2), starts, times, change="directions", teacher=path).program)
        return calibration.landed(distil(denoise, ddim(), starts, times, change="evaluations", teacher=path).program)

    return calibration.best([partial(made, times, multistep) for times in calibration.grids(n) for multistep in (False, True)])


def _statistics(calibration: Calibration, n: int) -> Program:
    process, scale, statistics = calibration.ground.process, calibration.ground.scale, calibration.statistics
    last = float(process.time_of_ratio(_LEAST * scale))

    def made(times: tuple[float, ...], order: int, corrector: bool) -> Program:
        solver = dpm_solver_v3(statistics, order, corrector=corrector)
        return calibration.landed(solver.compile(process, (*times[:-1], last)))

    kinds = [(1, True), (2, True), (2, False)]
    return calibration.best([partial(made, times, order, fix) for times in calibration.grids(n) for order, fix in kinds])


def _search(calibration: Calibration, n: int) -> Program:
    process, scale = calibration.ground.process, calibration.ground.scale
    ends = (-math.log(calibration.top), -math.log(_BOTTOMS[0] * scale))

    def score(program: Program) -> float:
        # a plan whose first answer is 0 makes no constant of a constant, and cannot follow a jump
        landed, _ = gather([(program.name, lambda: calibration.landed(program))])
        return calibration.error(landed[0]) if landed else math.inf

    found = search_solver(score, process, ends, n, max(40, calibration.trials), clean=True, seed=calibration.seed)
    return calibration.landed(found.plan.compile(process))


def _bespoke(calibration: Calibration, n: int) -> Program:
    stages = 1 if n % 2 else 2
    path = calibration.bench.fit
    starts = Starts(path.process, 1.0, path.states[0], calibration.paths.keys)
    with torch.enable_grad():
        return fit_bespoke(calibration.denoiser, starts, path, n // stages, stages, settings=BespokeSettings(iterations=150))[0].program


FITS: Mapping[str, Fit] = MappingProxyType(
    {
        "least squares": _least_squares,
        "integration": _integration,
        "distilled": _distilled,
        "statistics": _statistics,
        "search": _search,
        "bespoke": _bespoke,
    }
)
"""Name to fit, see the module."""

_NO_TABLE = {"boundary conditions": "A shared start (sample.select_start) is chosen for reconstructions: it is no table for a given start."}


def fitted(
    calibration: Calibration, n: int, *, methods: Sequence[str] = tuple(FITS), advance: Callable[[int], None] | None = None
) -> Proposals:
    """Tables of `n` evaluations, one a method, with the draws they must not be judged on.

    Arguments:
        calibration: what to fit to.
        n: evaluations.
        methods: names of `FITS`.
        advance: called with 1 after every method.

    Raises:
        ArgumentError: no evaluations, or an unknown method.
    """
    if n < 1 or not set(methods) <= set(FITS):
        raise ArgumentError("n, methods", (n, list(methods)), f"at least 1 evaluation, and names of {', '.join(FITS)}")

    def made(name: str) -> Program:
        try:
            program = FITS[name](calibration, n)
        finally:
            if advance is not None:
                advance(1)
        if program.evaluations != n:
            raise ArgumentError("n", n, f"a budget that the fit can spend: it makes {program.evaluations}")
        return program

    programs, skipped = gather((f"fitted · {name}", partial(made, name)) for name in methods)
    return Proposals(tuple(programs), skipped | _NO_TABLE, calibration.paths.keys)
