"""The report: one self-contained page of questions, pictures and plain answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation
from sfumato.explain.gallery import gallery
from sfumato.explain.page import COLOURS, TEXT, css, round_numbers, svg, ticks
from sfumato.explain.report.panel import Panel
from sfumato.files import write_bytes

_WIDE, _NARROW = 500, 350
_CYCLE = ("ours", "peer", "three", "four", "classic", "one")


def write_report(panels: Sequence[Panel], facts: dict[str, dict[str, Any]], path: Path) -> None:
    """Write panels to one HTML file.

    Arguments:
        panels: in the order to show.
        facts: what the model and the data are, by heading.
        path: the file; an existing one is replaced.

    Raises:
        ArgumentError: no panels.
        OutputError: the file cannot be written.
    """
    if not panels:
        raise ArgumentError("panels", "none", "at least one panel")
    from jinja2 import Environment, StrictUndefined

    shell = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shell.filters.update(number=_number)
    template = shell.from_string(resources.files("sfumato.explain.report").joinpath("report.html.jinja").read_text(encoding="utf-8"))
    page = template.render(css=css(), facts=facts, panels=[_shown(panel) for panel in panels])
    write_bytes(path, page.encode())


def _shown(panel: Panel) -> dict[str, Any]:
    figures = []
    for i, (caption, answer) in enumerate(panel.answers):
        sizes = {"wide": _WIDE, "narrow": _NARROW}
        drawings = {kind: drawing(answer, width, f"{panel.name}-{i}-{kind}") for kind, width in sizes.items()}
        figures.append({"caption": caption, "meaning": answer.meaning, "numbers": answer.numbers, **drawings})
    return {
        "name": panel.name,
        "title": panel.title,
        "idea": panel.idea,
        "advice": panel.advice,
        "missing": panel.missing,
        "figures": figures,
        "sheets": gallery(panel.sheets),
        "tables": panel.tables,
    }


def drawing(answer: Explanation, width: int, name: str) -> str:
    """An explanation's picture in the page's colours, `width` CSS pixels wide, as an `<svg>` whose ids begin with `name`."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    # colours like "C0" are looked up when they are drawn, so the drawing is written inside
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), COLOURS["quiet"]))
        mpl.rcParams.update({"axes.prop_cycle": cycler(color=[COLOURS[ink] for ink in _CYCLE]), "text.color": COLOURS["ink"]})
        mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": TEXT, "lines.linewidth": 1.8})
        figure = Figure(figsize=(width / 72, width * (0.72 if width > _NARROW else 0.95) / 72), layout="constrained")
        axes = figure.subplots()
        answer.plot(axes)
        for part in figure.axes:
            _plain_ticks(part, few=width <= _NARROW)
        _lift_legend(figure, columns=2 if width > _NARROW else 1)
        return svg(figure, name, answer.meaning)


def _plain_ticks(axes: Any, few: bool) -> None:
    """Numbers on logarithmic axes, not formulas; maps as pictures."""
    for axis, scale, (low, high) in ((axes.xaxis, axes.get_xscale(), axes.get_xlim()), (axes.yaxis, axes.get_yscale(), axes.get_ylim())):
        if scale == "log":
            values = round_numbers(*sorted((low, high)))
        elif scale == "symlog":
            values = [0.0, *round_numbers(1.0, max(high, 10.0))]
        else:
            continue
        ticks(axis, values[:: 1 + len(values) // (6 if few else 9)])
    for mesh in axes.collections:
        # vector cells would show seams
        mesh.set_rasterized(hasattr(mesh, "get_coordinates"))


def _lift_legend(figure: Any, columns: int) -> None:
    """Legends stand above the drawing, where they hide nothing."""
    handles: dict[str, Any] = {}
    for part in figure.axes:
        if part.get_legend() is not None:
            part.get_legend().remove()
        handles |= {label: handle for handle, label in zip(*part.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=TEXT)


def _number(value: Any) -> str:
    """A number as one would say it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "—"}[value]
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return "—"
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " × ".join(_number(v) for v in value)
    return str(value)
