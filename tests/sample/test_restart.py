"""Restart against its table by hand, its count of evaluations, and the exact contraction of a Gaussian world."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, VariancePreserving
from sfumato.sample import Heun, ddim, karras, run
from sfumato.sample.compilers.multistep import dpm_solver
from sfumato.sample.steps.restart import Churned, Interval, Restart, contraction, noised
from sfumato.sample.steps.reverse_sde import ReverseSDE
from sfumato.sample.steps.step import Stream, TableStep, walk
from sfumato.seeds import noise

PROCESS = EDM()
L1 = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))


class Counted(Denoiser):
    def __init__(self, inner):
        self.inner, self.process, self.times = inner, inner.process, []

    def denoise(self, x, t, condition=None):
        self.times.append(float(t))
        return self.inner.denoise(x, t)


def start(n: int, process=PROCESS, dim: int = 2):
    return process.prior_sample(noise(0, n, (dim,), dtype=torch.float64).draw(0))


@pytest.mark.parametrize(("points", "loops"), [(3, 2), (5, 4), (2, 1)])
def test_evaluations_are_those_of_the_paper(g4, points, loops):
    """`2 N - 1` of the main way and `2 (n - 1)` a loop; 18 points with an interval of (3, 2) cost 43."""
    belief, x = Counted(g4.denoiser(PROCESS)), start(2)
    Restart((Interval(0.1, 0.3, points, loops),)).sample(belief, PROCESS, x, karras(PROCESS, 18), Stream.of(1, x))
    assert len(belief.times) == 35 + loops * 2 * (points - 1)


def test_it_is_the_flow_with_one_jump_written_out(g4):
    times, x, draws = karras(PROCESS, 8), start(5), noise(1, 5, (2,), dtype=torch.float64)
    belief = g4.denoiser(PROCESS)
    low = min(times[:-1], key=lambda t: abs(float(PROCESS.ratio(t)) - 0.5))
    place = times.index(low)
    k = float(PROCESS.ratio(low))
    got = Restart((Interval(0.5, 3.0, 4, 1),), noise=1.003).sample(belief, PROCESS, x, times, Stream.of(1, x))
    y = run(Heun().compile(PROCESS, times[: place + 1]), belief.denoise, x)
    y = y + 1.003 * math.sqrt(9 - k**2) * draws.draw(1)
    ramp = [(3 ** (1 / 7) + i / 3 * (k ** (1 / 7) - 3 ** (1 / 7))) ** 7 for i in range(4)]
    y = run(Heun().compile(PROCESS, [float(PROCESS.time_of_ratio(r)) for r in ramp]), belief.denoise, y)
    y = run(Heun().compile(PROCESS, times[place:]), belief.denoise, y)
    torch.testing.assert_close(got, y, rtol=0, atol=1e-9)


def test_the_jump_is_the_forward_process_of_any_process(g4):
    """Mean and variance of 4000 jumps from one point, to four standard errors; fixed seed."""
    process = VariancePreserving()
    x = torch.full((4000, 1), 0.7, dtype=torch.float64)
    got = noised(process, x, 0.2, 0.6, Stream.of(3, x))
    forward = process.transition(0.2, 0.6)
    std = float(forward.covariance.sqrt())
    assert abs(float(got.mean()) - 0.7 * float(forward.phi)) < 4 * std / math.sqrt(4000)
    assert abs(float(got.std()) / std - 1) < 4 / math.sqrt(8000)


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()], ids=lambda p: p.kind)
def test_chains_contract_by_the_flows_gain_in_a_gaussian_world(process):
    """Two chains under one noise: each loop multiplies their distance by `phi` and the flow's own gain, sqrt(V_low / V_high)."""
    interval = Interval(0.2, 2.0, 16, 2)
    x, y = (noise(s, 6, (1,), dtype=torch.float64).draw(0) for s in (1, 2))
    found = contraction(L1.denoiser(process), process, x, y, interval)
    low, high = (float(process.time_of_ratio(k)) for k in (0.2, 2.0))
    levels = [float(process.alpha(u)) ** 2 * 0.3 + float(process.sigma(u)) ** 2 for u in (low, high)]
    gain = float(process.transition(low, high).phi) * math.sqrt(levels[0] / levels[1])
    for k, distance in enumerate(found):
        assert distance / found[0] == pytest.approx(gain**k, rel=1e-2)
    still = contraction(L1.denoiser(process), process, x, x, interval)
    assert still == [0.0] * 3


