"""Sharing early times: constant inside a cell, exact above the threshold, and the shared optimum is the least squares one."""

from __future__ import annotations

import json

import pytest
import torch
from matplotlib.figure import Figure

from sfumato.denoise import Preconditioned, ResidualMLP, SharedBelief, SharedLabels, SharedTimes, TimeCells, Wrapped
from sfumato.errors import ArgumentError
from sfumato.explain import time_lipschitz
from sfumato.learn import DenoisingLoss, SmoothTimeLoss, Uniform
from sfumato.noise import BetaTable, FlowMatching, Trigonometric, VariancePreserving
from sfumato.seeds import noise

F64 = torch.float64


def test_cells_map_times_to_their_left_end_and_leave_the_rest():
    cells = TimeCells.equal(5, 0.1)
    t = torch.tensor([0.0, 0.019, 0.02, 0.0999, 0.1, 0.7], dtype=F64)
    assert cells(t).tolist() == pytest.approx([0.0, 0.0, 0.02, 0.08, 0.1, 0.7])
    process = VariancePreserving()
    logs = TimeCells.equal_log_snr(process, 4, 0.1, 1e-3)
    widths = process.half_log_snr(torch.tensor(logs.edges, dtype=F64)).diff()
    torch.testing.assert_close(widths, widths[:1].expand(4))
    assert float(logs(torch.tensor(5e-4))) == pytest.approx(5e-4)  # below the first edge nothing is shared


def test_the_shared_prediction_is_constant_inside_a_cell_and_the_inner_one_above(g4):
    inner = g4.denoiser(VariancePreserving())
    shared = SharedTimes(inner, TimeCells.equal(5, 0.1, 1e-3))
    x = g4.sample(20, 0)
    assert torch.equal(shared.noise(x, 0.005), shared.noise(x, 0.015))
    assert not torch.equal(shared.noise(x, 0.015), shared.noise(x, 0.035))
    torch.testing.assert_close(shared.denoise(x, 0.4), inner.denoise(x, 0.4))
    alpha, sigma = inner.process.levels(0.015)  # coefficients keep the true time
    torch.testing.assert_close(shared.denoise(x, 0.015), (x - sigma * inner.noise(x, 1e-3)) / alpha)


def test_the_shared_belief_is_the_least_squares_answer_over_the_times_of_its_cell(g4):
    """Against moves in 20 random directions: the mean squared error over (t, x_t) is least at it, in expectation over joint samples."""
    process, cells = VariancePreserving(), TimeCells.equal(1, 0.05)
    times = (0.01, 0.03, 0.045)
    belief, n = SharedBelief(g4, process, cells, times), 4000
    eps = noise(1, n, (2,), dtype=F64).draw(2)
    xs = [process.sample(g4.sample(n, 0), t, eps) for t in times]

    def loss(slope):
        return sum(float((belief.noise(x, t) * (1 + slope) - eps).square().mean()) for x, t in zip(xs, times, strict=True))

    assert loss(0.0) < min(loss(0.1), loss(-0.1))
    exact = g4.denoiser(process)
    own = sum(float((exact.noise(x, t) - eps).square().mean()) for x, t in zip(xs, times, strict=True))
    assert own < loss(0.0)  # sharing costs
    first_only = SharedTimes(exact, TimeCells((0.01, 0.05)))
    left = sum(float((first_only.noise(x, t) - eps).square().mean()) for x, t in zip(xs, times, strict=True))
    assert loss(0.0) < left


def test_labels_are_shared_below_the_threshold_and_true_above(g4):
    process = FlowMatching()
    net = ResidualMLP((2,), 16, 1)
    torch.nn.init.normal_(net.last.weight)
    model = Preconditioned(SharedLabels(net, process, TimeCells.equal(2, 0.2)), process)
    seen = []
    net.register_forward_pre_hook(lambda _, given: seen.append(given[1].tolist()))
    with torch.no_grad():
        model.denoise(torch.zeros(4, 2), torch.tensor([0.11, 0.19, 0.21, 0.6]))
    label = torch.log(process.ratio(torch.tensor([0.1, 0.1, 0.21, 0.6]))) / 4
    assert seen[0] == pytest.approx(label.tolist(), abs=1e-6)


