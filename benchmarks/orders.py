"""Figure 4: the order of convergence of deterministic solvers, in float64, on the mixture fitted to the digits.

The slope of the largest error over 16 paths against step size, from `t = 1` to the ratio 0.1, against the flow followed by adaptive steps
of order 8. Steps are equal in log-SNR.
"""

from __future__ import annotations

from benchmarks.figure import Figure, Row
from benchmarks.world import World, world
from sfumato.sample import Exponential, Linearisation, Momentum, RungeKutta, Solver, uniform_log_snr
from sfumato.sample.compilers.multistep import ddim, deis, dpm_solver, ipndm, unipc
from sfumato.sample.judges.consistency import measured_order

END = 0.1
STEPS = (320, 452, 640)
_WITHIN = 0.15


def measure(quick: bool = False) -> Figure:
    w = world("digits")
    rows, facts = [], {}
    for name, solver, order in _solvers(w):
        end = float(w.process.time_of_ratio(END))
        rate = measured_order(lambda n: solver.compile(w.process, uniform_log_snr(w.process, n, end=end)), w.law, STEPS, n=16)  # noqa: B023
        away = abs(rate.slope - order)
        rows.append(Row(name, rate.slope, f"{order} ± {_WITHIN}", away <= _WITHIN, f"{STEPS[0]} to {STEPS[-1]} steps"))
        facts[name] = rate.to_dict()
    return Figure(rows, facts)


def _solvers(w: World) -> list[tuple[str, Solver, int]]:
    split = Linearisation.gaussian(w.gaussian, 0.5)
    return [
        ("DDIM", ddim(), 1),
        ("DPM-Solver++(2M)", dpm_solver(2), 2),
        ("DPM-Solver++(3M)", dpm_solver(3), 3),
        ("UniPC-1, with corrector", unipc(1, final="full"), 2),
        ("UniPC-2, with corrector", unipc(2, final="full"), 3),
        ("UniPC-3, with corrector", unipc(3, final="full"), 4),
        ("DEIS over time, 3 answers", deis(3, variable="time", start="exact"), 3),
        ("DEIS over the ratio, 3 answers", deis(3, variable="ratio", start="exact"), 3),
        ("iPNDM-4", ipndm(4), 2),
        ("GHVB-2, beta 0.8", Momentum(2, 0.8), 2),
        ("Heavy-ball PLMS-4, beta 0.8", Momentum(4, 0.8, "heavy-ball"), 1),
        ("Heun over the ratio", RungeKutta("heun"), 2),
        *((f"Gaussian exponential, {p} answer{'s' * (p > 1)}", Exponential(split, p), p) for p in (1, 2, 3)),
    ]
