r"""The fourth route: the differential equations of `(Phi, O, S)` themselves, solved to 1e-12. Slow; what the other three are tested
against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.linear_law import LinearLaw
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.operator import Operator


def integrated_transition(process: LinearSDE, s: int | float, t: int | float, *, rtol: float = 1e-12) -> LinearLaw:
    """The transition from `s` to `t`, from `dPhi/dt = F Phi`, `dO/dt = F O + C`, `dS/dt = F S + S F^T + Q`.

    Source: Dormand & Prince's method of order 8 (`scipy.integrate.solve_ivp`).

    Raises:
        ArgumentError: the integrator gave up, as it does at a time where the coefficients diverge.
    """
    from scipy.integrate import solve_ivp

    first = process.coefs(s)
    k = first.phi.coef.shape[-1]
    conditions = process.conditions
    modes = max(op.coef.shape[0] for op in (first.phi, first.covariance, *([first.shift] if first.shift else [])))

    def rate(u: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat).reshape(modes, k, 2 * k + conditions)
        law = process.coefs(float(u))
        drift, spread = law.phi.coef, state[..., k + conditions :]
        half = drift @ spread
        grown = [drift @ state[..., :k], half + half.mT + law.covariance.coef]
        if law.shift is not None:
            grown.insert(1, drift @ state[..., k : k + conditions] + law.shift.coef)
        return torch.cat([g.expand(modes, *g.shape[1:]) for g in grown], -1).flatten().numpy()

    start = torch.cat([torch.eye(k, dtype=torch.float64), torch.zeros(k, k + conditions, dtype=torch.float64)], 1)
    run = solve_ivp(rate, (float(s), float(t)), start.expand(modes, -1, -1).flatten().numpy(), method="DOP853", rtol=rtol, atol=1e-14)
    if not run.success:
        raise ArgumentError("s, t", (s, t), "times between which the coefficients are finite", str(run.message))
    end = torch.from_numpy(run.y[:, -1].copy()).reshape(modes, k, 2 * k + conditions)

    def operator(coef: Tensor) -> Operator:
        return Operator(coef, process.basis)

    shift = operator(end[..., k : k + conditions]) if conditions else None
    return LinearLaw(operator(end[..., :k]), shift, operator(end[..., k + conditions :]))
