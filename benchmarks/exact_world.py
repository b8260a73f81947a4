"""Figure 1: on a mixture of known flow, the error of our tuned programs over that of the best `diffusers` setting.

The error is `|x - x*| / |x*|`, averaged over samples, where `x*` is the end of the flow from the same start. The truth is our Gaussian
integrator at 800 evaluations in float64; how far it is from the one at 400 is stated. Programs are fitted, their nodes and the strength of
their regularisation chosen, on starts of one seed; every figure is measured on starts of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.figure import Figure, Row, at_most
from benchmarks.world import FLOOR, World, world
from sfumato.integrations.diffusers_peers import PEERS, run_peer
from sfumato.metrics import endpoint_error
from sfumato.sample import Exponential, Linearisation, Program, reference, reference_times, run, uniform_log_snr
from sfumato.tune.search import Bench, first_guesses, search
from sfumato.tune.teleport import predict_teleport

TARGETS = {5: 0.25, 8: 0.25, 10: 0.25, 15: 1.0, 20: 1.0}
RATIO_MIN = 1e-4
"""Where the truth's last step to zero noise begins. What that step costs falls as its square: on the digits 6e-4 from 2e-3 (where tuning's
references end), 5e-5 from 5e-4, hence 2e-6 from here."""
_TUNING_SEED, _MEASURING_SEED = 0, 1_000_003


@dataclass(frozen=True)
class Size:
    """How many starts to fit to, to judge on and to measure on, fits a budget, and evaluations of the truth."""

    fit: int = 512
    judge: int = 128
    measure: int = 512
    trials: int = 60
    truth: int = 800


def relative_error(x: Tensor, truth: Tensor) -> float:
    """The mean over samples of `|x_i - truth_i| / |truth_i|`."""
    return float(((x - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean())


def measure(quick: bool = False) -> Figure:
    size = Size(128, 32, 64, 12, 200) if quick else Size()
    budgets = [5, 10] if quick else list(TARGETS)
    rows: list[Row] = []
    facts: dict[str, Any] = {"seeds": {"tuning": _TUNING_SEED, "measuring": _MEASURING_SEED}, "size": vars(size)}
    for name in ("digits",) if quick else ("digits", "patches"):
        more, facts[name] = _measure_world(world(name), size, budgets)
        rows += more
    return Figure(rows, facts)


def _measure_world(w: World, size: Size, budgets: list[int]) -> tuple[list[Row], dict[str, Any]]:
    denoiser = w.law.denoiser(w.process)
    unit = w.unit(size.measure, _MEASURING_SEED)
    start = w.process.prior_sample(unit)
    half, truth = (_truth(w, start, steps) for steps in (size.truth // 2, size.truth))
    self_error = relative_error(half, truth)
    bench, top = _bench(w, size)
    rows = [
        Row(f"{w.name}: the truth's distance to itself at half the evaluations", self_error, "< the errors below", None, _describe(w)),
    ]
    facts: dict[str, Any] = {"self_error": self_error, "floor": FLOOR, "least_deviation": w.least_deviation, "teleport_ratio": top}
    for n in budgets:
        programs = {"fitted": _fitted(w, bench, top, n, size.trials), "unfitted": _unfitted(w, top, n)}
        with torch.no_grad():
            ends = {name: run(program, denoiser.denoise, start) for name, program in programs.items()}
            theirs = {peer.name: run_peer(peer, denoiser, n, unit) for peer in PEERS}
        errors = {name: relative_error(x, truth) for name, x in ends.items()}
        peers = {name: relative_error(x, truth) for name, x in theirs.items()}
        best = min(peers, key=lambda name: peers[name])
        details = f"fitted {errors['fitted']:.2g}, unfitted {errors['unfitted']:.2g}, best of {len(peers)} peers {peers[best]:.2g} ({best})"
        rows.append(at_most(f"{w.name}, {n} evaluations: error over the best peer's", errors["fitted"] / peers[best], TARGETS[n], details))
        facts[str(n)] = {
            "ours": errors,
            "ours, relative to the rms": {name: vars(endpoint_error(x, truth)) for name, x in ends.items()},
            "peers": peers,
            "peers' evaluations": {peer.name: peer.evaluations(n) for peer in PEERS},
            "ratios": {name: _ratios(program) for name, program in programs.items()},
        }
    return rows, facts


def _truth(w: World, start: Tensor, steps: int) -> Tensor:
    return reference(w.law.denoiser(w.process).denoise, start, w.process, w.gaussian, reference_times(w.process, steps, RATIO_MIN)).end


def _bench(w: World, size: Size) -> tuple[Bench, float]:
    """What programs are fitted to and judged on, and the level down to which the closed form carries a sample."""
    denoise = w.law.denoiser(w.process).denoise
    start = w.start(size.fit + size.judge, _TUNING_SEED)
    path = reference(denoise, start, w.process, w.gaussian, reference_times(w.process, 120, RATIO_MIN))
    return Bench(denoise, path[: size.fit], path[size.fit :], w.gaussian), predict_teleport(path, w.gaussian, 0.01).ratio


def _fitted(w: World, bench: Bench, top: float, n: int, trials: int) -> Program:
    scale = float(w.gaussian.covariance.trace() / w.gaussian.dim) ** 0.5
    guesses = first_guesses(bench.fit, n, [top * f for f in (0.7, 1.0, 1.5)], [scale * f for f in (0.05, 0.1, 0.2, 0.4)])
    found = search(bench, guesses, trials)
    return min(found, bench.best_ridge(found.nodes), key=lambda f: f.error).program


def _unfitted(w: World, top: float, n: int) -> Program:
    low = float(w.process.time_of_ratio(0.5 / n))
    times = (1.0, *uniform_log_snr(w.process, n, start=float(w.process.time_of_ratio(top)), t_min=low))
    return Exponential(Linearisation.gaussian(w.gaussian, 0.5), 2, corrector=True, teleport=True).compile(w.process, times)


def _ratios(program: Program) -> list[float]:
    return program.process.ratio(torch.tensor([program.times[j] for j in program.evaluated], dtype=torch.float64)).tolist()


def _describe(w: World) -> str:
    return (
        f"{len(w.law.covariances)} full covariances in {w.law.dim} dimensions, variance floor {FLOOR:g} of the mean "
        f"(least standard deviation {w.least_deviation:.2g})"
    )
