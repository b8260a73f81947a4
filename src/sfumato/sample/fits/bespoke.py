r"""Bespoke solvers: a time warp and a scale, fitted to one denoiser, under a plain Runge-Kutta method.

In `r` from 0 (noise) to 1 (data), with `tau_r` from 0 to 1 and `s_r > 0`, the path `s_r x(tau_r)` of the flow `dx/dtau = u` follows

    d(s x)/dr = (s'/s) (s x) + tau' s u.

Steps of length `h = 1/n` on it are, in `x`,

    1 stage    X_{i+1} = ((s_i + h s'_i) X_i + h tau'_i s_i u_i) / s_{i+1}
    2 stages   Z = ((s_i + h s'_i / 2) X_i + (h/2) tau'_i s_i u_i) / s_m          the midpoint m = i + 1/2
               X_{i+1} = (s_i X_i + h (s'_m Z + tau'_m s_m u(Z, tau_m))) / s_{i+1}

consistent for *any* values of `tau`, `tau'`, `s` and `s'` at the nodes, which are independent numbers: 4n - 1 of them, or 8n - 1. Their
order is kept when they come of smooth curves. Any change of `(alpha, sigma)` is a particular curve. Since `u = alpha' D + sigma' E` is
linear in state and answer, a bespoke solver is a table like all others. The library's time is `t = 1 - tau`.

Source: Shaul et al. 2024 (arXiv 2310.19075), eqs. 13 to 21. The fit is in `bespoke_fit.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.program import Program, Row

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Warp:
    """`tau`, `tau'`, `s` and `s'` at the nodes of `n` steps of one or two stages, float64.

    Arguments:
        stages: 1 or 2; with two, the nodes are `r = 0, 1/2n, 1/n, ...`.
        tau, scale: at all nodes, `(n stages + 1,)`; `tau` rises from 0 to 1, `s` is positive.
        tau_rate, scale_rate: at all nodes but the last, `(n stages,)`; `tau'` is positive.

    Raises:
        ArgumentError: other numbers of values, `tau` that does not rise from 0 to 1, or `s` or `tau'` that are not positive.
    """

    stages: int
    tau: Tensor
    scale: Tensor
    tau_rate: Tensor
    scale_rate: Tensor

    def __post_init__(self) -> None:
        nodes = len(self.tau)
        if self.stages not in (1, 2) or nodes < 2 or (nodes - 1) % self.stages:
            raise ArgumentError("stages, tau", (self.stages, nodes), "1 or 2 stages, and nodes for whole steps")
        lengths = [len(v) for v in (self.scale, self.tau_rate, self.scale_rate)]
        if lengths != [nodes, nodes - 1, nodes - 1]:
            raise ArgumentError("scale, tau_rate, scale_rate", lengths, f"{nodes}, {nodes - 1} and {nodes - 1} values")
        ends = abs(float(self.tau[0].detach())) + abs(float(self.tau[-1].detach()) - 1)
        if not (ends < 1e-9 and bool((self.tau.diff() > 0).all())):
            raise ArgumentError("tau", self.tau.tolist(), "times that rise from 0 to 1")
        if not (bool((self.scale > 0).all()) and bool((self.tau_rate > 0).all())):
            raise ArgumentError("scale, tau_rate", "values of 0 or less", "positive scales and rates of time")

    @classmethod
    def of(cls, steps: int, stages: int = 2, tau: Curve | None = None, scale: Curve | None = None) -> Warp:
        """The warp of smooth curves over `r`, by default the identity: the plain Runge-Kutta method.

        Raises:
            ArgumentError: no step, or what the warp refuses.
        """
        if steps < 1:
            raise ArgumentError("steps", steps, "at least 1 step")
        r = torch.linspace(0, 1, steps * stages + 1, dtype=torch.float64)
        times, rates = _with_rate(tau or (lambda v: v), r)
        sizes, growth = _with_rate(scale or torch.ones_like, r)
        return cls(stages, times, sizes, rates[:-1], growth[:-1])

    @property
    def steps(self) -> int:
        """The number of steps."""
        return (len(self.tau) - 1) // self.stages


@dataclass(frozen=True)
class StepWeights:
    """All steps of a warp: each row is `own X_i + state Z + slope u`, where one-stage rows have no `Z`.

    Arguments:
        inner: the midpoints' weights of `X_i` and `u_i`, `(2, steps)`; None with one stage.
        outer: the ends' weights of `X_i`, `Z` and the slope at the midpoint (or at the start, with one stage), `(3, steps)`.
    """

    inner: Tensor | None
    outer: Tensor


def step_weights(warp: Warp) -> StepWeights:
    """The module's formulas, differentiable in the warp."""
    s, ds, dtau, h = warp.scale, warp.scale_rate, warp.tau_rate, 1 / warp.steps
    own, end = s[: -1 : warp.stages], s[warp.stages :: warp.stages]
    if warp.stages == 1:
        return StepWeights(None, torch.stack([(own + h * ds) / end, torch.zeros_like(own), h * dtau * own / end]))
    middle = s[1::2]
    inner = torch.stack([own + h / 2 * ds[::2], h / 2 * dtau[::2] * own]) / middle
    return StepWeights(inner, torch.stack([own, h * ds[1::2], h * dtau[1::2] * middle]) / end)


def bespoke_program(process: ScalarProcess, warp: Warp, name: str = "bespoke") -> Program:
    """The table of a warp on the flow of a process, from `t = 1` to `t = 0`.

    Raises:
        ArgumentError: a slope that is infinite.
    """
    weights = step_weights(warp)
    times = tuple((1 - warp.tau.detach()).clamp(0, 1).tolist())
    rows = [Row()]
    for n in range(warp.steps):
        start = n * warp.stages
        own, middle, slope = weights.outer[:, n].detach()
        if weights.inner is not None:
            rows.append(_row(process, times, [(start, weights.inner[0, n].detach())], (start, weights.inner[1, n].detach())))
        last = start + warp.stages - 1
        rows.append(_row(process, times, [(start, own), (last, middle)] if weights.inner is not None else [(start, own)], (last, slope)))
    return Program(name, process, times, tuple(rows))


def velocity_weights(process: ScalarProcess, t: Float[Tensor, "*n"]) -> tuple[Tensor, Tensor]:
    """`(a, b)` with `dx/dtau = a D + b x` at `t = 1 - tau`.

    Raises:
        ArgumentError: a time without noise, where the slope is 0/0.
    """
    sigma = process.sigma(t)
    if bool((sigma == 0).any()):
        raise ArgumentError("t", 0.0, "slopes at times with noise left")
    share = process.sigma_rate(t) / sigma
    return share * process.alpha(t) - process.alpha_rate(t), -share


def _row(process: ScalarProcess, times: tuple[float, ...], states: list[tuple[int, Tensor]], slope: tuple[int, Tensor]) -> Row:
    """`sum c X_j + w u_i` as a row of states and answers."""
    at, weight = slope
    on_data, on_state = velocity_weights(process, torch.tensor(times[at], dtype=torch.float64))
    out: dict[int, Tensor] = {}
    for j, c in (*states, (at, weight * on_state)):
        out[j] = out.get(j, torch.zeros(1, dtype=torch.float64)) + c
    return Row(out, {at: (weight * on_data)[None]})


def _with_rate(curve: Curve, r: Tensor) -> tuple[Tensor, Tensor]:
    """A curve and its derivative at points."""
    points = r.clone().requires_grad_()
    values = curve(points)
    if not values.requires_grad:
        return values, torch.zeros_like(r)
    (rate,) = torch.autograd.grad(values.sum(), points)
    return values.detach(), rate
