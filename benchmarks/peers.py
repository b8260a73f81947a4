"""Figure 13: every published sampler of `diffusers`, k-diffusion and azula, and ours, measured alike in worlds whose answer is known.

- *Orders* on G4, half log-SNR from -4 to 2 in equal steps, float64: the slope of the largest error over 64 paths against DOP853, the
  constant `C` of `error = C / evaluations^p`, and how far a float32 run is from the float64 one.
- *Budgets* on G4 from the end of the `diffusers` table of betas to zero noise: the error of the best of five spacings, the same for all,
  chosen on other starts than it is measured on. Beside it, `diffusers`' own settings, and our tables that know the law.
- *Law*, *seeds*: `benchmarks.peers_law`. *Overhead*: `benchmarks.overhead`. *Aliases*: `benchmarks.peer_aliases`.

`docs/peers.md` is written from the saved result: `python -m benchmarks.peers_page`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import overhead
from benchmarks.figure import Figure, Row, at_most
from benchmarks.frontier import Place, _chosen, _ours, _peers, places
from benchmarks.order_table import within
from benchmarks.peer_aliases import distance, runnable
from benchmarks.peer_cases import FLOW, LAW, LIBRARIES, Case, Ours, ours
from benchmarks.peer_walks import Task
from benchmarks.peers_law import law_error, seeds, weak_order
from benchmarks.peers_page import remark
from sfumato.atlas.solvers.worlds import FIRST, LAST, PROCESS, ends, g4, starts
from sfumato.integrations.diffusers_peers import PEERS, run_peer
from sfumato.metrics import endpoint_error
from sfumato.metrics.rate import fit_rate
from sfumato.noise import EDM, BetaTable
from sfumato.tune.candidates import SCHEDULES, Calibration, Grid, fitted

BUDGETS, LAW_BUDGETS = (5, 8, 10, 15, 20), (8, 15, 30)
EVALUATIONS = {1: (60, 84, 120), 2: (60, 84, 120), 3: (120, 168, 240), 4: (120, 168, 240)}
"""At which the order claimed shows."""
GRIDS = (Grid("log-snr", 0.05), Grid("log-snr", 0.15), Grid("edm", 0.03), Grid("time"), Grid("quadratic"))
LEAST = (1e-3, 0.02)
"""Where samplers end that cannot step to zero noise: near it, or early, whichever is better."""
OWN_STEPS = (50, 200, 60, 300, 600)
"""Numbers of steps of which the first two divide the table's 1000."""
_CHOOSE, _MEASURE = 32, 192
_QUICK = ("EulerDiscrete", "DPMSolverMultistep", "DEISMultistep", "UniPCMultistep", "dpmpp_2m", "REAB", "ddim", "dpm-solver++-2m", "ddpm")

Told = dict[str, Any]
Samplers = Sequence[Case | Ours]


def measure(quick: bool = False) -> Figure:
    place = next(places(True))
    flow = _some([*FLOW, *ours(PROCESS, deterministic=True)], quick)
    law = _some([*LAW, *ours(PROCESS, deterministic=False)], quick)
    chosen = _some([*FLOW, *ours(place.ground.process, deterministic=True)], quick)
    drawn = _some([*LAW, *ours(place.ground.process, deterministic=False)], quick)
    budgets, law_budgets = ((5, 10), (8,)) if quick else (BUDGETS, LAW_BUDGETS)
    facts = {
        "orders": [_told(case, order) for case in flow],
        "weak orders": [_told(case, weak_order) for case in law],
        "budgets": budget_table(chosen, place, budgets),
        "settings": settings(place, budgets),
        "law": law_table(drawn, place, law_budgets),
        "own times": ddim_own_times(),
        "seeds": seeds(),
        "overhead": [vars(row) for row in overhead.measure(quick=True).rows if "microseconds" in row.name],
        "aliases": aliases(),
    }
    return Figure(list(_rows(facts)), facts)


def _some(cases: Samplers, quick: bool) -> Samplers:
    return [case for case in cases if not quick or case.name in _QUICK]


def _told(case: Case | Ours, measured: Any) -> Told:
    """What was measured of a sampler, or why nothing was."""
    about = {"library": case.library, "sampler": case.name, "claim": case.claim, "reason": case.reason}
    try:
        return about | measured(case)
    except ImportError as missing:
        return about | {"absent": str(missing)}


