r"""A pipeline of `diffusers` as a denoiser: its network, what it is conditioned on, its guidance, and its latent space.

    D = D_null + g (D_condition - D_null)

in the network's own prediction, as pipelines do it; so every sampler, adaptive solver, `tune` and `explain` work on the pipeline's model.

| network | pipelines | conditions |
|---|---|---|
| `UNet2DModel` | DDPM, DDIM | none, or its class labels |
| `DiTTransformer2DModel` | DiT, in latents | class labels; the last class is the null condition |
| `UNet2DConditionModel` | Stable Diffusion, in latents | prompts; the negative prompt is the null condition |
| `SD3Transformer2DModel` | Stable Diffusion 3, flow matching in latents | the same |

Events are the network's: pixels in [-1, 1], or scaled latents, which `encode` and `decode` translate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser, to_data
from sfumato.errors import ArgumentError, ShapeError
from sfumato.integrations.training import Training
from sfumato.noise import Time, as_time


@dataclass(frozen=True)
class Prompt:
    """A prompt's embedding: `hidden` `(tokens, features)`, and `pooled` `(features,)` for networks that read one."""

    hidden: Tensor
    pooled: Tensor | None = None


Ask = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]
"""`ask(network, x, time, rows)`: the network's answer, with its own way of reading the conditions' rows."""