def test_a_wrapped_network_takes_cells_as_its_clock():
    seen = []
    Wrapped(lambda x, time, _: seen.append(time) or x, VariancePreserving(), "noise", TimeCells.equal(5, 0.1)).denoise(
        torch.zeros(2, 3), torch.tensor([0.03, 0.5])
    )
    assert seen[0].tolist() == pytest.approx([0.02, 0.5])


def test_the_derivative_diverges_as_one_over_root_t_only_where_sigma_starts_as_a_root(g4):
    """Slope of log K: -1/2 for linear betas, 0 for the trigonometric clock and the data prediction of none of both."""
    times = torch.logspace(-6, -3, 13, dtype=F64).tolist()
    found = {p.kind: time_lipschitz(g4.denoiser(p), g4.sample(200, 0), times) for p in (VariancePreserving(), Trigonometric())}
    assert found["variance-preserving"].slope == pytest.approx(-0.5, abs=0.05)
    assert found["trigonometric"].slope == pytest.approx(0.0, abs=0.01)
    assert "without bound" in found["variance-preserving"].meaning
    ax = Figure().subplots()
    found["trigonometric"].plot(ax)
    assert len(ax.get_legend().get_texts()) == 2
    json.dumps(found["variance-preserving"].to_dict(), allow_nan=False)


def test_the_penalty_is_the_squared_slope_in_time(g4):
    """Of the exact belief under a table: the loss without it, plus strength times the mean square of the difference quotient."""
    process = BetaTable.linear(100)
    belief, clean = g4.denoiser(process), g4.sample(64, 0)
    plain = DenoisingLoss(Uniform(), view="noise")
    smooth = SmoothTimeLoss(weight=Uniform(), view="noise", strength=0.5, gap=1e-2)
    drawn = plain.examples(process, clean, torch.Generator().manual_seed(0))
    extra = smooth(belief.denoise, process, drawn) - plain(belief.denoise, process, drawn)
    slope = (belief.noise(drawn.noisy, drawn.t + 1e-2) - belief.noise(drawn.noisy, drawn.t)) / 1e-2
    inside = drawn.t + 1e-2 < 1
    torch.testing.assert_close(extra[inside], 0.5 * slope.square().mean(1)[inside])


def test_bad_input(g4):
    process = VariancePreserving()
    for edges in ((0.1,), (0.2, 0.1), (0.0, 1.5)):
        with pytest.raises(ArgumentError, match="edges"):
            TimeCells(edges)
    with pytest.raises(ArgumentError, match="labels"):
        TimeCells((0.0, 0.1), (0.2,))
    with pytest.raises(ArgumentError, match="count"):
        TimeCells.equal(0)
    with pytest.raises(ArgumentError, match="first"):
        TimeCells.equal_log_snr(process, 3, 0.1, 0.0)
    with pytest.raises(ArgumentError, match="t:"):
        SharedTimes(g4.denoiser(process), TimeCells.equal(5, 0.1)).denoise(g4.sample(2, 0), 0.01)  # the noise view at f(t) = 0
    with pytest.raises(ArgumentError, match="times"):
        SharedBelief(g4, process, TimeCells.equal(5, 0.1), (0.0, 0.1))
    with pytest.raises(ArgumentError, match="trained on"):
        SharedBelief(g4, process, TimeCells.equal(5, 0.1), (0.05,)).denoise(g4.sample(2, 0), 0.01)
    with pytest.raises(ArgumentError, match="times"):
        time_lipschitz(g4.denoiser(process), g4.sample(2, 0), (0.2, 0.1))
    with pytest.raises(ArgumentError, match="strength"):
        SmoothTimeLoss(strength=-1.0)
