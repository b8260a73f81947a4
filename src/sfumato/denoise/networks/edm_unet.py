r"""The U-shaped networks that Karras et al. 2022 (arXiv 2206.00364, table 7) trained: DDPM++ and NCSN++ of Song et al. 2021 (arXiv
2011.13456, appendix C) and ADM of Dhariwal and Nichol 2021 (arXiv 2105.05233).

They are one network up to what a residual block does, and what becomes of the noise level:

| | `song`: DDPM++, NCSN++ | `adm` |
|---|---|---|
| block | `g (S h + c_2(silu(norm(c_1 + shift))))`, `g = sqrt(1/2)` | `S h + c_2(silu(norm(c_1) (1 + scale) + shift))` |
| attention | one head; on the way up after a level's last block | a head per 64 channels; after every block of a level |
| first width | `width` | `width * multipliers[0]` |
| class | added to the noise features | added to the embedding |

with `c_1 = conv(resize(silu(norm(h))))`, and `S` the identity, a resize, or a projection where shapes change.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, one_hot, silu

from sfumato.denoise.networks.network import Network, seeded, zeroed
from sfumato.errors import ArgumentError

_CHOICES = {"family": ("song", "adm"), "noise": ("waves", "random-waves"), "encoder": ("plain", "residual")}
_HEAD = 64
"""Channels of a head of `adm`."""


@dataclass(frozen=True)
class EDMForm:
    """What an `EDMUNet` is beside the sizes of its events.

    Arguments:
        family: `song` or `adm`.
        width: channels that the multipliers count in.
        multipliers: of the width, per level; every level halves the resolution.
        blocks: residual blocks per level on the way down; there is one more on the way up.
        attention: resolutions with self-attention; the lowest has some in any case.
        embedding: the embedding's size, in widths.
        augment: how many numbers tell the network how its input was augmented in training; 0 for none.
        noise: `waves` (fixed, geometric frequencies) or `random-waves` (Gaussian ones). `adm` has `waves`.
        noise_width: the number of waves, in widths, of `song`.
        encoder: `plain`, or `residual`: the input comes in again at every level. `adm` is `plain`.
        taps: the filter that resizes, normalised on use; `adm` has `[1, 1]`.

    Raises:
        ArgumentError: a choice that there is not, sizes that are not positive, a filter of odd length.
    """

    family: str
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...] = ()
    embedding: int = 4
    augment: int = 0
    noise: str = "waves"
    noise_width: int = 1
    encoder: str = "plain"
    taps: tuple[int, ...] = (1, 1)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ArgumentError(f"options.{name}", repr(getattr(self, name)), f"one of {', '.join(choices)}")
        for name, least in {"width": 1, "blocks": 1, "embedding": 1, "augment": 0, "noise_width": 1}.items():
            if getattr(self, name) < least:
                raise ArgumentError(f"options.{name}", getattr(self, name), f"at least {least}")
        for name in ("multipliers", "attention", "taps"):
            if any(n < 1 for n in getattr(self, name)):
                raise ArgumentError(f"options.{name}", getattr(self, name), "positive numbers")
        if not self.multipliers or len(self.taps) % 2 or not self.taps:
            raise ArgumentError("options.multipliers, taps", (self.multipliers, self.taps), "at least one level, an even number of taps")
        if self.width * self.noise_width % 4:
            raise ArgumentError("options.width", self.width, "a multiple of 4")
        if self.adm and (self.noise, self.noise_width, self.encoder, self.taps) != ("waves", 1, "plain", (1, 1)):
            raise ArgumentError("options", "another noise, noise_width, encoder or taps", "the standard ones with the family adm")

    @classmethod
    def of(cls, options: dict[str, Any]) -> EDMForm:
        """The form of plain data: the arguments by name, lists for tuples."""
        known = {f.name: f.type for f in fields(cls)}
        needed = [f.name for f in fields(cls) if f.default is MISSING]
        if not set(needed) <= set(options) <= set(known):
            raise ArgumentError("options", sorted(options), f"{', '.join(needed)} and any of {', '.join(known)}")
        for name, value in options.items():
            numbers = value if isinstance(value, list | tuple) else [value]
            several, kind = "tuple" in str(known[name]), str if known[name] == "str" else int
            if several != isinstance(value, list | tuple) or not all(type(n) is kind for n in numbers):
                raise ArgumentError(f"options.{name}", repr(value)[:60], f"a list of {kind.__name__}" if several else kind.__name__)
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        return cls(**plain)

    @property
    def adm(self) -> bool:
        """Whether the family is `adm`."""
        return self.family == "adm"

    def norm(self, channels: int) -> nn.GroupNorm:
        """At most 32 groups of at least 4 channels."""
        if channels % (groups := min(32, channels // 4)):
            raise ArgumentError("options.width", channels, f"channels divisible into {groups} groups, e.g. multiples of 32")
        return nn.GroupNorm(groups, channels, eps=1e-5 if self.adm else 1e-6)

    def heads(self, channels: int) -> int:
        """Heads of self-attention; narrow layers of `adm` have none."""
        return channels // _HEAD if self.adm else 1


class _Waves(nn.Module):
    """`sin` and `cos` of `c_noise` times frequencies: `1e4^(-i/n)`, or `2 pi f` with `f` of deviation 16, which are saved."""

    def __init__(self, form: EDMForm) -> None:
        super().__init__()
        self.adm, self.random = form.adm, form.noise == "random-waves"
        half = form.width * form.noise_width // 2
        powers = torch.arange(half, dtype=torch.float32) / (half if form.adm else half - 1)
        self.frequencies: Tensor
        self.register_buffer("frequencies", 16 * torch.randn(half) if self.random else 1e-4**powers, persistent=self.random)

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies.to(c_noise) * (2 * math.pi if self.random else 1.0)
        waves = (torch.cos(angles), torch.sin(angles))
        return torch.cat(waves if self.adm else waves[::-1], dim=1)


class _Resize(nn.Module):
    """Half or twice the resolution, by the separable filter of given taps; `margin` zeros are thought beyond each edge."""

    def __init__(self, taps: tuple[int, ...], factor: int | float, margin: int) -> None:
        super().__init__()
        line = torch.tensor(taps, dtype=torch.float32) / sum(taps) * (2 if factor > 1 else 1)
        self.enlarges, self.margin = factor > 1, margin
        self.filter: Tensor
        self.register_buffer("filter", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        kernel = self.filter.to(h.dtype).expand(h.shape[1], 1, -1, -1)
        apply = conv_transpose2d if self.enlarges else conv2d
        return apply(h, kernel, stride=2, padding=self.margin, groups=h.shape[1])


def _side_entry(before: int, after: int, taps: tuple[int, ...]) -> nn.Sequential:
    """A convolution at full resolution, continued past the edges as far as the filter sees, which then pads nothing."""
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=len(taps) // 2), _Resize(taps, 0.5, margin=0))


class _Attention(nn.Module):
    """Self-attention over the pixels."""

    def __init__(self, channels: int, form: EDMForm) -> None:
        super().__init__()
        self.heads = form.heads(channels)
        if channels % self.heads:
            raise ArgumentError("options.width", channels, f"channels divisible among {self.heads} heads")
        self.norm = form.norm(channels)
        self.mix, self.last = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        batch, channels = h.shape[:2]
        q, k, v = self.mix(self.norm(h)).reshape(batch, self.heads, channels // self.heads, 3, -1).unbind(3)
        # the plain formula rather than a fused kernel: it has derivatives of every mode and order
        precise = torch.promote_types(h.dtype, torch.float32)
        share = torch.softmax((q.mT @ k).to(precise) / math.sqrt(q.shape[2]), dim=-1).to(h.dtype)
        return self.last((v @ share.mT).reshape(h.shape))


class _Block(nn.Module):
    """The residual block of the module's table; `factor` is what it does to the resolution."""

    def __init__(self, before: int, after: int, form: EDMForm, factor: int | float = 1, attention: bool = False) -> None:
        super().__init__()
        self.adm, self.gain = form.adm, 1.0 if form.adm else math.sqrt(0.5)
        self.resize = nn.Identity() if factor == 1 else _Resize(form.taps, factor, len(form.taps) // 2 - 1)
        self.norm1, self.conv1 = form.norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.film = nn.Linear(form.width * form.embedding, after * (2 if form.adm else 1))
        self.norm2, self.conv2 = form.norm(after), nn.Conv2d(after, after, 3, padding=1)
        projected = before != after or (factor != 1 and not form.adm)
        self.skip = nn.Conv2d(before, after, 1) if projected else nn.Identity()
        self.attention = _Attention(after, form) if attention and form.heads(after) else None

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        inner, film = self.conv1(self.resize(silu(self.norm1(h)))), self.film(e)[:, :, None, None]
        if self.adm:
            scale, shift = film.chunk(2, dim=1)
            inner = self.norm2(inner) * (1 + scale) + shift
        else:
            inner = self.norm2(inner + film)
        h = self.gain * (self.skip(self.resize(h)) + self.conv2(silu(inner)))
        return h if self.attention is None else self.gain * (h + self.attention(h))


class EDMUNet(Network):
    """DDPM++, NCSN++ or ADM in our calling convention; it computes in its own dtype, whatever that of its input.

    No class is the zero vector, as in Karras et al.: what it means to a network that was never trained without classes is unknown.
    Dropout, a matter of training, is left out.

    Arguments:
        event_shape: `(channels, size, size)`, the size divisible by 2 per level.
        options: the arguments of `EDMForm`, by name.
        classes: the number of classes, or None for an unconditional network.
        seed: of the initial weights; the last layer starts at zero.

    Raises:
        ArgumentError: events that are no square images of such a size, or options that `EDMForm` does not have or refuses.
    """

    kind = "edm-unet"
    arguments = ("options",)

    def __init__(self, event_shape: tuple[int, ...], options: dict[str, Any], classes: int | None = None, seed: int = 0) -> None:
        super().__init__(event_shape, classes)
        self.options = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
        self.form = EDMForm.of(options)
        unit = 2 ** (len(self.form.multipliers) - 1)
        if len(self.event_shape) != 3 or self.event_shape[1] != self.event_shape[2] or self.event_shape[1] % unit:
            raise ArgumentError("event_shape", self.event_shape, f"(channels, size, size), the size divisible by {unit}")
        with seeded(seed):
            self._embedding(self.form)
            self._levels(self.form)

    def _embedding(self, form: EDMForm) -> None:
        waves, size = form.width * form.noise_width, form.width * form.embedding
        self.waves = _Waves(form)
        self.augment = nn.Linear(form.augment, waves, bias=False) if form.augment else None
        self.embed1, self.embed2 = nn.Linear(waves, size), nn.Linear(size, size)
        # a class is one column; Song et al. scale it by the square root of their number, and add a constant to all
        self.table = None if self.classes is None else nn.Linear(self.classes, size if form.adm else waves, bias=not form.adm)

    def _levels(self, form: EDMForm) -> None:
        """The layers, by resolution: `down` halves and keeps, `up` enters, doubles and joins what was kept."""
        size, widths = self.event_shape[1], [form.width * m for m in form.multipliers]
        channels = widths[0] if form.adm else form.width
        self.first = nn.Conv2d(self.event_shape[0], channels, 3, padding=1)
        self.down, self.side, self.up = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        kept, aside = [channels], self.event_shape[0]
        for level, width in enumerate(widths):
            here = size >> level
            if level:
                self.down[f"{here}_halve"] = _Block(channels, channels, form, factor=0.5)
                if form.encoder == "residual":
                    self.side[f"{here}_halve"] = _side_entry(aside, channels, form.taps)
                    aside = channels
                kept.append(channels)
            for i in range(form.blocks):
                self.down[f"{here}_keep{i}"] = _Block(channels, width, form, attention=here in form.attention)
                channels = width
                kept.append(channels)
        for level, width in reversed(list(enumerate(widths))):
            here = size >> level
            if level == len(widths) - 1:
                self.up[f"{here}_enter0"] = _Block(channels, channels, form, attention=True)
                self.up[f"{here}_enter1"] = _Block(channels, channels, form)
            else:
                self.up[f"{here}_double"] = _Block(channels, channels, form, factor=2)
            for i in range(form.blocks + 1):
                attends = here in form.attention and (form.adm or i == form.blocks)
                self.up[f"{here}_join{i}"] = _Block(channels + kept.pop(), width, form, attention=attends)
                channels = width
        self.norm, self.last = form.norm(channels), zeroed(nn.Conv2d(channels, self.event_shape[0], 3, padding=1))

    def _embed(self, c_noise: Tensor, rows: Tensor | None, augment: Tensor | None) -> Tensor:
        e, adm = self.waves(c_noise), self.form.adm
        label: Tensor | float = 0.0
        if self.table is not None and rows is not None:
            classes = self.table.in_features
            # the row of "no class" is one past the last column
            label = self.table(one_hot(rows, classes + 1)[:, :classes].to(e) * (1.0 if adm else math.sqrt(classes)))
        if self.augment is not None and augment is not None:
            e = e + self.augment(augment.to(e))
        e = self.embed2(silu(self.embed1(e if adm else e + label)))
        return silu(e + label if adm else e)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        c_noise: Float[Tensor, "batch"],
        condition: Int[Tensor, "batch"] | None = None,
        augment: Float[Tensor, "batch numbers"] | None = None,
    ) -> Float[Tensor, "batch *event"]:
        own = self.first.weight.dtype
        x = x.to(own)
        e = self._embed(c_noise.to(own), self.labels(condition, x.shape[0], x.device), augment)
        h, aside = self.first(x), x
        kept = [h]
        for name, block in self.down.items():
            h = block(h, e)
            if name in self.side:
                h = aside = math.sqrt(0.5) * (h + self.side[name](aside))
            kept.append(h)
        for name, block in self.up.items():
            h = block(torch.cat([h, kept.pop()], dim=1) if "join" in name else h, e)
        return self.last(silu(self.norm(h)))
