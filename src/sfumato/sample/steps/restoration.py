r"""Restore and degrade: a step of the flow as a Tweedie estimate of a cleaner point, and the forward process back from there.

For the Ornstein-Uhlenbeck process `dx = -x dT + sqrt(2) dw` and a window `l >= 1`, a step of length `h` restores over `l h` and degrades
over `(l - 1) h`, with the noise that points back at the iterate. Every scalar process is this one up to scale, with the clock
`T = log(1 + k^2) / 2`; in `y = x / alpha`, with the restored ratio `k_u` at `T_u = T_b - l h`,

    y^ = y_b + (k_b^2 - k_u^2) s,        z = -sqrt(k_b^2 - k_u^2) s,        y_i = y^ + sqrt(k_i^2 - k_u^2) z,        s = (D - y_b) / k_b^2.

So a step keeps the share `(1 - p) k_b / k_i` of the noise and draws none, with
`p = (k_b^2 - k_u^2 - sqrt((k_b^2 - k_u^2)(k_i^2 - k_u^2))) / k_b^2`.

`l = 1` is the reverse SDE's drift without its noise, `l h = T` (restored to clean) is DDIM. A fixed window does not converge to the flow:
it counts the score `2 (l - sqrt(l^2 - l)) = 1 + 1/(4 l) + ...` times. `l = h^(-1/2)` balances that against the window's own length, with
order 1/2. Source: Chen et al. 2023 (arXiv 2303.03384), section 3; general drifts are `restoration_step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.stochastic import Stochastic, StochasticTable
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom

Field = Callable[[Float[Tensor, "batch *event"], float], Float[Tensor, "batch *event"]]
"""A drift or a score: states and a time to values."""


@dataclass(frozen=True)
class Restoration(Solver):
    """The deterministic sampler of the module; one evaluation a step.

    Arguments:
        window: `l >= 1`; "balanced" for `h^(-1/2)` with the step in the module's clock, or "whole" to restore to clean, which is DDIM.
            A window that would reach below clean is refused, and "balanced" ends there.
    """

    window: int | float | str = "balanced"

    def __post_init__(self) -> None:
        named = self.window in ("balanced", "whole")
        if not named and (isinstance(self.window, str) or not 1 <= self.window < math.inf):
            raise ArgumentError("window", repr(self.window), "a number of at least 1, or one of balanced, whole")

    @property
    def name(self) -> str:
        return f"restoration-{self.window if isinstance(self.window, str) else format(self.window, 'g')}"

    @property
    def order(self) -> int:
        return int(self.window == "whole")

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        table, split = StochasticTable(process, custom(times)), Stochastic.of("data")
        for i in range(1, len(table.times)):
            log_kept = self._log_kept(*(math.exp(-v) if v > -math.inf else math.inf for v in table.half_log_snr[i - 1 : i + 1]))
            kept = Stochastic(split.variance, split.power, log_kept=log_kept)
            table.step(kept, i - 1, i - 1, i, [table.node(i - 1, i - 1)])
        return table.program(self.name)

    def _log_kept(self, start: float, end: float) -> float:
        """The logarithm of the share that is kept over a step between two ratios."""
        if self.window == "whole" or end == 0:
            return 0.0
        if start == math.inf:
            raise ArgumentError("times", "a start without signal", "a start with some signal left", "Its clock is infinite.")
        clock, h = math.log1p(start**2) / 2, (math.log1p(start**2) - math.log1p(end**2)) / 2
        reach = min(clock, math.sqrt(h)) if self.window == "balanced" else float(self.window) * h
        reach = max(reach, h)
        if reach > clock * (1 + 1e-12):
            raise ArgumentError(
                "window", self.window, f"at most {clock / h:.6g} for the step to the ratio {end:.6g}", "It restores to clean."
            )
        # 1 - p = (k_u^2 + sqrt((k_b^2 - k_u^2)(k_i^2 - k_u^2))) / k_b^2, where k^2 + 1 = exp(2 T)
        restored = 2 * max(0.0, clock - reach)
        left = math.expm1(restored) + math.exp(restored) * math.sqrt(math.expm1(2 * reach) * math.expm1(2 * (reach - h)))
        return min(0.0, math.log(left / (start * end)))


def restoration_step(
    x: Float[Tensor, "batch *event"],
    t: float,
    h: float,
    window: int | float,
    score: Field,
    drift: Field,
    diffusion: Callable[[float], float],
) -> Float[Tensor, "batch *event"]:
    r"""One step from `t` to `t - h` for any forward process `dx = f(x, t) dt + g(t) dw`, in its own forward time:

        x^ = x - l h f(x, t) + l h g^2 s(x, t),            z = (x - x^ - l h f(x^, t - l h)) / (g sqrt(l h)),
        x_{t-h} = x^ + (l - 1) h f(x^, t - l h) + g sqrt((l - 1) h) z.

    Arguments:
        x: states at `t`.
        t, h, window: the time, the step and `l >= 1`, with `l h <= t`.
        score: `grad log p_t`.
        drift: `f`.
        diffusion: `g`, one number a time.

    Raises:
        ArgumentError: a step or window that reaches below 0, or a diffusion that is no positive number.
        ShapeError: a diffusion that depends on the state.
    """
    if not h > 0 or not window >= 1 or window * h > t * (1 + 1e-12):
        raise ArgumentError("h, window", (h, window), f"a positive step, and a window from 1 to t / h = {t / h if h else math.inf:.6g}")
    g = diffusion(t)
    if isinstance(g, Tensor) and g.ndim:
        raise ShapeError("diffusion", tuple(g.shape), "one number a time", "The step needs noise that is the same for every state.")
    if not 0 < g < math.inf:
        raise ArgumentError("diffusion", g, "a positive number")
    reach, back = window * h, max(0.0, t - window * h)
    restored = x - reach * drift(x, t) + reach * g**2 * score(x, t)
    pull = drift(restored, back)
    z = (x - restored - reach * pull) / (g * math.sqrt(reach))
    return restored + (reach - h) * pull + g * math.sqrt(reach - h) * z
