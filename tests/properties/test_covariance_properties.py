"""Spectral covariances of every structure against plain matrices, and the affine flows made of them."""

from __future__ import annotations

import torch
from generated import F64, covariances, events, everyday, examples, gaussians, numbers, seeds, tensor
from hypothesis import given
from hypothesis import strategies as st

from sfumato.exact import SpectralCovariance

inside = numbers(0.05, 0.95)


@examples(30)
@given(st.data(), events, everyday, inside, inside, inside, seeds)
def test_the_flow_of_a_gaussian_composes_and_keeps_the_law(data, event, process, t, u, s, seed):
    law = data.draw(gaussians(event))
    x = tensor((3, *event), seed)
    way = law.flow(process, u, s)(law.flow(process, t, u)(x))
    torch.testing.assert_close(way, law.flow(process, t, s)(x), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(law.flow(process, s, t)(law.flow(process, t, s)(x)), x, rtol=1e-6, atol=1e-6)
    start, end = law.through(process, t), law.through(process, s)
    moved_x = law.flow(process, t, s)(x)
    # a change of variables by a constant factor: differences of log-density are kept
    before, after = start.log_prob(x), end.log_prob(moved_x)
    torch.testing.assert_close(after - after[:1], before - before[:1], rtol=1e-6, atol=1e-6)


@examples(50)
@given(st.data(), st.integers(1, 6), seeds)
def test_covariances_are_their_matrices(data, dim, seed):
    c = data.draw(covariances(dim))
    full, x = c.dense(), tensor((3, dim), seed)
    near = {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(full, full.T, **near)
    torch.testing.assert_close(c.matmul(x), x @ full, **near)
    torch.testing.assert_close(c.solve(x), torch.linalg.solve(full, x.T).T, **near)
    torch.testing.assert_close(c.sqrt_matmul(c.sqrt_matmul(x)), x @ full, **near)
    torch.testing.assert_close(c.logdet(), torch.linalg.slogdet(full).logabsdet, **near)
    torch.testing.assert_close(c.trace(), full.trace(), **near)
    torch.testing.assert_close(c.map(lambda v: 2 * v + 0.5).dense(), 2 * full + 0.5 * torch.eye(dim, dtype=F64), **near)
    torch.testing.assert_close(SpectralCovariance.from_dense(full).dense(), full, **near)
    torch.testing.assert_close(c.lift(c.project(c.lift(x[:, : c.rank]))), c.lift(x[:, : c.rank]), **near)
