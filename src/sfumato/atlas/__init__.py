"""The atlas: one executable row per paper. Rows are found by walking the families' folders; no method lives here."""

from __future__ import annotations

import importlib
import pkgutil

from sfumato.atlas.row import Check, Outcome, Row, at_least, at_most, close, control, holds, run, within
from sfumato.errors import ArgumentError

__all__ = ["Check", "Outcome", "Row", "at_least", "at_most", "close", "control", "find", "holds", "rows", "run", "within"]


def rows() -> list[Row]:
    """Every row, by its id: those of letters first, each family in the order of its numbers."""
    found = []
    for family in pkgutil.iter_modules(__path__):
        if not family.ispkg:
            continue
        package = importlib.import_module(f"{__name__}.{family.name}")
        for module in pkgutil.iter_modules(package.__path__):
            made = getattr(importlib.import_module(f"{package.__name__}.{module.name}"), "ROW", None)
            if isinstance(made, Row):
                found.append(made)
    return sorted(
        found, key=lambda row: (row.id[0].isdigit(), row.id.rstrip("0123456789"), int("0" + row.id.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")))
    )


def find(name: str) -> Row:
    """The row with that id or slug.

    Raises:
        ArgumentError: there is none; the nearest names are given.
    """
    import difflib

    known = rows()
    wanted = name.strip().lower()
    for row in known:
        if wanted in (row.id.lower(), row.id.lower().lstrip("0"), row.slug):
            return row
    near = difflib.get_close_matches(wanted, [row.slug for row in known], n=3, cutoff=0.4)
    raise ArgumentError(
        "row", repr(name), "the id or slug of a row", f"Near it: {', '.join(near)}." if near else "`sfumato atlas list` shows them."
    )
