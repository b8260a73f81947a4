r"""Noising told only by an invertible map of noise given data, `z_t = F(eps, t, x_0)`: its conditional velocity and score.

With `eps = F^{-1}(z, t, x)`, samples of the conditional law move along

    f(z, t, x) = dF/dt (eps, t, x),        log q(z | x) = log N(eps; 0, I) + log |det d eps / d z|,

and for any volatility `g(t)` the same marginals belong to SDEs with noise `g` and drifts `f + g^2 / 2 grad log q` (from clean to noisy) and
`f^B = f - g^2 / 2 grad log q` (backwards). For `F = mu(x, t) + sigma(x, t) eps`, number by number,

    f = mu' + (log sigma)' (z - mu),        grad log q = (mu - z) / sigma^2.

Derivatives by time are taken forwards, per sample: a gradient summed over the batch would mix its samples.
Source: Bartosh et al. 2024 (arXiv 2404.12940), sections 3 and 4.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise.networks.network import seeded, zeroed
from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess, over_events

Field = Callable[[Tensor, Tensor], Tensor]
"""States `(batch, *event)` and times `(batch,)` to values shaped as the states: a predictor of `x_0`, a network, a drift."""


def time_rate(path: Callable[[Tensor], Any], t: Tensor) -> tuple[Any, Any]:
    """A function of per-sample times `(batch,)`, and its derivative by each sample's own time."""
    found: Any = torch.func.jvp(path, (t,), (torch.ones_like(t),))
    return found[0], found[1]


class ForwardFlow(nn.Module, ABC):
    """`z_t = F(eps, t, x)`; a member gives the map and its inverse. Times are float64 `(batch,)`."""

    @abstractmethod
    def place(
        self, eps: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"], x: Float[Tensor, "batch *event"]
    ) -> Float[Tensor, "batch *event"]:
        """`F(eps, t, x)`."""

    @abstractmethod
    def noise_of(
        self, z: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"], x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch"]]:
        """`F^{-1}(z, t, x)` and `log |det d eps / d z|`."""

    def log_density(self, z: Tensor, t: Tensor, x: Tensor) -> Float[Tensor, "batch"]:
        """`log q(z_t | x)`."""
        eps, log_det = self.noise_of(z, t, x)
        return log_det - 0.5 * (eps.square() + math.log(2 * math.pi)).flatten(1).sum(1)

    def velocity(self, z: Tensor, t: Tensor, x: Tensor) -> Float[Tensor, "batch *event"]:
        """`f(z, t, x)`."""
        eps, _ = self.noise_of(z, t, x)
        moving: Tensor = time_rate(lambda u: self.place(eps, u, x), t)[1]
        return moving

    def score(self, z: Tensor, t: Tensor, x: Tensor) -> Float[Tensor, "batch *event"]:
        """`grad_z log q(z | x)`."""
        out: Tensor = torch.func.grad(lambda y: self.log_density(y, t, x).sum())(z)
        return out

    def drift(self, z: Tensor, t: Tensor, x: Tensor, variance: Tensor) -> Float[Tensor, "batch *event"]:
        """`f + variance / 2 grad log q`: the drift of the SDE from clean to noisy with `g^2 = variance`; `f^B` at `-variance`."""
        return self.velocity(z, t, x) + over_events(variance / 2, z) * self.score(z, t, x)

    def prior_divergence(self, x: Tensor, t: Tensor, eps: Tensor) -> Float[Tensor, "batch"]:
        """`KL(q(z_t | x) || N(0, I))` per sample, float64: from one draw, or in closed form where a member knows it."""
        z = self.place(eps, t, x)
        normal = -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        return (self.log_density(z, t, x) - normal).to(torch.float64)


