r"""Learning the score of a noising with any drift, from increments: local denoising score matching.

For every `s < t` the marginal's score is a mean of the increment's, `grad log q_t(x) = E[grad log q(x_t | x_s) | x_t = x]`, so regression
on the increment's score has the right minimiser; over a short `h = t - s` the increment is the Gaussian of
`sfumato.noise.general.nonlinear`. A shorter `h` means less bias and a target of more variance, about `1 / (g^2 h)` per number: that choice
is the method. Where the model's score at the increment's mean is subtracted (a control), short increments are no longer noisy: in the
limit the loss is `|s|^2 + 2 div s`.

The likelihood has the bound, with a prior at the last time and the score `s` of a model,

    log p(x_0) >= E[log prior(x_1)] - int E[g^2/2 |s|^2 + g^2 div s - div f] dt.

Source: Singhal et al. 2024 (arXiv 2407.07998), sections 3 to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.learn.forward.forward_flow import Field
from sfumato.noise.general.nonlinear import Increment, NonlinearSDE


@dataclass(frozen=True, eq=False)
class PathCache:
    """Simulated noising paths, of which training takes states again and again.

    Arguments:
        times: rising from 0.
        states: `(times, paths, d)`.
    """

    times: Float[Tensor, " times"]
    states: Float[Tensor, "times paths d"]

    def pairs(self, count: int, h: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """`count` states `x_s`, their times and the increments' lengths: the time `s + h` is even on the grid's, and `h` is cut at 0.

        Raises:
            ArgumentError: an `h` that is not positive.
        """
        if not h > 0:
            raise ArgumentError("h", h, "a positive length")
        late = self.times[torch.randint(1, len(self.times), (count,), generator=generator)]
        wanted = (late - h).clamp(min=0)
        # the nearest stored time before the one that is wanted
        row = (torch.searchsorted(self.times, wanted + 1e-9, right=True) - 1).clamp(min=0)
        path = torch.randint(self.states.shape[1], (count,), generator=generator)
        return self.states[row, path], self.times[row], late - self.times[row]


def simulate_paths(
    sde: NonlinearSDE, x0: Float[Tensor, "paths d"], times: Sequence[float], generator: torch.Generator, order: int = 1
) -> PathCache:
    """Noising paths from data, increment by increment.

    Raises:
        ArgumentError: times that do not rise from 0.
    """
    if len(times) < 2 or times[0] != 0 or not all(b > a for a, b in pairwise(times)):
        raise ArgumentError("times", f"{len(times)} times", "at least 2, strictly rising from 0")
    states, one = [x0], torch.ones(len(x0), dtype=torch.float64)
    with torch.no_grad():
        for s, t in pairwise(times):
            eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
            states.append(sde.increment(states[-1], s * one, (t - s) * one, order).place(eps))
    return PathCache(torch.tensor(times, dtype=torch.float64), torch.stack(states))


def local_loss(
    score: Field, increment: Increment, eps: Float[Tensor, "batch d"], t: Float[Tensor, "batch"], control: Tensor | None = None
) -> Float[Tensor, "batch"]:
    """`|root^T s(x_t) + eps|^2` at `x_t = mean + root eps`: the squared error in the increment's units, a weight of about `g^2 h`.

    A network of the noise, `s = -root^{-T} eps_hat`, has `|eps_hat - eps|^2`. With a control the loss is
    `|root^T s|^2 + 2 eps . root^T (s - control)`: up to `|eps|^2`, which no parameter moves, it has the same
    mean for whatever the increment's mean determines.

    Arguments:
        score: of the model, at `(x, t)`.
        increment: as `NonlinearSDE.increment` gives it; `t` is its end.
        control: `score(increment.mean, t)`, or None for the plain loss.
    """
    said = increment.scaled(score(increment.place(eps), t))
    if control is None:
        return (said + eps).square().sum(1)
    return said.square().sum(1) + 2 * (eps * (said - increment.scaled(control))).sum(1)


def likelihood_loss(
    score: Field, increment: Increment, eps: Float[Tensor, "batch d"], t: Float[Tensor, "batch"], noise: float
) -> Float[Tensor, "batch"]:
    """`g^2/2 |s(x_t) - target|^2`: the bound's own weight."""
    return noise**2 / 2 * (score(increment.place(eps), t) - increment.score(eps)).square().sum(1)


def longest_increment(
    sde: NonlinearSDE, x: Float[Tensor, "batch d"], s: Float[Tensor, "batch"], tolerance: float, longest: float, halvings: int = 20
) -> tuple[float, bool]:
    """The longest `longest / 2^k` at which Euler's and the linearised mean differ by at most `tolerance` standard deviations, root mean
    square over the batch; and whether there was one within the halvings (otherwise the shortest is given).

    Raises:
        ArgumentError: numbers that are not positive.
    """
    if not tolerance > 0 or not longest > 0 or halvings < 1:
        raise ArgumentError("tolerance, longest, halvings", (tolerance, longest, halvings), "positive numbers")
    h, one = longest, torch.ones(len(x), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(halvings):
            euler, better = (sde.increment(x, s, h * one, order) for order in (0, 1))
            if float(((better.mean - euler.mean) / euler.root).square().mean().sqrt()) <= tolerance:
                return h, True
            h /= 2
    return 2 * h, False


def implicit_bound(
    sde: NonlinearSDE,
    score: Field,
    paths: PathCache,
    log_prior: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> Float[Tensor, " paths"]:
    """The bound for the data that the paths start at, in nats: one number a path, unbiased but for the trapezoidal rule on its times.

    Arguments:
        score: of the model; divergences are taken along one random sign vector per state (Hutchinson), exactly for `d = 1`.
        log_prior: of the states at the last time, `(paths,)`.
    """
    rates = []
    for t, x in zip(paths.times, paths.states, strict=True):
        clock = t.expand(len(x))
        signs = 2.0 * torch.randint(2, x.shape, generator=generator).to(x.dtype) - 1
        said, curl = torch.func.jvp(lambda y, u=clock: score(y, u), (x,), (signs,))[:2]
        force = torch.func.jvp(lambda y, u=clock: sde.drift(y, u), (x,), (signs,))[1]
        rates.append(sde.noise**2 * (said.square().sum(1) / 2 + (signs * curl).sum(1)) - (signs * force).sum(1))
    return log_prior(paths.states[-1]) - torch.trapezoid(torch.stack(rates), paths.times, dim=0)
