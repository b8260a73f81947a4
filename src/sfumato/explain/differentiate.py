"""Derivatives of functions whose rows do not mix: products with the Jacobian, its trace, all of it, and whether autograd sees any."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.seeds import noise

Map = Callable[[Tensor], Tensor]
_DISAGREEMENT = 0.5
"""Relative difference between autograd and finite differences from which on a function counts as not differentiable."""


def jacobian(y: Float[Tensor, "n m"], x: Float[Tensor, "n d"], *, keep: bool = False) -> Float[Tensor, "n m d"]:
    """`dy/dx` row by row, of a `y` that was computed from `x`; `keep`: to be differentiated again."""
    if not y.requires_grad:
        return x.new_zeros(*y.shape, x.shape[1])
    units = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)[:, None].expand(-1, *y.shape)
    (rows,) = torch.autograd.grad(y, x, units, is_grads_batched=True, create_graph=keep, retain_graph=True, materialize_grads=True)
    return rows.transpose(0, 1)


def gradient(y: Tensor, x: Float[Tensor, "n d"], *, keep: bool = False) -> Float[Tensor, "n d"]:
    """The gradient of the sum of `y`, 0 where it does not depend on `x`."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (out,) = torch.autograd.grad(y.sum(), x, create_graph=keep, retain_graph=True, materialize_grads=True)
    return out


def divergence(field: Map, x: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
    """The trace of the Jacobian, exact: one backward pass per dimension, in one batch. Can be differentiated if `x` requires it."""
    again = x.requires_grad
    with torch.enable_grad():
        x = x if again else x.detach().requires_grad_()
        trace = jacobian(field(x), x, keep=again).diagonal(dim1=1, dim2=2).sum(1)
    return trace if again else trace.detach()


def along(field: Map, x: Float[Tensor, "n d"], v: Float[Tensor, "n d"]) -> Tensor:
    """`(d field) v`, the derivative at `x` along `v`, by two backward passes."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = field(x)
        if not y.requires_grad:
            return torch.zeros_like(y)
        dual = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, x, dual, create_graph=True, materialize_grads=True)
        if not pulled.requires_grad:
            return torch.zeros_like(y)
        (out,) = torch.autograd.grad(pulled, dual, v, materialize_grads=True)
    return out


def against(field: Map, x: Float[Tensor, "n d"], p: Float[Tensor, "n m"]) -> Float[Tensor, "n d"]:
    """`(d field)^T p`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return gradient((field(x) * p).sum(1), x)


def check_differentiable(field: Map, x: Float[Tensor, "n d"], name: str = "drift") -> None:
    """Refuse a function that autograd cannot see through: detached, computed elsewhere, or a staircase.

    Its derivative along one random direction at each of the states is compared with a central difference; where it is exactly 0 at all of
    them, the function must not tell them apart.

    Raises:
        ArgumentError: they differ by more than half at most of the states.
    """
    v = noise(0, len(x), (x.shape[1],), dtype=x.dtype, device=x.device).draw(0)
    # small against the least noise level that a score may vary on, and large against rounding
    h = torch.finfo(x.dtype).eps ** (1 / 2) * (1 + float(x.detach().abs().max()))
    slope = along(field, x, v)
    with torch.no_grad():
        here = field(x)
        difference = (field(x + h * v) - field(x - h * v)) / (2 * h)
        # the states in another order, at the same times
        stairs = bool((slope == 0).all()) and not torch.equal(field(x.flip(0)), here)
    rounding = torch.finfo(x.dtype).eps * here.norm(dim=1) / h
    wrong = (slope - difference).norm(dim=1) > _DISAGREEMENT * difference.norm(dim=1) + 100 * rounding
    if stairs or bool(wrong.float().mean() > 0.5):
        raise ArgumentError(
            name,
            "a function without gradient",
            "a differentiable function of x",
            "Autograd does not see how it varies: is it detached?",
        )
