"""The report's figures, as inline SVG.

A figure is drawn in placeholder colours, which become the page's CSS variables, so one drawing is legible in light and in dark. Nothing
here touches pyplot or rcParams. Every function takes the width in CSS pixels at which its text is meant to be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sfumato.explain.page import COLOURS, TEXT, round_numbers, ticks
from sfumato.tune.findings import RIVALS, compare, contests, is_finite, landing, measured, rival, start_level
from sfumato.tune.result import Candidate, TuneResult

_SERIES = {"isotropic": "one", "gaussian": "two", "mixture": "three", "empirical": "four"}


def errors(result: TuneResult, width: int) -> Any:
    """Error against evaluations, log-log: our chosen programs, the best rival, and everything else that was measured."""
    figure, axes = _canvas(width, 0.5 if width > 600 else 1.05)
    shown, family = measured(result), rival(result)
    others = [c for c in shown.candidates if c.family != "ours"]
    ours = [c.ours for c in compare(result) if is_finite(c.ours.error)]
    _curve(axes, ours, "ours", "our chosen programs", 3)
    counts = sorted({c.evaluations for c in others if c.family == family})
    best = [shown.best(n, family) for n in counts] if family else []
    envelope = [c for c, n in zip(best, counts, strict=True) if c is not None and c.evaluations == n]
    _curve(axes, envelope, "peer" if family == "diffusers" else "classic", f"the best {RIVALS[family]}" if family else "", 2)
    unfitted = [c for _, _, c, _ in contests(result) if c is not None and is_finite(c.error)]
    _curve(axes, unfitted, "three", "the best unfitted of our tables", 2)
    for kind, ink, label in (
        ("diffusers", "peer-thin", "every diffusers setting"),
        ("classic", "classic", "published solvers, our tables"),
    ):
        for name in dict.fromkeys(c.name for c in others if c.family == kind):
            points = sorted((c for c in others if (c.family, c.name) == (kind, name)), key=lambda c: c.evaluations)
            _curve(axes, points, ink, label, 1)
            label = "_"
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="error against the reference")
    _frame_errors(axes, ours + envelope, [c for c in others if c.error.value > 0], result.reference.get("self_error", math.nan))
    _legend(figure, axes, columns=3 if width > 600 else 1)
    return figure


def explained(result: TuneResult, width: int) -> Any:
    """The share of the learned score that each closed form leaves unexplained, against noise level; bands of one standard deviation."""
    figure, axes = _canvas(width, 0.72 if width > 400 else 0.95)
    ratios, low = result.diagnosis.ratios, 1.0
    for name, (mean, deviation) in result.diagnosis.explained.items():
        left = [1 - m if m < 1 else math.nan for m in mean]
        colour = COLOURS[_SERIES.get(name, "ink")]
        low = min([low, *(v for v in left if v > 0)])
        axes.plot(ratios, left, color=colour, lw=1.8, label=name)
        lower = [max(v - s, 1e-12) for v, s in zip(left, deviation, strict=True)]
        upper = [v + s for v, s in zip(left, deviation, strict=True)]
        axes.fill_between(ratios, lower, upper, color=colour, alpha=0.16, lw=0)
    axes.set(xscale="log", yscale="log", ylim=(low / 2, 2.5), ylabel="share left unexplained")
    ticks(axes.yaxis, round_numbers(low / 2, 2.5), lambda share: f"{100 * share:g} %")
    _levels_axis(axes, ratios)
    _mark_teleport(axes, result)
    _legend(figure, axes, columns=3 if width > 400 else 2)
    return figure


def teleport(result: TuneResult, width: int) -> Any:
    """The predicted error of a jump to each level, the tolerance, and the level chosen."""
    figure, axes = _canvas(width, 0.72 if width > 400 else 0.95)
    found = result.teleport
    points = sorted((k, e) for k, e in zip(found.ratios, found.predicted, strict=True) if e > 0 and math.isfinite(e))
    axes.plot(*zip(*points, strict=True) if points else ([], []), color=COLOURS["ours"], lw=2, label="predicted error of the jump")
    axes.axhline(found.tolerance, color=COLOURS["ink"], lw=1, ls=(0, (1, 2)), label=f"tolerance {found.tolerance:.2g}")
    values = [e for _, e in points] + [found.tolerance]
    low, high = min(values) / 2, max(values) * 2
    axes.set(xscale="log", yscale="log", ylim=(low, high), ylabel="error of the final sample")
    ticks(axes.yaxis, round_numbers(low, high))
    _levels_axis(axes, found.ratios)
    _mark_teleport(axes, result)
    _legend(figure, axes, columns=2 if width > 400 else 1)
    return figure


def levels(result: TuneResult, width: int) -> Any:
    """One axis of noise levels: where our chosen programs and the best rivals ask the network, and the jump of ours."""
    rows = walkers(result)
    figure, axes = _canvas(width, (70 + 46 * len(rows)) / width)
    finite = [k for c in rows for k in c.ratios or [] if 0 < k < math.inf] or [1.0, 10.0]
    # a level of zero or of infinity has no place on a logarithmic axis: it stands at its edge, open
    bottom, top, start = min(finite) / 1.5, max(finite) * 1.5, start_level(result)
    for y, c in enumerate(rows):
        colour = COLOURS[{"ours": "ours", "diffusers": "peer", "classic": "classic"}[c.family]]
        at = [min(max(k, bottom), top) for k in c.ratios or []]
        axes.axhline(y, color=COLOURS["faint"], lw=1, zorder=0)
        fill = [colour if bottom < k < top else "none" for k in at]
        axes.scatter(at, [y] * len(at), s=36, color=fill, edgecolors=colour, linewidths=1.3, zorder=3)
        jump = landing(c, start) if c.family == "ours" else None
        if jump is not None:
            arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 5, "mutation_scale": 16}
            axes.annotate("", (jump, y), (min(start, top), y), arrowprops=arrow, zorder=2)
        label = f"{'ours' if c.family == 'ours' else c.name}, {c.evaluations}"
        axes.annotate(label, (0, y), (0, 8), axes.get_yaxis_transform(), "offset points", color=colour, size=TEXT)
    axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.9), yticks=[])
    axes.spines["left"].set_visible(False)
    _levels_axis(axes, [bottom, top])
    _mark_teleport(axes, result)
    return figure


def walkers(result: TuneResult) -> list[Candidate]:
    """Our chosen programs and the best rivals whose noise levels are known, budget by budget."""
    pairs = [c for comparison in compare(result) for c in (comparison.ours, comparison.peer)]
    return [c for c in pairs if c is not None and c.ratios]


def _canvas(width: int, aspect: float) -> tuple[Any, Any]:
    """A figure of `width` CSS pixels (a point each), with quiet axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, width * aspect / 72), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(which="both", colors=COLOURS["quiet"], labelcolor=COLOURS["quiet"], labelsize=TEXT)
    for side, spine in axes.spines.items():
        spine.set(color=COLOURS["quiet"], lw=0.8, visible=side in ("left", "bottom"))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=COLOURS["quiet"], size=TEXT)
    return figure, axes


