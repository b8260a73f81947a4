r"""All that may sample in `n` evaluations: every deterministic preset on every spacing, our own integrators, and the fits.

`unfitted` makes tables from closed forms alone: presets and the Gaussian exponential integrators, from the beginning or from where a
teleport lands. `fitted` (in `fits.py`) makes tables from trajectories, `best` ranks both on starts that neither was made on; `shortlist`
finds the best of the unfitted ones without trying all. A solver that refuses a spacing is left out with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from sfumato.errors import ArgumentError
from sfumato.sample import PRESETS, Denoise, Exponential, Linearisation, Program, Solver, Teleported
from sfumato.tune.fits import FITS, Calibration, fitted
from sfumato.tune.proposals import Paths, Proposals, Ranked, best, gather
from sfumato.tune.spacing import SCHEDULES, Ground

__all__ = [
    "FITS",
    "SCHEDULES",
    "Calibration",
    "Grid",
    "Ground",
    "Paths",
    "Proposals",
    "Ranked",
    "best",
    "fitted",
    "grids",
    "shortlist",
    "solvers_for",
    "unfitted",
]

ENDS = (0.05, 0.1, 0.2)
"""Last ratios before no noise, in the law's scale."""

LANDINGS = (2.0, 4.0, 8.0)
"""Ratios at which a teleport lands, in the law's scale."""

_CHOOSES_ITS_END = ("time", "quadratic", "gits")
_PROBES = ("dpm-solver++-2m", "gaussian-2c")


class Grid(NamedTuple):
    """A spacing with its last ratio (None if it has its own) and where it starts (None for `t = 1`), in the law's scale."""

    schedule: str
    end: float | None = None
    start: float | None = None

    def __str__(self) -> str:
        end, start = (f" {word} {v:.3g}" if v is not None else "" for word, v in (("to", self.end), ("from", self.start)))
        return self.schedule + end + start


def grids(schedules: Sequence[str] = tuple(SCHEDULES), ends: Sequence[float] = ENDS, landings: Sequence[float] = LANDINGS) -> list[Grid]:
    """Every spacing with every end and start that it has."""
    out = []
    for name in schedules:
        for end in (None,) if name in _CHOOSES_ITS_END else tuple(ends):
            out += [Grid(name, end, start) for start in (None, *landings)]
    return out


def solvers_for(ground: Ground) -> dict[str, Solver]:
    """The presets that draw no noise on the way, since only these follow the flow, and the Gaussian exponential integrators."""
    ours = [
        Exponential(Linearisation.gaussian(ground.law), steps, corrector, label=f"gaussian-{steps}{'c' if corrector else ''}")
        for steps, corrector in ((1, False), (2, False), (1, True), (2, True), (3, True))
    ]
    return {solver.name: solver for solver in (*PRESETS.values(), *ours) if solver.deterministic}


def unfitted(ground: Ground, n: int, *, solvers: Mapping[str, Solver] | None = None, over: Sequence[Grid] | None = None) -> Proposals:
    """Programs of exactly `n` evaluations that no trajectory was needed for, from `t = 1` to `t = 0`.

    Arguments:
        ground: the process and the law.
        n: evaluations; solvers of several a step get fewer steps.
        solvers: by default all of `solvers_for`.
        over: by default all of `grids`; a grid that starts below `t = 1` is reached by a teleport.

    Raises:
        ArgumentError: no evaluations, or an unknown spacing.
    """
    over = grids() if over is None else over
    if n < 1 or not {grid.schedule for grid in over} <= set(SCHEDULES):
        given = (n, sorted({grid.schedule for grid in over}))
        raise ArgumentError("n, over", given, f"at least 1 evaluation, and spacings among {', '.join(SCHEDULES)}")
    solvers = solvers_for(ground) if solvers is None else solvers
    makers: list[tuple[str, Callable[[], Program]]] = []
    for grid in over:
        times = _Remembered(ground, grid)
        for solver in solvers.values():
            name = solver.name if grid.start is None else f"{solver.name}-teleported"
            makers.append((f"{name} · {grid}", partial(_exactly, times, solver, n)))
    programs, skipped = gather(makers)
    return Proposals(tuple(programs), skipped)


