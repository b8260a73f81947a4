"""`Wrapped`: an exact denoiser turned into any prediction and back is itself, and networks get the time that they expect."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
import torch

from sfumato.denoise import View, Wrapped
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, BetaTable, Cosine, FlowMatching, SubVariancePreserving, Trigonometric, VarianceExploding, VariancePreserving

PROCESSES = [
    VariancePreserving(),
    SubVariancePreserving(),
    Cosine(),
    VarianceExploding(),
    EDM(),
    FlowMatching(),
    Trigonometric(),
    BetaTable.linear(),
]


def law():
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Gaussian(torch.arange(4.0, dtype=torch.float64), SpectralCovariance.from_dense(root @ root.T), (2, 2))


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_an_exact_denoiser_survives_the_way_through_every_view(process, view):
    exact = law().denoiser(process)
    wrapped = Wrapped(lambda x, time, condition: exact.view(view, x, time), process, view)
    x = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95])
    torch.testing.assert_close(wrapped.denoise(x, t), exact.denoise(x, t), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(wrapped.denoise(x, 0.3), exact.denoise(x, 0.3), rtol=1e-10, atol=1e-10)


def test_taking_one_view_for_another_gives_something_else():
    """Negative control."""
    process = VariancePreserving()
    exact = law().denoiser(process)
    wrong = Wrapped(lambda x, time, condition: exact.noise(x, time), process, "v")
    x = torch.ones(1, 2, 2, dtype=torch.float64)
    assert float((wrong.denoise(x, 0.5) - exact.denoise(x, 0.5)).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("t", lambda p, t: t),
        ("index", lambda p, t: 1000 * t - 1),
        ("half_log_snr", lambda p, t: torch.log(p.alpha(t) / p.sigma(t))),
        ("sigma", lambda p, t: p.sigma(t)),
        ("ratio", lambda p, t: p.sigma(t) / p.alpha(t)),
        (lambda t: 7 * t**2, lambda p, t: 7 * t**2),
    ],
)
def test_clocks_tell_the_time_one_per_sample(clock, expected):
    process, heard = BetaTable.linear(), []

    def network(x, time, condition):
        heard.append(time)
        return x

    wrapped = Wrapped(network, process, "data", time=clock)
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    wrapped.denoise(torch.zeros(2, 3, dtype=torch.float64), t)
    wrapped.denoise(torch.zeros(2, 3, dtype=torch.float64), 0.7)
    torch.testing.assert_close(heard[0], expected(process, t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(heard[1], expected(process, t)[1:].expand(2), rtol=1e-9, atol=1e-9)


def test_half_precision_keeps_the_index():
    """bfloat16 has 8 bits: 999 would read 1000."""
    process, heard = BetaTable.linear(), []

    def network(x, time, condition):
        heard.append(time)
        return x

    Wrapped(network, process, "data", time="index").denoise(torch.zeros(1, 3, dtype=torch.bfloat16), 1.0)
    assert heard[0].item() == 999.0


def test_input_is_scaled_on_the_way_in_only():
    process = EDM()
    t = process.time_of_ratio(3.0)
    wrapped = Wrapped(lambda x, time, condition: x, process, "noise", scale=lambda t: 1 / (1 + process.sigma(t) ** 2).sqrt())
    x = torch.ones(2, 4, dtype=torch.float64)
    torch.testing.assert_close(wrapped.denoise(x, t), x - 3 * x / 10**0.5)


def test_condition_is_passed_through():
    wrapped = Wrapped(lambda x, time, condition: x + condition[:, None], EDM(), "data")
    assert wrapped.denoise(torch.zeros(2, 1), 0.5, torch.tensor([3, 4])).flatten().tolist() == [3, 4]


@pytest.mark.parametrize(("view", "t"), [("noise", 1.0), ("score", 1.0), ("noise", 0.0), ("velocity", 0.0)])
def test_times_at_which_a_view_says_nothing_of_the_data_are_refused(view, t):
    with pytest.raises(ArgumentError, match=view):
        Wrapped(lambda x, time, condition: x, FlowMatching(), view).denoise(torch.zeros(1, 2), t)


def test_velocity_and_v_determine_the_data_at_the_noisy_end_of_a_flow():
    """Where alpha = 0: x_1 = eps, and velocity = -x_0 + eps, v = -x_0 in unit coordinates."""
    x = torch.ones(1, 2, dtype=torch.float64)
    velocity = Wrapped(lambda x, time, condition: 3 * x, FlowMatching(), "velocity")
    torch.testing.assert_close(velocity.denoise(x, 1.0), x - 3 * x)
    torch.testing.assert_close(Wrapped(lambda x, time, condition: 3 * x, FlowMatching(), "v").denoise(x, 1.0), -3 * x)


def test_unknown_views_and_clocks_are_refused():
    # the constructor's own errors, without the test run's type checks
    make, blank = inspect.unwrap(Wrapped.__init__), Wrapped.__new__(Wrapped)
    with pytest.raises(ArgumentError, match="predicts"):
        make(blank, torch.neg, EDM(), "epsilon")
    with pytest.raises(ArgumentError, match="time"):
        make(blank, torch.neg, EDM(), "data", "seconds")
    with pytest.raises(ArgumentError, match="BetaTable"):
        make(blank, torch.neg, EDM(), "data", "index")
