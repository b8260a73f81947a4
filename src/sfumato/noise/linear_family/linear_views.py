r"""What a network may predict under a linear SDE, and how one prediction becomes another.

With `x_t | x_0 ~ N(A x_0 + O y, S)`, `D = E[x_0 | x_t]`, the flow factor `R` and the Cholesky factor `L` of `S`:

    score            s = -S^{-1} (x - A D - O y)
    noise            eps = R^{-1} (x - A D - O y) = -R^T s
    cholesky noise   L^{-1} (x - A D - O y) = -L^T s          (what networks for momentum diffusions predict)
    velocity         dx/dt of the probability flow = F x + C y - Q s / 2

Data are recovered from a score by generalised least squares, `D = (A^T S^{-1} A)^{-1} A^T S^{-1} (x - O y + S s)`, exact for exact scores.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.linear_law import plus_shift
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.process import Time

LinearView = Literal["data", "score", "noise", "cholesky noise", "velocity"]
"""What a prediction is."""


def convert(
    process: LinearSDE, prediction: Tensor, source: LinearView, target: LinearView, x: Tensor, t: Time, condition: Tensor | None = None
) -> Tensor:
    """The view `target` of a prediction that is the view `source`.

    Arguments:
        prediction: a state; data `(batch, *event)` for the view data.
        x, t, condition: the noisy state, its time, and the process's condition.

    Raises:
        ArgumentError: an unknown view; a time at which `S` is singular (`t = 0`); a velocity as source where `Q` leaves channels without
            noise, for it does not determine the score there.
    """
    for name, view in (("source", source), ("target", target)):
        if view not in get_args(LinearView):
            raise ArgumentError(name, repr(view), f"one of {', '.join(get_args(LinearView))}")
    if source == target:
        return prediction
    return _from_score(process, _to_score(process, prediction, source, x, t, condition), target, x, t, condition)


def _to_score(process: LinearSDE, prediction: Tensor, view: LinearView, x: Tensor, t: Time, condition: Tensor | None) -> Tensor:
    if view == "score":
        return prediction
    if view == "velocity":
        law = process.coefs(t)
        return 2 * law.covariance.inverse().apply(law.mean(x, condition) - prediction)
    if view == "noise":
        return -process.flow_factor(t).inverse().T.apply(prediction)
    law = process.marginal(t)
    if view == "cholesky noise":
        return -law.covariance.cholesky().inverse().T.apply(prediction)
    return -law.covariance.solve(x - law.mean(prediction, condition))


def _from_score(process: LinearSDE, score: Tensor, view: LinearView, x: Tensor, t: Time, condition: Tensor | None) -> Tensor:
    if view == "score":
        return score
    if view == "velocity":
        return process.drift(x, t, score, condition=condition)
    if view == "noise":
        return -process.flow_factor(t).T.apply(score)
    law = process.marginal(t)
    if view == "cholesky noise":
        return -law.covariance.cholesky().T.apply(score)
    signal, away = law.phi, plus_shift(x, law.shift, condition, sign=-1.0)
    weighed = signal.T @ law.covariance.inverse()
    return (weighed @ signal).inverse().apply(weighed.apply(away) + signal.T.apply(score))
