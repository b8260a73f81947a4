r"""DPM-Solver with steps of its own choice: two orders share the evaluations of a step, and their difference sets the length of the next.

    23:  2S and 3S with inner nodes at 1/3 and 2/3, 3 evaluations a step        12:  DDIM and 2S with one at 1/2, 2 evaluations

    delta = max(atol, rtol max(|low|, |previous low|)),     E = rms((high - low) / delta),     h <- min(theta h E^(-1/order), what is left)

in half log-SNR; a step with `E <= 1` for every sample of the batch is taken, by the higher order. Not a table, since it looks at the
samples. Source: Lu et al. 2022 (arXiv 2206.00927), appendix C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.sample.compilers.extrapolation import Extrapolation, Prediction
from sfumato.sample.compilers.singlestep import Singlestep, singlestep
from sfumato.sample.compilers.stepping import StepTable
from sfumato.sample.run import Event, run

_THETA = 0.9
_MOST = 100_000


@dataclass(frozen=True)
class AdaptiveWalk:
    """Where adaptive steps ended, and what they cost.

    Arguments:
        state: `x` at the end `(batch, *event)`.
        times: where the steps that were taken stopped, from start to end.
        evaluations: of the denoiser, those of rejected steps included.
        rejected: how many steps were.
    """

    state: Tensor
    times: tuple[float, ...]
    evaluations: int
    rejected: int


def adaptive_dpm_solver(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *event"],
    start: float,
    end: float,
    *,
    order: int = 3,
    prediction: Prediction = "noise",
    rtol: float = 0.05,
    atol: float = 0.0078,
    first: float = 0.05,
) -> AdaptiveWalk:
    """Follow the probability flow from `x` at time `start` to time `end`.

    Arguments:
        denoiser: the belief.
        x: where to start.
        start, end: two times of finite log-SNR.
        order: 2 or 3, of the higher of the two.
        prediction: what is interpolated.
        rtol, atol: the tolerated error of one step.
        first: the first step in half log-SNR.

    Raises:
        ArgumentError: another order, times that do not fall or have an infinite log-SNR, tolerances or a first step that are not
            positive, or tolerances that cannot be met in the state's precision.
    """
    process = denoiser.process
    lam, last = float(process.half_log_snr(start)), float(process.half_log_snr(end))
    if not (math.isfinite(lam) and math.isfinite(last) and lam < last):
        raise ArgumentError("start, end", (start, end), "falling times of finite log-SNR", "A last DDIM step reaches zero noise.")
    if order not in (2, 3):
        raise ArgumentError("order", order, "2 or 3")
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0 and first > 0):
        raise ArgumentError("rtol, atol, first", (rtol, atol, first), "tolerances of at least 0, not both 0, and a positive first step")
    times, low_before, h, evaluations, rejected = [start], x, first, 0, 0
    while times[-1] > end:
        t = float(process.time(lam + h)) if h < last - lam else end
        if t >= times[-1] or evaluations > _MOST:
            raise ArgumentError("rtol, atol", (rtol, atol), f"tolerances that {x.dtype} can meet", f"Steps vanish at t = {times[-1]:.6g}.")
        low, high, cost = _pair(denoiser, x, times[-1], t, order, prediction)
        delta = (rtol * torch.maximum(low.abs(), low_before.abs())).clamp(min=atol)
        error = float(((high - low) / delta).flatten(1).square().mean(1).sqrt().max())
        evaluations += cost
        if error <= 1:
            x, low_before, lam = high, low, float(process.half_log_snr(t))
            times.append(t)
        else:
            rejected += 1
        if not math.isfinite(error):
            raise ArgumentError("denoiser", error, "finite answers", f"At t = {t:.6g} the error is not finite.")
        h = min(_THETA * h * error ** (-1 / order) if error else math.inf, last - lam)
    return AdaptiveWalk(x, tuple(times), evaluations, rejected)


def _pair(denoiser: Denoiser, x: Tensor, t: float, s: float, order: int, prediction: Prediction) -> tuple[Tensor, Tensor, int]:
    """The states that the lower and the higher order reach, and the evaluations both took together."""
    table = StepTable(denoiser.process, (t, s))
    rows = singlestep(table, Singlestep(order, prediction), 0, 0, 1)
    nodes = [table.node(0, 0)]
    if order == 3:
        nodes.append(table.node(rows[0], 2))
    low = table.step(Extrapolation.of(prediction, "midpoint"), 0, 0, 1, nodes)
    states: dict[int, Tensor] = {}

    def keep(event: Event) -> None:
        states[event.node] = event.state

    program = table.program("adaptive")
    run(program, denoiser.denoise, x, on_node=keep)
    return states[low], states[rows[-1]], program.evaluations
