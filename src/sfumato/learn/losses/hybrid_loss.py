r"""Learning the variances of the reverse chain: the simple loss for the mean, a little of the variational bound for the variance.

    L = |eps - eps_hat|^2 + weight * K * L_step(sg[D], u),        L_step = KL(q(x_s | x_t, x_0) || p(x_s | x_t)) or the decoder's term,

per number and in bits, where `sg` stops the gradient: the bound teaches the variance `log v = u log beta + (1 - u) log betatilde` and
leaves the mean to the simple loss, whose gradient is far less noisy. For the bound alone, steps are drawn with `p_i ~ sqrt(E L_i^2)`
(`LossAwareSteps`) and weighted by `1/(K p_i)`. Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), sections 3.1 and 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn.losses.variational_bound import Decoder, gaussian_decoder
from sfumato.sample.steps.reverse_chain import ReverseChain


def step_bound(
    chain: ReverseChain,
    clean: Float[Tensor, "n *event"],
    said: Float[Tensor, "n *event"],
    share: Float[Tensor, "n *event"],
    step: Int[Tensor, "n"],
    decoder: Decoder = gaussian_decoder,
) -> Float[Tensor, "n"]:
    """Each example's term of the bound at its own step, in bits per number; `K` times its mean over uniform steps is the bound.

    Arguments:
        clean, said: `x_0` and the answer `D`.
        share: `u`, number by number.
        step: from 0, the noisiest, to `chain.steps - 1`, whose term is the decoder's.
        decoder: see `variational_bound.Decoder`.
    """
    level = chain.log_variance(share, step)
    inner = chain.divergence((clean - said).square(), level, step)
    last = (step == chain.steps - 1).reshape(-1, *[1] * (clean.ndim - 1))
    return torch.where(last, decoder(clean, said, level), inner).flatten(1).mean(1) / math.log(2)


@dataclass(frozen=True)
class HybridLoss:
    """The loss of the module's head, for a model that answers with `D` and `u`.

    Arguments:
        chain: the training chain.
        weight: of the bound.
        decoder: of its last step.
    """

    chain: ReverseChain
    weight: float = 1e-3
    decoder: Decoder = gaussian_decoder

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ArgumentError("weight", self.weight, "a positive weight of the bound")

    def __call__(
        self,
        clean: Float[Tensor, "n *event"],
        said: Float[Tensor, "n *event"],
        share: Float[Tensor, "n *event"],
        step: Int[Tensor, "n"],
    ) -> Float[Tensor, "n"]:
        """The loss of each example; see `step_bound` for the arguments."""
        t = torch.tensor(self.chain.times, dtype=torch.float64)[step]
        snr = torch.exp(2 * self.chain.process.half_log_snr(t)).to(clean)
        simple = snr * (clean - said).square().flatten(1).mean(1)
        bound = step_bound(self.chain, clean, said.detach(), share, step, self.decoder)
        return simple + self.weight * self.chain.steps * bound


class LossAwareSteps:
    """Steps drawn with `p_i ~ sqrt(E L_i^2)` over each step's latest losses, uniformly until every step has as many.

    Arguments:
        steps: how many there are.
        history: how many losses are remembered of each.
        floor: the share of uniform draws that stays mixed in, so that no step is forgotten.
    """

    def __init__(self, steps: int, history: int = 10, floor: float = 1e-3) -> None:
        if steps < 1 or history < 1 or not 0 <= floor < 1:
            raise ArgumentError("steps, history, floor", (steps, history, floor), "at least one step and one loss, and a share in [0, 1)")
        self.steps, self.history, self.floor = steps, history, floor
        self._losses, self._count = torch.zeros(steps, history, dtype=torch.float64), torch.zeros(steps, dtype=torch.long)

    @property
    def probabilities(self) -> Float[Tensor, " steps"]:
        """`p_i`, float64."""
        uniform = torch.full((self.steps,), 1 / self.steps, dtype=torch.float64)
        roots = self._losses.square().mean(1).sqrt()
        if bool((self._count < self.history).any()) or not float(roots.sum()) > 0:
            return uniform
        return self.floor * uniform + (1 - self.floor) * roots / roots.sum()

    def draw(self, n: int, generator: torch.Generator) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """Steps, and the weights `1/(K p)` that make weighted means unbiased."""
        p = self.probabilities
        step = torch.multinomial(p, n, replacement=True, generator=generator)
        return step, 1 / (self.steps * p[step])

    def update(self, step: Int[Tensor, " n"], losses: Float[Tensor, " losses"]) -> None:
        """Remember losses (without their weights).

        Raises:
            ShapeError: not one loss a step.
        """
        if step.shape != losses.shape:
            raise ShapeError("losses", tuple(losses.shape), f"one a step, {tuple(step.shape)}")
        for i, loss in zip(step.tolist(), losses.detach().tolist(), strict=True):
            self._losses[i, int(self._count[i]) % self.history] = loss
            self._count[i] += 1


def fit_shares(
    chain: ReverseChain, mean_squared_error: Float[Tensor, " steps"], steps: int = 300, learning_rate: float = 0.1
) -> Float[Tensor, " steps"]:
    """One `u` a step, by Adam on the bound of a denoiser whose mean squared error per number is known at every step.

    It starts at 1/2 and may leave [0, 1]; the least bound is at `chain.best_log_variance`.
    """
    share = torch.full((chain.steps,), 0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([share], learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 - i / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        chain_bound(chain, mean_squared_error, share).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return share.detach()


def chain_bound(chain: ReverseChain, mean_squared_error: Float[Tensor, " steps"], share: Float[Tensor, " steps"]) -> Float[Tensor, ""]:
    """The bound per number in nats, without the prior's term, of a denoiser whose mean squared error per number is known at every step;
    the decoder is Gaussian.
    """
    level = chain.log_variance(share)
    last = gaussian_decoder(mean_squared_error[-1:].sqrt(), torch.zeros(1, dtype=torch.float64), level[-1:])
    return chain.divergence(mean_squared_error[:-1], level[:-1], slice(0, -1)).sum() + last.sum()
