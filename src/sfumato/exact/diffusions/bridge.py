r"""Bridges of linear SDEs: the law of the path between two known ends.

With `x_t | x_0 ~ N(Phi_1 x_0 + s_1, Q_1)` and `x_T | x_t ~ N(Phi_2 x_t + s_2, Q_2)`, the state in between is Gaussian with

    K = Q_1 Phi_2^T (Phi_2 Q_1 Phi_2^T + Q_2)^-1
    mean = m_1 + K (x_T - Phi_2 m_1 - s_2),   m_1 = Phi_1 x_0 + s_1,        covariance = Q_1 - K Phi_2 Q_1.

The mean is the most likely path (Freidlin-Wentzell and Onsager-Machlup alike) and `log p(x_T | x_0) = -S + c(T)`. In `u = x/alpha` and
`v = sigma^2/alpha^2` a scalar process is a Brownian motion, so the mean of its bridge is the straight line in `v`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import Affine, ScalarProcess, over_events

_ROUNDING = 1e-12
"""How far outside its ends a time may be that was computed as `1 - w`."""


def linear_transition(
    A: Float[Tensor, "dim dim"], c: Float[Tensor, "dim"], D: Float[Tensor, "dim dim"], duration: int | float | Tensor
) -> Affine:
    """The transition of `dx = (A x + c) dt + G dW`, `G G^T = 2 D`, over a time `duration >= 0`.

    Van Loan 1978 (IEEE Trans. Automatic Control 23, 395): all three operators are blocks of one matrix exponential.

    Raises:
        ArgumentError: a negative duration.
    """
    h, n = float(duration), len(A)
    if not h >= 0:
        raise ArgumentError("duration", h, "a time of at least 0")
    block = A.new_zeros(2 * n, 2 * n)
    block[:n, :n], block[:n, n:], block[n:, n:] = -A, 2 * D, A.T
    powers = torch.linalg.matrix_exp(block * h)
    phi = powers[n:, n:].T
    covariance = phi @ powers[:n, n:]
    driven = A.new_zeros(n + 1, n + 1)
    driven[:n, :n], driven[:n, n] = A, c
    return Affine(phi, torch.linalg.matrix_exp(driven * h)[:n, n], (covariance + covariance.T) / 2)


def bridge(
    start: Float[Tensor, "dim"], end: Float[Tensor, "dim"], before: Affine, after: Affine
) -> tuple[Float[Tensor, "dim"], Float[Tensor, "dim dim"]]:
    """Mean and covariance at a time between two known ends.

    Arguments:
        start, end: the ends.
        before, after: the transitions from the start to that time, and from there to the end; matrices (`linear_transition`).

    Raises:
        ShapeError: transitions that are not matrices of the ends' dimension.
        ArgumentError: an end that the noise cannot reach.
    """
    shape = (len(start), len(start))
    for name, step in (("before", before), ("after", after)):
        if step.phi.shape != shape or step.covariance.shape != shape:
            raise ShapeError(name, tuple(step.phi.shape), f"matrices {shape}")
    here = before.phi @ start + before.shift
    reach = after.phi @ before.covariance @ after.phi.T + after.covariance
    factor, failed = torch.linalg.cholesky_ex(reach)
    if int(failed):
        raise ArgumentError("before, after", "a singular covariance of the end", "noise that reaches every direction")
    gain = torch.cholesky_solve(after.phi @ before.covariance, factor).T
    covariance = before.covariance - gain @ after.phi @ before.covariance
    return here + gain @ (end - after.phi @ here - after.shift), (covariance + covariance.T) / 2


def noise_bridge(
    process: ScalarProcess,
    clean: Float[Tensor, " *event"],
    noisy: Float[Tensor, " *event"],
    s: float,
    u: float,
    times: Float[Tensor, "nodes"],
) -> tuple[Float[Tensor, "nodes *event"], Float[Tensor, "nodes"]]:
    """Mean and variance (per number) of `x_t` given `x_s = clean` and `x_u = noisy`, `s < u`, at times between them.

    It is the reverse process's bridge too, whatever the law of the data.

    Raises:
        ArgumentError: `s >= u`, or times outside `[s, u]`.
    """
    if not s < u:
        raise ArgumentError("s, u", (s, u), "s < u")
    if not bool(((times >= s - _ROUNDING) & (times <= u + _ROUNDING)).all()):
        raise ArgumentError("times", times.tolist(), f"times in [{s}, {u}]")
    between = times.to(torch.float64).clamp(s, u)
    before, after = process.transition(s, between), process.transition(between, u)
    q1, q2, phi = before.covariance, after.covariance, after.phi
    reach = phi**2 * q1 + q2
    gain = q1 * phi / reach
    rows = clean.expand(len(times), *clean.shape)
    here = over_events(before.phi, rows) * rows
    mean = here + over_events(gain, rows) * (noisy - over_events(phi, rows) * here)
    return mean, q1 * q2 / reach
