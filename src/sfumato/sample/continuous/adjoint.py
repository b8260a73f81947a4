r"""Gradients through sampling: what a loss on the sample asks of its start, its condition and the weights.

With the noise prediction `E(x, z)` (`z` any tensors it depends on), half log-SNR `lambda` and the probability flow run from noise to data,
the adjoint `a = dL/dx` runs back and is semi-linear as the flow is:

    d(alpha a)/d lambda = alpha sigma (dE/dx)^T a,        dL/dz = -int sigma (dE/dz)^T a d lambda  (from noise to data).

Write `V = alpha^2 (dE/dx)^T a` and `V_z = alpha (dE/dz)^T a`. From node `t` to the noisier node `s`, `h = lambda_s - lambda_t < 0`, the
exponential step integrates a polynomial through the products at past nodes against `e^-lambda` (Blasingame & Liu 2024, arXiv 2405.15020,
propositions 3.2-3.3, here with exact weights):

    alpha_s a_s = alpha_t a_t + sum_n w_n V_n,        L_z += sum_n w_n V_z,n,        sum_n w_n = e^-lambda_t - e^-lambda_s.

For the reverse SDE `dx = (f x + (g^2/sigma) E) dt + g dw` along one Brownian path the noise is additive, so the adjoint is an ODE too: the
same, with the products doubled.

A continuous adjoint is the gradient of the flow, not of a sampler with few steps: for that one, differentiate the program itself
(`program_gradient`, checkpointed: exact, with the memory of its states). Both keep no graph longer than one evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.fits.reference import Trajectory
from sfumato.sample.program import Program
from sfumato.sample.run import Denoise, Draws, run
from sfumato.sample.times.schedules import custom


@dataclass(frozen=True)
class Gradient:
    """`dL/dx` at the start `(batch, *event)`, and `dL/dz` of each parameter, shaped as it."""

    start: Tensor
    parameters: tuple[Tensor, ...]


def adjoint(
    denoise: Denoise,
    trajectory: Trajectory,
    end_gradient: Tensor,
    *,
    order: Literal[1, 2] = 2,
    parameters: Sequence[Tensor] = (),
    stochastic: bool = False,
) -> Gradient:
    """The continuous adjoint along a trajectory, one product with the belief's Jacobian a node.

    Arguments:
        denoise: the denoiser, differentiable in `x` and in the parameters.
        trajectory: the states of the flow, or of the SDE, at falling times of finite log-SNR.
        end_gradient: `dL/dx` at the trajectory's end.
        order: products at one node, or at two: the newest and the one before it (on the first step at both ends, Heun's way).
        parameters: tensors that the denoiser depends on and that require gradients: conditions, weights.
        stochastic: whether the trajectory is one of the reverse SDE, driven by noise that does not depend on the start.

    Raises:
        ShapeError: a gradient of another shape than the end.
        ArgumentError: another order, times that do not fall, an infinite log-SNR on the way, or parameters that do not require gradients.
    """
    return _walk_back(denoise, trajectory.process, trajectory.times, _stored(trajectory), end_gradient, order, parameters, stochastic)


def adjoint_from_end(
    denoise: Denoise,
    process: ScalarProcess,
    times: Sequence[float],
    end: Tensor,
    end_gradient: Tensor,
    *,
    order: Literal[1, 2] = 2,
    parameters: Sequence[Tensor] = (),
) -> Gradient:
    """`adjoint` of the probability flow without its states: they are found again on the way back from the end, by Heun's method in
    `x / alpha` over `k`, so that memory does not grow with the steps. The way back drifts; where memory allows, keep the trajectory.

    Arguments:
        process, times: the falling times the flow has taken.
        end: the state at the last of them.
    """
    return _walk_back(denoise, process, tuple(times), _refound(denoise, process, tuple(times), end), end_gradient, order, parameters, False)


def program_gradient(
    program: Program,
    denoise: Denoise,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    draws: Draws | None = None,
    parameters: Sequence[Tensor] = (),
) -> tuple[float, Gradient]:
    """The loss of the program's own sample and its exact gradient: discretise, then differentiate.

    Every evaluation is checkpointed: its graph is built again on the way back, so that memory holds the states and one evaluation.

    Arguments:
        program: any table.
        denoise: the denoiser, differentiable.
        x: the start.
        loss: of the sample, a scalar.
        draws: the noise of a stochastic program.
        parameters: as for `adjoint`.
    """
    start = x.detach().requires_grad_(True)
    kept = _requiring(parameters)

    def answer(state: Tensor, t: float) -> Tensor:
        # brings sympy with it on older versions of torch, for which nobody who only samples should wait
        from torch.utils.checkpoint import checkpoint

        return checkpoint(denoise, state, t, use_reentrant=False)

    value = loss(run(program, answer, start, draws))
    if value.ndim:
        raise ShapeError("loss", tuple(value.shape), "a scalar")
    found = torch.autograd.grad(value, (start, *kept), allow_unused=True)
    return float(value.detach()), _gradient(found, start, kept)


def _walk_back(
    denoise: Denoise,
    process: ScalarProcess,
    times: tuple[float, ...],
    states: Iterator[Tensor],
    end_gradient: Tensor,
    order: int,
    parameters: Sequence[Tensor],
    stochastic: bool,
) -> Gradient:
    if order not in (1, 2):
        raise ArgumentError("order", order, "1 or 2")
    levels, kept = _Levels.of(process, times), _requiring(parameters)
    x, i = next(states), len(times) - 1
    if end_gradient.shape != x.shape:
        raise ShapeError("end_gradient", tuple(end_gradient.shape), f"the shape of the end, {tuple(x.shape)}")
    a, total = end_gradient.detach(), [torch.zeros_like(p) for p in kept]
    doubled, past = 2.0 if stochastic else 1.0, list[tuple[int, _Product]]()
    for before in states:
        used = [(i, _product(denoise, levels, i, x, a, kept)), *past][:order]
        if order == 2 and not past:
            guess = _stepped(a, total, levels, i, used, doubled)[0]
            used.append((i - 1, _product(denoise, levels, i - 1, before, guess, kept)))
        a, total = _stepped(a, total, levels, i, used, doubled)
        past, x, i = used[:1], before, i - 1
    return Gradient(a, tuple(total))


@dataclass(frozen=True)
class _Product:
    """`V` and the `V_z` at one node."""

    state: Tensor
    parameters: list[Tensor]


@dataclass(frozen=True)
class _Levels:
    times: tuple[float, ...]
    alpha: list[float]
    sigma: list[float]
    half_log_snr: list[float]

    @classmethod
    def of(cls, process: ScalarProcess, times: tuple[float, ...]) -> _Levels:
        t = torch.tensor(custom(times), dtype=torch.float64)
        lam = process.half_log_snr(t)
        if not bool(torch.isfinite(lam).all()):
            raise ArgumentError("times", (times[0], times[-1]), "times of finite log-SNR", "The adjoint divides by alpha and by sigma.")
        return cls(times, process.alpha(t).tolist(), process.sigma(t).tolist(), lam.tolist())

    def weights(self, i: int, nodes: Sequence[int]) -> list[float]:
        """`int e^-lambda l_n d lambda` from node `i` back to the noisier node `i - 1`."""
        lam = [self.half_log_snr[n] for n in nodes]
        whole = Linearisation.noise().weights(self.half_log_snr[i - 1], self.half_log_snr[i], lam, (1.0, self.sigma[i]))
        # noise prediction weighs answers, which are noises times -k
        return [-math.exp(-v) * float(w) for v, w in zip(lam, whole[:, 0], strict=True)]


def _stepped(
    a: Tensor, total: list[Tensor], levels: _Levels, i: int, used: Sequence[tuple[int, _Product]], doubled: float
) -> tuple[Tensor, list[Tensor]]:
    """The adjoint at node `i - 1`, and the parameters' gradients so far."""
    weights = [doubled * w for w in levels.weights(i, [n for n, _ in used])]
    moved = levels.alpha[i] * a + sum(w * p.state for w, (_, p) in zip(weights, used, strict=True))
    grown = [z + sum(w * p.parameters[j] for w, (_, p) in zip(weights, used, strict=True)) for j, z in enumerate(total)]
    return moved / levels.alpha[i - 1], grown


def _product(denoise: Denoise, levels: _Levels, i: int, x: Tensor, a: Tensor, kept: tuple[Tensor, ...]) -> _Product:
    with torch.enable_grad():
        state = x.detach().requires_grad_(True)
        predicted = (state - levels.alpha[i] * denoise(state, levels.times[i])) / levels.sigma[i]
        found = torch.autograd.grad(predicted, (state, *kept), a, allow_unused=True)
    gradient = _gradient(found, state, kept)
    return _Product(levels.alpha[i] ** 2 * gradient.start, [levels.alpha[i] * z for z in gradient.parameters])


def _stored(trajectory: Trajectory) -> Iterator[Tensor]:
    return iter(reversed(trajectory.states))


def _refound(denoise: Denoise, process: ScalarProcess, times: tuple[float, ...], end: Tensor) -> Iterator[Tensor]:
    """The flow's states from the end to the start: `x_s / alpha_s = x_t / alpha_t - sum_n w_n E_n`, predicted and corrected."""
    levels, x = _Levels.of(process, times), end

    def predicted(state: Tensor, i: int) -> Tensor:
        with torch.no_grad():
            return (state - levels.alpha[i] * denoise(state, times[i])) / levels.sigma[i]

    yield x
    for i in range(len(times) - 1, 0, -1):
        noises, nodes, start = [predicted(x, i)], [i], x / levels.alpha[i]
        for _ in range(2):
            moved = start - sum(w * e for w, e in zip(levels.weights(i, nodes), noises, strict=True))
            if len(nodes) == 1:
                nodes, noises = [i, i - 1], [*noises, predicted(levels.alpha[i - 1] * moved, i - 1)]
        x = levels.alpha[i - 1] * moved
        yield x


def _requiring(parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if not all(p.requires_grad for p in parameters):
        raise ArgumentError(
            "parameters", f"{sum(not p.requires_grad for p in parameters)} without gradients", "tensors that require gradients"
        )
    return tuple(parameters)


def _gradient(found: Sequence[Tensor | None], x: Tensor, parameters: Sequence[Tensor]) -> Gradient:
    """What autograd found; what nothing depends on has gradient 0."""
    full = [torch.zeros_like(like) if g is None else g for g, like in zip(found, (x, *parameters), strict=True)]
    return Gradient(full[0], tuple(full[1:]))
