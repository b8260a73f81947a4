"""Every row draws its paper: finite data on labelled axes, under a caption, alike whenever it is asked, and not for long.

Every row is looked at for its figure and caption. To draw them all takes most of a minute: the site's build does it, and `-m full`; here
every eighth row is drawn.
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from matplotlib.figure import Figure

from sfumato.atlas import Row, at_most, find_paper, rows

ROWS = rows()
LONGEST = 10.0
"""Seconds of the processor; the aim is 1.5 on a machine that does nothing else."""


def drawn(row):
    """The axes that a row drew on, and what is on them in numbers."""
    figure = Figure()
    axes = figure.subplots()
    row.figure(axes)
    figure.draw_without_rendering()
    return axes, np.array([axes.dataLim.extents, (*axes.get_xlim(), *axes.get_ylim())])


def check(row):
    start = time.process_time()
    axes, place = drawn(row)
    assert time.process_time() - start < LONGEST
    assert axes.has_data()
    assert np.isfinite(place).all()
    assert axes.dataLim.width > 0
    assert axes.dataLim.height > 0
    texts = [axes.get_xlabel(), axes.get_ylabel(), *axes.get_legend_handles_labels()[1]]
    assert all(texts)
    # what reads formulas is not there when a page is drawn
    assert not any("$" in text for text in texts)
    again = drawn(row)[1]
    assert np.array_equal(place, again)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_every_row_has_a_figure_and_its_caption(row):
    assert row.figure is not None
    caption = " ".join((row.figure.__doc__ or "").split())
    assert len(caption) > 60
    assert caption.endswith(".")
    assert "$" not in caption
    assert "`" not in caption


@pytest.mark.parametrize("row", ROWS[::8], ids=lambda row: row.slug)
def test_a_figure_shows_something(row):
    check(row)


@pytest.mark.full
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_every_figure_shows_something(row):
    check(row)


def labelled(ax):
    ax.set(xlabel="x", ylabel="y")


def endless(ax):
    labelled(ax)
    ax.plot([0, 1, 2], [math.nan, math.nan, math.nan])


def nameless(ax):
    ax.plot([0, 1], [0, 1])


@pytest.mark.parametrize("figure", [labelled, endless, nameless])
def test_a_figure_without_data_or_labels_is_found(figure):
    row = Row(**vars(find_paper("painters")), checks=[lambda: [at_most("a", 0.0, 1.0)]], figure=figure)
    with pytest.raises(AssertionError):
        check(row)
