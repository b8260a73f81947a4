"""The report: one page that shows what tuning found, needs no network, and asks nothing of the reader but to look."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from sfumato.errors import ArgumentError
from sfumato.explain.gallery import gallery
from sfumato.explain.page import css, svg
from sfumato.files import write_bytes
from sfumato.metrics import Estimate
from sfumato.tune import findings, plots
from sfumato.tune.findings import Comparison, is_finite
from sfumato.tune.result import Candidate, TuneResult

LOADING = """\
from sfumato.tune import Recipe
recipe = Recipe.load("recipe.json")
samples = recipe.sampler(denoiser, {budget}).sample(64, seed=0)  # denoiser: your model"""
COMMAND = "sfumato sample RECIPE -n 64 --seed 0 --out grid.png"
_LONG = 12
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def write_report(result: TuneResult, path: Path, recipe: dict[str, Any]) -> None:
    """Write what tuning found to one self-contained HTML file.

    Arguments:
        result: the records; every figure in the page is theirs.
        path: the file; an existing one is replaced.
        recipe: the recipe's plain data, shown as it is, but for long lists, which are cut.

    Raises:
        ArgumentError: a result without any budget.
        OutputError: the file cannot be written.
    """
    if not result.chosen:
        raise ArgumentError("result.chosen", "no budgets", "at least one budget")
    page = _template().render(
        css=css(),
        **_facts(result),
        recipe=json.dumps(_cut(recipe), indent=2, ensure_ascii=False, default=str),
        loading=LOADING.format(budget=recipe.get("default", min(result.chosen))),
        command=COMMAND,
    )
    write_bytes(path, page.encode())


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    shell = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shell.filters.update(estimate=_estimate, plain=_plain, duration=findings.duration, number=_number)
    return shell.from_string(resources.files("sfumato.tune").joinpath("report.html.jinja").read_text(encoding="utf-8"))


def _facts(result: TuneResult) -> dict[str, Any]:
    """Everything the page shows."""
    title, subtitle = findings.headline(result)
    family = findings.rival(result)
    comparisons = findings.compare(result)
    judged = [c.quality for pair in comparisons for c in (pair.ours, pair.peer) if c is not None] + list(result.floor.values())
    longest = max((seconds for _, seconds in result.timings), default=0.0)
    return {
        "title": title,
        "subtitle": subtitle.replace(" ± ", "\u00a0±\u00a0"),
        "rival": findings.RIVALS[family] if family else None,
        "rows": comparisons,
        "contests": findings.contests(result),
        "with_quality": any(is_finite(q) for q in judged),
        "floor": result.floor,
        "note": _note(result, comparisons),
        "figures": {name: _figure(result, name, width) for name, width in _WIDTHS.items()},
        "gallery": gallery(result.pictures),
        "says": {name: say(result) for name, say in _SENTENCES.items()},
        "facts": {"Model": result.model, "Data": result.data, "Settings": result.settings, "Machine": result.machine},
        "reference": result.reference,
        "timings": [(step, seconds, 100 * seconds / longest if longest > 0 else 0) for step, seconds in result.timings],
        "tables": {"measured on the network": _sorted(result.candidates), "tried on the mixture world": _sorted(result.world)},
        "chosen": {(n, name) for n, name in result.chosen.items()},
        "off_scale": any(not 0 < k < math.inf for c in plots.walkers(result) for k in c.ratios or []),
    }


_WIDTHS = {"errors": 960, "explained": 500, "teleport": 500, "levels": 960}
_NARROW = 350
_SENTENCES = {
    "quality": findings.on_quality,
    "errors": findings.on_errors,
    "explained": findings.on_explained,
    "levels": findings.on_levels,
    "teleport": findings.on_teleport,
    "timings": findings.on_timings,
    "candidates": findings.on_candidates,
    "contest": findings.on_contest,
}


def _figure(result: TuneResult, name: str, width: int) -> dict[str, str]:
    """The figure for wide pages and for narrow ones: text keeps its size, the drawing does not."""
    draw, says = getattr(plots, name), _SENTENCES[name](result)
    return {kind: svg(draw(result, size), f"{name}-{kind}", says) for kind, size in (("wide", width), ("narrow", _NARROW))}


def _note(result: TuneResult, comparisons: list[Comparison]) -> str:
    """What the main table's columns mean, and what is missing from it."""
    asked, own = result.reference.get("evaluations"), result.reference.get("self_error")
    told = "Error: how far a sample lands from where the reference carries the same noise, relative to the sample's size"
    if asked is not None:
        told += f"; the reference takes {_plain(asked)} evaluations" + (
            f" and moves by {_plain(own)} if it takes half as many" if own else ""
        )
    if findings.rival(result) != "diffusers":
        told += ". No diffusers scheduler was measured, so none is compared here"
    return told + "."


def _sorted(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda c: (c.evaluations, not is_finite(c.error), c.error.value if is_finite(c.error) else 0.0))


def _estimate(estimate: Estimate | None) -> str:
    """`0.042 ± 0.001`, a dash for what was not measured, words for what is no number."""
    if estimate is None:
        return "—"
    if not is_finite(estimate):
        return "not finite"
    if not math.isfinite(estimate.standard_error):
        return f"{estimate.value:.3g}"
    return re.sub(r"e([+-]\d+)$", lambda power: "·10" + str(int(power[1])).translate(_RAISED), str(estimate))


def _number(value: Estimate | float | None) -> str:
    """The full number that the table's row is sorted by, empty if there is none."""
    value = value.value if isinstance(value, Estimate) else value
    return repr(value) if value is not None and math.isfinite(value) else ""


def _plain(value: Any) -> str:
    """A fact as one would say it."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if not value.is_integer() else f"{value:.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict) else str(value)


def _cut(value: Any) -> Any:
    """Plain data with the long lists cut short."""
    if isinstance(value, dict):
        return {str(key): _cut(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(v) for v in value] if len(value) <= _LONG else [*(_cut(v) for v in value[:3]), f"… {len(value)} in all"]
    return value
