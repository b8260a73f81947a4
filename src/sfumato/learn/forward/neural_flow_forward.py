r"""A learned noising flow and its generative twin: the simulation-free bound, both samplers, straightness.

The generative process replaces the unknown data by a prediction `x_hat(z, t)` in the conditional drifts of `forward_flow`: the ODE follows
`f(z, t, x_hat)`, the SDE `f^B(z, t, x_hat)` with noise `g`. Its bound on the likelihood needs no path,

    -log p(x) <= E int 1/(2 g^2) |f^B(z, t, x) - f^B(z, t, x_hat)|^2 dt + KL(q(z_1 | x) || N(0, I)) + E[-log p(x | z_0)],

and holds for every `g`; for `F = alpha x + sigma eps` the best one is `g^2 = -2 sigma^2 lambda'`, `lambda = log(alpha / sigma)`, that of
the usual SDE. A penalty on the acceleration of generated paths makes few Euler steps enough.
Source: Bartosh et al. 2024 (arXiv 2404.12940), sections 3 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from sfumato.denoise.networks.network import seeded
from sfumato.errors import ArgumentError
from sfumato.learn.forward.forward_flow import Field, ForwardFlow, time_rate
from sfumato.learn.losses.variational_bound import VariationalBound, gaussian_decoder
from sfumato.noise import over_events
from sfumato.seeds import Noise

Volatility = Callable[[Tensor], Tensor]
"""Times `(n,)` to `g^2`, positive, `(n,)`."""


class KnotVolatility(nn.Module):
    """`log g^2` linear between equally spaced knots.

    Arguments:
        first, last: the times of the end knots.
        knots: how many, at least 2.
        start: `g^2` at first, everywhere.

    Raises:
        ArgumentError: fewer than 2 knots, ends that are not in order, a start that is not positive.
    """

    def __init__(self, first: float, last: float, knots: int, start: float = 1.0) -> None:
        super().__init__()
        if knots < 2 or not first < last or not 0 < start < math.inf:
            raise ArgumentError("first, last, knots, start", (first, last, knots, start), "first < last, 2 knots or more, a positive start")
        self.first, self.last = first, last
        self.log_values = nn.Parameter(torch.full((knots,), math.log(start), dtype=torch.float64))

    def forward(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        count = len(self.log_values)
        place = ((t - self.first) / (self.last - self.first)).clamp(0, 1) * (count - 1)
        left = place.detach().long().clamp(max=count - 2)
        part = place - left
        return torch.exp((1 - part) * self.log_values[left] + part * self.log_values[left + 1])


class NetVolatility(nn.Module):
    """`g^2 = floor + softplus(net(t))^2` with a perceptron of one hidden layer.

    Arguments:
        width: of the layer.
        floor: the least variance, for the loss divides by it.
        seed: of the first weights.
    """

    def __init__(self, width: int = 32, floor: float = 1e-3, seed: int = 0) -> None:
        super().__init__()
        if width < 1 or not floor > 0:
            raise ArgumentError("width, floor", (width, floor), "positive numbers")
        self.floor = floor
        with seeded(seed):
            self.net = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, 1)).double()

    def forward(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        out: Tensor = self.floor + softplus(self.net(t.to(torch.float64)[:, None])[:, 0]).square()
        return out


class SkipPredictor(nn.Module):
    """`x_hat = (1 - t) z + (t + 0.01) net(z, t)`: near the data the state itself is the answer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"]) -> Float[Tensor, "batch *event"]:
        out: Tensor = over_events(1 - t, z) * z + over_events(t + 0.01, z) * self.net(z, t.to(z.dtype))
        return out


def flow_loss(
    flow: ForwardFlow,
    predictor: Field,
    volatility: Volatility,
    x0: Float[Tensor, "batch *event"],
    t: Float[Tensor, "batch"],
    eps: Float[Tensor, "batch *event"],
) -> Float[Tensor, "batch"]:
    """`|f^B(z, t, x) - f^B(z, t, x_hat)|^2 / (2 g^2)` at `z = F(eps, t, x_0)`: the bound's integrand, with gradients to all three.

    Raises:
        ArgumentError: a volatility that is not positive.
    """
    variance = volatility(t)
    if not bool((variance > 0).all()):
        raise ArgumentError("volatility", f"a least g^2 of {float(variance.detach().min()):.3g}", "g^2 > 0", "The bound divides by it.")
    z = flow.place(eps, t, x0)
    gap = flow.drift(z, t, x0, -variance) - flow.drift(z, t, predictor(z, t), -variance)
    return gap.square().flatten(1).sum(1) / (2 * variance.to(gap.dtype))


