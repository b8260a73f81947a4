"""A residual perceptron for small events of any shape."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from sfumato.denoise.networks.network import ConditionedNetwork, seeded, zeroed
from sfumato.errors import ArgumentError


class ResidualMLP(ConditionedNetwork):
    r"""`h <- h + silu(W_i h + V_i e)`, `depth` times, between two linear maps, the second of which starts at zero.

    `e` is a `silu` layer of the noise features, plus the class's vector.

    Arguments:
        event_shape: the shape of one event; its elements are flattened.
        width, depth: of the residual layers.
        classes: the number of classes, or None for an unconditional network.
        seed: of the initial weights.
    """

    kind = "residual-mlp"
    arguments = ("width", "depth")

    def __init__(self, event_shape: tuple[int, ...], width: int = 256, depth: int = 3, classes: int | None = None, seed: int = 0) -> None:
        super().__init__(event_shape, classes)
        if width < 1 or depth < 1:
            raise ArgumentError("width, depth", (width, depth), "at least 1 each")
        self.width, self.depth = width, depth
        with seeded(seed):
            self.build_conditioning(width)
            self.first = nn.Linear(self.event_size, width)
            # all V_i in one product
            self.shifts = nn.Linear(width, depth * width, bias=False)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            self.last = zeroed(nn.Linear(width, self.event_size))

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        e = self.conditioning(c_noise, condition)
        h = self.first(x.flatten(1))
        for layer, shift in zip(self.layers, self.shifts(e).chunk(self.depth, dim=1), strict=True):
            h = h + silu(layer(h) + shift)
        return self.last(h).reshape(x.shape)
