"""What a preset costs beside the network: to compile 20 steps, and to run them with a free denoiser.

A row of a table costs one multiply-add over the state per term it reads, so a solver of four past answers cannot run at the price of
DDIM, which reads one. The target, DDIM's overhead and a fifth more, is asked of a term, on a state so small that overhead is all there is.
What a step costs is given beside it, also on a (16, 4, 64, 64) float32 state, where it is the memory's speed that counts.
Solvers take turns; the first compilation, which fills caches, does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch

from benchmarks.figure import Figure, Row, alternate, at_most, paired_ratio, timed
from sfumato.noise import BetaTable
from sfumato.sample import PRESETS, Plan, run, uniform_log_snr
from sfumato.seeds import noise

SMALL, LARGE = (1, 4, 8, 8), (16, 4, 64, 64)
STEPS = 20
COMPILE_MS = 50.0
OVERHEAD = 1.2


def measure(quick: bool = False) -> Figure:
    process = BetaTable.linear()
    times = uniform_log_snr(process, STEPS)
    tasks = {name: timed(lambda solver=solver: solver.compile(process, times)) for name, solver in PRESETS.items()}  # type: ignore[misc]
    compiling = {name: 1e3 * statistics.median(s) for name, s in alternate(tasks, 2 if quick else 9).items()}
    slowest = max(compiling, key=lambda name: compiling[name])
    plans = {name: Plan.of(s.compile(process, times), torch.float32, torch.device("cpu")) for name, s in PRESETS.items() if s.deterministic}
    terms = {name: sum(map(len, plan.terms)) for name, plan in plans.items()}
    small, large = (_run(plans, shape, 3 if quick else rounds) for shape, rounds in ((SMALL, 101), (LARGE, 15)))
    per_term = {name: paired_ratio(s, small["ddim"]) * terms["ddim"] / terms[name] for name, s in small.items()}
    costly = max(per_term, key=lambda name: per_term[name])
    rows = [
        at_most(f"compiling {STEPS} steps, the slowest preset: milliseconds", compiling[slowest], COMPILE_MS, slowest),
        at_most("running, the costliest preset: a term over DDIM's term", per_term[costly], OVERHEAD, costly),
    ]
    for name in plans:
        micro = [1e6 * statistics.median(s[name]) / STEPS for s in (small, large)]
        details = f"{terms[name] / STEPS:.3g} terms a step, {micro[1]:.3g} microseconds on {LARGE}, compiled in {compiling[name]:.2g} ms"
        rows.append(Row(f"{name}: microseconds a step", micro[0], details=details))
    return Figure(rows, {"milliseconds to compile": compiling, "seconds per run": {"small": small, "large": large}, "terms": terms})


def _run(plans: Mapping[str, Plan], shape: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    """The seconds of whole runs, in turns."""
    x, answer = (noise(0, shape[0], shape[1:]).draw(j) for j in (0, 1))
    tasks = {name: timed(lambda plan=plan: run(plan, lambda x, t: answer, x)) for name, plan in plans.items()}  # type: ignore[misc]
    with torch.no_grad():
        return alternate(tasks, rounds)