def test_exact_marginals_stay_what_they_are():
    """Loops from the level's own law keep its variance; 4000 samples give it to 4 standard errors, fixed seed."""
    t, x = float(PROCESS.time_of_ratio(0.2)), math.sqrt(0.34) * noise(5, 4000, (1,), dtype=torch.float64).draw(0)
    down = karras(PROCESS, 20, ratio_max=2.0, ratio_min=0.2)[:-1]
    assert down[-1] == pytest.approx(t, rel=1e-12)
    for after in Restart(()).loops(L1.denoiser(PROCESS), PROCESS, x, down, 3, Stream.of(6, x)):
        assert abs(float(after.var()) / 0.34 - 1) < 4 * math.sqrt(2 / 4000)


def test_restarts_come_in_order_and_multistep_solvers_start_anew(g4):
    times, x = karras(PROCESS, 10), start(3)
    belief = Counted(g4.denoiser(PROCESS))
    sampler = Restart((Interval(0.05, 0.3, 3, 1), Interval(1.0, 5.0, 3, 2)), dpm_solver(2))
    sampler.sample(belief, PROCESS, x, times, Stream.of(1, x))
    rises = [b for a, b in zip(belief.times, belief.times[1:], strict=False) if b > a]
    ratios = [float(PROCESS.ratio(t)) for t in rises]
    assert ratios == pytest.approx([5.0, 5.0, 0.3], rel=1e-9)
    assert len(belief.times) == 10 + 3 * 2


def test_steps_restart_as_solvers_do(g4):
    x = start(4)
    results = [
        Restart((Interval(0.3, 2.0, 4, 2),), method).sample(g4.denoiser(PROCESS), PROCESS, x, karras(PROCESS, 8), Stream.of(1, x))
        for method in (Heun(), TableStep(Heun()))
    ]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-9)


def test_without_churn_a_churned_step_is_the_step(g4):
    x, times, belief = start(4), karras(PROCESS, 6), g4.denoiser(PROCESS)
    plain = walk(TableStep(Heun()), belief, PROCESS, x, times, Stream.of(1, x))
    for churned in (Churned(TableStep(Heun()), 0.0), Churned(TableStep(Heun()), 0.3, 1000.0, 2000.0)):
        torch.testing.assert_close(walk(churned, belief, PROCESS, x, times, Stream.of(1, x)), plain, rtol=0, atol=1e-9)


def test_churn_adds_the_noise_it_says(g4):
    """One step from ratio 1 to 0.5 by hand: up to 1.2, then Euler down (Karras et al., algorithm 2 without its second-order part)."""
    t, s = (float(PROCESS.time_of_ratio(k)) for k in (1.0, 0.5))
    x, belief = noise(2, 5, (2,), dtype=torch.float64).draw(0), g4.denoiser(PROCESS)
    got = walk(Churned(TableStep(ddim()), 0.2, noise=1.003), belief, PROCESS, x, (t, s), Stream.of(4, x))
    up = x + 1.003 * math.sqrt(1.2**2 - 1) * noise(4, 5, (2,), dtype=torch.float64).draw(1)
    slope = (up - belief.denoise(up, float(PROCESS.time_of_ratio(1.2)))) / 1.2
    torch.testing.assert_close(got, up + (0.5 - 1.2) * slope, rtol=0, atol=1e-10)


def test_noise_inside_the_loops_may_be_another_method(g4):
    x, times = start(3), karras(PROCESS, 6)
    sampler = Restart((Interval(0.5, 3.0, 3, 1),), Heun(), inside=Churned(TableStep(Heun()), 0.05))
    got = sampler.sample(g4.denoiser(PROCESS), PROCESS, x, times, Stream.of(1, x))
    plain = Restart(sampler.intervals).sample(g4.denoiser(PROCESS), PROCESS, x, times, Stream.of(1, x))
    assert bool(torch.isfinite(got).all())
    assert not torch.equal(got, plain)
    stochastic = Restart(sampler.intervals, ReverseSDE("diffusion"))
    assert bool(torch.isfinite(stochastic.sample(g4.denoiser(PROCESS), PROCESS, x, times, Stream.of(1, x))).all())


def test_bad_input(g4):
    for wrong in ({"low": 2.0, "high": 1.0}, {"low": 0.1, "high": 1.0, "points": 1}, {"low": 0.1, "high": 1.0, "loops": -1}):
        with pytest.raises(ArgumentError):
            Interval(**wrong)
    with pytest.raises(ArgumentError, match="noise"):
        Restart((), noise=-1.0)
    with pytest.raises(ArgumentError, match="gamma"):
        Churned(TableStep(Heun()), -0.1)
    with pytest.raises(ArgumentError, match="nearest of the times"):
        Restart((Interval(0.1, 0.11),)).snapped(PROCESS, (1.0, 0.1, 0.0))
    with pytest.raises(ArgumentError, match="ratio"):
        Restart((Interval(0.1, 200.0),)).snapped(PROCESS, karras(PROCESS, 6))
