"""What the networks share: the calling convention, the noise level as features, classes as vectors, weights that a seed determines."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from sfumato.errors import ArgumentError, ShapeError

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class Network(nn.Module, ABC):
    """A network that `Preconditioned` can serve and `save_model` can write down.

    Arguments:
        event_shape: the shape of one event.
        classes: the number of classes it can be conditioned on, or None for an unconditional network.

    Raises:
        ArgumentError: sizes that are not positive.
    """

    kind: ClassVar[str]
    """The name under which the network is written down."""
    arguments: ClassVar[tuple[str, ...]]
    """The arguments beside `event_shape` and `classes` that say what the network is; each is also an attribute."""

    def __init__(self, event_shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__()
        self.event_shape, self.classes = tuple(event_shape), classes
        if not self.event_shape or not all(isinstance(n, int) and n > 0 for n in self.event_shape):
            raise ArgumentError("event_shape", event_shape, "positive sizes, such as (1, 8, 8)")
        if classes is not None and classes < 1:
            raise ArgumentError("classes", classes, "at least one class, or None")

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        """The network's answer; `condition` are class labels, negative for "no class", and None is "no class" for all."""

    @property
    def event_size(self) -> int:
        """How many numbers an event has."""
        return math.prod(self.event_shape)

    def to_config(self) -> dict[str, Any]:
        """Plain data from which `network_from_config` builds a network of the same form (weights are saved apart)."""
        own = {name: getattr(self, name) for name in self.arguments}
        return {"kind": self.kind, "event_shape": list(self.event_shape), "classes": self.classes, **own}

    def labels(self, condition: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
        """Rows of a table with one row a class and a last one for "no class": `(batch,)`, or None for a network without classes.

        Raises:
            ArgumentError: labels for a network without classes, or a label that is none of them.
            ShapeError: not one integer label per sample.
        """
        if condition is not None and not isinstance(condition, Tensor):
            raise ArgumentError("condition", repr(condition), f"a tensor of one integer label per sample ({batch},)")
        if self.classes is None:
            if condition is not None:
                raise ArgumentError("condition", f"labels of shape {tuple(condition.shape)}", "None", "This network knows no classes.")
            return None
        if condition is None:
            return torch.full((batch,), self.classes, device=device)
        if condition.shape != (batch,) or condition.is_floating_point():
            raise ShapeError("condition", f"{condition.dtype} {tuple(condition.shape)}", f"one integer label per sample ({batch},)")
        # looked at only where looking does not make an accelerator wait; there the table itself refuses
        if condition.device.type == "cpu" and bool((condition >= self.classes).any()):
            raise ArgumentError("condition", f"the label {int(condition.max())}", f"labels below {self.classes}, negative for none")
        return torch.where(condition < 0, self.classes, condition).to(device)


class NoiseFeatures(nn.Module):
    """`sin` and `cos` of `c_noise` at 16 frequencies, geometric from 1/2 to 32 radians per unit.

    `c_noise` spans 5 units, so the slowest wave tells the ends apart and the fastest resolves an eighth of a log-ratio.
    """

    size: ClassVar[int] = 32

    def __init__(self) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(-1, 5, self.size // 2, base=2.0), persistent=False)

    def forward(self, c_noise: Float[Tensor, "batch"]) -> Float[Tensor, "batch size"]:
        angles = c_noise[:, None] * self.frequencies.to(c_noise.dtype)
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)


class ConditionedNetwork(Network):
    """A network that sees the noise level and the class as one vector."""

    def build_conditioning(self, width: int) -> None:
        """The layers that `conditioning` computes with; to be called where the weights are drawn."""
        self.features = NoiseFeatures()
        self.embed = nn.Linear(self.features.size, width)
        self.table = None if self.classes is None else nn.Embedding(self.classes + 1, width)

    def conditioning(self, c_noise: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None) -> Float[Tensor, "batch width"]:
        """A `silu` layer of the noise features, plus the class's vector.

        Raises:
            ArgumentError, ShapeError: see `labels`.
        """
        e = silu(self.embed(self.features(c_noise)))
        rows = self.labels(condition, len(c_noise), c_noise.device)
        return e if self.table is None else e + self.table(rows)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Layers built inside draw their initial weights from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def zeroed(layer: Layer) -> Layer:
    """The layer with all weights zero: a network that ends in it starts as the zero function."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