class _Remembered:
    """The times of a grid by number of steps, computed once."""

    def __init__(self, ground: Ground, grid: Grid) -> None:
        self.ground, self.grid, self.known = ground, grid, dict[int, tuple[float, ...]]()

    def __call__(self, steps: int) -> tuple[float, ...]:
        if steps not in self.known:
            self.known[steps] = SCHEDULES[self.grid.schedule](self.ground, steps, self.grid.start, self.grid.end)
        return self.known[steps]


def _exactly(times: _Remembered, solver: Solver, n: int) -> Program:
    """The solver with as many steps as make `n` evaluations.

    Raises:
        ArgumentError: no number of steps does, or the solver refuses.
    """
    ground, counts = times.ground, dict[int, int]()
    for steps in _guesses(ground, solver, n):
        if times.grid.start is None:
            program = solver.compile(ground.process, times(steps))
        else:
            program = Teleported(solver, ground.law, skip=1, warm=False).compile(ground.process, (1.0, *times(steps)))
        if program.evaluations == n:
            return program
        counts[steps] = program.evaluations
    raise ArgumentError("n", n, f"evaluations that {solver.name} can make from here, e.g. {', '.join(map(str, counts.values()))}")


def _guesses(ground: Ground, solver: Solver, n: int) -> list[int]:
    """Numbers of steps that may make `n` evaluations: most solvers make as many in every step but the first and the last."""
    if solver.name not in ground.steps:
        one, two = (solver.compile(ground.process, SCHEDULES["quadratic"](ground, s, 1.0, None)).evaluations for s in (1, 2))
        ground.steps[solver.name] = (one, two - one)
    first, more = ground.steps[solver.name]
    steps, rest = divmod(n - first, more) if more else (-1, 0)
    # a solver that plans its steps by their number makes one evaluation a time
    return list(dict.fromkeys([steps + 1 + bool(rest), n] if steps >= 0 else [n]))


def shortlist(
    ground: Ground, n: int, denoise: Denoise, judge: Paths, landing: float, most: int, advance: Callable[[int], None] | None = None
) -> tuple[list[Ranked], dict[str, str]]:
    """The best unfitted programs, found in two rounds: two solvers on every grid, then every solver on the best of these.

    Arguments:
        ground: the process and the law.
        n: evaluations.
        denoise, judge: a world's denoiser and flow, where measuring costs no network call.
        landing: the ratio at which teleports land.
        most: how many programs are measured, in both rounds together.
        advance: called with 1 after every program.

    Returns:
        The ranking of all that was measured, and the reasons of what was not.
    """
    solvers, ranked, skipped, score = solvers_for(ground), list[Ranked](), dict[str, str](), dict[Grid, float]()

    def measured(grid: Grid, names: Sequence[str]) -> None:
        made = unfitted(ground, n, solvers={name: solvers[name] for name in names}, over=[grid])
        kept = Proposals(made.programs[: most - len(ranked)])
        skipped.update(made.skipped | {p.name: f"more than the {most} programs to be measured" for p in made.programs[len(kept) :]})
        found = best(kept, denoise, judge, advance)
        ranked.extend(found)
        score[grid] = min([score.get(grid, float("inf")), *(r.error.value for r in found)])

    # a teleport is rarely the worse start: should the number run out, it runs out on the others
    for grid in sorted(grids(ends=(0.5 / n, 1 / n), landings=[landing / ground.scale]), key=lambda g: g.start is None):
        measured(grid, _PROBES)
    for grid in sorted(score, key=lambda g: score[g]):
        if len(ranked) == most:
            break
        measured(grid, [name for name in solvers if name not in _PROBES])
    return sorted(ranked, key=lambda r: r.error.value), skipped
