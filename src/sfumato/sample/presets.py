"""The published solvers by name: what recipes, tables and generic tests run over. A new solver is one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sfumato.sample.ancestral import Ancestral
from sfumato.sample.heun import Heun
from sfumato.sample.multistep import ddim, deis, dpm_solver, unipc
from sfumato.sample.singlestep import Singlestep
from sfumato.sample.solver import Solver

PRESETS: Mapping[str, Solver] = MappingProxyType(
    {
        solver.name: solver
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
            deis(2),
            deis(3),
            unipc(2),
            unipc(3),
            unipc(3, "bh1"),
        )
    }
)
"""Name to solver, with the options that their authors recommend."""
