r"""The Law contract: a distribution of clean data whose every question has a closed-form answer.

Laws are closed under scalar processes (`x_t = alpha x_0 + sigma eps` has again a law of the family) and under linear observations with
Gaussian noise (`given`). Vectors and matrices of a law (means, observation operators) are flat, in row-major order of the event; `x` is
always `(batch, *event)`. A law computes in its own dtype and on its own device; vectors come back in the dtype of `x`, log-densities in the
law's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess, Time
from sfumato.seeds import Noise, Seed, noise

LOG_TWO_PI = math.log(2 * math.pi)


class Law(ABC):
    """A distribution on events of shape `event_shape`, with `dim` elements in all and the flat `mean` `(dim,)`."""

    event_shape: tuple[int, ...]
    mean: Tensor

    @property
    def dim(self) -> int:
        """The number of elements of an event."""
        return math.prod(self.event_shape)

    @property
    def dtype(self) -> torch.dtype:
        """What the law computes in."""
        return self.mean.dtype

    @property
    def device(self) -> torch.device:
        """Where the law computes."""
        return self.mean.device

    def through(self, process: ScalarProcess, t: Time) -> Law:
        """The law of `x_t = alpha x_0 + sigma eps` at one time: mean `alpha m`, covariance `alpha^2 C + sigma^2 I`."""
        alpha, sigma = process.alpha(t), process.sigma(t)
        if alpha.ndim:
            raise ShapeError("t", tuple(alpha.shape), "a single time")
        return self._noised(float(alpha), float(sigma))

    def sample(self, n: int, seed: Seed, *, first: int = 0) -> Float[Tensor, " n *event"]:
        """`n` samples, number `first` to `first + n - 1`; sample `i` is a function of the seed and `i` (see `sfumato.seeds`)."""
        draws = noise(seed, n, self.event_shape, first=first, dtype=self.dtype, device=self.device)
        return self._sample(draws).reshape(n, *self.event_shape)

    def log_prob(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, " batch"]:
        """`log p(x)`, in nats and in the law's dtype.

        Raises:
            ArgumentError: the law has no density.
        """
        return self._log_prob(self._flat(x))

    def score(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, " batch *event"]:
        """`grad log p(x)`.

        Raises:
            ArgumentError: the law has no density.
        """
        return self._score(self._flat(x)).to(x.dtype).reshape(x.shape)

    def posterior_mean(self, x: Float[Tensor, " batch *event"], process: ScalarProcess, t: Time) -> Float[Tensor, " batch *event"]:
        """`E[x_0 | x_t = x]`; the mean where `alpha = 0`, the limit of vanishing noise where `sigma = 0`.

        Arguments:
            x: `(batch, *event)`.
            process: what made `x_t` of `x_0`.
            t: a scalar, or one time per sample.
        """
        alpha, sigma = self._levels(process, t, x.shape[0])
        return self._posterior_mean(self._flat(x), alpha, sigma).to(x.dtype).reshape(x.shape)

    def denoiser(self, process: ScalarProcess, *, dtype: torch.dtype | None = None) -> ExactDenoiser:
        """The exact denoiser of this law, computing in `dtype` (default: the law's)."""
        return ExactDenoiser(self if dtype is None else self.to(dtype), process)

    @abstractmethod
    def given(self, A: Tensor, y: Tensor, noise: float | Tensor) -> Law:
        """The exact posterior given `y = A x_0 + noise`.

        Arguments:
            A: `(m, dim)`, acting on flat events.
            y: `(m,)`.
            noise: the noise's standard deviation, or its covariance `(m, m)`.

        Raises:
            ArgumentError: some direction of `y` has neither noise nor variance, or the noise's covariance is not one.
        """

    @abstractmethod
    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Law:
        """The same law, computing in another dtype or on another device."""

    @abstractmethod
    def _noised(self, alpha: float, sigma: float) -> Law: ...

    @abstractmethod
    def _sample(self, draws: Noise) -> Tensor: ...

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """For flat `x`, and float64 `alpha`, `sigma` that are both scalars or both `(batch,)`."""

    def _flat(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        if x.ndim != 1 + len(self.event_shape) or x.shape[1:] != self.event_shape:
            raise ShapeError("x", tuple(x.shape), f"(batch, {', '.join(map(str, self.event_shape))})")
        return x.reshape(x.shape[0], self.dim).to(dtype or self.dtype)

    def _levels(self, process: ScalarProcess, t: Time, batch: int) -> tuple[Tensor, Tensor]:
        alpha, sigma = process.alpha(t).to(self.device), process.sigma(t).to(self.device)
        if alpha.ndim and alpha.shape != (batch,):
            if alpha.shape != (1,):
                raise ShapeError("t", tuple(alpha.shape), f"a scalar or one time per sample ({batch},)")
            alpha, sigma = alpha[0], sigma[0]
        return alpha, sigma


class ExactDenoiser(Denoiser):
    """`E[x_0 | x_t]` under a law.

    Arguments:
        law: the law of the clean data.
        process: what made `x_t` of them.
    """

    def __init__(self, law: Law, process: ScalarProcess) -> None:
        self.law, self.process = law, process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            raise ArgumentError("condition", tuple(condition.shape), "none", "Condition the law itself: law.given(A, y, noise).")
        return self.law.posterior_mean(x, self.process, t)


def event_of(dim: int, event_shape: Sequence[int] | None) -> tuple[int, ...]:
    """The event shape of flat vectors of length `dim`: as given, or `(dim,)`.

    Raises:
        ShapeError: the shape has another number of elements.
    """
    shape = (dim,) if event_shape is None else tuple(event_shape)
    if math.prod(shape) != dim:
        raise ShapeError("event_shape", shape, f"a shape with {dim} elements")
    return shape


def vector(x: Tensor, dim: int, name: str) -> Tensor:
    """`x` flattened, checked to be `dim` finite floating point numbers.

    Raises:
        ShapeError: another number of elements.
        ArgumentError: not floating point, NaN or infinite.
    """
    if x.numel() != dim:
        raise ShapeError(name, tuple(x.shape), f"{dim} elements")
    if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
        raise ArgumentError(name, f"{x.dtype} with {int((~torch.isfinite(x)).sum())} values not finite", "finite floating point numbers")
    return x.detach().reshape(-1)


def probabilities(weights: Tensor | Sequence[float] | None, n: int, device: torch.device) -> Float[Tensor, " n"]:
    """`n` weights, float64 and summing to 1; equal ones for None.

    Raises:
        ShapeError: another number of weights.
        ArgumentError: a weight that is negative or not finite, or none that is positive.
    """
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=device)
    out = torch.as_tensor(weights, dtype=torch.float64, device=device).detach()
    if out.shape != (n,):
        raise ShapeError("weights", tuple(out.shape), f"one per component, ({n},)")
    if not bool((torch.isfinite(out) & (out >= 0)).all()) or not float(out.sum()) > 0:
        raise ArgumentError("weights", f"values in [{float(out.min()):.3g}, {float(out.max()):.3g}]", "weights of at least 0, not all 0")
    return out / out.sum()


def pick(weights: Float[Tensor, " n"], draws: Noise) -> Tensor:
    """One index per sample, by the normal CDF of draw 1 of each sample's noise (draw 0 makes the sample itself)."""
    scalar = Noise(draws.keys, (1,), torch.float64, draws.device).draw(1)[:, 0]
    edges = torch.cumsum(weights, 0)
    # the last edge is 1 up to rounding, so a draw beyond it belongs to the last component that has weight
    last = int(torch.nonzero(weights)[-1])
    return torch.searchsorted(edges, torch.special.ndtr(scalar), right=True).clamp(max=last)
