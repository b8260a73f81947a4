"""Figure 12: the least error that a number of evaluations buys, for every published solver, `diffusers`' settings and fitted tables.

The flow: distance of samples from the end of the exact flow through the same starts, relative to their root mean square. Every solver may
take the spacing that suits it best, and every setting of `diffusers` its grid; both are chosen on starts of one seed, tables are fitted on
starts of another, and what is told is measured on a third. The law, for solvers that draw noise: `benchmarks.frontier_law`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.figure import Figure, Row, at_most
from benchmarks.frontier_law import BESIDE, measure_law
from benchmarks.world import FLOOR, world
from sfumato.atlas.solvers.worlds import g4
from sfumato.data import digits, patches
from sfumato.denoiser import Denoiser
from sfumato.exact import GaussianMixture, fit_gaussian, fit_mixture
from sfumato.integrations.diffusers_peers import PEERS, Peer, run_peer
from sfumato.learn import default_denoiser, default_loss, default_settings, fit
from sfumato.metrics import Estimate, endpoint_error
from sfumato.noise import BetaTable
from sfumato.sample import PRESETS, Program, Starts, reference, reference_times
from sfumato.tune.candidates import FITS, Calibration, Grid, Ground, Paths, Proposals, best, fitted, solvers_for, unfitted

BUDGETS = (4, 5, 6, 8, 10, 12, 15, 20, 25, 30)
TARGETS = (5, 8)
LIMIT = 0.8
_FIT_SEED, _CHOOSE_SEED, _MEASURE_SEED = 11, 12, 13
GRIDS = (
    Grid("log-snr", 0.05),
    Grid("log-snr", 0.15),
    Grid("edm", 0.03),
    Grid("ays", 0.1),
    *map(Grid, ("time", "quadratic", "gits")),
)
"""What published solvers choose from."""
_TELEPORTS = tuple(
    Grid("log-snr", end, start) for start, ends in ((3.0, (0.15,)), (6.0, (0.02, 0.05, 0.15)), (16.0, (0.02, 0.05))) for end in ends
)
_TELEPORTED = ("dpm-solver++-2m", "deis-3", "unipc-2-bh2")


@dataclass(frozen=True)
class Size:
    """Budgets, how many starts to fit to, to choose on and to measure on, evaluations of the truth, tables that a search may try, which
    fits are made for budgets with a target and without, and how many samples a law is judged by.
    """

    budgets: tuple[int, ...] = BUDGETS
    fit: int = 256
    choose: int = 32
    measure: int = 256
    truth: int = 400
    trials: int = 24
    methods: tuple[str, ...] = tuple(FITS)
    everywhere: tuple[str, ...] = ("least squares",)
    samples: int = 2048


QUICK = Size((5, 8), 64, 16, 64, 200, 12, ("least squares", "statistics", "distilled"), samples=512)


@dataclass(frozen=True)
class Place:
    """Where solvers are compared: a denoiser, what spacings may know of its data, and its law where that is known."""

    name: str
    denoiser: Denoiser
    ground: Ground
    law: GaussianMixture | None = None

    def paths(self, n: int, seed: int, steps: int) -> Paths:
        """`n` starts and their flow."""
        process, law = self.ground.process, self.ground.law
        dtype = torch.float32 if self.law is None else torch.float64
        starts = Starts.prior(process, law.event_shape, n, seed, dtype=dtype)
        # the exact worlds' truth ends below any solver's last step; a network is not asked there
        times = reference_times(process, steps, 2e-3 if self.law is None else 1e-4)
        return Paths(reference(self.denoiser.denoise, starts.states, process, law, times), starts.keys)


def measure(quick: bool = False) -> Figure:
    size = QUICK if quick else Size()
    rows: list[Row] = []
    facts: dict[str, Any] = {"budgets": list(size.budgets), "worlds": {}}
    for place in places(quick):
        found = measure_flow(place, size)
        rows += _rows(place.name, found)
        if place.law is not None:
            found["law"] = measure_law(place.law, place.ground, GRIDS, size.budgets, size.samples)
            rows += _law_rows(place.name, found["law"])
        facts["worlds"][place.name] = found
    return Figure(rows, facts)


def places(quick: bool) -> Iterator[Place]:
    """Three exact mixtures, and a denoiser trained on the digits; the quick ones are two of the exact ones."""
    table = BetaTable.linear()

    def exact(name: str, law: GaussianMixture) -> Place:
        return Place(name, law.denoiser(table), Ground(table, law.gaussian(), law), law)

    yield exact("g4", g4())
    yield exact("digits", world("digits").law)
    if not quick:
        colours = patches(4).batches(1024)
        yield exact("patches", fit_mixture(colours, 10, floor=FLOOR, seed=0))
        data = digits()
        model = default_denoiser(data)
        fit(model, data, default_settings(data), default_loss(data))
        yield Place("network", model, Ground(model.process, fit_gaussian(data.batches(1024)), world("digits").law))


def measure_flow(place: Place, size: Size) -> dict[str, Any]:
    """Errors by family, solver and budget, each with its standard error and its choice, and the truth's own."""
    held, judge = place.paths(size.measure, _MEASURE_SEED, size.truth), place.paths(size.choose, _CHOOSE_SEED, size.truth)
    half = place.paths(size.measure, _MEASURE_SEED, size.truth // 2)
    calibration = Calibration(place.denoiser, place.paths(size.fit, _FIT_SEED, 120), place.ground, trials=size.trials)
    out: dict[str, Any] = {"self_error": endpoint_error(half.trajectory.end, held.trajectory.end).value}
    chosen = partial(_chosen, denoiser=place.denoiser, judge=judge, held=held)
    for n in size.budgets:
        methods = size.methods if n in TARGETS else size.everywhere
        families = {
            "published": _published(place.ground, n),
            "ours": _ours(place.ground, n),
            "fitted": fitted(calibration, n, methods=methods),
        }
        budget: dict[str, Any] = {name: chosen(proposals) for name, proposals in families.items()}
        budget["diffusers"] = _peers(place.denoiser, judge, held, n)
        out[str(n)] = budget
    return out


def _published(ground: Ground, n: int) -> Proposals:
    """Every preset that follows the flow, with as many of the evaluations as it can use."""
    left = {name: solver for name, solver in PRESETS.items() if solver.deterministic}
    found: list[Program] = []
    for spent in range(n, max(n - 4, 0), -1):
        made = unfitted(ground, spent, solvers=left, over=GRIDS).programs
        found += made
        left = {name: solver for name, solver in left.items() if name not in map(_solver, (p.name for p in made))}
    return Proposals(tuple(found))


def _ours(ground: Ground, n: int) -> Proposals:
    """Programs from closed forms: a teleport, and the Gaussian exponential integrators or a published solver after it."""
    solvers = {name: s for name, s in solvers_for(ground).items() if name in _TELEPORTED or name not in PRESETS}
    return unfitted(ground, n, solvers=solvers, over=_TELEPORTS)


def _chosen(proposals: Proposals, denoiser: Denoiser, judge: Paths, held: Paths) -> dict[str, Any]:
    """The best program of every solver on the starts to choose on, measured on those held out; the best solver first."""
    first: dict[str, Program] = {}
    for program, _ in best(proposals, denoiser.denoise, judge):
        first.setdefault(_solver(program.name), program)
    measured = {r.program.name: r for r in best(Proposals(tuple(first.values())), denoiser.denoise, held)}
    return {solver: _told(measured[p.name].error, p.evaluations, p.name) for solver, p in first.items()}


def _solver(name: str) -> str:
    return name if name.startswith("fitted") else name.split(" · ")[0]


def _told(error: Estimate, evaluations: int, choice: str) -> dict[str, Any]:
    return {"error": error.value, "standard_error": error.standard_error, "evaluations": evaluations, "choice": choice}


def _peers(denoiser: Denoiser, judge: Paths, held: Paths, n: int) -> dict[str, Any]:
    """The same for `diffusers`: the best grid of every scheduler."""

    def error(peer: Peer, paths: Paths) -> Estimate:
        unit = paths.trajectory.states[0] / denoiser.process.prior_std
        return endpoint_error(run_peer(peer, denoiser, n, unit), paths.trajectory.end)

    ranked = sorted((p for p in PEERS if n >= 2 * p.per_step + p.extra), key=lambda p: error(p, judge).value)
    first: dict[str, Peer] = {}
    for peer in ranked:
        first.setdefault(peer.name.split("-")[0], peer)
    return {family: _told(error(peer, held), peer.evaluations(n), peer.name) for family, peer in first.items()}


def _rows(name: str, found: Mapping[str, Any]) -> list[Row]:
    """A row a budget, and the target rows: the first of each family is the one chosen on other starts."""
    budgets = {int(n): families for n, families in found.items() if n.isdigit()}
    rows = [Row(f"{name}: the truth's distance to itself at half the evaluations", found["self_error"], "< the errors below")]
    for n, families in budgets.items():
        tops = {family: next(iter(of.values())) for family, of in families.items()}
        details = ", ".join(f"{family} {top['error']:.2g} ({top['choice']})" for family, top in tops.items())
        rows.append(Row(f"{name}, {n} evaluations: error of the best fitted table", tops["fitted"]["error"], details=details))
    for n in (n for n in TARGETS if n in budgets):
        top = {family: next(iter(of.values()))["error"] for family, of in budgets[n].items()}
        plain = min(top["published"], top["ours"])
        details = f"fitted {top['fitted']:.2g}, unfitted {plain:.2g}"
        rows.append(at_most(f"{name}, {n} evaluations: fitted over best unfitted", top["fitted"] / plain, LIMIT, details))
    return rows


def _law_rows(name: str, law: Mapping[str, Any]) -> list[Row]:
    rows = []
    for n, solvers in law["gaussian"].items():
        drawn, plain = (
            min((told["error"], solver) for solver, told in solvers.items() if (solver in BESIDE) is beside) for beside in (False, True)
        )
        details = f"{drawn[1]}; without noise {plain[0]:.2g} ({plain[1]})"
        rows.append(Row(f"{name}, {n} evaluations: least law error of a solver that draws noise", drawn[0], details=details))
    return rows
