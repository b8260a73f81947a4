r"""Diffusion of data that an encoder changes with the noise: `q(z | x) = N(alpha x_lam, sigma^2)`, `x_lam = alpha^2 x + sigma^2 y(x, lam)`.

Here `lam = log(alpha^2 / sigma^2)`, `alpha^2 = sigmoid(lam)`, `sigma^2 = sigmoid(-lam)`: times are log-SNRs. A reverse step from `lam_t` to
`lam_s > lam_t` has, given the data and in the model,

    mu_Q = (alpha_t sigma_s^2 / alpha_s sigma_t^2) z + alpha_s (1 - e^{lam_t - lam_s}) x_t + alpha_s (x_s - x_t),
    mu_P = the same with x_hat for x_t and (lam_s - lam_t) sigma_t^2 x_hat for x_s - x_t,
    sigma_Q^2 = sigma_s^2 (1 - e^{lam_t - lam_s}),        sigma_P^2 = w sigma_Q^2,

and costs `|mu_Q - mu_P|^2 / (2 w sigma_Q^2) + d/2 (1/w - 1 + log w)`. The second term does not shrink with the steps, so in continuous
depth `w = 1`, and the bound's integrand over `lam` is

    1/2 e^lam |x_lam + d x_lam / d lam - (1 + sigma^2) x_hat|^2 = 1/2 alpha^2 |v - v_hat + sigma (x_hat - x_lam + y - dy/d lam)|^2,

with `v = alpha eps - sigma x_lam` and `x_hat = alpha z - sigma v_hat`. Without an encoder, `y = 0`: `x_lam = alpha^2 x`.
Source: Nielsen et al. 2024 (arXiv 2310.19789), sections 3 to 5.
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
from sfumato.learn.forward.forward_flow import Field, time_rate
from sfumato.learn.losses.variational_bound import Decoder, VariationalBound, gaussian_decoder
from sfumato.noise import over_events
from sfumato.seeds import Noise


class EncodedForward(nn.Module):
    """The encoded noising, its steps and its losses; log-SNRs are float64 `(batch,)`.

    Arguments:
        encoder: `y(x, lam)`, a callable or a module; None is the encoder without parameters, `x_lam = alpha^2 x`.
    """

    def __init__(self, encoder: Field | None = None) -> None:
        super().__init__()
        self.encoder = encoder

    def encode(self, x: Float[Tensor, "batch *event"], lam: Float[Tensor, "batch"]) -> Float[Tensor, "batch *event"]:
        """`x_lam`."""
        kept = over_events(torch.sigmoid(lam), x) * x
        return kept if self.encoder is None else kept + over_events(torch.sigmoid(-lam), x) * self.encoder(x, lam.to(x.dtype))

    def sample(self, x: Tensor, lam: Tensor, eps: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """`z = alpha x_lam + sigma eps`."""
        alpha, sigma = levels(lam)
        return over_events(alpha, x) * self.encode(x, lam) + over_events(sigma, x) * eps

    def step_gap(self, x: Tensor, said: Tensor, lam_t: Tensor, lam_s: Tensor) -> Float[Tensor, "batch *event"]:
        """`mu_Q - mu_P`, in which the state cancels; `said` is `x_hat`.

        Raises:
            ArgumentError: a step that does not go towards more signal.
        """
        _rising(lam_t, lam_s)
        here, there = self.encode(x, lam_t), self.encode(x, lam_s)
        pull, lean = (over_events(c, x) for c in (-torch.expm1(lam_t - lam_s), (lam_s - lam_t) * torch.sigmoid(-lam_t)))
        return over_events(levels(lam_s)[0], x) * (pull * (here - said) + there - here - lean * said)

    def step_loss(self, x: Tensor, said: Tensor, lam_t: Tensor, lam_s: Tensor, ratio: float | Tensor = 1.0) -> Float[Tensor, "batch"]:
        """The step's term of the bound, in nats, float64.

        Arguments:
            ratio: `w`, the model's variance over the encoder's; one, or one per sample.

        Raises:
            ArgumentError: a ratio that is not positive.
        """
        w = torch.as_tensor(ratio, dtype=torch.float64)
        if not bool((w > 0).all()):
            raise ArgumentError("ratio", ratio, "a positive ratio of variances")
        squared = self.step_gap(x, said, lam_t, lam_s).double().square().flatten(1).sum(1)
        return squared / (2 * w * step_variance(lam_t, lam_s)) + x[0].numel() / 2 * (1 / w - 1 + w.log())

    def best_ratio(self, x: Tensor, said: Tensor, lam_t: Tensor, lam_s: Tensor) -> Float[Tensor, ""]:
        """The `w` of the least bound for a step that all samples take: `1 + E |mu_Q - mu_P|^2 / (d sigma_Q^2)`."""
        squared = self.step_gap(x, said, lam_t, lam_s).double().square().flatten(1).mean(1)
        return 1 + (squared / step_variance(lam_t, lam_s)).mean()

    def data_loss(self, x: Tensor, said: Float[Tensor, "batch *event"], lam: Tensor) -> Float[Tensor, "batch"]:
        """The continuous bound's density over `lam` for a prediction `x_hat`."""
        encoded, rate = time_rate(lambda u: self.encode(x, u), lam)
        gap = encoded + rate - over_events(1 + torch.sigmoid(-lam), x) * said
        return 0.5 * torch.exp(lam) * gap.double().square().flatten(1).sum(1)

    def velocity_loss(self, x: Tensor, said: Float[Tensor, "batch *event"], lam: Tensor, eps: Tensor) -> Float[Tensor, "batch"]:
        """The same for a prediction `v_hat` at `z = sample(x, lam, eps)`, without large factors."""
        alpha, sigma = (over_events(c, x) for c in levels(lam))
        encoded = self.encode(x, lam)
        z = alpha * encoded + sigma * eps
        extra = alpha * z - sigma * said - encoded
        if self.encoder is not None:
            encoder = self.encoder
            y, rate = time_rate(lambda u: encoder(x, u.to(x.dtype)), lam)
            extra = extra + y - rate
        gap = alpha * eps - sigma * encoded - said + sigma * extra
        return 0.5 * torch.sigmoid(lam) * gap.double().square().flatten(1).sum(1)

    def prior_divergence(self, x: Tensor, lam: Tensor) -> Float[Tensor, "batch"]:
        """`KL(q(z | x) || N(0, I))`, float64."""
        alpha, sigma = levels(lam)
        squared = self.encode(x, lam).double().square().flatten(1).sum(1)
        return 0.5 * (alpha**2 * squared + x[0].numel() * (sigma**2 - 1 - 2 * sigma.log()))


