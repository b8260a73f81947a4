"""Writes `docs/peers.md` from the saved result of figure 13: `python -m benchmarks.peers_page`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.order_table import within
from sfumato.integrations.aliases import ALIASES

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "peers.json", ROOT / "docs" / "peers.md"
_MENUS = ("A1111", "ComfyUI")

Told = Mapping[str, Any]


def main() -> None:
    PAGE.write_text(page(json.loads(RESULT.read_text())))
    print(PAGE)


def page(saved: Told) -> str:
    """The page's Markdown."""
    facts, about = saved["facts"], saved["machine"]
    versions = ", ".join(f"{name} {about[name]}" for name in ("diffusers", "k-diffusion", "azula", "torch"))
    head = ["# Samplers of other libraries", "", _INTRO.format(versions=versions), ""]
    sections = (_orders, _single, _budgets, _settings, _own_times, _law, _seeds, _overhead, _aliases)
    machine = f"Measured on one thread of {about['processor']}, {about['date'][:10]}, in {about['seconds']:.0f} seconds."
    return "\n".join([*head, *(line for section in sections for line in [*section(facts), ""]), machine, ""])


_INTRO = """Every published sampler of `diffusers`, k-diffusion and azula beside ours, in worlds whose answer is known ({versions}).
All walk the same times from the same starts with the same denoiser, in float64: the schedulers of `diffusers` are given
times and levels in float64, and cast to it where they cast to float32. Run it with `python -m benchmarks peers`; this
page is written from the saved result by `python -m benchmarks.peers_page`.

Notation: `k = sigma / alpha` is the noise-to-signal ratio, `N` the number of evaluations of the network."""


def _orders(facts: Told) -> list[str]:
    lines = [
        "## Orders",
        "",
        _ORDERS_HEAD,
        "",
        "| library | sampler | claimed | measured | C | remark |",
        "|---|---|---:|---:|---:|---|",
    ]
    for told in facts["orders"]:
        cells = ("not measured", "") if "absent" in told else (f"{told['order']:.2f}", f"{told['constant']:.3g}")
        lines.append(_line(told["library"], f"`{told['sampler']}`", told["claim"], *cells, remark(told)))
    return [*lines, "", _ORDERS]


_ORDERS = """A multistep sampler starts with a step of order 1. From high noise this step's error is tiny, and the order stated
shows; it caps the order at 2 in the end, as do last steps of lower order. `deis-3`, `DEISMultistep(solver_order=3)` and
`zEAB(order=3)` are one sampler and have one error, and so on down the table: names differ more than samplers do."""


def remark(told: Told) -> str:
    """Why a sampler is not what it is called, where what is measured says that it is not."""
    claim = told["claim"]
    if "absent" in told:
        return str(told["absent"])
    return str(told["reason"]) if claim and told["order"] < claim - within(claim) else ""


def _single(facts: Told) -> list[str]:
    known = [told for told in facts["orders"] if "float32" in told]
    worst = sorted(known, key=lambda told: -told["float32"])[:6]
    usual = statistics.median(told["float32"] for told in known)
    lines = ["## Single precision", ""]
    lines += [f"How far a float32 run is from the float64 one, in the median of {len(known)} samplers {usual:.1g}. The largest:"]
    lines += ["", "| library | sampler | evaluations | float32 | error of the method |", "|---|---|---:|---:|---:|"]
    for told in worst:
        lines.append(_line(told["library"], f"`{told['sampler']}`", told["evaluations"], f"{told['float32']:.1g}", f"{told['error']:.1g}"))
    return [*lines, "", _SINGLE]


_SINGLE = """`DEISMultistep` computes differences of antiderivatives in float32, which cancel the more the shorter the steps are:
with many steps its error grows again. Ours, k-diffusion's LMS and azula's compute coefficients in float64 and cast
last."""