class AffineForward(ForwardFlow):
    """`F = mu(x, t) + sigma(x, t) eps`; a member gives `moments`."""

    @abstractmethod
    def moments(
        self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch *event"]]:
        """`mu(x, t)` and `log sigma(x, t)`."""

    def place(self, eps: Tensor, t: Tensor, x: Tensor) -> Tensor:
        mean, log_scale = self.moments(x, t)
        return mean + torch.exp(log_scale) * eps

    def noise_of(self, z: Tensor, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.moments(x, t)
        return (z - mean) * torch.exp(-log_scale), -log_scale.flatten(1).sum(1)

    def velocity(self, z: Tensor, t: Tensor, x: Tensor) -> Tensor:
        (mean, _), (mean_rate, log_rate) = time_rate(lambda u: self.moments(x, u), t)
        moving: Tensor = mean_rate + log_rate * (z - mean)
        return moving

    def score(self, z: Tensor, t: Tensor, x: Tensor) -> Tensor:
        mean, log_scale = self.moments(x, t)
        return (mean - z) * torch.exp(-2 * log_scale)

    def prior_divergence(self, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        mean, log_scale = (v.to(torch.float64) for v in self.moments(x, t))
        return 0.5 * (mean.square() + torch.exp(2 * log_scale) - 1 - 2 * log_scale).flatten(1).sum(1)


class ScalarForward(AffineForward):
    """A scalar process, `F = alpha_t x + sigma_t eps`, with or without a transform `x -> T(x, t)` of the data before it.

    Arguments:
        process: asked at times with `0 < t < 1`, where its rates are finite.
        transform: a callable or a module; None leaves the data as they are.
    """

    def __init__(self, process: ScalarProcess, transform: Field | None = None) -> None:
        super().__init__()
        self.process, self.transform = process, transform

    def moments(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.process.levels(t)
        moved = x if self.transform is None else self.transform(x, t)
        return over_events(alpha, x) * moved, over_events(sigma.log(), x) + torch.zeros_like(x)


class NeuralAffine(AffineForward):
    """`mu = (1 - t) x + t (1 - t) m(x, t)`, `log sigma = (1 - t) log delta + t (1 - t) s(x, t)`: learned between fixed ends.

    Arguments:
        mean, scale: the networks `m` and `s`.
        delta: the noise at `t = 0`, from which the data are read off.

    Raises:
        ArgumentError: `delta` outside (0, 1).
    """

    def __init__(self, mean: nn.Module, scale: nn.Module, delta: float = 0.01) -> None:
        super().__init__()
        if not 0 < delta < 1:
            raise ArgumentError("delta", delta, "a standard deviation in (0, 1)")
        self.mean, self.scale, self.log_delta = mean, scale, math.log(delta)

    def moments(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        left, inside = over_events(1 - t, x), over_events(t * (1 - t), x)
        u = t.to(x.dtype)
        return left * x + inside * self.mean(x, u), left * self.log_delta + inside * self.scale(x, u)


class CouplingForward(ForwardFlow):
    """A flow that is not affine in the noise: `NeuralAffine`'s ends around two coupling layers, for flat events.

    The noise is first bent, `eps_b <- exp(t (1 - t) a) eps_b + t (1 - t) c` with `a, c` read off the other half of the noise, `x` and `t`,
    the halves changing places once; then `z = (1 - t) x + delta^{1 - t} eps`. At both ends of time nothing is bent.

    Arguments:
        dim: numbers per event, at least 2.
        width: of the layers' perceptrons, which start at zero.
        delta: the noise at `t = 0`.
        seed: of the first weights.

    Raises:
        ArgumentError: sizes or a `delta` that mean nothing.
    """

    def __init__(self, dim: int, width: int = 32, delta: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        if dim < 2 or width < 1 or not 0 < delta < 1:
            raise ArgumentError("dim, width, delta", (dim, width, delta), "at least 2 numbers, a positive width, delta in (0, 1)")
        self.split, self.log_delta = dim // 2, math.log(delta)
        with seeded(seed):
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Linear(kept + dim + 1, width), nn.SiLU(), zeroed(nn.Linear(width, 2 * (dim - kept))))
                for kept in (self.split, dim - self.split)
            )

    def place(self, eps: Tensor, t: Tensor, x: Tensor) -> Tensor:
        first, second = eps[:, : self.split], eps[:, self.split :]
        scale, shift = self._bend(0, first, t, x)
        second = torch.exp(scale) * second + shift
        scale, shift = self._bend(1, second, t, x)
        bent = torch.cat([torch.exp(scale) * first + shift, second], 1)
        left = over_events(1 - t, x)
        return left * x + torch.exp(left * self.log_delta) * bent

    def noise_of(self, z: Tensor, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        left = over_events(1 - t, x)
        bent = (z - left * x) * torch.exp(-left * self.log_delta)
        first, second = bent[:, : self.split], bent[:, self.split :]
        scale, shift = self._bend(1, second, t, x)
        first, log_det = (first - shift) * torch.exp(-scale), -scale.sum(1)
        scale, shift = self._bend(0, first, t, x)
        second, log_det = (second - shift) * torch.exp(-scale), log_det - scale.sum(1)
        return torch.cat([first, second], 1), log_det - left[:, 0] * self.log_delta * x.shape[1]

    def _bend(self, layer: int, kept: Tensor, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        said = self.layers[layer](torch.cat([kept, x, t.to(x.dtype)[:, None]], 1))
        scale, shift = (over_events(t * (1 - t), x) * said).chunk(2, 1)
        return scale, shift
