r"""The reverse chain of Gaussian steps, and the choice of its variances.

Between nodes `t > s` the forward chain has the variance `beta = sigma_{t|s}^2`, and given the clean data the reverse step is

    q(x_s | x_t, x_0) = N(keep x_t + pull x_0, betatilde),    betatilde = beta sigma_s^2 / sigma_t^2,    pull = alpha_s beta / sigma_t^2.

A model puts its answer `D` for `x_0` and a variance of its own, between the two that are right for data of unit variance and for a point:

    p(x_s | x_t) = N(keep x_t + pull D, v),        log v = u log beta + (1 - u) log betatilde,
    KL(q || p) = 1/2 [log(v / betatilde) + (betatilde + pull^2 |x_0 - D|^2) / v - 1]    per number.

The last step, to `t = 0`, has `betatilde = 0`; its logarithm is taken to be that of the step before. A chain over few of the nodes that a
network was trained on is the same formulas at those nodes, and the same `u`. Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), sections
3.1 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import BetaTable, ScalarProcess
from sfumato.sample.program import Program, Row
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom
from sfumato.seeds import Seed, noise

Answer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(x (batch, *event), t (batch,)) -> (D, u)`, both shaped as `x` (or `u` so that it broadcasts)."""


@dataclass(frozen=True)
class ReverseChain:
    """The chain's coefficients at its steps, from `times[i]` to `times[i + 1]`: float64, `(steps,)` each.

    Arguments:
        process: the forward process.
        times: falling, at least three, the last 0.

    Raises:
        ArgumentError: other times.
    """

    process: ScalarProcess
    times: tuple[float, ...]
    keep: Tensor = field(init=False, repr=False, compare=False)
    pull: Tensor = field(init=False, repr=False, compare=False)
    log_beta: Tensor = field(init=False, repr=False, compare=False)
    log_betatilde: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        times = custom(self.times)
        if len(times) < 3 or times[-1] != 0:
            raise ArgumentError("times", list(times)[:5], "at least three falling times that end at 0")
        nodes = torch.tensor(times, dtype=torch.float64)
        step = self.process.transition(nodes[1:], nodes[:-1])
        alpha, sigma = self.process.levels(nodes)
        betatilde = step.covariance * (sigma[1:] / sigma[:-1]) ** 2
        betatilde[-1] = betatilde[-2]
        made = {
            "times": times,
            "keep": step.phi * (sigma[1:] / sigma[:-1]) ** 2,
            "pull": alpha[1:] * step.covariance / sigma[:-1] ** 2,
            "log_beta": step.covariance.log(),
            "log_betatilde": betatilde.log(),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @classmethod
    def respaced(cls, table: BetaTable, steps: int) -> ReverseChain:
        """The chain over `steps` of a table's nodes, `round(linspace(N, 1, steps))`, and the clean end.

        Raises:
            ArgumentError: fewer than two steps, or more than the table has.
        """
        if not 2 <= steps <= table.steps:
            raise ArgumentError("steps", steps, f"2 to {table.steps} steps")
        nodes = torch.linspace(table.steps, 1, steps, dtype=torch.float64).round() / table.steps
        return cls(table, (*nodes.tolist(), 0.0))

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.times) - 1

    def log_variance(self, share: Tensor, step: Tensor | slice = slice(None)) -> Tensor:
        """`u log beta + (1 - u) log betatilde` at the given steps; `share` is `u`, `(steps,)` or with the event's axes behind."""
        high, low = (v[step].to(share).reshape(-1, *[1] * (share.ndim - 1)) for v in (self.log_beta, self.log_betatilde))
        return share * high + (1 - share) * low

    def divergence(self, squared_error: Tensor, log_variance: Tensor, step: Tensor | slice = slice(None)) -> Tensor:
        """`KL(q || p)` per number, in nats, where `|x_0 - D|^2` is given: all steps but the last, whose term is the decoder's.

        Arguments:
            squared_error, log_variance: `(steps,)` or `(steps, *event)`, of the given steps.
        """
        shape = (-1, *[1] * (squared_error.ndim - 1))
        log_true, pull = (v[step].to(squared_error).reshape(shape) for v in (self.log_betatilde, self.pull))
        gap = log_variance - log_true
        return 0.5 * (gap + torch.expm1(-gap) + pull**2 * squared_error * torch.exp(-log_variance))

    def best_log_variance(self, mean_squared_error: Float[Tensor, " steps"]) -> Float[Tensor, " steps"]:
        """The log-variances of the greatest bound, one a step: `log(betatilde + pull^2 E|x_0 - D|^2)`, the last without its `betatilde`."""
        if mean_squared_error.shape != self.pull.shape:
            raise ShapeError("mean_squared_error", tuple(mean_squared_error.shape), f"one a step, ({self.steps},)")
        true = self.log_betatilde.exp()
        true[-1] = 0
        return torch.log(true + self.pull**2 * mean_squared_error)


@dataclass(frozen=True)
class LearnedVariance(Solver):
    """Ancestral steps with the share `u` of each step as it was learned, one number a step; a table. Row `i` uses draw `i`.

    Arguments:
        shares: `u` by step, from the noisiest; 1 is `beta`, 0 is `betatilde`.
        label: a name of its own.
    """

    shares: tuple[float, ...]
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or "learned-variance"

    @property
    def deterministic(self) -> bool:
        return False

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        chain = ReverseChain(process, tuple(times))
        if len(self.shares) != chain.steps:
            raise ArgumentError("shares", f"{len(self.shares)} of them", f"one for each of {chain.steps} steps")
        std = torch.exp(chain.log_variance(torch.tensor(self.shares, dtype=torch.float64)) / 2)
        rows = [Row()]
        for i in range(chain.steps):
            fresh = {i + 1: std[i : i + 1]} if i + 1 < chain.steps else {}  # the last step gives the mean
            rows.append(Row({i: chain.keep[i : i + 1]} if i + 1 < chain.steps else {}, {i: chain.pull[i : i + 1]}, fresh))
        return Program(self.name, process, chain.times, tuple(rows))


def sample_chain(
    answer: Answer, chain: ReverseChain, start: Float[Tensor, " batch *event"], seed: Seed, *, first: int = 0
) -> Float[Tensor, " batch *event"]:
    """Walk the chain with variances that the model gives with its answers, number by number; the last step gives the mean.

    Arguments:
        answer: see `Answer`.
        start: at the chain's first time.
        seed, first: of the noise, see `sfumato.seeds`; step `i` uses draw `i + 1`.
    """
    draws, x = noise(seed, len(start), tuple(start.shape[1:]), first=first, dtype=start.dtype, device=start.device), start
    for i, t in enumerate(chain.times[:-1]):
        said, share = answer(x, torch.full((len(x),), t, dtype=torch.float64))
        mean = chain.pull[i].to(x) * said
        if i + 1 == chain.steps:
            return mean
        spread = torch.exp(chain.log_variance(share.to(x), torch.tensor([i])) / 2)
        x = chain.keep[i].to(x) * x + mean + spread * draws.draw(i + 1)
    return x