def flow_bound(
    flow: ForwardFlow,
    predictor: Field,
    volatility: Volatility,
    x0: Float[Tensor, "batch *event"],
    *,
    log_variance: float,
    ends: tuple[float, float] = (0.0, 1.0),
    draws: int = 32,
    seed: int = 0,
) -> VariationalBound:
    """An estimate of the bound per sample, with stratified times between the ends.

    Arguments:
        log_variance: of the decoder `N(x_hat(z, first), .)`; at `F = x + delta eps` it is `2 log delta`.
        ends: the first and the last time; the prior is `N(0, I)` at the last.
        draws: of times and noise.

    Raises:
        ArgumentError: no draws, ends that are not in order.
    """
    first, last = ends
    if draws < 1 or not first < last:
        raise ArgumentError("draws, ends", (draws, ends), "at least one draw, first < last")
    generator = torch.Generator().manual_seed(seed)
    batch, found, read = len(x0), [], []
    clock = torch.ones(batch, dtype=torch.float64)
    with torch.no_grad():
        for k in range(draws):
            u = (k + torch.rand(batch, generator=generator, dtype=torch.float64)) / draws
            eps, again = (torch.randn(x0.shape, generator=generator, dtype=x0.dtype) for _ in range(2))
            found.append((last - first) * flow_loss(flow, predictor, volatility, x0, first + (last - first) * u, eps).double())
            said = predictor(flow.place(again, first * clock, x0), first * clock)
            read.append(gaussian_decoder(x0, said, torch.tensor(log_variance, dtype=x0.dtype)).flatten(1).sum(1).double())
        prior = flow.prior_divergence(x0, last * clock, eps)
    values, reading = torch.stack(found), torch.stack(read)
    error = (values + reading).std(0) / math.sqrt(draws) if draws > 1 else torch.full_like(prior, math.nan)
    return VariationalBound(prior, values.mean(0), reading.mean(0), error, x0[0].numel())


def generate_flow(
    flow: ForwardFlow,
    predictor: Field,
    z: Float[Tensor, "batch *event"],
    times: Sequence[float],
    noise: tuple[Volatility, Noise] | None = None,
) -> Float[Tensor, "batch *event"]:
    """Euler steps along falling times: of the ODE, or with a volatility and draws (number `i` in step `i`) of the SDE; the last state.

    Raises:
        ArgumentError: times that do not fall.
    """
    return _march(z, times, noise, falling=True, conditional=lambda y, t, variance: flow.drift(y, t, predictor(y, t), -variance))


def conditional_path(
    flow: ForwardFlow,
    x0: Float[Tensor, "batch *event"],
    z: Float[Tensor, "batch *event"],
    times: Sequence[float],
    noise: tuple[Volatility, Noise],
) -> Float[Tensor, "batch *event"]:
    """Euler steps of the noising SDE given the data, along rising times: its marginals are those of `F(eps, t, x_0)` for every volatility.

    Raises:
        ArgumentError: times that do not rise.
    """
    return _march(z, times, noise, falling=False, conditional=lambda y, t, variance: flow.drift(y, t, x0, variance))


def _march(
    z: Tensor,
    times: Sequence[float],
    noise: tuple[Volatility, Noise] | None,
    *,
    falling: bool,
    conditional: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    steps = [b - a for a, b in pairwise(times)]
    if not steps or not all((h < 0) == falling and h != 0 for h in steps):
        raise ArgumentError("times", f"{len(times)} times", f"at least 2, strictly {'falling' if falling else 'rising'}")
    with torch.no_grad():
        for i, (start, h) in enumerate(zip(times, steps, strict=False)):
            t = torch.full((len(z),), start, dtype=torch.float64)
            variance = torch.zeros_like(t) if noise is None else noise[0](t)
            z = z + h * conditional(z, t, variance)
            if noise is not None:
                z = z + over_events((abs(h) * variance).sqrt(), z) * noise[1].draw(i)
    return z


def conditional_curvature(
    flow: ForwardFlow, x0: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"], eps: Float[Tensor, "batch *event"]
) -> Float[Tensor, "batch"]:
    """`|d^2 F / dt^2|^2`: how far a path from one datum to one noise is from straight and even."""
    return _square(lambda: time_rate(lambda u: time_rate(lambda v: flow.place(eps, v, x0), u)[1], t)[1])


def generative_curvature(
    flow: ForwardFlow, predictor: Field, z: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """`|d/dt f(z, t, x_hat(z, t))|^2` along the generative ODE: 0 where one Euler step is exact. The penalty of NFDM-OT."""

    def speed(y: Tensor, u: Tensor) -> Tensor:
        return flow.velocity(y, u, predictor(y, u))

    return _square(lambda: torch.func.jvp(speed, (z, t), (speed(z, t), torch.ones_like(t)))[1])


def _square(acceleration: Callable[[], Any]) -> Tensor:
    """The squared length of a second derivative. With gradients off torch fuses activations whose rates it cannot then differentiate."""
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        found: Tensor = acceleration().square().flatten(1).sum(1)
    return found if wanted else found.detach()
