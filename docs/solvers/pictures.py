"""Makes the pictures of "Which sampler should I use": `python docs/solvers/pictures.py [FOLDER]`.

The frontier is read from `benchmarks/results/frontier.json` (`python -m benchmarks frontier`), as the page's tables are
(`python -m benchmarks.choosing_page`), so that page, picture and result agree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sfumato.atlas.solvers.worlds import g4
from sfumato.explain import program_table
from sfumato.noise import BetaTable
from sfumato.sample import PRESETS, Program, Starts, reference, reference_times, uniform_log_snr
from sfumato.tune.candidates import Calibration, Ground, Paths, fitted

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "frontier.json"
TABLES = ("ddim", "dpm-solver++-2m", "dpm-solver++-3m", "unipc-3-bh2", "deis-3", "ghvb-4-beta0.1", "heun")
STEPS = 7
TITLES = {
    "g4": "four Gaussians in the plane",
    "digits": "mixture of digits",
    "patches": "mixture of colour patches",
    "network": "trained model",
}
Worlds = Mapping[str, Mapping[str, Any]]


def main(folder: Path) -> None:
    """Make every picture in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.loads(RESULT.read_text())["facts"]
    budgets, worlds = [str(n) for n in facts["budgets"]], facts["worlds"]
    _save(draw_tables(), folder / "tables.png")
    _save(draw_frontier(worlds, budgets), folder / "frontier.png")
    _save(draw_law(worlds, budgets), folder / "law.png")


def draw_tables() -> Figure:
    """Published tables, and one fitted to the flow of G4."""
    process = BetaTable.linear()
    times = uniform_log_snr(process, STEPS, t_min=float(process.time_of_ratio(0.1)))
    programs = [PRESETS[name].compile(process, times if name != "heun" else (*times[::2], 0.0)) for name in TABLES]
    figure = Figure(figsize=(19, 9.6), layout="constrained", dpi=75)
    for ax, program in zip(figure.subplots(2, 4).flat, [*programs, _fitted(process)], strict=True):
        program_table(program).plot(ax)
        ax.set_title(program.name)
        if ax is not figure.axes[0]:
            ax.get_legend().remove()
    return figure


def _fitted(process: BetaTable) -> Program:
    ground = Ground(process, g4().gaussian(), g4())
    starts = Starts.prior(process, (2,), 256, 0)
    path = reference(g4().denoiser(process).denoise, starts.states, process, ground.law, reference_times(process, 120))
    calibration = Calibration(g4().denoiser(process), Paths(path, starts.keys), ground)
    return fitted(calibration, STEPS, methods=("least squares",)).programs[0]


def draw_frontier(worlds: Worlds, budgets: list[str]) -> Figure:
    """Error against evaluations, a panel a world."""
    figure = Figure(figsize=(4.8 * len(worlds) + 3.2, 4.4), layout="constrained", dpi=80)
    evaluations = [int(n) for n in budgets]
    for ax, (name, world) in zip(figure.subplots(1, len(worlds), squeeze=False).flat, worlds.items(), strict=True):
        for preset, style in _PLAIN.items():
            ax.loglog(evaluations, [world[n]["published"][preset]["error"] for n in budgets], style, color="k", lw=1, label=preset)
        for family, (style, label) in _FAMILIES.items():
            ax.loglog(evaluations, [_top(world[n][family])["error"] for n in budgets], style, label=label)
        ax.set(title=TITLES.get(name, name), xlabel="evaluations", ylabel="error at the end of the flow")
        ax.set_xticks(evaluations, budgets, minor=False)
        ax.set_xticks([], minor=True)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return figure


_PLAIN = {"ddim": "-", "dpm-solver++-2m": "--", "unipc-2-bh2": ":"}
_FAMILIES = {
    "diffusers": ("C3s-", "best of diffusers"),
    "published": ("C2^-", "best published, its best spacing"),
    "ours": ("C1o-", "best with a closed-form Gaussian part"),
    "fitted": ("C0o-", "best fitted table"),
}


def draw_law(worlds: Worlds, budgets: list[str]) -> Figure:
    """The exact error of the law in the Gaussian world, a panel a world, with solvers that draw noise in colour."""
    known = {name: world for name, world in worlds.items() if "law" in world}
    figure = Figure(figsize=(4.8 * len(known) + 3.4, 4.4), layout="constrained", dpi=80)
    for ax, (name, world) in zip(figure.subplots(1, len(known), squeeze=False).flat, known.items(), strict=True):
        table = world["law"]["gaussian"]
        for solver in table[budgets[-1]]:
            errors = [(int(n), table[n][solver]["error"]) for n in budgets if solver in table[n]]
            look = {"color": "k", "lw": 1, "ls": _PLAIN[solver]} if solver in _PLAIN else {"marker": "o", "ms": 4}
            ax.loglog(*zip(*errors, strict=True), **look, label=solver)
        ax.set(title=TITLES.get(name, name), xlabel="evaluations", ylabel="2-Wasserstein, of the law's size")
        ax.set_xticks([int(n) for n in budgets], budgets, minor=False)
        ax.set_xticks([], minor=True)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return figure


def _top(family: Mapping[str, Any]) -> dict[str, Any]:
    """The choice made on other starts: results come ranked."""
    return next(iter(family.values()))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
