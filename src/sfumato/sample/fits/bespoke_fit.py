r"""Fitting a bespoke solver: the bound on its global error, all steps at once.

With the true path `x(tau)` known, step `i` has the local error `d_i = E rms |x(tau_{i+1}) - step_i(x(tau_i))|`, and with Lipschitz bounds
`L_j` of the later steps

    loss = sum_i M_i d_i,      M_i = prod_{j > i} L_j,
    L_j = (s_j / s_{j+1}) (1 + h L_u(j + 1/2) (1 + (h/2) L_u(j))),     L_u = |s'| / s + tau' L_tau,     L_tau = 1

(with one stage `(s_j / s_{j+1}) (1 + h L_u(j))`) bounds the error at the end. The nodes move while they are fitted: the path is a spline
through stored states, and at a moving node `x(tau) = x + u (tau - [tau])`, `[tau]` held fixed, passes the gradient on.

Source: Shaul et al. 2024 (arXiv 2310.19075), eqs. 22 to 28. Adam at 2e-2 with a falling rate; theirs is 2e-3 and longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.sample.fits.bespoke import StepWeights, Warp, bespoke_program, step_weights, velocity_weights
from sfumato.sample.fits.calibration import Calibrated, Starts
from sfumato.sample.fits.reference import Trajectory

Free = Literal["both", "time", "scale"]
"""What is fitted; the other stays the identity."""


@dataclass(frozen=True)
class BespokeSettings:
    """How a warp is fitted: iterations, paths an iteration, Adam's first rate, and whether only the last step's error counts."""

    iterations: int = 250
    batch: int = 64
    rate: float = 2e-2
    last_only: bool = False


def fit_bespoke(
    denoiser: Denoiser,
    starts: Starts,
    path: Trajectory,
    steps: int,
    stages: int = 2,
    *,
    free: Free = "both",
    settings: BespokeSettings | None = None,
) -> tuple[Calibrated, Warp]:
    """Fit a warp to one denoiser.

    Arguments:
        denoiser: under the process of the path; differentiable.
        starts: what the path was made of, at `t = 1`; 256 and more.
        path: the flow's states at many times from 1 to 0, e.g. 200 of them.
        steps, stages: of the solver.
        free: for ablations.
        settings: of the optimisation.

    Returns:
        The table with the warp's numbers (`tau`, `s`, `tau'`, `s'`), and the warp.

    Raises:
        ArgumentError: an unknown word, no steps, or a path that does not lead from the starts at 1 to 0 in at least 8 steps.
    """
    settings = settings or BespokeSettings()
    if free not in get_args(Free):
        raise ArgumentError("free", repr(free), f"one of {', '.join(get_args(Free))}")
    if path.times[0] != 1 or path.times[-1] != 0 or len(path.times) < 9 or not torch.equal(path.states[0], starts.states):
        raise ArgumentError("path", f"{len(path.times)} times from {path.times[0]:g} to {path.times[-1]:g}", "the starts' path from 1 to 0")
    unknowns = _Unknowns(steps, stages, free)
    spline, count = _spline(path), len(starts.states)
    optimiser = torch.optim.Adam(unknowns.tensors, settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.iterations)
    for i in range(settings.iterations):
        rows = torch.arange(i * settings.batch, (i + 1) * settings.batch) % count
        optimiser.zero_grad()
        _loss(denoiser, unknowns.warp(), spline, rows, last_only=settings.last_only).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        warp = unknowns.warp()
    name = f"bespoke-rk{stages}-{steps}" + ("" if free == "both" else f"-{free}")
    numbers = tuple(tuple(v.tolist()) for v in (warp.tau, warp.scale, warp.tau_rate, warp.scale_rate))
    return Calibrated(bespoke_program(path.process, warp, name), numbers, starts.keys), warp


class _Unknowns:
    """The warp's numbers, from the identity: increments of `tau` and `tau'` through `|.|`, `s` through `exp`, `s'` free."""

    def __init__(self, steps: int, stages: int, free: Free) -> None:
        if steps < 1 or stages not in (1, 2):
            raise ArgumentError("steps, stages", (steps, stages), "at least 1 step of 1 or 2 stages")
        n = steps * stages
        self.stages = stages
        ones, zeros = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        self.tau, self.tau_rate, self.scale, self.scale_rate = ones.clone(), ones.clone(), zeros.clone(), zeros.clone()
        time, size = [self.tau, self.tau_rate], [self.scale, self.scale_rate]
        self.tensors = [v.requires_grad_() for v in {"both": time + size, "time": time, "scale": size}[free]]

    def warp(self) -> Warp:
        share = self.tau.abs().cumsum(0) / self.tau.abs().sum()
        first = torch.zeros(1, dtype=torch.float64)
        return Warp(self.stages, torch.cat([first, share]), torch.exp(torch.cat([first, self.scale])), self.tau_rate.abs(), self.scale_rate)


