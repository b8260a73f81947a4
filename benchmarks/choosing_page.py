"""Writes what was measured into "Which sampler should I use" (`docs/solvers/choosing.md`): `python -m benchmarks.choosing_page`.

What stands between the page's markers is made of the saved frontier, `benchmarks/results/frontier.json`; the prose is written by hand.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "frontier.json", ROOT / "docs" / "solvers" / "choosing.md"
TITLES = {
    "g4": "four Gaussians in the plane",
    "digits": "mixture of digits",
    "patches": "mixture of colour patches",
    "network": "trained model",
}
HAVE = {
    "a model, and nothing else": ("published",),
    "a model, and mean and covariance of its data": ("published", "ours"),
    "a model, some of its data, and minutes to fit": ("published", "ours", "fitted"),
}
"""What somebody has, and the kinds of samplers that are open to them."""
ASKED = (4, 5, 6, 8, 10, 15, 20, 30)
Worlds = Mapping[str, Mapping[str, Any]]


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(), json.loads(RESULT.read_text())["facts"]))
    print(PAGE)


def page(text: str, facts: Mapping[str, Any]) -> str:
    """The page with its measured parts written anew."""
    worlds, budgets = facts["worlds"], [str(n) for n in facts["budgets"]]
    parts = {"decision": decision(worlds, [str(n) for n in ASKED]), "order": order(worlds, budgets), "tables": tables(worlds, budgets)}
    for name, lines in parts.items():
        begin, end = markers(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{lines}\n{end}{rest.split(end)[1]}"
    return text


def markers(name: str) -> tuple[str, str]:
    """What stands before and after a measured part."""
    return f"<!-- {name}: python -m benchmarks.choosing_page -->", f"<!-- end of {name} -->"


class Standing(NamedTuple):
    """A solver at one budget: its error, the geometric mean over the worlds, and what was chosen in each of them."""

    solver: str
    error: float
    choices: list[str]


def standings(worlds: Worlds, budget: str, kinds: Sequence[str]) -> list[Standing]:
    """The solvers of these kinds that every world has, the best first."""
    found = [{solver: told for kind in kinds for solver, told in world[budget][kind].items()} for world in worlds.values()]
    out = []
    for solver in found[0]:
        if all(solver in of and of[solver]["error"] < math.inf for of in found):
            error = statistics.geometric_mean(of[solver]["error"] for of in found)
            out.append(Standing(solver, error, [of[solver]["choice"] for of in found]))
    return sorted(out, key=lambda standing: standing.error)


def decision(worlds: Worlds, budgets: Sequence[str]) -> str:
    """Which sampler at which budget, a table for what one has; beside it the runner-up and the best of `diffusers`."""
    lines: list[str] = []
    for have, kinds in HAVE.items():
        lines += [f"**You have {have}.**", "", "| evaluations | take | spacing | error | runner-up | its error | best of `diffusers` |"]
        lines += ["|---:|---|---|---:|---|---:|---:|"]
        for n in budgets:
            best, second = standings(worlds, n, kinds)[:2]
            peer = standings(worlds, n, ("diffusers",))[0]
            cells = (n, f"**{best.solver}**", _usual(best), f"{best.error:.2g}", second.solver, f"{second.error:.2g}", f"{peer.error:.2g}")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _usual(standing: Standing) -> str:
    """The spacing that most worlds chose, and how many did."""
    ((spacing, count),) = Counter(map(_spacing, standing.choices)).most_common(1)
    return f"{spacing}, {count} of {len(standing.choices)}" if spacing else "its own"


def order(worlds: Worlds, budgets: Sequence[str]) -> str:
    """From which budget on the third order of DPM-Solver++ pays."""
    pairs = {n: [_error_of(worlds, n, f"dpm-solver++-{order}m") for order in (2, 3)] for n in budgets}
    since = next((n for i, n in enumerate(budgets) if all(third < second for second, third in list(pairs.values())[i:])), None)
    cells = [f"| {n} | {second:.2g} | {third:.2g} |" for n, (second, third) in pairs.items()]
    said = "At no budget does the third order stay ahead." if since is None else f"From {since} evaluations on the third order is ahead."
    return "\n".join(["| evaluations | DPM-Solver++(2M) | (3M) |", "|---:|---:|---:|", *cells, "", said])


def _error_of(worlds: Worlds, budget: str, solver: str) -> float:
    return next(s.error for s in standings(worlds, budget, ("published",)) if s.solver == solver)


def tables(worlds: Worlds, budgets: list[str]) -> str:
    """The page's tables in Markdown."""
    return "\n".join([*_best(worlds, budgets), "", *_all(worlds, budgets), "", *_law(worlds, budgets)])


