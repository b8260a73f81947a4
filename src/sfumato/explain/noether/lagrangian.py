r"""Lagrangians of noisy dynamics: `exp(-S)`, `S = int L dt`, weighs the paths of `dx = f dt + G dW`, `G G^T = 2 D`.

    freidlin-wentzell   L = 1/4 (x' - f)^T D^-1 (x' - f)               the limit of small noise
    onsager-machlup     L = L_FW + 1/2 div f                           the mode of paths; D must not depend on x
    cross-dropped       L = 1/4 x'^T D^-1 x' + 1/4 f^T D^-1 f          L_FW without its cross term: a control; right between fixed ends
                                                                       only where D^-1 f is a gradient that does not depend on time

    p = dL/dx' = 1/2 D^-1 (x' - f)         (cross-dropped: 1/2 D^-1 x')
    H = p.f + p^T D p (- 1/2 div f)        (cross-dropped: p^T D p - 1/4 f^T D^-1 f);    the energy is H on a path
    x' = dH/dp,   p' = -dH/dx,   dH/dt = -dL/dt|explicit,   dS_min/dT = -H.

Sources: Freidlin & Wentzell 1998; Onsager & Machlup 1953 (Phys. Rev. 91, 1505); Vastola 2024 (arXiv 2504.09761), section 2.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.explain.differentiate import divergence, gradient
from sfumato.explain.noether.dynamics import Dynamics

Action = Literal["freidlin-wentzell", "onsager-machlup", "cross-dropped"]


def check_action(dynamics: Dynamics, action: Action) -> None:
    """Refuse what is no action of these dynamics.

    Raises:
        ArgumentError: an unknown name, or Onsager-Machlup where `D` depends on the state (there it has curvature terms besides).
    """
    if action not in get_args(Action):
        raise ArgumentError("action", repr(action), f"one of {', '.join(get_args(Action))}")
    if action == "onsager-machlup" and not dynamics.additive:
        raise ArgumentError("action", action, "freidlin-wentzell", "With a D that depends on the state this action has further terms.")


def lagrangian(
    dynamics: Dynamics, action: Action, x: Float[Tensor, "n dim"], v: Float[Tensor, "n dim"], t: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """`L(x, x' = v, t)`.

    Raises:
        ArgumentError: see `check_action`.
    """
    check_action(dynamics, action)
    f = dynamics.f(x, t)
    if action == "cross-dropped":
        return ((v * dynamics.precision(x, t, v)).sum(1) + (f * dynamics.precision(x, t, f)).sum(1)) / 4
    away = v - f
    out = (away * dynamics.precision(x, t, away)).sum(1) / 4
    return out + divergence(lambda y: dynamics.f(y, t), x) / 2 if action == "onsager-machlup" else out


def momentum(
    dynamics: Dynamics, action: Action, x: Float[Tensor, "n dim"], v: Float[Tensor, "n dim"], t: Float[Tensor, "n"]
) -> Float[Tensor, "n dim"]:
    """`p = dL/dx'`."""
    away = v if action == "cross-dropped" else v - dynamics.f(x, t)
    return dynamics.precision(x, t, away) / 2


def hamiltonian(
    dynamics: Dynamics, action: Action, x: Float[Tensor, "n dim"], p: Float[Tensor, "n dim"], t: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """`H(x, p, t)`.

    Raises:
        ArgumentError: see `check_action`.
    """
    check_action(dynamics, action)
    f, kinetic = dynamics.f(x, t), (p * dynamics.spread(x, t, p)).sum(1)
    if action == "cross-dropped":
        return kinetic - (f * dynamics.precision(x, t, f)).sum(1) / 4
    out = kinetic + (p * f).sum(1)
    return out - divergence(lambda y: dynamics.f(y, t), x) / 2 if action == "onsager-machlup" else out


def hamilton_field(
    dynamics: Dynamics, action: Action, x: Float[Tensor, "n dim"], p: Float[Tensor, "n dim"], t: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
    """`(x', p') = (dH/dp, -dH/dx)`."""
    with torch.enable_grad():
        x, p = x.detach().requires_grad_(), p.detach().requires_grad_()
        H = hamiltonian(dynamics, action, x, p, t)
        return gradient(H, p), -gradient(H, x)


def energy(
    dynamics: Dynamics, action: Action, x: Float[Tensor, "n dim"], v: Float[Tensor, "n dim"], t: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """`H` at the momentum of the velocity `v`."""
    return hamiltonian(dynamics, action, x, momentum(dynamics, action, x, v, t), t)
