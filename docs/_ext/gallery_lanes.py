"""A table of checks in which each has a picture: the stretch that passes, and where the measured value lies."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, MARGIN = 220.0, 22.0, 7.0
# where bounds lie on the line of a check, which is linear and goes from 0 to 1: a pair of them, and a single one
LOW, HIGH, ONLY = 0.35, 0.65, 0.5
_SHORT = 22  # letters that stay on one line


def lanes(checks: Sequence[dict[str, Any]], control: bool) -> str:
    """The table, as HTML: each check a line, with its picture, its numbers and its verdict."""
    names = ("control" if control else "check", "", "measured", "passes if", "verdict")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(_line(check, control) for check in checks)
    return f'<table class="lanes"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _line(check: dict[str, Any], control: bool) -> str:
    good = bool(check["failed_as_it_should" if control else "passed"])
    verdict = ("failed, as it should" if good else "passed, and should not") if control else ("passed" if good else "failed")
    expected = str(check["expected"]).replace("<=", "≤").replace(">=", "≥").replace("+-", "±")
    numbers = "".join(_cell(*said) for said in (("measured", number(check["measured"])), ("passes if", expected)))
    return (
        f'<tr><th scope="row">{html.escape(check["name"])}</th><td>{picture(check, control, good)}</td>{numbers}'
        f'<td><span class="{"good" if good else "bad"}">{verdict}</span></td></tr>'
    )


def _cell(label: str, text: str) -> str:
    short = ' class="short"' if len(text) < _SHORT else ""
    return f'<td data-label="{label}"{short}>{html.escape(text)}</td>'


def number(value: Any) -> str:
    """A measured value, in four digits if it is a number."""
    return str(value) if isinstance(value, str | bool) else f"{value:.4g}"


def ends(low: float | None, high: float | None) -> tuple[float, float]:
    """Where the stretch that passes begins and ends on the line."""
    if low is not None and high is not None:
        return LOW, HIGH
    return (ONLY if low is not None else 0.0), (ONLY if high is not None else 1.0)


def place(measured: float, low: float | None, high: float | None) -> float | None:
    """Where a value lies on the line; None if there is nothing to measure from.

    With both bounds their distance is the unit; with one, the bound's own distance from 0, or, if it is not above 0, the larger of that
    and the value's distance from it.
    """
    if not math.isfinite(measured):
        return None
    if low is not None and high is not None:
        return LOW + (HIGH - LOW) * (measured - low) / (high - low) if high > low else None
    bound = low if high is None else high
    if bound is None:
        return None
    if bound > 0:
        return ONLY * measured / bound
    unit = max(abs(bound), abs(measured - bound))
    return ONLY + 0.4 * (measured - bound) / unit if unit else ONLY


def picture(check: dict[str, Any], control: bool, good: bool) -> str:
    """The line of one check; the numbers beside it say the same, so it is hidden from readers of text."""
    low, high = check["low"], check["high"]
    x = place(check["measured"], low, high) if isinstance(check["measured"], int | float) else None
    if x is None:
        return '<span class="statement">no bound to draw</span>'
    (start, end), middle = ends(low, high), HEIGHT / 2
    left, right = (_at(start) if start else 0.0), (_at(end) if end < 1 else WIDTH)
    bounds = "".join(
        f'<path class="bound" d="M{at:g} {middle - 7:g}v14"/>' for at, bound in ((left, low), (right, high)) if bound is not None
    )
    kind = f"{'control' if control else 'check'} {'good' if good else 'bad'}"
    return (
        f'<svg class="lane" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" aria-hidden="true"><path class="axis" d="M0 {middle:g}H{WIDTH:g}"/>'
        f'<rect class="passes" x="{left:g}" y="{middle - 5:g}" width="{right - left:g}" height="10"/>'
        f"{bounds}{_mark(x, kind, control)}</svg>"
    )


def _at(x: float) -> float:
    return MARGIN + (WIDTH - 2 * MARGIN) * x


def _mark(x: float, kind: str, control: bool) -> str:
    """A dot for a check, a diamond for a control, an arrow for what lies beyond the line."""
    y = HEIGHT / 2
    if x < 0:
        return f'<path class="{kind}" d="M{MARGIN + 4:g} {y - 6:g}L{MARGIN - 5:g} {y:g}L{MARGIN + 4:g} {y + 6:g}Z"/>'
    if x > 1:
        right = WIDTH - MARGIN
        return f'<path class="{kind}" d="M{right - 4:g} {y - 6:g}L{right + 5:g} {y:g}L{right - 4:g} {y + 6:g}Z"/>'
    if control:
        return f'<path class="{kind}" d="M{_at(x):.1f} {y - 6:g}l6 6l-6 6l-6 -6Z"/>'
    return f'<circle class="{kind}" cx="{_at(x):.1f}" cy="{y:g}" r="5"/>'
