r"""From one law to another by blending a little further, again and again (iterative alpha-(de)blending).

A point `x` of the blends `x_a = (1 - a) x_0 + a x_1` is taken apart into a pair that could have made it, and the pair is blended anew:

    random          x <- (1 - a') x_0 + a' x_1,        (x_0, x_1) ~ p(. | x_a = x)
    deterministic   x <- x + (a' - a) E[x_1 - x_0 | x_a = x]

In the limit of many steps both are one deterministic map, the flow of that mean difference. From Gaussian noise it is the probability flow
of `noise.FlowMatching` (with `a = 1 - t`), and the deterministic step is DDIM's. A model may predict any side of the pair:

| predicts | step | singular at |
|---|---|---|
| "difference", `E[x_1 - x_0]` | `x + da D` | |
| "target", `E[x_1]` | `x + da (x_1 - x) / (1 - a)` | `a = 1` |
| "source", `E[x_0]` | `x + da (x - x_0) / a` | `a = 0` |

Source: Heitz et al. 2023 (arXiv 2305.03486), algorithms 1 to 4 and appendix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.blend import Sides
from sfumato.sample.compilers.runge_kutta import TABLEAUS
from sfumato.seeds import Noise, Seed, noise

Predicts = Literal["difference", "target", "source"]
"""What a model says of the pair, see the module's table."""

Model = Callable[[Tensor, float], Tensor]
"""`(x (batch, *event), a) -> ` a prediction shaped as `x`."""


def blend(
    model: Model,
    x: Float[Tensor, "batch *event"],
    shares: Sequence[float],
    *,
    predicts: Predicts = "difference",
    method: str = "euler",
) -> Float[Tensor, "batch *event"]:
    """Carry `x` from the source to the target.

    Arguments:
        model: the regressor.
        x: draws of the source.
        shares: `a_0 < ... < a_N`, from exactly 0 to exactly 1; from above 0 for a model that predicts the source.
        predicts: what the model predicts.
        method: a name of `runge_kutta.TABLEAUS`; "euler" is the paper's.

    Raises:
        ArgumentError: shares that do not rise or have other ends, an unknown prediction or method, or one that asks where the model's
            prediction is singular.
    """
    if predicts not in get_args(Predicts):
        raise ArgumentError("predicts", repr(predicts), f"one of {', '.join(get_args(Predicts))}")
    if method not in TABLEAUS:
        raise ArgumentError("method", repr(method), f"one of {', '.join(TABLEAUS)}")
    tableau = TABLEAUS[method]
    for a, b in pairwise(_rising(shares, open_start=predicts == "source")):
        slopes: list[Tensor] = []
        for node, row in zip(tableau.nodes, tableau.stages, strict=True):
            inner = sum((c * (b - a) * slope for c, slope in zip(row, slopes, strict=True)), x)
            slopes.append(_slope(model, inner, a + node * (b - a) if node < 1 else b, predicts))
        x = sum((c * (b - a) * slope for c, slope in zip(tableau.weights, slopes, strict=True)), x)
    return x


def random_blend(
    draw: Callable[[Tensor, float, Noise], Sides], x: Float[Tensor, "batch *event"], shares: Sequence[float], seed: Seed
) -> Float[Tensor, "batch *event"]:
    """The random walk that `blend` is the limit of.

    Arguments:
        draw: a pair whose blend at `a` is `x`, e.g. `exact.Blend.draw`.
        x: draws of the source.
        shares: as for `blend`.
        seed: of the draws; each step has its own.

    Raises:
        ArgumentError: as for `blend`.
    """
    streams = noise(seed, len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
    for i, (a, b) in enumerate(pairwise(_rising(shares, open_start=False))):
        keys = tuple((key, index + i * 2**32) for key, index in streams.keys)
        sides = draw(x, a, Noise(keys, streams.event, streams.dtype, streams.device))
        x = (1 - b) * sides.source + b * sides.target
    return x


def _slope(model: Model, x: Tensor, a: float, predicts: Predicts) -> Tensor:
    if predicts == "difference":
        return model(x, a)
    if a == (1 if predicts == "target" else 0):
        raise ArgumentError("method", f"a stage at a = {a:g}", f"one that stays off the end where the {predicts} says nothing of the other")
    return (model(x, a) - x) / (1 - a) if predicts == "target" else (x - model(x, a)) / a


def _rising(shares: Sequence[float], open_start: bool) -> list[float]:
    out = [float(a) for a in shares]
    if len(out) < 2 or any(b <= a for a, b in pairwise(out)):
        raise ArgumentError("shares", out, "at least two shares that rise")
    if out[-1] != 1 or (not 0 < out[0] < 1 if open_start else out[0] != 0):
        raise ArgumentError("shares", (out[0], out[-1]), f"shares from {'above 0' if open_start else 'exactly 0'} to exactly 1")
    return out
