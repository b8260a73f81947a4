"""Samples that grow on their way: pairs are what sampling meets, draws and sizes are those of the step, and every size has its denoiser."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.sample.steps.scale_wise import BySize, ScaleWise, enlarge, reduce
from sfumato.seeds import noise

PROCESS = FlowMatching()
PLAN = ScaleWise(PROCESS, (1.0, 0.6, 0.0), (2, 4))


class Scaled(nn.Module, Denoiser):
    """A multiple of the state, plus the condition."""

    def __init__(self, factor, process=PROCESS):
        super().__init__()
        self.process, self.factor = process, nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def denoise(self, x, t, condition=None):
        return self.factor * x + (0 if condition is None else condition)


def test_training_pairs_are_what_sampling_meets():
    """With a denoiser that knows the coarse image, the state at the second step is the pair's noisy image, bit for bit."""
    clean = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = {}

    class Knows(Denoiser):
        process = PROCESS

        def denoise(self, x, t, condition=None):
            seen[x.shape[-1]] = x
            return reduce(clean, x.shape[-1])

    out = PLAN.sample(Knows(), 3, 1, 5, dtype=torch.float64)
    draws = noise(5, 3, (1, 4, 4), dtype=torch.float64)
    noisy, target = PLAN.pair(1, clean, draws.draw(1))
    assert torch.equal(seen[4], noisy)
    assert torch.equal(target, clean)
    assert torch.equal(out, clean)
    first, coarse = PLAN.pair(0, clean, draws.draw(0)[..., :2, :2])
    assert torch.equal(seen[2], first)  # alpha is 0 at t = 1
    assert torch.equal(coarse, reduce(clean, 2))
    torch.testing.assert_close(reduce(clean, 2)[0, 0, 0, 1], clean[0, 0, :2, 2:].mean())
    assert PLAN.cost == pytest.approx((4 + 16) / 32)


def test_enlarging_keeps_constants_and_sizes():
    x = torch.full((1, 1, 4, 4), 0.7)
    torch.testing.assert_close(enlarge(x, 8), torch.full((1, 1, 8, 8), 0.7))
    assert enlarge(x, 4) is x


def test_enlarging_keeps_the_place_of_pixels():
    """Pixels are cells, each of which becomes four: the means of the four on a ramp are the ramp, away from its ends."""
    ramp = torch.arange(8.0, dtype=torch.float64).expand(1, 1, 8, 8)
    inner = slice(2, 6)
    assert torch.allclose(reduce(enlarge(ramp, 16), 8)[..., inner], ramp[..., inner], rtol=0, atol=1e-12)


def test_steps_draw_noise_of_their_own():
    """Sizes 2, 3, 4: draw `i` of the seed, cut to the size, is that of step `i`; the estimate is enlarged to the next size."""
    plan, seen = ScaleWise(PROCESS, (1.0, 0.7, 0.4, 0.0), (2, 3, 4)), {}

    class Looks(Denoiser):
        process = PROCESS

        def denoise(self, x, t, condition=None):
            seen[x.shape[-1]] = x
            return torch.tanh(x)

    plan.sample(Looks(), 2, 1, 3, dtype=torch.float64)
    draws = noise(3, 2, (1, 4, 4), dtype=torch.float64)
    for step, (before, size) in enumerate(((2, 3), (3, 4)), start=1):
        time = plan.times[step]
        made = (1 - time) * enlarge(torch.tanh(seen[before]), size) + time * draws.draw(step)[..., :size, :size]
        assert torch.allclose(seen[size], made, rtol=0, atol=1e-12)


def test_a_pair_has_the_sizes_of_its_step():
    """Of three sizes, with two channels: the noisy image is made from what the size before can hold, and the target from its own."""
    plan = ScaleWise(PROCESS, (0.9, 0.5, 0.2, 0.0), (1, 2, 4))
    clean, draws = noise(1, 3, (2, 4, 4), dtype=torch.float64).draw(0), noise(2, 3, (2, 4, 4), dtype=torch.float64)
    for step, (before, size) in enumerate(((1, 1), (1, 2), (2, 4))):
        fresh, t = draws.draw(step)[..., :size, :size], plan.times[step]
        noisy, target = plan.pair(step, clean, fresh)
        assert torch.equal(target, reduce(clean, size))
        torch.testing.assert_close(noisy, (1 - t) * enlarge(reduce(clean, before), size) + t * fresh, rtol=1e-14, atol=1e-14)
    assert plan.cost == pytest.approx((1 + 4 + 16) / 48)
    for wrong in (torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 8, 8)):
        with pytest.raises(ShapeError, match="last size, 4"):
            plan.pair(1, wrong, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(("process", "first"), [(PROCESS, 1.0), (VariancePreserving(), 1.0), (VariancePreserving(), 0.7)])
def test_samples_start_from_noise_of_the_first_level(process, first):
    """At t = 1 the process's prior, further down its noise alone; in the asked precision, float32 unless told."""
    seen = []

    class Looks(Denoiser):
        def denoise(self, x, t, condition=None):
            seen.append(x)
            return 0 * x

    looks = Looks()
    looks.process = process
    plan = ScaleWise(process, (first, 0.0), (2,))
    out = plan.sample(looks, 3, 2, 4, dtype=torch.float64)
    fresh = noise(4, 3, (2, 2, 2), dtype=torch.float64).draw(0)
    torch.testing.assert_close(seen[0], (process.prior_std if first == 1 else process.sigma(first)) * fresh, rtol=1e-14, atol=0)
    assert torch.equal(out, 0 * fresh)
    assert plan.sample(looks, 1, 1).dtype == torch.float32


def test_every_size_has_its_denoiser():
    """By the last axis, whatever the channels; modules among them are trained with the whole, and a condition is passed on."""
    both = BySize({2: Scaled(2.0), 4: Scaled(3.0)})
    x = noise(0, 1, (4, 2, 2), dtype=torch.float64).draw(0)
    torch.testing.assert_close(both.denoise(x, 0.5), 2 * x)
    torch.testing.assert_close(both.denoise(enlarge(x, 4), 0.5, torch.ones(())), 3 * enlarge(x, 4) + 1)
    assert both.process is PROCESS or both.process == PROCESS
    assert sorted(float(p.detach()) for p in both.parameters()) == [2.0, 3.0]
    with pytest.raises(ShapeError, match="sizes"):
        both.denoise(torch.zeros(1, 2, 3, 3, dtype=torch.float64), 0.5)


def test_plans_that_do_not_grow_are_refused():
    assert ScaleWise(PROCESS, (1.0, 0.5, 0.0), (1, 1)).cost == 1
    with pytest.raises(ArgumentError, match="sizes"):
        ScaleWise(PROCESS, (1.0, 0.5, 0.0), (8, 4))
    with pytest.raises(ArgumentError, match="sizes"):
        ScaleWise(PROCESS, (1.0, 0.5, 0.0), (0, 4))
    with pytest.raises(ArgumentError, match="2 sizes"):
        ScaleWise(PROCESS, (1.0, 0.5, 0.0), (8,))
    with pytest.raises(ArgumentError, match="times"):
        ScaleWise(PROCESS, (1.0, 0.5), (8,))
    with pytest.raises(ArgumentError, match="denoisers"):
        BySize({})
    with pytest.raises(ArgumentError, match="one process"):
        BySize({2: Scaled(1.0), 4: Scaled(1.0, VariancePreserving())})
