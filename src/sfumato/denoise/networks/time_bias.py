"""A network with a mean of its own: `F(x, c) - m(c)`, in which `m` sees the noise level and nothing else.

Under a squared loss `m` tends to the mean error of `F` at every level, and `F` is trained on the loss of the difference; neither sees the
other's weights, so each treats the other as given. Trained with a network it regularises it, trained behind a frozen one it calibrates it,
where a table (`MeanError`) would be too large or the levels too many. Source: Pang et al. 2023 (arXiv 2302.10688), section 3.3.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from sfumato.denoise.networks.network import NoiseFeatures, seeded, zeroed
from sfumato.errors import ArgumentError


class TimeBias(nn.Module):
    """`F(x, c_noise, condition) - m(c_noise)`, for `Preconditioned`; `m` is a perceptron with one hidden layer and starts at 0.

    Arguments:
        network: `F`, which knows its `event_shape`.
        width: of the hidden layer.
        frozen: whether only `m` is to be trained.
        seed: of the initial weights.

    Raises:
        ArgumentError: no width, or a network that does not know its event shape.
    """

    def __init__(self, network: nn.Module, width: int = 64, *, frozen: bool = False, seed: int = 0) -> None:
        super().__init__()
        shape = getattr(network, "event_shape", None)
        if width < 1 or shape is None:
            raise ArgumentError("network, width", (type(network).__name__, width), "a network with an event_shape, and at least 1")
        self.network, self.event_shape, self.classes = network, tuple(shape), getattr(network, "classes", None)
        if frozen:
            network.requires_grad_(False)
        with seeded(seed):
            self.features = NoiseFeatures()
            self.hidden = nn.Linear(self.features.size, width)
            self.last = zeroed(nn.Linear(width, math.prod(self.event_shape)))

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Tensor | None = None
    ) -> Float[Tensor, "batch *event"]:
        """The network's answer less the mean at its level."""
        mean = self.last(silu(self.hidden(self.features(c_noise))))
        return self.network(x, c_noise, condition) - mean.reshape(x.shape)