def order(case: Case | Ours) -> Told:
    """The measured order, the constant of the nearest whole one, the last error, and the float32 run's distance from the float64 one."""
    top, alpha = math.exp(-FIRST), [float(PROCESS.alpha(PROCESS.time(lam))) for lam in (FIRST, LAST)]
    belief, start, end = g4().denoiser(EDM(top)), starts() / alpha[0], ends() / alpha[1]

    def walked(n: int, dtype: torch.dtype) -> Tensor:
        lam = torch.linspace(FIRST, LAST, n // case.per_step + 1, dtype=torch.float64)
        ratios = (top, *torch.exp(-lam[1:]).tolist())
        answer = lambda y, k: belief.denoise(y.double(), k / top).to(dtype)  # noqa: E731
        return case.walk(Task(ratios, start.to(dtype), answer))

    evaluations = EVALUATIONS[case.claim or 1]
    outs = [walked(n, torch.float64) for n in evaluations]
    errors = [float((out - end).abs().max()) for out in outs]
    rate = fit_rate([1 / n for n in evaluations], errors)
    single = float((walked(evaluations[-1], torch.float32) - outs[-1]).abs().max())
    constant = errors[-1] * evaluations[-1] ** round(rate.slope)
    return {"order": rate.slope, "constant": constant, "evaluations": evaluations[-1], "error": errors[-1], "float32": single}


def budget_table(cases: Samplers, place: Place, budgets: Sequence[int]) -> list[Told]:
    """For every sampler the error of its best spacing, by budget."""
    paths = place.paths(_CHOOSE + _MEASURE, 12, 200)
    end, process = paths.trajectory.end, place.ground.process
    top = float(process.ratio(1.0))
    start, belief = paths.trajectory.states[0] / float(process.alpha(1.0)), g4().denoiser(EDM(top))

    def best(case: Case | Ours, n: int) -> Told:
        found: list[tuple[float, str, Tensor]] = []
        for name, ratios in _ways(place, n, case).items():
            out = case.walk(Task(ratios, start, lambda y, k: belief.denoise(y, k / top)))
            if bool(torch.isfinite(out).all()):
                found.append((endpoint_error(out[:_CHOOSE], end[:_CHOOSE]).value, name, out))
        _, name, out = min(found, key=lambda f: f[0])
        error = endpoint_error(out[_CHOOSE:], end[_CHOOSE:])
        return {"error": error.value, "standard_error": error.standard_error, "grid": name}

    return [_told(case, lambda case: {"budgets": {str(n): best(case, n) for n in budgets}}) for case in cases]


def _ways(place: Place, n: int, case: Case | Ours) -> dict[str, tuple[float, ...]]:
    """Every spacing that a sampler may choose from, with every end."""
    if case.to_zero:
        return {str(grid): _ratios(place, grid, n, case, 0.0) for grid in GRIDS}
    ways = {f"{grid}, end {end:g}": _ratios(place, grid, n, case, end) for grid in GRIDS for end in LEAST}
    return {name: ratios for name, ratios in ways.items() if ratios[-2] > ratios[-1]}


def _ratios(place: Place, grid: Grid, n: int, case: Case | Ours, end: float) -> tuple[float, ...]:
    """As many steps as `n` evaluations pay for: a step to zero noise may cost less than the others."""
    for steps in range(-(-n // case.per_step), 0, -1):
        times = SCHEDULES[grid.schedule](place.ground, steps, grid.start, grid.end)
        ratios = (*place.ground.process.ratio(torch.tensor(times[:-1], dtype=torch.float64)).tolist(), end)
        if (isinstance(case, Case) and case.per_step == 1) or case.evaluations(ratios) <= n:
            break
    return ratios


def settings(place: Place, budgets: Sequence[int]) -> Told:
    """The best settings that `diffusers` ships, scheduler by scheduler, and our tables that know the law: unfitted and fitted."""
    held, judge = place.paths(_MEASURE, 13, 200), place.paths(_CHOOSE, 12, 200)
    calibration = Calibration(place.denoiser, place.paths(128, 11, 120), place.ground, trials=12)
    chosen = partial(_chosen, denoiser=place.denoiser, judge=judge, held=held)
    out: Told = {}
    for n in budgets:
        out[str(n)] = {
            "sfumato, fitted": _first(chosen(fitted(calibration, n, methods=("least squares",)))),
            "sfumato, Gaussian part in closed form": _first(chosen(_ours(place.ground, n))),
        }
        try:
            peers = _peers(place.denoiser, judge, held, n)
            out[str(n)] |= {f"diffusers, {family}": told for family, told in peers.items()}
        except ImportError as missing:
            out[str(n)]["diffusers"] = {"absent": str(missing)}
    return out


def _first(ranked: Mapping[str, Told]) -> Told:
    return next(iter(ranked.values()))


def law_table(cases: Samplers, place: Place, budgets: Sequence[int]) -> list[Told]:
    """For every sampler that draws noise the exact error of the law in a Gaussian world with its best spacing, by budget."""

    def best(case: Case | Ours, n: int) -> Told:
        errors = {name: law_error(case, ratios) for name, ratios in _ways(place, n, case).items()}
        known = {grid: error for grid, error in errors.items() if math.isfinite(error)}
        grid = min(known, key=lambda g: known[g])
        return {"error": known[grid], "grid": grid}

    return [_told(case, lambda case: {"budgets": {str(n): best(case, n) for n in budgets}}) for case in cases]


def ddim_own_times() -> list[Told]:
    """`DDIMScheduler`, which cannot be given times, beside Euler's method on the same spacing: errors on G4, by number of steps."""
    place = next(places(True))
    paths = place.paths(64, 13, 200)
    unit, end = paths.trajectory.states[0] / BetaTable.linear().prior_std, paths.trajectory.end
    rows = []
    for peer in (peer for peer in PEERS if peer.name in ("ddim-trailing", "euler-trailing")):
        try:
            ends_of = {str(n): run_peer(peer, place.denoiser, n, unit) for n in OWN_STEPS}
            rows.append({"setting": peer.name, "errors": {n: endpoint_error(out, end).value for n, out in ends_of.items()}})
        except ImportError as missing:
            rows.append({"setting": peer.name, "absent": str(missing)})
    return rows


def aliases() -> list[Told]:
    """Every alias that can be run: how far it is from its preset."""
    rows = []
    for preset, alias in runnable(*LIBRARIES):
        about = {"preset": preset, "library": alias.library, "sampler": str(alias), "note": alias.note}
        try:
            rows.append(about | {"distance": distance(preset, alias)})
        except ImportError as missing:
            rows.append(about | {"absent": str(missing)})
    return rows


def _rows(facts: Told) -> Iterator[Row]:
    for told, what in [(t, "order") for t in facts["orders"]] + [(t, "weak order") for t in facts["weak orders"]]:
        name, claim = f"{told['library']}, {told['sampler']}: {what}", told["claim"]
        if "absent" in told:
            yield Row(name, None, details=told["absent"])
            continue
        mine = told["library"] == "sfumato"
        more = what == "weak order"  # errors of a variance may cancel
        reached = None if not mine else claim - told["order"] <= within(claim) and (more or told["order"] - claim <= within(claim))
        why = remark(told)
        details = f"error {told['error']:.2g}" + (f", float32 {told['float32']:.1g} off" if "float32" in told else "")
        yield Row(name, told["order"], f"claimed {claim}", reached, f"{details}{why and f'; {why}'}")
    for told in facts["budgets"]:
        if "budgets" in told:
            errors = ", ".join(f"{n}: {of['error']:.2g} ({of['grid']})" for n, of in told["budgets"].items())
            yield Row(f"{told['library']}, {told['sampler']}: error by evaluations", told["budgets"]["10"]["error"], details=errors)
    for told in facts["seeds"]:
        name = f"{told['library']}, {told['sampler']}, seeded by {told['seeded']}: sample 5 of 8 against itself alone"
        if "absent" in told:
            yield Row(name, None, details=told["absent"])
        else:
            yield at_most(name, told["alone"], 0.0) if told["library"] == "sfumato" else Row(name, told["alone"])
    for told in facts["aliases"]:
        name = f"{told['preset']} is {told['library']}'s {told['sampler']}: largest distance"
        yield Row(name, None, details=told["absent"]) if "absent" in told else at_most(name, told["distance"], 1e-12, told["note"])
