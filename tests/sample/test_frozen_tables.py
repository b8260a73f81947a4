r"""Every compiled table as it was when the other tests of this room had judged it: one projection of each of its parts on an uneven grid.

The orders, limits and textbook recursions are tested elsewhere, and they forgive a wrong coefficient that falls with the step. Here a
table is `sum_k w_k c_k` with `w_k = cos(1 + k)` over all its entries, once for the states, the answers and the noise, and once for its
times: no entry can change and leave them as they are. A change that is meant is written down by

    cd tests/sample && python -c "import test_frozen_tables as t; t.write()"
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from asymmetric import project

from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, FlowMatching, VariancePreserving, agm, brownian_bridge, cld, ir_sde, psld
from sfumato.sample import (
    ERSDE,
    NOISE_SCALES,
    PRESETS,
    AccelerationFlow,
    AccelerationSplitting,
    Ancestral,
    Band,
    Bend,
    Conjugate,
    Exponential,
    ImprovedEuler,
    LearnedVariance,
    LinearAncestral,
    LinearDDIM,
    LinearEuler,
    Linearisation,
    MaximumLikelihood,
    Momentum,
    PredictorCorrector,
    Renoising,
    Restoration,
    ReverseSDE,
    RungeKutta,
    SASolver,
    ScoreKick,
    Singlestep,
    Splitting,
    StochasticSplitting,
    Teleported,
    Warp,
    deis,
    dpm_solver,
    ipndm,
    unipc,
)
from sfumato.sample.compilers.maximum_likelihood import gaussian_spread
from sfumato.sample.compilers.singlestep import Fast
from sfumato.sample.fits.bespoke import bespoke_program

HERE = Path(__file__).with_name("frozen_tables.json")
VP, FLOW = VariancePreserving(), FlowMatching()
OPEN = (0.97, 0.8, 0.71, 0.5, 0.33, 0.2, 0.08, 0.03)
CLEAN = (1.0, 0.83, 0.6, 0.42, 0.21, 0.05, 0.0)
LAW = Gaussian(
    torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64),
    SpectralCovariance.low_rank(torch.eye(3, dtype=torch.float64)[:, :2], torch.tensor([2.0, 0.3], dtype=torch.float64), 0.05),
)


def curved(power):
    """A warp whose times and scales are curves of the step."""
    return lambda r: (r + r**power) / 2


OPEN_ONLY = {
    "improved-euler": ImprovedEuler(),
    "time-rk4": RungeKutta("rk4", "time"),
    "time-heun": RungeKutta("heun", "time"),
    "deis-exact-start": deis(3, start="exact"),
    "sa-noise": SASolver(3, 3, Band(0.7), "noise"),
    "reverse-sde": ReverseSDE(),
}
SOLVERS = {
    **PRESETS,
    "2m-noise": dpm_solver(2, "noise"),
    "3m-noise": dpm_solver(3, "noise", published=True),
    "2m-taylor": dpm_solver(2, form="taylor"),
    "3m-lower": dpm_solver(3, final="lower"),
    "3m-exact": dpm_solver(3, start="exact"),
    "unipc-1-bh1": unipc(1, "bh1"),
    "unipc-3-noise": unipc(3, "bh1", "noise", final="full"),
    "unipc-pece": unipc(2, evaluation="pece", final="full"),
    "deis-5": deis(5),
    "ipndm-5": ipndm(5),
    "ipndm-3": ipndm(3),
    "ipndm-2": ipndm(2),
    "2s-taylor": Singlestep(2, "data", "taylor", (0.3,)),
    "3s-noise-taylor": Singlestep(3, "noise", "taylor", (0.2, 0.6)),
    "fast-data": Fast("data", "taylor"),
    **{f"rho-{name}": RungeKutta(name) for name in ("euler", "heun-3", "ralston-3", "van-der-houwen")},
    **{f"ghvb-{n}": Momentum(n, 0.6) for n in (1, 3, 5)},
    "nesterov-noise": Momentum(3, 0.7, "nesterov"),
    "heavy-ball-data": Momentum(2, 0.6, "heavy-ball", "data"),
    "nesterov-unipc": Momentum(2, 0.7, "nesterov", "data", corrector=True),
    "ancestral-0.4-2": Ancestral(0.4, 2),
    "restoration": Restoration(),
    "restoration-1.04": Restoration(1.04),
    "restoration-whole": Restoration("whole"),
    "sa-pece": SASolver(2, 3, Band(0.8), evaluation="pece"),
    "sa-lower": SASolver(4, 4, Band(1.2, 0.1, 3.0, of="ratio"), finish="lower"),
    "sa-p4": SASolver(4, 0, Band(0.5)),
    **{f"er-sde-{name}": ERSDE(3, scale) for name, scale in NOISE_SCALES.items() if name != "log"},
    "er-sde-log": ERSDE(2, NOISE_SCALES["log"]),
    "er-sde-published": ERSDE(3, published=True),
    "er-sde-rectangles": ERSDE(3, rectangles=7),
    "maximum-likelihood": MaximumLikelihood(gaussian_spread(LAW)),
    "predictor-corrector": PredictorCorrector(ReverseSDE("diffusion"), 2, 0.2),
    "reverse-large": ReverseSDE("large"),
    "reverse-flow": ReverseSDE("diffusion", flow=True),
    "renoising": Renoising(),
    "isotropic": Exponential(Linearisation.isotropic(0.4), 3),
    "isotropic-score": Exponential(Linearisation.isotropic(0.4, 1.0), 2),
    "gaussian": Exponential(Linearisation.gaussian(LAW), 3, True),
    "gaussian-teleport": Exponential(Linearisation.gaussian(LAW, 0.8), 2, teleport=True),
    "teleported": Teleported(dpm_solver(3), LAW, skip=2),
    "teleported-cold": Teleported(Ancestral(1.0), LAW, ratio=0.9, warm=False),
    "teleported-warm-sde": Teleported(Ancestral(0.5, 2), LAW, skip=2),
}
ENDLESS = ("ddim", "ddpm", "heun", "dpm-solver++-2m", "unipc-2-bh2", "er-sde-3[k(exp(k^0.3)+10)]", "gaussian", "isotropic", "renoising")

TABLES = {
    **{f"{name} | open": (solver, VP, OPEN) for name, solver in {**SOLVERS, **OPEN_ONLY}.items() if "renewed" not in name},
    **{f"{name} | clean": (solver, VP, CLEAN) for name, solver in SOLVERS.items()},
    **{f"{name} | flow": (SOLVERS[name], FLOW, CLEAN) for name in ENDLESS},
    **{f"{name} | edm": (SOLVERS[name], EDM(20.0), CLEAN) for name in ("heun", "rho-rk4", "predictor-corrector", "reverse-large")},
    "learned": (LearnedVariance((0.1, 0.9, 0.4, 0.7, 0.2, 0.5)), VP, CLEAN),
}
LINEAR = {
    **{f"conjugate-{p}-{k}": (Conjugate(Bend(0.3, k), p, n), cld()) for p, k, n in (
        ("cholesky noise", "ones", 2), ("noise", "identity", 1), ("data", "ones", 3), ("score", "identity", 2),
    )},
    "conjugate-bridge": (Conjugate(Bend(), "data", 2), ir_sde()),
    "conjugate-steered": (Conjugate(Bend(), "score", 2), agm()),
    **{s: (Splitting(s), psld()) for s in ("NSE", "RSE", "NVV", "RVV")},
    "NVV-early": (Splitting("NVV", late=False), cld()),
    "RVV-bent": (Splitting("RVV", bend=Bend(0.2)), psld()),
    "OABA": (StochasticSplitting(), psld()),
    "naive-OBAB": (StochasticSplitting("OBAB", reduced=False, position_noise=0.5), psld()),
    "score-kick": (ScoreKick(), cld()),
    **{f"linear-ddim-{n}": (LinearDDIM(n), cld()) for n in (1, 3)},
    "linear-ddim-bridge": (LinearDDIM(2), ir_sde()),
    "linear-ancestral": (LinearAncestral(), cld()),
    "linear-ancestral-bridge": (LinearAncestral(), brownian_bridge()),
    **{f"linear-euler-{eta:g}": (LinearEuler(eta), psld()) for eta in (0.0, 0.6)},
    "linear-euler-steered": (LinearEuler(1.0), agm()),
    **{f"acceleration-flow-{n}": (AccelerationFlow(n), agm()) for n in (1, 2, 3)},
    "acceleration-splitting": (AccelerationSplitting(), agm()),
}  # fmt: skip
INNER = (0.95, 0.7, 0.55, 0.3, 0.12)
WARPS = {
    "bespoke-1": lambda: Warp.of(4, 1, curved(2), lambda r: 1 + r * r),
    "bespoke-2": lambda: Warp.of(3, 2, curved(3), torch.exp),
}


def of_table(program):
    return [project(part) for part in (program.times, *program.dense())]


def of_linear(program):
    """The same over operators, numbered by row and by what they act on."""
    sums = [project(program.times), 0.0, 0.0, 0.0, 0.0]
    for i, row in enumerate(program.rows):
        for place, part in enumerate((row.states, row.data, row.noise), start=1):
            sums[place] += math.fsum(project(op.coef, 100 * i + 7 * j) for j, op in part.items())
        sums[4] += 0.0 if row.shift is None else project(row.shift.coef, 100 * i)
    return sums


def computed(name):
    if name in WARPS:
        return of_table(bespoke_program(VP, WARPS[name]()))
    if name in LINEAR:
        solver, process = LINEAR[name]
        return of_linear(solver.compile(process, INNER))
    solver, process, times = TABLES[name]
    return of_table(solver.compile(process, times))


def write():
    """Freeze the tables as they are now."""
    lines = (f'"{name}": [{", ".join(f"{v:.13g}" for v in computed(name))}]' for name in (*TABLES, *LINEAR, *WARPS))
    HERE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


FROZEN = json.loads(HERE.read_text()) if HERE.exists() else {}


@pytest.mark.parametrize("name", [*TABLES, *LINEAR, *WARPS])
def test_no_entry_of_a_table_has_changed(name):
    assert computed(name) == pytest.approx(FROZEN[name], rel=1e-11, abs=1e-11)


def test_a_single_entry_is_seen():
    """Negative control: a millionth of one coefficient of one row."""
    solver, process, times = TABLES["unipc-3-bh2 | open"]
    program = solver.compile(process, times)
    before = of_table(program)
    next(iter(program.rows[4].data.values())).mul_(1 + 1e-6)
    assert of_table(program) != pytest.approx(before, rel=1e-11, abs=1e-11)


def test_every_table_is_written_down():
    """So a solver that falls out of the presets, or changes its name, is seen."""
    assert set(FROZEN) == {*TABLES, *LINEAR, *WARPS}