def _spline(path: Trajectory) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`(tau (m,), rows (b,)) -> x, dx/dtau`, `(m, b, *event)` each."""
    from scipy.interpolate import CubicSpline

    values = torch.stack(path.states).to("cpu", torch.float64)
    curve: Any = CubicSpline(1 - torch.tensor(path.times, dtype=torch.float64).numpy(), values.numpy())
    rate: Any = curve.derivative()

    def at(tau: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        x, u = (torch.from_numpy(f(tau.numpy()))[:, rows].to(path.states[0]) for f in (curve, rate))
        return x, u

    return at


def _loss(denoiser: Denoiser, warp: Warp, spline: Callable[..., tuple[Tensor, Tensor]], rows: Tensor, *, last_only: bool) -> Tensor:
    tau, stages = warp.tau[:: warp.stages], warp.stages
    x, u = spline(tau.detach().clamp(0, 1), rows)
    exact = x + u * _over(tau - tau.detach(), x)
    weights = step_weights(warp)
    predicted = _steps(denoiser, warp, weights, exact[:-1])
    local = (exact[1:] - predicted).flatten(2).square().mean(2).clamp(min=1e-30).sqrt().mean(1)
    if last_only:
        return local[-1]
    s, h = warp.scale, 1 / warp.steps
    bound = warp.scale_rate.abs() / s[:-1] + warp.tau_rate
    growth = h * bound if stages == 1 else h * bound[1::2] * (1 + h / 2 * bound[::2])
    lipschitz = s[:-1:stages] / s[stages::stages] * (1 + growth)
    later = torch.cat([lipschitz[1:].flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])
    return (later * local).sum()


def _steps(denoiser: Denoiser, warp: Warp, weights: StepWeights, x: Tensor) -> Tensor:
    """One step from each of the states `(steps, batch, *event)`, all at once."""
    own, middle, slope = (_over(w, x) for w in weights.outer)
    if weights.inner is None:
        return own * x + slope * _velocity(denoiser, x, 1 - warp.tau[:-1])
    first, rate = (_over(w, x) for w in weights.inner)
    z = first * x + rate * _velocity(denoiser, x, 1 - warp.tau[:-1:2])
    return own * x + middle * z + slope * _velocity(denoiser, z, 1 - warp.tau[1::2])


def _velocity(denoiser: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    """`u` at one time for each of `(steps, batch, *event)`; its derivative in time is a difference, so a denoiser need not have one."""
    moved, now = t - t.detach(), t.detach()
    near = now * (1 - 1e-6)
    answer = _ask(denoiser, x, now)
    with torch.no_grad():
        rate = (answer - _ask(denoiser, x, near)) / _over(now - near, x)
    answer = answer + rate * _over(moved, x)
    here, there = (torch.stack(velocity_weights(denoiser.process, v)) for v in (now, near))
    on_data, on_state = here + (here - there) / (now - near) * moved
    return _over(on_data, x) * answer + _over(on_state, x) * x


def _ask(denoiser: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    times = t.repeat_interleave(x.shape[1])
    return denoiser.denoise(x.flatten(0, 1), times).reshape(x.shape)


def _over(weight: Tensor, x: Tensor) -> Tensor:
    return weight.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
