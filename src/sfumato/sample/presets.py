"""The published solvers by name: what recipes, tables and generic tests run over. A new solver is one line here.

Example:
    >>> from sfumato.noise import VariancePreserving
    >>> from sfumato.sample import PRESETS, uniform_log_snr
    >>> process = VariancePreserving()
    >>> for name in ("ddim", "unipc-3-bh2", "heun"):
    ...     program = PRESETS[name].compile(process, uniform_log_snr(process, 8))
    ...     print(name, PRESETS[name].order, program.evaluations)
    ddim 1 8
    unipc-3-bh2 2 8
    heun 2 15
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType

from sfumato.errors import ArgumentError
from sfumato.sample.compilers.ancestral import Ancestral
from sfumato.sample.compilers.er_sde import ERSDE
from sfumato.sample.compilers.heun import Heun
from sfumato.sample.compilers.momentum import Momentum
from sfumato.sample.compilers.multistep import ddim, deis, dpm_solver, ipndm, unipc
from sfumato.sample.compilers.runge_kutta import RungeKutta
from sfumato.sample.compilers.sa_solver import few_steps, more_steps
from sfumato.sample.compilers.singlestep import Fast, Singlestep
from sfumato.sample.solver import Solver


class _ByName(dict[str, Solver]):
    def __missing__(self, name: str) -> Solver:
        near = get_close_matches(str(name), self, 3) or sorted(self)
        raise ArgumentError("solver", name, f"the name of a preset, such as {', '.join(near)}")


PRESETS: Mapping[str, Solver] = MappingProxyType(
    _ByName(
        (solver.name, solver)
        for solver in (
            ddim(),
            Ancestral(1.0, label="ddpm"),
            Heun(),
            dpm_solver(2),
            dpm_solver(3),
            dpm_solver(3, published=True),
            Ancestral(1.0, 2, label="sde-dpm-solver++-2m"),
            Singlestep(2),
            Singlestep(3),
            Singlestep(2, "noise"),
            Singlestep(3, "noise"),
            Fast(),
            deis(2),
            deis(3),
            deis(3, variable="time"),
            deis(3, variable="ratio"),
            ipndm(4),
            Momentum(4, 0.8, "heavy-ball"),
            Momentum(2, 0.8),
            Momentum(4, 0.1),
            RungeKutta("midpoint"),
            RungeKutta("kutta"),
            RungeKutta("rk4"),
            unipc(2),
            unipc(3),
            unipc(3, "bh1"),
            few_steps(3),
            few_steps(2),
            more_steps(3),
            more_steps(2),
            ERSDE(2),
            ERSDE(3),
        )
    )
)
"""Name to solver, with the options that their authors recommend. An unknown name is an `ArgumentError` that knows the nearest ones."""
