r"""The negative path bound as a loss, for any member of the linear SDE family and, if the process is learned, for it as well.

With `t_u = grad log q(x_u | x_0)` and `|a|_Q^2 = a^T Q a`, the entropies along the path add up to a divergence, as
`d log det S / dt = tr S^{-1} Q + 2 tr F`:

    -log p(x_0) <= KL(q(x_1 | x_0) || prior) + int_first^1 E |s - t_u|_Q^2 / 2 du + E[-log p(x_0 | x_first)],

with the Gaussian decoder `p(x_0 | x) = N(x_0hat, (A^T S^{-1} A)^{-1})` around the score's own estimate of the data. The implicit form has
`|s|_Q^2 / 2 + div(Q s) + tr S^{-1} Q / 2` in the integral, of the same mean, with the divergence from one random probe. One time per
sample, of a density that is even in the log of the noise, and stratified over the batch; noise and its negative; and the score of standard
normal data, for which the integrand's mean is known, as a control variate. Sources: Singhal et al.
2023 (arXiv 2302.07261); Du et al. 2023 (arXiv 2206.10365).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.learn.training.descent import normal
from sfumato.noise import ClockSDE, LinearLaw, LinearSDE, Operator, convert

Score = Callable[[Tensor, Tensor], Tensor]
"""`(x, t) -> score` of states `x`, with one time per sample `(batch,)`."""

Form = Literal["denoising", "implicit"]
"""A regression of the score given the data, or the score's square and divergence."""


def path_bound_loss(
    process: LinearSDE,
    score: Score,
    x0: Float[Tensor, "batch *event"],
    generator: torch.Generator,
    *,
    first: float = 1e-3,
    form: Form = "denoising",
) -> Float[Tensor, "batch"]:
    """An unbiased estimate of the bound on `-log p(x_0)` for each sample, in nats; differentiable in score and process.

    Arguments:
        process: without a condition; made anew from its parameters in every step if they are learned.
        score: of the model.
        x0: the data.
        generator: of times, noise and probes, on the CPU.
        first: the time below which the decoder stands for the path.
        form: of the integrand.

    Raises:
        ArgumentError: a process with a condition, a first time outside (0, 1), an unknown form.
    """
    if process.conditions:
        raise ArgumentError("process", "one that drifts towards a condition", "a process without one")
    if not 0 < first < 1 or form not in get_args(Form):
        raise ArgumentError("first, form", (first, form), f"a time in (0, 1), and one of {', '.join(get_args(Form))}")
    t, density = draw_times(process, len(x0), generator, first)
    drawn = torch.randn(process.state_shape(x0), generator=generator, dtype=x0.dtype).to(x0.device)
    marginal, noise = process.marginal(t), process.coefs(t).covariance
    root, known = marginal.covariance.cholesky(), (marginal.covariance + marginal.phi @ marginal.phi.T).inverse()
    target, centre, moved = -root.inverse().T.apply(drawn), marginal.mean(x0), root.apply(drawn)
    found = _reference_mean(marginal, noise, known, centre, math.prod(x0.shape[1:]))
    with torch.set_grad_enabled(form == "implicit" or torch.is_grad_enabled()):
        for sign in (1.0, -1.0):
            x = centre + sign * moved
            if form == "implicit" and not x.requires_grad:
                x.requires_grad_()
            said, reference = score(x, t), -known.apply(x)
            centred = sign * target if form == "denoising" else torch.zeros_like(target)
            found = found + _sum(noise.apply(said - reference) * ((said + reference) / 2 - centred)) / 2
            if form == "implicit":
                probe = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
                seen = noise.apply(probe)
                (pulled,) = torch.autograd.grad((seen * said).sum(), x, create_graph=True)
                found = found + _sum(probe * (pulled + known.apply(seen))) / 2
    return process.mismatch(x0) + (found / density).to(x0.device) + decoder_loss(process, score, x0, generator, first)


def _reference_mean(marginal: LinearLaw, noise: Operator, known: Operator, centre: Tensor, numbers: int) -> Tensor:
    """`E |s - t|_Q^2 / 2` given the data, for the score of standard normal data, `-(A A^T + S)^{-1} x`: its draws are subtracted."""
    pull, gap = known.apply(centre), marginal.covariance.inverse() - known
    return (_sum(noise.apply(pull) * pull) + (noise @ gap @ marginal.covariance @ gap).trace(numbers)) / 2


def draw_times(process: LinearSDE, n: int, generator: torch.Generator, first: float) -> tuple[Tensor, Tensor]:
    """`n` stratified times in `[first, 1]`, float64, and their density.

    For a clock with `B = int beta` it is `beta / (1 - e^{-B})` up to a constant, so that `log(e^B - 1)` is even; else `1 / t`.
    """
    # shuffled, or a sample's time would depend on its place in the batch
    share = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
    if not isinstance(process, ClockSDE):
        t = first ** (1 - share)
        return t, 1 / (t * math.log(1 / first))
    clock, ends = process.clock, torch.tensor([first, 1.0], dtype=torch.float64)
    low, high = torch.log(torch.expm1(clock.between(torch.zeros_like(ends), ends)))
    passed = torch.nn.functional.softplus(low + (high - low) * share)
    t = 2 * passed / (clock.first + torch.sqrt(clock.first**2 + 2 * (clock.last - clock.first) * passed))
    return t, -clock.rate(t) / torch.expm1(-passed) / (high - low)


def decoder_loss(process: LinearSDE, score: Score, x0: Tensor, generator: torch.Generator, first: float) -> Tensor:
    """`-log N(x_0; x_0hat(x_first), (A^T S^{-1} A)^{-1})` at one draw of `x_first`, per sample, in nats."""
    x = process.sample(x0, first, normal(torch.empty(process.state_shape(x0), dtype=x0.dtype, device=x0.device), generator))
    t = torch.full((len(x0),), first, dtype=torch.float64)
    away = x0 - convert(process, score(x, t), "score", "data", x, first)
    law = process.marginal(first)
    precision = law.phi.T @ law.covariance.inverse() @ law.phi
    numbers = math.prod(x0.shape[1:])
    return (_sum(away * precision.apply(away)) - precision.logdet(numbers) + numbers * math.log(2 * math.pi)) / 2


def _sum(v: Tensor) -> Tensor:
    return v.to(torch.float64).flatten(1).sum(1)