def _budgets(facts: Told) -> list[str]:
    budgets = next((list(told["budgets"]) for told in facts["budgets"] if "budgets" in told), [])
    lines = [
        "## Error against evaluations",
        "",
        _BUDGETS,
        "",
        f"| library | sampler | {' | '.join(budgets)} | spacing at {budgets[1]} |",
        f"|---|---|{'---:|' * len(budgets)}---|",
    ]
    order = sorted((t for t in facts["budgets"] if "budgets" in t), key=lambda t: t["budgets"][budgets[1]]["error"])
    for told in order:
        cells = [f"{told['budgets'][n]['error']:.2g}" for n in budgets]
        lines.append(_line(told["library"], f"`{told['sampler']}`", *cells, told["budgets"][budgets[1]]["grid"]))
    return lines + _missing(facts["budgets"])


def _settings(facts: Told) -> list[str]:
    found = facts["settings"]
    budgets = list(found)
    names = [name for name in found[budgets[0]] if "absent" not in found[budgets[0]][name]]
    lines = [
        "## Best settings",
        "",
        _SETTINGS,
        "",
        f"| | {' | '.join(budgets)} | choice at {budgets[-1]} |",
        f"|---|{'---:|' * len(budgets)}---|",
    ]
    for name in sorted(names, key=lambda name: found[budgets[0]][name]["error"]):
        cells = [f"{found[n][name]['error']:.2g}" if name in found[n] else "" for n in budgets]
        lines.append(_line(name, *cells, found[budgets[-1]].get(name, {}).get("choice", "")))
    return lines


def _own_times(facts: Told) -> list[str]:
    known = [told for told in facts["own times"] if "errors" in told]
    lines = ["## DDIM off its grid", "", _OWN_TIMES, ""]
    if not known:
        return [*lines, "Not measured."]
    lines += [f"| setting | {' | '.join(f'{n} steps' for n in known[0]['errors'])} |", f"|---|{'---:|' * len(known[0]['errors'])}"]
    return lines + [_line(f"`{told['setting']}`", *(f"{error:.2g}" for error in told["errors"].values())) for told in known]


_OWN_TIMES = """`DDIMScheduler` steps to the time `t - 1000 // n`, which is its next time only if `n` divides 1000. Euler's method over
the ratio is the same sampler on its own times; the error is on G4, to zero noise."""


def _law(facts: Told) -> list[str]:
    by_name = {(told["library"], told["sampler"]): told for told in facts["law"]}
    budgets = next((list(told["budgets"]) for told in facts["law"] if "budgets" in told), [])
    lines = [
        "## The law of samplers that draw noise",
        "",
        _LAW_HEAD,
        "",
        f"| library | sampler | claimed | weak order | variance's error at 160 | {' | '.join(f'law, {n}' for n in budgets)} | remark |",
        f"|---|---|---:|---:|---:|{'---:|' * len(budgets)}---|",
    ]
    for told in (told for told in facts["weak orders"] if "absent" not in told):
        cells = [f"{told['order']:.2f}", f"{told['error']:.2g}"]
        cells += [f"{by_name[told['library'], told['sampler']]['budgets'][n]['error']:.2g}" for n in budgets]
        lines.append(_line(told["library"], f"`{told['sampler']}`", told["claim"] or "", *cells, remark(told)))
    return [*lines, *_missing(facts["weak orders"]), "", _LAW]


_LAW = """Errors of the variance may cancel, so a weak order may exceed what is claimed. For the weak order SA-Solver's presets keep
their noise over the whole way. `DPMSolverSDE` and `dpmpp_sde` draw twice a step from one Brownian path, and that they
do is part of the measure."""


def _seeds(facts: Told) -> list[str]:
    lines = [
        "## Seeds and batches",
        "",
        _SEEDS,
        "",
        "| library | sampler | seeded by | alone | in a batch of 6 |",
        "|---|---|---|---:|---:|",
    ]
    for told in facts["seeds"]:
        cells = ["not measured", ""] if "absent" in told else [f"{told[of]:.2g}" for of in ("alone", "in 6")]
        lines.append(_line(told["library"], f"`{told['sampler']}`", told["seeded"] or "draws no noise", *cells))
    return lines