def _curve(axes: Any, points: Sequence[Candidate], ink: str, label: str, weight: int) -> None:
    """Errors with their bars; `weight` is 3 for what matters most and 1 for what stands behind."""
    if points:
        x, y = [c.evaluations for c in points], [c.error.value for c in points]
        bars = [c.error.standard_error if c.error.standard_error >= 0 else math.nan for c in points]
        style = {"color": COLOURS[ink], "lw": weight, "elinewidth": max(1, weight / 2), "marker": "o", "ms": 2.3 * weight}
        axes.errorbar(x, y, bars, label=label, zorder=2 + weight, **style)


def _frame_errors(axes: Any, lead: Sequence[Candidate], others: Sequence[Candidate], self_error: float) -> None:
    """Frame what matters: a solver that diverged must not flatten everybody else."""
    main = [c.error.value for c in lead if c.error.value > 0] or [1.0]
    values = [c.error.value for c in others] + main
    counts = sorted({c.evaluations for c in [*lead, *others]}) or [1]
    low, high = min(values) / 1.6, min(max(values), 8 * max(main)) * 1.4
    if low / 20 < self_error < high:
        low = min(low, self_error / 1.3)
        axes.axhline(self_error, color=COLOURS["quiet"], lw=1, ls=(0, (1, 2)))
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": "right"}
        axes.annotate("the reference's own error", (1, self_error), (0, 4), color=COLOURS["quiet"], size=TEXT, **place)
    axes.set(ylim=(low, high), xlim=(counts[0] / 1.12, counts[-1] * 1.12))
    # ticks closer than a tenth would print over each other
    ticks(axes.xaxis, [float(n) for i, n in enumerate(counts) if i == 0 or n > 1.1 * counts[i - 1]])
    ticks(axes.yaxis, round_numbers(low, high))


def _levels_axis(axes: Any, ratios: Sequence[float]) -> None:
    """Noise at the left, data at the right: a sampler walks the way one reads."""
    finite = [k for k in ratios if 0 < k < math.inf] or [0.1, 10.0]
    low, high = min(finite) / 1.15, max(finite) * 1.15
    axes.set(xlim=(high, low), xlabel="noise-to-signal ratio   (noise → data)")
    ticks(axes.xaxis, round_numbers(low, high))


def _mark_teleport(axes: Any, result: TuneResult) -> None:
    if math.isfinite(result.teleport.ratio) and result.teleport.ratio > 0:
        label = f"teleport to {result.teleport.ratio:.2g}"
        axes.axvline(result.teleport.ratio, color=COLOURS["ink"], lw=1, ls=(0, (5, 3)), label=label, zorder=0)


def _legend(figure: Any, axes: Any, columns: int) -> None:
    shown = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown, loc="outside upper left", ncols=columns, frameon=False, fontsize=TEXT, labelcolor=COLOURS["ink"])
