r"""Noisy training triples `(x_0, t, x_t)` of a law, and what a regression is told to answer at them: the one switch between two losses.

    J1, target "proxy":  E l_t |m(x, t) - x_0|^2         the usual denoising loss, whose target is right on average only;
    J0, target "clean":  E l_t |m(x, t) - E[x_0|x,t]|^2   the same minimiser, without target noise; needs a law with a known posterior.

On the score both are weighted by `lam_t = l_t sigma^4 / alpha^2`; `l = alpha^2/sigma^2` is `lam_t = sigma^2`.
Source: Vastola 2025 (arXiv 2504.12532), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact import Law
from sfumato.exact.draws import law_sample
from sfumato.learn.losses.weights import SNRWeight, Weight
from sfumato.noise import ScalarProcess

Target = Literal["proxy", "clean"]
"""What a denoiser is regressed on: the clean event that was drawn, or the exact answer."""


@dataclass(frozen=True, eq=False)
class Triples:
    """`P` training examples; everything is float64, events are flat.

    Arguments:
        noisy, t: `x_t` `(P, dim)` and the times `(P,)`.
        target: what the denoiser should answer, `(P, dim)`.
        weight: `l_t`, `(P,)`.
    """

    noisy: Float[Tensor, "P dim"]
    t: Float[Tensor, " P"]
    target: Float[Tensor, "P dim"]
    weight: Float[Tensor, " P"]


@dataclass(frozen=True)
class Regression:
    """A regression problem: triples of a law under a process, at times uniform in `[t_min, 1]`.

    Arguments:
        law: of the clean data; a training set is `Empirical(points)`.
        process: what makes noisy data of them.
        target: see `Target`.
        weight: `l_t`, on the squared error of the data.
        t_min: the least time.

    Raises:
        ArgumentError: another target, or a least time outside (0, 1).
    """

    law: Law
    process: ScalarProcess
    target: Target = "proxy"
    weight: Weight = field(default_factory=SNRWeight)
    t_min: float = 1e-2

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ArgumentError("target", repr(self.target), f"one of {', '.join(get_args(Target))}")
        if not 0 < self.t_min < 1:
            raise ArgumentError("t_min", self.t_min, "a time in (0, 1)")

    def draw(self, count: int, seed: int) -> Triples:
        """`count` independent triples, by a generator of this seed.

        Raises:
            ArgumentError: no triples asked for.
        """
        if count < 1:
            raise ArgumentError("count", count, "at least 1 triple")
        generator = torch.Generator().manual_seed(seed)
        clean = law_sample(self.law, count, generator).to(torch.float64)
        t = self.t_min + (1 - self.t_min) * torch.rand(count, generator=generator, dtype=torch.float64)
        noisy = self.process.sample(clean, t, torch.randn(clean.shape, generator=generator, dtype=torch.float64))
        answer = clean if self.target == "proxy" else self.law.posterior_mean(noisy, self.process, t)
        return Triples(noisy.flatten(1), t, answer.flatten(1), self.weight(self.process, t))
