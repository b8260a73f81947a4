"""The atlas: one executable row per paper. Rows are found by walking the families' folders; no method lives here."""

from __future__ import annotations

import importlib

from sfumato.atlas.cite import bibtex
from sfumato.atlas.paper import Paper
from sfumato.atlas.row import Check, Outcome, Row, at_least, at_most, close, control, holds, run, within
from sfumato.atlas.source import find_paper, papers, rooms

__all__ = [
    "Check",
    "Outcome",
    "Paper",
    "Row",
    "at_least",
    "at_most",
    "bibtex",
    "close",
    "control",
    "find",
    "find_paper",
    "holds",
    "papers",
    "rooms",
    "rows",
    "run",
    "within",
]


def rows() -> list[Row]:
    """Every row, by its id: those of letters first, each family in the order of its numbers."""
    return [_load(paper) for paper in papers()]


def find(name: str) -> Row:
    """The row with that id or slug.

    Raises:
        ArgumentError: there is none; the nearest names are given.
    """
    return _load(find_paper(name))


def _load(paper: Paper) -> Row:
    row: Row = importlib.import_module(paper.module).ROW
    return row