def levels(lam: Tensor) -> tuple[Tensor, Tensor]:
    """`(alpha, sigma)` at log-SNRs."""
    return torch.sigmoid(lam).sqrt(), torch.sigmoid(-lam).sqrt()


def step_variance(lam_t: Tensor, lam_s: Tensor) -> Tensor:
    """`sigma_Q^2`."""
    return -torch.sigmoid(-lam_s) * torch.expm1(lam_t - lam_s)


class MonotoneLogSNR(nn.Module):
    """A learned schedule: `lam(t)` falls from `high` to `low`, linearly between equally spaced knots.

    In continuous depth the bound does not depend on it, only the variance of its estimate does, so its gradient is that of the square.

    Arguments:
        low, high: the ends.
        pieces: how many, equal at first.
    """

    def __init__(self, low: float = -5.0, high: float = 13.3, pieces: int = 16) -> None:
        super().__init__()
        if not low < high or pieces < 1:
            raise ArgumentError("low, high, pieces", (low, high, pieces), "low < high and at least one piece")
        self.low, self.high = low, high
        self.shares = nn.Parameter(torch.zeros(pieces, dtype=torch.float64))

    def forward(self, t: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """`lam(t)` and `-d lam / dt`, by which a density over `lam` is multiplied."""
        drops = torch.softmax(self.shares, 0) * (self.high - self.low)
        count = len(drops)
        piece = (t * count).long().clamp(0, count - 1)
        gone = torch.cat([drops.new_zeros(1), drops.cumsum(0)])
        return self.high - gone[piece] - (t * count - piece) * drops[piece], drops[piece] * count


@dataclass(frozen=True)
class SoftmaxDecoder:
    """`p(x | z)` over levels, `softmax_j(-(D - level_j)^2 / 2 v)`: a decoder for data that stand on levels (256 of a pixel).

    Arguments:
        levels: all of them, rising.
    """

    levels: Float[Tensor, " count"]

    def __call__(self, x0: Tensor, said: Tensor, log_variance: Tensor) -> Tensor:
        """`-log p(x_0 | D)` per number, `x_0` being read as its nearest level."""
        scores = torch.log_softmax(self._scores(said, log_variance), -1)
        nearest = (x0[..., None] - self.levels).abs().argmin(-1, keepdim=True)
        return -scores.gather(-1, nearest)[..., 0]

    def draw(self, said: Tensor, log_variance: Tensor, uniform: Tensor) -> Tensor:
        """Levels drawn by uniform numbers shaped as `said`: the last step of a sample."""
        mass = torch.softmax(self._scores(said, log_variance), -1).cumsum(-1)
        return self.levels[(mass < uniform[..., None]).sum(-1).clamp(max=len(self.levels) - 1)]

    def _scores(self, said: Tensor, log_variance: Tensor) -> Tensor:
        return -0.5 * (said[..., None] - self.levels).square() * torch.exp(-log_variance)[..., None]


def encoded_bound(
    forward: EncodedForward,
    predictor: Field,
    x0: Float[Tensor, "batch *event"],
    lams: Sequence[float],
    *,
    ratio: float = 1.0,
    decoder: Decoder = gaussian_decoder,
    seed: int = 0,
) -> VariationalBound:
    """The bound of the steps along rising log-SNRs, one draw of the noise at each, with gradients to encoder and predictor.

    Arguments:
        predictor: `x_hat(z, lam)`.
        lams: the prior is `N(0, I)` at the first; the decoder reads `z / alpha` at the last, with the variance `e^{-lam}`.
        ratio: `w` of all steps.

    Raises:
        ArgumentError: log-SNRs that do not rise.
    """
    _ladder(lams)
    generator, one = torch.Generator().manual_seed(seed), torch.ones(len(x0), dtype=torch.float64)
    total = torch.zeros(len(x0), dtype=torch.float64)
    for lam_t, lam_s in pairwise(lams):
        z = forward.sample(x0, lam_t * one, torch.randn(x0.shape, generator=generator, dtype=x0.dtype))
        total = total + forward.step_loss(x0, predictor(z, lam_t * one), lam_t * one, lam_s * one, ratio)
    last = lams[-1] * one
    z = forward.sample(x0, last, torch.randn(x0.shape, generator=generator, dtype=x0.dtype))
    read = (
        decoder(x0.double(), z.double() / over_events(levels(last)[0], z), torch.tensor(-lams[-1], dtype=torch.float64)).flatten(1).sum(1)
    )
    return VariationalBound(forward.prior_divergence(x0, lams[0] * one), total, read, torch.full_like(total, math.nan), x0[0].numel())


def sample_encoded(
    predictor: Field, z: Float[Tensor, "batch *event"], lams: Sequence[float], noise: Noise, ratio: float = 1.0
) -> Float[Tensor, "batch *event"]:
    """Reverse steps along rising log-SNRs, draw `i` in step `i`; `z / alpha` at the last, for the decoder. The encoder is not asked.

    Raises:
        ArgumentError: log-SNRs that do not rise.
    """
    _ladder(lams)
    one = torch.ones((), dtype=torch.float64)
    with torch.no_grad():
        for i, (lam_t, lam_s) in enumerate(pairwise(lams)):
            t, s = lam_t * one, lam_s * one
            said = predictor(z, t.expand(len(z)))
            (alpha_t, _), (alpha_s, _) = levels(t), levels(s)
            keep = alpha_t * torch.sigmoid(-s) / (alpha_s * torch.sigmoid(-t))
            pull = alpha_s * (-torch.expm1(t - s) + (s - t) * torch.sigmoid(-t))
            fresh = (ratio * step_variance(t, s)).sqrt()
            z = over_events(keep, z) * z + over_events(pull, z) * said + over_events(fresh, z) * noise.draw(i)
    return z / over_events(levels(lams[-1] * one)[0], z)


def _rising(lam_t: Tensor, lam_s: Tensor) -> None:
    if not bool((lam_s > lam_t).all()):
        raise ArgumentError("lam_t, lam_s", (lam_t, lam_s), "lam_s > lam_t", "A reverse step goes towards more signal.")


def _ladder(lams: Sequence[float]) -> None:
    if len(lams) < 2 or not all(b > a for a, b in pairwise(lams)):
        raise ArgumentError("lams", f"{len(lams)} log-SNRs", "at least 2, strictly rising")
