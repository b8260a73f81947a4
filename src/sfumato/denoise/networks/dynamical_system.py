r"""A U-shaped network whose blocks are second-order differential equations, so that one block's weights serve every step of its depth.

    x'' = f(x, x', s),    f = conv(silu(norm([x, x']))) + exp(a s) (V e),    x(0) = h,    x'(0) = g(h),    answer x(1),

with a 1x1 convolution `g`, the noise level's embedding `e`, and a decay `a` a channel. It is integrated with a few steps of a fixed method.
Gradients go through the steps, or come from the adjoint equation, solved back from the answer alone with memory that does not grow with
the steps; the two agree as the steps get fine.

Source: Calvo-Ordonez et al. 2023 (arXiv 2310.20092), section 3; the adjoint is Chen et al. 2018 (arXiv 1806.07366).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from sfumato.denoise.networks.network import ConditionedNetwork, seeded, zeroed
from sfumato.errors import ArgumentError

Method = Literal["euler", "midpoint", "rk4"]
"""Of order 1, 2 and 4."""

_GROUP = 8
_STAGES = {"euler": ((), (1.0,)), "midpoint": ((0.5,), (0.0, 1.0)), "rk4": ((0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))}
"""Where each stage beyond the first starts from the one before it, and the weights of their slopes."""

State = tuple[Tensor, ...]


def integrate(rate: Callable[[State, float], State], state: State, start: float, end: float, steps: int, method: Method) -> State:
    """`y' = rate(y, s)` from `start` to `end` in equal steps of a fixed method."""
    nodes, weights = _STAGES[method]
    h = (end - start) / steps
    for i in range(steps):
        s = start + i * h
        slopes = [rate(state, s)]
        for node in nodes:
            slopes.append(rate(tuple(y + node * h * k for y, k in zip(state, slopes[-1], strict=True)), s + node * h))
        summed = [sum(w * k for w, k in zip(weights, parts, strict=True)) for parts in zip(*slopes, strict=True)]
        state = tuple(y + h * k for y, k in zip(state, summed, strict=True))
    return state


class _Adjoint(torch.autograd.Function):
    """The block's solution, with gradients from `w' = -(dF/dy)^T w` and its integrals against `dF/de` and `dF/dweights`."""

    @staticmethod
    def forward(ctx: Any, block: DynamicBlock, x: Tensor, v: Tensor, e: Tensor, *weights: Tensor) -> Tensor:
        end = integrate(lambda y, s: block.rate(y, e, s), (x, v), 0.0, block.span, block.steps, block.method)
        ctx.block = block
        ctx.save_for_backward(*end, e, *weights)
        return end[0]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        block, (x, v, e, *weights) = ctx.block, ctx.saved_tensors

        def rate(state: State, s: float) -> State:
            with torch.enable_grad():
                y = tuple(part.detach().requires_grad_() for part in state[:2])
                seen = e.detach().requires_grad_()
                out = block.rate(y, seen, s)
                pulled = torch.autograd.grad(out, (*y, seen, *weights), [-w for w in state[2:4]], allow_unused=True)
            found = (torch.zeros_like(z) if p is None else p for p, z in zip(pulled, (*y, seen, *weights), strict=True))
            return (*(part.detach() for part in out), *found)

        zeros = [torch.zeros_like(z) for z in (e, *weights)]
        start = (x, v, slopes[0], torch.zeros_like(v), *zeros)
        return None, *integrate(rate, start, block.span, 0.0, block.steps, block.method)[2:]


class DynamicBlock(nn.Module):
    """The equation of the module's head, on `(batch, channels, height, width)`.

    Arguments:
        channels: a multiple of 8.
        embedding: the size of `e`.
        steps, method: how it is integrated.
        span: how long; 0 leaves the input as it is.
        adjoint: whether gradients come from the adjoint equation.
    """

    def __init__(
        self, channels: int, embedding: int, steps: int = 3, method: Method = "euler", span: int = 1, *, adjoint: bool = False
    ) -> None:
        super().__init__()
        if channels < _GROUP or channels % _GROUP or steps < 1 or span < 0:
            raise ArgumentError("channels, steps, span", (channels, steps, span), f"a multiple of {_GROUP}, at least 1, at least 0")
        if method not in get_args(Method):
            raise ArgumentError("method", repr(method), f"one of {', '.join(get_args(Method))}")
        self.steps, self.method, self.span, self.adjoint = steps, method, float(span), adjoint
        self.norm, self.force = nn.GroupNorm(2 * channels // _GROUP, 2 * channels), nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.push, self.decay = nn.Linear(embedding, channels), nn.Parameter(torch.zeros(channels))
        self.speed = nn.Conv2d(channels, channels, 1)

    def rate(self, state: Sequence[Tensor], e: Tensor, s: float) -> State:
        """`(x', x'')` at `(x, x')`."""
        x, v = state
        pushed = torch.exp(self.decay * s) * self.push(e)
        return v, self.force(silu(self.norm(torch.cat([x, v], 1)))) + pushed[:, :, None, None]

    def forward(
        self, h: Float[Tensor, "batch channels height width"], e: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, "batch channels height width"]:
        if self.span == 0:
            return h
        if not self.adjoint:
            return integrate(lambda y, s: self.rate(y, e, s), (h, self.speed(h)), 0.0, self.span, self.steps, self.method)[0]
        weights = [*self.norm.parameters(), *self.force.parameters(), *self.push.parameters(), self.decay]
        out: Tensor = _Adjoint.apply(self, h, self.speed(h), e, *weights)  # type: ignore[no-untyped-call]
        return out


class ContinuousUNet(ConditionedNetwork):
    """One dynamic block a level on the way down and up, strided convolutions between, skips mixed in by 1x1 convolutions.

    Arguments:
        event_shape: `(channels, height, width)`, height and width divisible by `2^depth`.
        width: channels at all levels, a multiple of 8.
        depth: halvings.
        steps, span: of the blocks; see `DynamicBlock`.
        heads: of one attention layer at the lowest level; 0 for none.
        classes: the number of classes, or None for an unconditional network.
        seed: of the initial weights.
        method, adjoint: of the blocks; they are no part of what is written down.
    """

    kind = "continuous-unet"
    arguments = ("width", "depth", "steps", "span", "heads")

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 16,
        depth: int = 1,
        steps: int = 3,
        span: int = 1,
        heads: int = 0,
        classes: int | None = None,
        seed: int = 0,
        *,
        method: Method = "euler",
        adjoint: bool = False,
    ) -> None:
        super().__init__(event_shape, classes)
        shape = self.event_shape
        if len(shape) != 3 or depth < 0 or any(n % 2**depth for n in shape[1:]):
            raise ArgumentError("event_shape", shape, f"(channels, height, width), both divisible by {2 ** max(0, depth)}")
        if heads < 0 or (heads and width % heads):
            raise ArgumentError("heads", heads, f"0, or a divisor of the width {width}")
        self.width, self.depth, self.steps, self.span, self.heads = width, depth, steps, span, heads

        def block() -> DynamicBlock:
            return DynamicBlock(width, width, steps, method, span, adjoint=adjoint)

        with seeded(seed):
            self.build_conditioning(width)
            self.first = nn.Conv2d(shape[0], width, 3, padding=1)
            self.down = nn.ModuleList(block() for _ in range(depth))
            self.shrink = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(depth))
            self.middle = block()
            self.look = nn.MultiheadAttention(width, heads, batch_first=True) if heads else None
            self.grow = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(depth))
            self.mix = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(depth))
            self.up = nn.ModuleList(block() for _ in range(depth))
            self.norm = nn.GroupNorm(width // _GROUP, width)
            self.last = zeroed(nn.Conv2d(width, shape[0], 3, padding=1))

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        e = self.conditioning(c_noise, condition)
        h, kept = self.first(x), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            kept.append(block(h, e))
            h = shrink(kept[-1])
        h = self.middle(h, e)
        if self.look is not None:
            tokens = h.flatten(2).transpose(1, 2)
            h = h + self.look(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(h.shape)
        for grow, mix, block in zip(self.grow, self.mix, self.up, strict=True):
            h = block(mix(torch.cat([grow(h), kept.pop()], 1)), e)
        return self.last(silu(self.norm(h)))
