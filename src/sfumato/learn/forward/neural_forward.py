r"""A learned, time-dependent transform of the data before the noise: `q(z_t | x) = N(alpha_t F(x, t), sigma_t^2 I)`.

For `s < t` and any variance `0 <= v <= sigma_s^2` the marginals agree with the reverse step

    q(z_s | z_t, x) = N(alpha_s F(x, s) + r (z_t - alpha_t F(x, t)), v I),        r = sqrt(sigma_s^2 - v) / sigma_t,

and the model takes the same step with `x_hat(z_t, t)` in place of `x`, so that a step costs in the bound

    1/(2 v) |alpha_s (F(x, s) - F(x_hat, s)) - r alpha_t (F(x, t) - F(x_hat, t))|^2.

`v = eta^2 (1 - alpha_{t|s}^2 sigma_s^2 / sigma_t^2) sigma_s^2`: `eta = 1` is DDPM's, `eta = 0` DDIM's. At `F(x, t) = x` all of it is DDPM.
In continuous time the bound is that of `neural_flow_forward` for `forward.flow()`: for an exact denoiser tight whatever `F`, if the
volatility is that of `alpha F`.
Source: Bartosh et al. 2023 (arXiv 2310.08337), sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.errors import ArgumentError
from sfumato.learn.forward.forward_flow import Field, ScalarForward
from sfumato.learn.losses.variational_bound import VariationalBound, gaussian_decoder
from sfumato.noise import ScalarProcess, Time, as_time, over_events
from sfumato.seeds import Noise


def identity(x: Tensor, t: Tensor) -> Tensor:
    """The transform that does nothing: ordinary diffusion."""
    return x


class BlendTransform(nn.Module):
    """`F(x, t) = (1 - t) x + t net(x, t)`: the data at `t = 0`, the network alone at `t = 1`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"]) -> Float[Tensor, "batch *event"]:
        out: Tensor = over_events(1 - t, x) * x + over_events(t, x) * self.net(x, t.to(x.dtype))
        return out


class ResidualTransform(nn.Module):
    """`F(x, t) = x + t net(x, t)`: a network that is zero at first starts from ordinary diffusion."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Float[Tensor, "batch *event"], t: Float[Tensor, "batch"]) -> Float[Tensor, "batch *event"]:
        out: Tensor = x + over_events(t, x) * self.net(x, t.to(x.dtype))
        return out


@dataclass(frozen=True)
class NeuralForward:
    """A scalar process behind a transform.

    Arguments:
        process: gives `alpha` and `sigma`.
        transform: `F`, a callable or a module; `F(x, 0) = x` is the caller's to see to.
        eta: how much of DDPM's noise a reverse step has, in [0, 1].

    Raises:
        ArgumentError: an `eta` outside [0, 1].
    """

    process: ScalarProcess
    transform: Field = identity
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ArgumentError("eta", self.eta, "a share in [0, 1]")

    def at(self, x: Tensor, t: Time) -> Float[Tensor, "batch *event"]:
        """`alpha_t F(x, t)`; here and below times are one for all, or one per sample."""
        clock = as_time(t).expand(len(x))
        return over_events(self.process.alpha(clock), x) * self.transform(x, clock)

    def sample(self, x: Float[Tensor, "batch *event"], t: Time, eps: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """`z_t = alpha_t F(x, t) + sigma_t eps`."""
        return self.at(x, t) + over_events(self.process.sigma(t), x) * eps

    def step(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """`(r, v)` of the reverse step from `t` to `s < t`, float64."""
        sigma_s, sigma_t = self.process.sigma(s), self.process.sigma(t)
        forward = self.process.transition(s, t).covariance  # sigma_t^2 - alpha_{t|s}^2 sigma_s^2
        v = self.eta**2 * forward * (sigma_s / sigma_t) ** 2
        # v is at most sigma_s^2 but for rounding
        return (sigma_s**2 - v).clamp(min=0).sqrt() / sigma_t, v

    def step_mean(self, z: Tensor, x: Tensor, s: Time, t: Time) -> Float[Tensor, "batch *event"]:
        """The mean of `q(z_s | z_t = z, x)`; with a prediction for `x`, the model's."""
        return self.at(x, s) + over_events(self.step(s, t)[0], x) * (z - self.at(x, t))

    def step_divergence(self, x: Tensor, said: Tensor, s: Time, t: Time) -> Float[Tensor, "batch"]:
        """The step's term of the bound, in nats, float64; it depends on `z_t` through the prediction `said` alone.

        Raises:
            ArgumentError: `eta = 0`: steps without noise have no bound.
        """
        r, v = self.step(s, t)
        if not bool((v > 0).all()):
            raise ArgumentError("eta", self.eta, "a positive share of noise", "Steps without noise have no bound.")
        gap = self.at(x, s) - self.at(said, s) - over_events(r, x) * (self.at(x, t) - self.at(said, t))
        return gap.double().square().flatten(1).sum(1) / (2 * v)

    def prior_divergence(self, x: Tensor, t: Time) -> Float[Tensor, "batch"]:
        """`KL(q(z_t | x) || N(0, I))`, float64."""
        variance = self.process.sigma(t) ** 2
        extra = x[0].numel() * (variance - 1 - variance.log())
        return 0.5 * (self.at(x, t).double().square().flatten(1).sum(1) + extra)

    def flow(self) -> ScalarForward:
        """The same noising in continuous time, for `flow_loss` and `generate_flow`."""
        return ScalarForward(self.process, self.transform)


