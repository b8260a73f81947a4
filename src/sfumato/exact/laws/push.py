r"""Laws pushed through a linear SDE: all that is exact of `x_t` when the data are a Gaussian or a mixture of Gaussians.

With `x_t | x_0 ~ N(A x_0 + O y, S)`, a component `(w, m, P)` of the data becomes `(w, A m + O y, A P A^T + S)`: again a mixture, on
states. The posterior of the data given a state is one, too, and its mean is the exact denoiser. Everything is dense on the `K d <= 256`
numbers of a state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.exact.spectral.covariance import SpectralCovariance
from sfumato.noise import LinearSDE, Time, as_time


def push(
    law: Gaussian | GaussianMixture, process: LinearSDE, t: int | float | Tensor, condition: Float[Tensor, " *event"] | None = None
) -> GaussianMixture:
    """The law of `x_t`, on states `(K, *event)` (`event` for one channel): its density, score, samples and Hessian are those of any
    mixture.

    Arguments:
        law: of the data.
        process: what made `x_t` of them.
        t: one time.
        condition: what the process drifts to, one for all samples.

    Raises:
        ArgumentError: a state of more than 256 numbers; a condition is missing or superfluous.
        ShapeError: more than one time, a condition of another shape, a basis of another event shape.
    """
    return _Pushed(law, process, t, condition).mixture


class _Pushed:
    """The pushed mixture and what else the denoiser needs: `A` as a matrix and the gains `P_k A^T (A P_k A^T + S)^{-1}`."""

    def __init__(self, law: Gaussian | GaussianMixture, process: LinearSDE, t: Time, condition: Tensor | None) -> None:
        time = as_time(t)
        if time.ndim:
            raise ShapeError("t", tuple(time.shape), "a single time")
        self.means, covariances, weights = _components(law)
        kernel = process.marginal(time)
        self.signal = kernel.phi.matrix(law.event_shape)
        self.noise = kernel.covariance.matrix(law.event_shape)
        zero = torch.zeros(1, *law.event_shape, dtype=torch.float64)
        self.shift = kernel.mean(zero, None if condition is None else condition.to("cpu", torch.float64)[None]).flatten()
        spreads = self.signal @ covariances @ self.signal.mT + self.noise
        shape = law.event_shape if process.channels == 1 else (process.channels, *law.event_shape)
        self.mixture = GaussianMixture(
            weights, self.means @ self.signal.mT + self.shift, [SpectralCovariance.from_dense(s) for s in spreads], shape
        )
        self._cross, self._spreads = covariances @ self.signal.mT, spreads

    def posterior_mean(self, x: Tensor) -> Tensor:
        """`E[x_0 | x_t = x]`, flat float64: `sum_k R_k (m_k + P_k A^T (A P_k A^T + S)^{-1} (x - A m_k - O y))`."""
        shares = self.mixture.responsibilities(x)
        away = x.flatten(1) - self.mixture.means[:, None]
        gained = torch.linalg.solve(self._spreads, away.mT)
        return torch.einsum("bk,kbd->bd", shares, self.means[:, None] + (self._cross @ gained).mT)


def _components(law: Gaussian | GaussianMixture) -> tuple[Tensor, Tensor, Tensor | None]:
    """Means `(K, dim)`, covariances `(K, dim, dim)` and weights, float64 on the CPU, where operators are."""
    parts = (law.covariance,) if isinstance(law, Gaussian) else law.covariances
    means = law.mean[None] if isinstance(law, Gaussian) else law.means
    weights = None if isinstance(law, Gaussian) else law.weights.cpu()
    return means.to("cpu", torch.float64), torch.stack([c.to(torch.float64, "cpu").dense() for c in parts]), weights


_Question = Callable[[_Pushed, Tensor], Tensor]


class PushedDenoiser:
    """The exact denoiser `E[x_0 | x_t]` and score under a linear SDE, for data with a Gaussian or mixture law.

    Arguments:
        law: of the data.
        process: any member of the linear SDE family.
        condition: what the process drifts to, one for all samples.
    """

    def __init__(self, law: Gaussian | GaussianMixture, process: LinearSDE, condition: Tensor | None = None) -> None:
        self.law, self.process, self.condition = law, process, condition

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """`E[x_0 | x_t = x]`, `(batch, *event)`, for states `x` and a time or one per sample.

        Raises:
            ArgumentError: a state without a density, as at `t = 0`.
        """
        return self._each(x, t, lambda pushed, rows: pushed.posterior_mean(rows).reshape(len(rows), *self.law.event_shape))

    def score(self, x: Tensor, t: Time) -> Tensor:
        """`grad log p_t(x)` of the joint state, shaped as `x`."""
        return self._each(x, t, lambda pushed, rows: pushed.mixture.score(rows))

    def log_prob(self, x: Tensor, t: Time) -> Tensor:
        """`log p_t(x)` of the joint state, in nats."""
        return self._each(x, t, lambda pushed, rows: pushed.mixture.log_prob(rows))

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """The probability flow's `dx/dt = F x + C y - Q score / 2`, shaped as `x`."""
        condition = None if self.condition is None else self.condition[None].to(x)
        return self.process.drift(x, t, self.score(x, t), condition=condition)

    def posterior(self, x: Float[Tensor, " *state"], t: int | float | Tensor) -> Gaussian | GaussianMixture:
        """The law of the data given one state `x` at time `t`."""
        pushed = _Pushed(self.law, self.process, t, self.condition)
        return self.law.given(pushed.signal, x.flatten().to("cpu", torch.float64) - pushed.shift, pushed.noise)

    def _each(self, x: Tensor, t: Time, ask: _Question) -> Tensor:
        time = as_time(t)
        state = x.to("cpu", torch.float64)
        if time.ndim == 0:
            return ask(_Pushed(self.law, self.process, time, self.condition), state).to(x)
        if time.shape != (len(x),):
            raise ShapeError("t", tuple(time.shape), f"a scalar or one time per sample ({len(x)},)")
        out: Tensor | None = None
        for value in time.unique():  # type: ignore[no-untyped-call]
            rows = (time == value).cpu()
            answer = ask(_Pushed(self.law, self.process, value, self.condition), state[rows])
            out = answer.new_empty(len(x), *answer.shape[1:]) if out is None else out
            out[rows] = answer
        if out is None:
            raise ArgumentError("x", "no samples", "at least one")
        return out.to(x)
