"""The image networks of `diffusers`, in our calling convention."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from sfumato.denoise.networks.network import Network, seeded, zeroed
from sfumato.errors import ArgumentError, MissingExtraError

_CLOCK = 250.0
"""`UNet2DModel` has features for times from 0 to 1000, `c_noise` runs over 5 units: a time step is 1/62 of a log-ratio."""


class DiffusersUNet(Network):
    """A `diffusers.UNet2DModel`, its output layer set to zero.

    Arguments:
        event_shape: `(channels, height, width)`.
        options: keyword arguments of `UNet2DModel` beside sizes, channels and classes, which follow from the others.
        classes: the number of classes, or None for an unconditional network.
        seed: of the initial weights.

    Raises:
        MissingExtraError: `diffusers` is not installed.
        ArgumentError: options that `UNet2DModel` does not have or refuses.
    """

    kind = "diffusers-unet"
    arguments = ("options",)

    def __init__(
        self, event_shape: tuple[int, ...], options: dict[str, Any] | None = None, classes: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(event_shape, classes)
        if len(self.event_shape) != 3:
            raise ArgumentError("event_shape", self.event_shape, "(channels, height, width)")
        try:
            from diffusers import UNet2DModel
        except ImportError as error:
            raise MissingExtraError("diffusers", "diffusers") from error
        channels, height, width = self.event_shape
        self.options = dict(options or {})
        sizes = {"sample_size": (height, width), "in_channels": channels, "out_channels": channels}
        table = None if classes is None else classes + 1
        try:
            with seeded(seed):
                self.unet = UNet2DModel(**self.options, **sizes, num_class_embeds=table)
        except (TypeError, ValueError) as error:
            raise ArgumentError("options", self.options, "options of diffusers.UNet2DModel", str(error)) from error
        zeroed(self.unet.conv_out)

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        return self.unet(x, _CLOCK * c_noise, class_labels=self.labels(condition, x.shape[0], x.device)).sample
