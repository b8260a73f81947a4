from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from sfumato.explain import teleport_forecast
from sfumato.noise import EDM, FlowMatching
from sfumato.sample import karras
from sfumato.sample.compilers.teleport import steps_above


def test_measured_errors_lie_on_the_forecast(g4):
    """The card's factor on the squared error, 2.5, at two levels; the twin that carries deviations unchanged misses by more."""
    law = g4.gaussian()
    told = teleport_forecast(g4.denoiser(EDM()), law, 0.02, measure_at=(6.0, 3.0), batch=128)
    for ratio, measured in zip(told.measured_at, told.measured, strict=True):
        i = min(range(len(told.ratios)), key=lambda i: abs(told.ratios[i] - ratio))
        assert 1 / 2.5 < (told.predicted[i] / measured) ** 2 < 2.5
        assert (told.ungained[i] / measured) ** 2 > 2.5
    assert told.saved == steps_above(EDM(), karras(EDM(), 18), told.ratio) / 18
    assert f"{told.ratio:.2g}" in told.meaning
    assert told.numbers["measured error at 3"] == told.measured[1]
    axes = Figure().subplots()
    told.plot(axes)
    assert {"predicted", "predicted, deviations carried unchanged", "measured"} <= {line.get_label() for line in axes.lines}
    assert json.loads(json.dumps(told.to_dict()))["within"] is True


def test_it_says_so_when_nothing_is_within(g4):
    told = teleport_forecast(g4.denoiser(FlowMatching()), g4.gaussian(), 1e-12, batch=8)
    assert not told.within
    assert told.numbers["share of steps saved"] == 0
    assert "No level" in told.meaning


def test_the_law_itself_may_be_skipped_all_the_way(full_gaussian):
    told = teleport_forecast(full_gaussian.denoiser(FlowMatching()), full_gaussian, 1e-3, batch=8)
    assert told.within
    assert told.ratio == told.ratios[-1]
    assert max(told.predicted) == pytest.approx(0, abs=1e-6)