class PipelineDenoiser(Denoiser):
    """`E[x_0 | x_t]` of a pipeline's network.

    Arguments:
        network: one of the module's table, in evaluation mode; it runs in its own dtype and on its own device.
        training: what it was trained on.
        conditions: how many classes or prompts `condition` may name, `(batch,)` integers from 0; 0 for an unconditional network.
        prompts: the embeddings of the prompts, and, last, of the null condition.
        guidance: `g`; 1 for none. Without a `condition` the null condition is asked alone.
        vae: of a latent pipeline.

    Raises:
        ArgumentError: a network that we do not know, or guidance for one that has no null condition.
    """

    def __init__(
        self,
        network: Any,
        training: Training,
        *,
        prompts: Sequence[Prompt] = (),
        guidance: int | float = 1.0,
        vae: Any = None,
    ) -> None:
        kind = type(network).__name__
        if kind not in _ASK:
            raise ArgumentError("network", kind, f"one of {', '.join(_ASK)}", "Wrap another one with sfumato.denoise.Wrapped.")
        self.network, self.training, self.process, self.vae = network, training, training.process, vae
        self.prompts, self.guidance, self._ask = tuple(prompts), float(guidance), _ASK[kind]
        self.conditions = len(self.prompts) - 1 if self.prompts else _classes(network)
        if kind in _PROMPTED and not self.prompts:
            raise ArgumentError("prompts", "none", "at least the embedding of the null condition")
        if guidance != 1 and not self._has_null:
            raise ArgumentError("guidance", guidance, "1, as the network has no null condition")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """`(channels, height, width)` of what the network denoises."""
        config = self.network.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        return int(config.in_channels), int(height), int(width)

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        """`(channels, height, width)` of the images that the events stand for."""
        if self.vae is None:
            return self.event_shape
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(self.vae.config.in_channels), self.event_shape[1] * factor, self.event_shape[2] * factor

    @property
    def classes(self) -> int | None:
        """How many conditions there are; None for an unconditional network."""
        return self.conditions or None

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if tuple(x.shape[1:]) != self.event_shape:
            raise ShapeError("x", tuple(x.shape), f"a batch of events of shape {self.event_shape}")
        t = as_time(t)
        time = self.training.index(t).to(x.device).expand(x.shape[0])
        rows = self._rows(condition, x)
        if condition is None or self.guidance == 1:
            answer = self._answer(x, time, rows)
        else:
            null = torch.full_like(rows, self.conditions)
            both = self._answer(torch.cat([x, x]), time.repeat(2), torch.cat([rows, null])).chunk(2)
            answer = both[1] + self.guidance * (both[0] - both[1])
        return to_data(answer, self.training.view, x, t, self.process)

    def given(self, condition: int) -> Given:
        """The denoiser under one of its conditions: unconditional to whoever asks it.

        Raises:
            ArgumentError: a condition that it does not have.
        """
        if not 0 <= condition < self.conditions:
            raise ArgumentError("condition", condition, f"a number from 0 to {self.conditions - 1}" if self.conditions else "none")
        return Given(self, condition)

    def decode(self, events: Tensor) -> Tensor:
        """Images in [-1, 1] `(batch, channels, height, width)` of latents; of a pixel pipeline the events themselves."""
        if self.vae is None:
            return events
        config = self.vae.config
        latents = events / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        out: Tensor = self.vae.decode(latents.to(self.vae.dtype)).sample
        return out.to(events.dtype)

    def encode(self, images: Tensor) -> Tensor:
        """The mean latents, scaled as the network knows them, of images in [-1, 1]; of a pixel pipeline the images themselves."""
        if self.vae is None:
            return images
        config = self.vae.config
        mean = self.vae.encode(images.to(self.vae.dtype)).latent_dist.mode().to(images.dtype)
        out: Tensor = (mean - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
        return out

    @property
    def _has_null(self) -> bool:
        return bool(self.prompts) or type(self.network).__name__ == "DiTTransformer2DModel"

    def _rows(self, condition: Tensor | None, x: Tensor) -> Tensor:
        """The number of every sample's condition; `conditions` is the null condition."""
        if condition is None:
            if self.conditions and not self._has_null:
                raise ArgumentError("condition", None, f"class labels from 0 to {self.conditions - 1}: the network has no null condition")
            return torch.full((x.shape[0],), self.conditions, dtype=torch.long, device=x.device)
        whole = condition.ndim == 1 and len(condition) == x.shape[0] and not condition.is_floating_point()
        if not self.conditions or not whole or not bool(((condition >= 0) & (condition <= self.conditions)).all()):
            expected = f"({x.shape[0]},) integers from 0 to {self.conditions}, the null condition" if self.conditions else "none"
            raise ArgumentError("condition", tuple(condition.shape), expected)
        return condition.to(x.device)

    def _answer(self, x: Tensor, time: Tensor, rows: Tensor) -> Tensor:
        """The network's prediction of the mean; a learned variance beside it is left out."""
        network = self.network
        chosen = [self.prompts[int(row)] for row in rows] if self.prompts else None
        out = self._ask(network, x.to(network.dtype), time, rows if chosen is None else chosen)
        return out[:, : x.shape[1]].to(x.dtype)


class Given(Denoiser):
    """A denoiser under one condition, for those who know of none; made by `PipelineDenoiser.given`."""

    def __init__(self, inner: PipelineDenoiser, condition: int) -> None:
        self.inner, self.condition, self.process = inner, condition, inner.process
        self.event_shape, self.decode = inner.event_shape, inner.decode
        self.classes: int | None = None

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        return self.inner.denoise(x, t, torch.full((x.shape[0],), self.condition, device=x.device))


def pipeline_denoiser(pipe: Any, prompts: Sequence[str] = (), negative: str = "", guidance: int | float = 1.0) -> PipelineDenoiser:
    """The denoiser of a whole pipeline.

    Arguments:
        pipe: with a scheduler that says what the network was trained on; see the module for which.
        prompts: what `condition` 0, 1, ... stand for, for networks that read prompts.
        negative: the prompt of the null condition.
        guidance: see `PipelineDenoiser`.

    Raises:
        ArgumentError: a network or a scheduler that we cannot read, or prompts for a network that reads none.
    """
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    prompted = type(network).__name__ in _PROMPTED
    if prompts and not prompted:
        raise ArgumentError("prompts", list(prompts), "none", f"{type(network).__name__} reads no prompts.")
    embedded = [_embed(pipe, text) for text in (*prompts, negative)] if prompted else []
    return PipelineDenoiser(network, Training.of(pipe.scheduler), prompts=embedded, guidance=guidance, vae=getattr(pipe, "vae", None))


def _embed(pipe: Any, text: str) -> Prompt:
    """A prompt's embedding, as the pipeline makes it."""
    if type(pipe.transformer if hasattr(pipe, "transformer") else None).__name__ == "SD3Transformer2DModel":
        hidden, _, pooled, _ = pipe.encode_prompt(text, None, None, do_classifier_free_guidance=False)
        return Prompt(hidden[0], pooled[0])
    hidden, _ = pipe.encode_prompt(text, pipe.device, 1, False)
    return Prompt(hidden[0])


def _classes(network: Any) -> int:
    config = network.config
    return int(getattr(config, "num_embeds_ada_norm", None) or getattr(config, "num_class_embeds", None) or 0)


def _unet(network: Any, x: Tensor, time: Tensor, rows: Tensor) -> Tensor:
    labels = rows if network.config.num_class_embeds else None
    out: Tensor = network(x, time, class_labels=labels).sample
    return out


def _dit(network: Any, x: Tensor, time: Tensor, rows: Tensor) -> Tensor:
    out: Tensor = network(x, timestep=time, class_labels=rows).sample
    return out


def _prompted_unet(network: Any, x: Tensor, time: Tensor, rows: Sequence[Prompt]) -> Tensor:
    hidden = torch.stack([p.hidden for p in rows]).to(x)
    out: Tensor = network(x, time, encoder_hidden_states=hidden).sample
    return out


def _sd3(network: Any, x: Tensor, time: Tensor, rows: Sequence[Prompt]) -> Tensor:
    hidden = torch.stack([p.hidden for p in rows]).to(x)
    pooled = torch.stack([p.pooled for p in rows if p.pooled is not None]).to(x)
    out: Tensor = network(hidden_states=x, timestep=time, encoder_hidden_states=hidden, pooled_projections=pooled).sample
    return out


_ASK: dict[str, Any] = {
    "UNet2DModel": _unet,
    "DiTTransformer2DModel": _dit,
    "UNet2DConditionModel": _prompted_unet,
    "SD3Transformer2DModel": _sd3,
}
_PROMPTED = ("UNet2DConditionModel", "SD3Transformer2DModel")
