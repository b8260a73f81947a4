"""Restoration and degradation: the published algebra, DDIM as its end, what converges and what does not, and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, Cosine, FlowMatching, VariancePreserving
from sfumato.sample import Restoration, ddim, karras, response, run, uniform_time
from sfumato.sample.judges.consistency import consistency
from sfumato.sample.steps.restoration import restoration_step

# its clock -log(alpha) is twice our time, so the process is dx = -x dT + sqrt(2) dw over T from 0 to 2
OU = VariancePreserving(4.0, 4.0)
LINE = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))


def times(steps: int) -> tuple[float, ...]:
    return uniform_time(steps, 1.0, 0.1)


def error(window, steps: int) -> float:
    """Of the standard deviation at T = 0.2, relative."""
    out = response(Restoration(window).compile(OU, times(steps)), LINE)
    return abs(math.sqrt(float(out.variance(LINE.through(OU, 1.0).covariance.rest) / out.target)) - 1)


@pytest.mark.parametrize("window", [1, 2, 3.5])
def test_it_is_the_published_step(window):
    """`x' = e^h (x + a s) - sqrt(a (1 - e^{-2(l-1)h})) s` with `a = 1 - e^{-2 l h}`, written out on the score."""
    x = torch.tensor([[0.4], [-1.3]], dtype=torch.float64)
    table, belief = Restoration(window).compile(OU, uniform_time(6, 1.0, 0.55)), LINE.denoiser(OU)
    got, h = x, 2 * 0.45 / 6
    a, b = -math.expm1(-2 * window * h), -math.expm1(-2 * (window - 1) * h)
    for t in table.times[:-1]:
        s = belief.score(got, t)
        got = math.exp(h) * (got + a * s) - math.sqrt(a * b) * s
    assert float((run(table, belief.denoise, x) - got).abs().max()) < 1e-12


def test_windows():
    """Without convergence, of order 1/2, and of order 1. Measured at 400 steps: 0.879, 0.302, 0.138, 0.030; orders 0.46 and 1.00."""
    assert [error(w, 400) for w in (1, 2, 4, 16)] == pytest.approx([0.879, 0.302, 0.138, 0.0303], rel=0.01)
    assert abs(math.log(error("balanced", 200) / error("balanced", 800), 4) - 0.5) < 0.12
    assert abs(math.log(error("whole", 100) / error("whole", 400), 4) - 1) < 0.05
    # a fixed window is not saved by smaller steps
    assert abs(error(4, 200) / error(4, 400) - 1) < 0.05


@pytest.mark.parametrize("process", [OU, EDM(), Cosine(), FlowMatching()], ids=lambda p: p.kind)
def test_the_whole_window_is_ddim(process):
    """To rounding, with both infinite ends."""
    grid = karras(process, 9)
    tables = [s.compile(process, grid).dense() for s in (Restoration("whole"), ddim())]
    assert max(float((a - b).abs().max()) for a, b in zip(*tables, strict=True)) < 1e-13


def test_a_fixed_window_shrinks_noise():
    """Constants stay; a point mass does not: it keeps less noise than there is, and draws none."""
    defects = consistency(Restoration(2).compile(OU, times(10)))
    assert defects.data < 1e-12
    assert defects.noise > 0.01


def test_the_general_step_meets_the_exact_one():
    """On `dx = -x dt + sqrt(2) dw`, whose exponentials it replaces by Euler steps: the difference of one step falls like `(l h)^2`."""
    x, belief = torch.tensor([[0.4], [-1.3]], dtype=torch.float64), LINE.denoiser(OU)
    gaps = []
    for h in (0.02, 0.01, 0.005):
        table = Restoration(4).compile(OU, (0.5, 0.5 - h / 2))
        got = restoration_step(x, 1.0, h, 4, lambda y, t: belief.score(y, t / 2), lambda y, _: -y, lambda _: math.sqrt(2))
        gaps.append(float((run(table, belief.denoise, x) - got).abs().max()))
    assert math.log2(gaps[1] / gaps[2]) > 1.8


def test_noise_has_to_be_the_same_for_every_state():
    x = torch.ones(3, 1, dtype=torch.float64)
    with pytest.raises((ArgumentError, TypeCheckError)):
        restoration_step(x, 1.0, 0.1, 2, lambda y, t: -y, lambda y, t: -y, lambda t: x[:, 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Restoration(0.5),
        lambda: Restoration(math.inf),
        lambda: Restoration("wide"),
        lambda: Restoration(60).compile(OU, times(50)),
        lambda: Restoration(2).compile(FlowMatching(), uniform_time(4)),
        lambda: restoration_step(torch.ones(1, 1), 1.0, 0.5, 4, lambda y, t: -y, lambda y, t: -y, lambda t: 1.0),
        lambda: restoration_step(torch.ones(1, 1), 1.0, 0.1, 0.5, lambda y, t: -y, lambda y, t: -y, lambda t: 1.0),
        lambda: restoration_step(torch.ones(1, 1), 1.0, 0.1, 2, lambda y, t: -y, lambda y, t: -y, lambda t: 0.0),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises((ArgumentError, TypeCheckError)):
        make()
