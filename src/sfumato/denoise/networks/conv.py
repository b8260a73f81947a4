"""A small U-shaped convolutional network for images."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from sfumato.denoise.networks.network import ConditionedNetwork, seeded, zeroed
from sfumato.errors import ArgumentError

_GROUP = 8


class _Block(nn.Module):
    """`h + conv(silu(scale * norm(conv(silu(norm(h)))) + shift))`, with scale and shift linear in the embedding (FiLM)."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(before // _GROUP, before), nn.Conv2d(before, after, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(after // _GROUP, after, affine=False), zeroed(nn.Conv2d(after, after, 3, padding=1))
        self.film = nn.Linear(embedding, 2 * after)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.film(e)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm2(self.conv1(silu(self.norm1(h)))) * (1 + scale) + shift
        return self.skip(h) + self.conv2(silu(inner))


class ConvNet(ConditionedNetwork):
    """A U-shaped residual network: `depth` halvings of the resolution, a block on the way down and one on the way up at each, widths
    `width, 2 width, 2 width, ...`, skip connections by concatenation, noise level and class by FiLM.

    Arguments:
        event_shape: `(channels, height, width)`, height and width divisible by `2^depth`.
        width: channels at full resolution, a multiple of 8.
        depth: halvings.
        classes: the number of classes, or None for an unconditional network.
        seed: of the initial weights.
    """

    kind = "conv"
    arguments = ("width", "depth")

    def __init__(self, event_shape: tuple[int, ...], width: int = 32, depth: int = 1, classes: int | None = None, seed: int = 0) -> None:
        super().__init__(event_shape, classes)
        shape = self.event_shape
        if len(shape) != 3:
            raise ArgumentError("event_shape", shape, "(channels, height, width)")
        if width < _GROUP or width % _GROUP or depth < 0:
            raise ArgumentError("width, depth", (width, depth), f"a multiple of {_GROUP} and at least 0")
        if shape[1] % 2**depth or shape[2] % 2**depth:
            raise ArgumentError("event_shape", shape, f"height and width divisible by {2**depth}", f"Use a depth below {depth}.")
        self.width, self.depth = width, depth
        widths = [width] + [2 * width] * depth
        embedding = 4 * width
        with seeded(seed):
            self.build_conditioning(embedding)
            self.mix = nn.Linear(embedding, embedding)
            self.first = nn.Conv2d(shape[0], width, 3, padding=1)
            self.down = nn.ModuleList(_Block(widths[max(i - 1, 0)], widths[i], embedding) for i in range(depth + 1))
            self.middle = _Block(widths[-1], widths[-1], embedding)
            self.up = nn.ModuleList(_Block(2 * widths[i], widths[max(i - 1, 0)], embedding) for i in reversed(range(depth + 1)))
            self.norm = nn.GroupNorm(width // _GROUP, width)
            self.last = zeroed(nn.Conv2d(width, shape[0], 3, padding=1))

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        e = self.conditioning(c_noise, condition)
        e = silu(self.mix(e))
        h = self.first(x)
        kept = []
        for i, block in enumerate(self.down):
            h = block(h if i == 0 else nn.functional.avg_pool2d(h, 2), e)
            kept.append(h)
        h = self.middle(h, e)
        for i, block in enumerate(self.up):
            h = block(torch.cat([h if i == 0 else interpolate(h, scale_factor=2.0), kept.pop()], dim=1), e)
        return self.last(silu(self.norm(h)))
