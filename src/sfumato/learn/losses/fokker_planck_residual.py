r"""By how much a log-density over time fails the Fokker-Planck equation: what a score-matching loss can be penalised with.

For `dx = F x dt + g dw` and any `u(x, t)` whose gradient serves as a score,

    r(x, t) = d_t u + d F + F x . grad u - g^2/2 (Laplace u + |grad u|^2),

which is 0 for `u = log p_t`. Score matching leaves `u` free by a function of `t`, which `r` does not: give `u` one. The flow and the
reverse SDE of `grad u` have one law if `r` does not depend on `x`. Source: Deveney et al. 2023 (arXiv 2311.15996), eqs. 9-13.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess

LogDensity = Callable[[Tensor, Tensor], Tensor]
"""`u(x (batch, *event), t (batch,)) -> (batch,)`, twice differentiable in `x` (no ReLU) and once in `t`; rows do not mix."""


def log_residual(
    u: LogDensity, process: ScalarProcess, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"], *, probes: Tensor | None = None
) -> Float[Tensor, "batch"]:
    """`r(x, t)`, to be differentiated again in what `u` is made of.

    Arguments:
        u: see `LogDensity`.
        process: gives `F` and `g`.
        x, t: where.
        probes: `(count, batch, *event)` of unit covariance, to estimate the Laplacian without bias (Hutchinson); by default it is exact,
            at a derivative per dimension.

    Raises:
        ArgumentError: a time at which `F` or `g` is infinite.
        ShapeError: `u` of another shape than `(batch,)`, or probes of another than `x`'s.
    """
    pull, noise = process.drift(t), process.diffusion_squared(t)
    if not bool((torch.isfinite(pull) & torch.isfinite(noise)).all()):
        raise ArgumentError("t", t.tolist()[:3], "times at which drift and diffusion are finite")
    if probes is not None and probes.shape[1:] != x.shape:
        raise ShapeError("probes", tuple(probes.shape), f"(count, {', '.join(map(str, x.shape))})")
    with torch.enable_grad():
        x, t = x.detach().requires_grad_(), t.detach().requires_grad_()
        value = u(x, t)
        if value.shape != (len(x),):
            raise ShapeError("u", tuple(value.shape), f"one number per state ({len(x)},)")
        score, rate = torch.autograd.grad(value.sum(), (x, t), create_graph=True, materialize_grads=True)
        flat, dim = score.flatten(1), x[0].numel()
        count = dim if probes is None else len(probes)
        laplace = torch.zeros_like(value)
        for i in range(count):
            v = torch.eye(dim, dtype=x.dtype, device=x.device)[i].expand(len(x), dim) if probes is None else probes[i].flatten(1)
            (second,) = torch.autograd.grad((flat * v).sum(), x, create_graph=True, materialize_grads=True)
            laplace = laplace + (second.flatten(1) * v).sum(1)
        if probes is not None:
            laplace = laplace / count
        F, g2 = pull.to(value), noise.to(value)
        return rate + dim * F + F * (x.flatten(1) * flat).sum(1) - g2 / 2 * (laplace + flat.square().sum(1))
