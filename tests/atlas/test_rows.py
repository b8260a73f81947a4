"""Every row's first check, which needs no training: it passes and its controls fail. `make atlas` runs the rows whole."""

from __future__ import annotations

import pytest

from sfumato.atlas import papers, rows, run
from sfumato.atlas.source import has_figure

ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_the_first_check_of_every_row_is_as_it_should_be(row):
    found = list(row.checks[0]())
    assert found
    assert not [c for c in found if not c.good]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_every_row_says_who_claims_what(row):
    assert all((row.id, row.slug, row.title, row.authors, row.claim, row.checks))
    assert row.reproduced in ("yes", "partly", "no")
    assert 2010 <= row.year <= 2026


TOLD = ("id", "slug", "title", "authors", "year", "arxiv", "claim", "reproduced", "module", "family", "order")


def test_what_is_read_of_the_files_is_what_the_rows_say():
    read = papers()
    assert [[getattr(p, name) for name in TOLD] for p in read] == [[getattr(row, name) for name in TOLD] for row in ROWS]
    assert [has_figure(p) for p in read] == [row.figure is not None for row in ROWS]
    assert len({p.module for p in read}) == len(read)


@pytest.mark.full
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_every_row_is_as_it_should_be(row):
    outcome = run(row)
    assert not [c for c in outcome.checks if not c.good]
    assert any(c.control for c in outcome.checks)
