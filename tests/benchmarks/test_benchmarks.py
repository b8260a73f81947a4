"""The figures' arithmetic: what passes, what is compared, and what the floor of the empirical denoiser's accuracy is measured against."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest
import torch
from benchmarks.empirical import clusters, direct, distance, squared_distance_form
from benchmarks.exact_world import relative_error
from benchmarks.figure import Figure, Row, alternate, at_least, at_most, paired_ratio

from benchmarks import __main__ as command


def test_the_command_lists_its_figures(capsys):
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in command.FIGURES)
    assert all(importlib.util.find_spec(f"benchmarks.{name}") for name in command.FIGURES)


def test_an_unknown_figure_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["weather"])
    assert stopped.value.code == 2
    assert "no figure named weather" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "reached"), [(0.3, True), (0.25, True), (math.nan, False)])
def test_a_limit_is_reached_at_itself_and_never_by_nan(value, reached):
    assert at_least("", value, 0.25).passed is reached
    assert at_most("", -value, -0.25).passed is reached


@pytest.mark.parametrize(("row", "code"), [(Row("fact", 1.0), 0), (at_most("good", 1.0, 2.0), 0), (at_most("bad", 3.0, 2.0), 1)])
def test_a_missed_target_is_the_exit_code_and_results_are_written(row, code, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr("benchmarks.orders.measure", lambda quick: Figure([row], {"odd": math.inf, "seconds": [1.0]}))
    assert command.main(["orders"]) == code
    kept = json.loads((tmp_path / "orders.json").read_text())
    assert kept["rows"][0]["passed"] is row.passed
    assert kept["facts"] == {"odd": "inf", "seconds": [1.0]}
    assert {"processor", "cores", "threads", "torch", "diffusers"} <= set(kept["machine"])
    assert row.name in (tmp_path / "orders.md").read_text()


def test_alternation_is_balanced_and_leaves_out_the_first_round():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    assert alternate(tasks, 2) == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert "".join(calls) == "baabba"


def test_ratios_are_paired():
    """A machine that slows down threefold in one round does not move the median of the rounds' ratios."""
    assert paired_ratio([2.0, 6.0, 2.0], [1.0, 3.0, 1.0]) == 2.0


def test_errors_are_relative_to_each_sample():
    truth = torch.tensor([[3.0, 4.0], [0.0, 10.0]])
    assert relative_error(truth + torch.tensor([[0.5, 0.0], [0.0, 3.0]]), truth) == pytest.approx((0.1 + 0.3) / 2)


def test_the_direct_posterior_mean_of_two_points_and_the_usual_forms_loss_of_digits():
    """By hand for two points; on clusters of clusters at k = 0.01 the usual float32 form is far off, which is what the figure is about."""
    points, x = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.25]])
    ratio = math.exp((0.25**2 - 0.75**2) / (2 * 0.5**2))
    assert float(direct(x, points, 0.5)) == pytest.approx(ratio / (1 + ratio))
    cloud = clusters(4000, 256)
    x = cloud[:4] + 0.01 * torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    assert distance(squared_distance_form(x, cloud, 0.01), direct(x, cloud, 0.01)) > 1e-5
    assert distance(squared_distance_form(x, cloud, 10.0), direct(x, cloud, 10.0)) < 1e-5