def neural_bound(
    forward: NeuralForward, predictor: Field, x0: Float[Tensor, "batch *event"], times: Sequence[float], *, draws: int = 1, seed: int = 0
) -> VariationalBound:
    """The bound of the steps along falling times, with gradients to the transform and the predictor.

    Arguments:
        predictor: `x_hat(z, t)`.
        times: strictly falling; the prior is `N(0, I)` at the first, the decoder `N(x_hat, (sigma / alpha)^2)` at the last.
        draws: of the noise at every time.

    Raises:
        ArgumentError: times that do not fall, no draws, `eta = 0`.
    """
    _falling(times)
    if draws < 1:
        raise ArgumentError("draws", draws, "at least one draw")
    generator = torch.Generator().manual_seed(seed)
    log_variance = -2 * forward.process.half_log_snr(times[-1])
    diffusion, reading = [], []
    for _ in range(draws):
        total = torch.zeros(len(x0), dtype=torch.float64)
        for t, s in pairwise(times):
            total = total + forward.step_divergence(x0, _said(forward, predictor, x0, t, generator), s, t)
        diffusion.append(total)
        said = _said(forward, predictor, x0, times[-1], generator)
        reading.append(gaussian_decoder(x0.double(), said.double(), log_variance).flatten(1).sum(1))
    steps, read = torch.stack(diffusion), torch.stack(reading)
    error = (steps + read).detach().std(0) / math.sqrt(draws) if draws > 1 else torch.full((len(x0),), math.nan, dtype=torch.float64)
    return VariationalBound(forward.prior_divergence(x0, times[0]), steps.mean(0), read.mean(0), error, x0[0].numel())


def sample_neural(
    forward: NeuralForward, predictor: Field, z: Float[Tensor, "batch *event"], times: Sequence[float], noise: Noise
) -> Float[Tensor, "batch *event"]:
    """Reverse steps along falling times from `z` at the first, draw `i` in step `i`; the prediction at the last time.

    Raises:
        ArgumentError: times that do not fall.
    """
    _falling(times)
    with torch.no_grad():
        for i, (t, s) in enumerate(pairwise(times)):
            said = predictor(z, torch.full((len(z),), t, dtype=torch.float64))
            z = forward.step_mean(z, said, s, t) + over_events(forward.step(s, t)[1].sqrt(), z) * noise.draw(i)
        return predictor(z, torch.full((len(z),), times[-1], dtype=torch.float64))


def _said(forward: NeuralForward, predictor: Field, x0: Tensor, t: float, generator: torch.Generator) -> Tensor:
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    return predictor(forward.sample(x0, t, eps), torch.full((len(x0),), t, dtype=torch.float64))


def _falling(times: Sequence[float]) -> None:
    if len(times) < 2 or not all(b < a for a, b in pairwise(times)):
        raise ArgumentError("times", f"{len(times)} times", "at least 2, strictly falling")
