"""Samplers of every named member of the linear SDE family, on times of any spacing."""

from __future__ import annotations

import math

import torch
from generated import F64, covariances, examples, grids, seeds, tensor
from hypothesis import given
from hypothesis import strategies as st

from sfumato.exact import Gaussian
from sfumato.noise import LINEAR_SDES
from sfumato.sample import LinearAncestral, LinearDDIM, output_law, run_linear
from sfumato.seeds import noise

EVENTS = {"flexible": (2,), "function_space": (4,)}


@examples(40)
@given(st.sampled_from(sorted(LINEAR_SDES)), grids(6, start=0.95, spread=0.05), seeds, st.sampled_from(["cpu32", "cpu64"]))
def test_every_linear_member_takes_a_known_point_home(name, times, seed, where):
    """A belief that is one point: generalised DDIM in any steps is one step of it; ancestral steps end at the point where noise ends."""
    process, event = LINEAR_SDES[name](), EVENTS.get(name, (2, 2))
    dtype = torch.float32 if where == "cpu32" else F64
    y = tensor((1, *event), seed + 1, dtype) if process.marginal(0.5).shift is not None else None
    point = tensor((1, *event), seed, dtype)
    x = tensor(process.state_shape(point.expand(3, *event)), seed + 2, dtype)

    def belief(state, t):
        return point.expand(len(state), *event)

    many, once = (run_linear(LinearDDIM().compile(process, grid), belief, x, None, y) for grid in (times, (times[0], times[-1])))
    assert many.dtype == dtype
    assert many.shape == x.shape
    slack = torch.finfo(dtype).eps * 2e3 * float(1 + once.abs().max())
    assert float((many - once).abs().max()) < slack
    draws = noise(0, 3, x.shape[1:], dtype=dtype)
    drawn = run_linear(LinearAncestral().compile(process, times), belief, x, draws, y)
    assert bool(torch.isfinite(drawn).all())
    if times[-1] == 0 and name != "heat":
        # heat dissipation has noise at t = 0, too
        first = drawn if process.channels == 1 else drawn[:, 0]
        assert float((first - point).abs().max()) < torch.finfo(dtype).eps * 1e4 * (1 + float(point.abs().max()))


@examples(15)
@given(st.data(), st.sampled_from(sorted(set(LINEAR_SDES) - {"agm"})), grids(4, start=0.9, end=0.1, spread=0.1), seeds)
def test_the_output_law_is_a_gaussian_that_moves_as_the_program(data, name, times, seed):
    """Finer ancestral steps come closer to the law itself, and the covariance said is symmetric and positive."""
    process, event = LINEAR_SDES[name](), EVENTS.get(name, (2, 2))
    law = Gaussian(tensor((math.prod(event),), seed), data.draw(covariances(math.prod(event))), event)
    y = tensor(event, seed + 1) if process.marginal(0.5).shift is not None else None
    mean, spread = output_law(LinearAncestral().compile(process, times), law, y)
    assert bool(torch.isfinite(mean).all())
    torch.testing.assert_close(spread, spread.T, rtol=1e-9, atol=1e-9)
    assert float(torch.linalg.eigvalsh(spread).min()) > -1e-9