def _best(worlds: Worlds, budgets: list[str]) -> list[str]:
    lines = ["**The least error of each kind**, with the solver and the spacing that reached it.", ""]
    lines += ["| | evaluations | best fitted | best unfitted, Gaussian part in closed form | best published | best of `diffusers` |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for name, world in worlds.items():
        for n in budgets:
            tops = [_top(world[n][family]) for family in ("fitted", "ours", "published", "diffusers")]
            cells = [f"{top['error']:.2g} ({top['choice'].removeprefix('fitted · ')})" for top in tops]
            lines.append(f"| {TITLES.get(name, name)} | {n} | {' | '.join(cells)} |")
    return lines


def _all(worlds: Worlds, budgets: list[str]) -> list[str]:
    """Every solver: its error over that of the best setting of `diffusers`, the geometric mean over the worlds."""
    lines = [f"**Every solver**: its error over that of the best `diffusers` setting, the geometric mean over {len(worlds)} worlds.", ""]
    lines += [f"| solver | {' | '.join(budgets)} | spacing chosen most often |", f"|---|{'---:|' * len(budgets)}---|"]
    ratios: dict[str, dict[str, float]] = {}
    spacings: dict[str, Counter[str]] = {}
    for n in budgets:
        found = [{k: v for family in ("published", "ours", "fitted") for k, v in world[n][family].items()} for world in worlds.values()]
        peers = [_top(world[n]["diffusers"])["error"] for world in worlds.values()]
        for solver in found[0]:
            if all(solver in of and of[solver]["error"] < math.inf for of in found):
                logs = [math.log(of[solver]["error"] / peer) for of, peer in zip(found, peers, strict=True)]
                ratios.setdefault(solver, {})[n] = math.exp(statistics.fmean(logs))
                spacings.setdefault(solver, Counter()).update(_spacing(of[solver]["choice"]) for of in found)
    for solver in sorted(ratios, key=lambda s: statistics.fmean(math.log(v) for v in ratios[s].values())):
        cells = [f"{ratios[solver][n]:.2f}" if n in ratios[solver] else "" for n in budgets]
        lines.append(f"| {solver} | {' | '.join(cells)} | {spacings[solver].most_common(1)[0][0]} |")
    return lines


def _law(worlds: Worlds, budgets: list[str]) -> list[str]:
    """Solvers that draw noise, beside a few that do not: exact errors of the law in the Gaussian worlds, and energy distances."""
    known = [world["law"] for world in worlds.values() if "law" in world]
    sampled = list(known[0]["energy"])
    lines = [f"**The law**: exact 2-Wasserstein error in the Gaussian world, the geometric mean over {len(known)} worlds."]
    lines += ["On the right the energy distance to the digits' mixture, sampled; its own floor is two draws of the same law.", ""]
    lines += [f"| solver | {' | '.join(budgets)} | {' | '.join(f'energy, {n}' for n in sampled)} |"]
    lines += [f"|---|{'---:|' * (len(budgets) + len(sampled))}"]
    law = worlds["digits"]["law"]
    for solver in known[0]["gaussian"][budgets[-1]]:
        cells = []
        for n in budgets:
            errors = [of["gaussian"][n][solver]["error"] for of in known if solver in of["gaussian"][n]]
            cells.append(f"{statistics.geometric_mean(errors):.2g}" if errors else "")
        lines.append(f"| {solver} | {' | '.join(cells)} | {' | '.join(_estimate(law['energy'][n][solver]) for n in sampled)} |")
    return [*lines, f"| the law itself | {' | ' * len(budgets)}{' | '.join([_estimate(law['floor'])] * len(sampled))} |"]


def _top(family: Mapping[str, Any]) -> dict[str, Any]:
    """The choice made on other starts: results come ranked."""
    return next(iter(family.values()))


def _spacing(choice: str) -> str:
    return choice.split(" · ", 1)[1].split(" to ")[0] if " · " in choice and not choice.startswith("fitted") else ""


def _estimate(told: Mapping[str, float]) -> str:
    return f"{told['value']:.3f} ± {told['standard_error']:.3f}"


if __name__ == "__main__":
    main()