def _overhead(facts: Told) -> list[str]:
    lines = ["## Overhead", "", _OVERHEAD, "", "| | microseconds a step |", "|---|---:|"]
    for row in facts["overhead"]:
        lines.append(_line(row["name"].split(": microseconds")[0], "not measured" if row["value"] is None else f"{row['value']:.0f}"))
    return lines


def _aliases(facts: Told) -> list[str]:
    """The alias table, with the distances that were measured."""
    far = {(told["preset"], told["library"], told["sampler"]): told.get("distance") for told in facts["aliases"]}
    known = [d for d in far.values() if d is not None]
    lines = ["## Names", "", _NAMES.format(n=len(known), worst=max(known, default=0.0)), ""]
    lines += ["| preset | diffusers | k-diffusion | azula | A1111 | ComfyUI |", "|---|---|---|---|---|---|"]
    notes: list[str] = []
    for preset, entries in ALIASES.items():
        cells = []
        for library in ("diffusers", "k-diffusion", "azula", *_MENUS):
            cells.append("; ".join(_entry(str(e), e.note, notes) for e in entries if e.library == library))
        lines.append(_line(f"`{preset}`", *cells))
    return [*lines, "", *(f"{i}. {note[0].upper()}{note[1:]}." for i, note in enumerate(notes, start=1))]


def _entry(name: str, note: str, notes: list[str]) -> str:
    if note and note not in notes:
        notes.append(note)
    return f"`{name}`" + (f" ({notes.index(note) + 1})" if note else "")


_NAMES = """Which preset is which sampler elsewhere: `sfumato.integrations.aliases.alias("DPM++ 2M Karras")` is `"dpm-solver++-2m"`.
The {n} rows of `diffusers`, k-diffusion and azula were run against the preset in float64 on the same times and noise;
the largest difference is {worst:.1g}. A1111 and ComfyUI are applications: their rows name the function or the settings
that their source calls. Times are chosen apart from the solver, so the "Karras" of a name is our spacing `karras`."""


_ORDERS_HEAD = """The error falls as `C / N^p`. Measured on four Gaussians in the plane (G4), half log-SNR from -4 to 2 in equal steps:
the largest error over 64 paths against DOP853 at 1e-12. `C` is that of the nearest whole `p`."""

_BUDGETS = """From the end of `diffusers`' table of betas to zero noise on G4: distance from the end of the exact flow over the
samples' root mean square, each with the best of five spacings (log-SNR to two ends, EDM's, equal times,
quadratic times). The spacing is chosen on 32 starts, the error measured on 192 others. Samplers that cannot step to
zero noise end at the ratio 0.001 or 0.02, whichever is better."""

_SETTINGS = """The same measure for what users of each library would run at its best: `diffusers`' schedulers as shipped, float32
tables and all, each with the best of its own spacings, and our tables that use the data: the Gaussian part in closed
form, or fitted to the flow."""

_LAW_HEAD = """In a Gaussian world a sampler is a linear map of its start and of its Brownian path. Run on unit vectors it tells its
coefficients, so variances are exact and no sample is drawn. The weak order is that of the variance's error (one
dimension, variance 0.3, half log-SNR from -4 to 2 in equal steps). On the right: the 2-Wasserstein distance to a
Gaussian of variances 2, 0.3 and 0.02, over its size, to zero noise with the best of five spacings."""

_SEEDS = """How far sample 5 of a batch of 8 is from the same start alone, and in a batch of 6 under the same seed: float32, a
denoiser that treats every sample for itself, starts given. 0 is bitwise equality."""

_OVERHEAD = """A step beside the network: 50 steps on a `(16, 4, 64, 64)` float32 tensor with a denoiser that does nothing."""


def _line(*cells: object) -> str:
    return f"| {' | '.join(str('' if cell is None else cell).replace('|', '/') for cell in cells)} |"


def _missing(told: Sequence[Told]) -> list[str]:
    absent = sorted({f"{t['library']}: not measured, {t['absent']}" for t in told if "absent" in t})
    return ["", *absent] if absent else []


if __name__ == "__main__":
    main()
