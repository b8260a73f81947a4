r"""A denoiser for sequences and images without attention: diagonal state-space layers, both ways, inside gated hourglass blocks.

One layer: for every channel `N` complex modes with `A = -exp(a) + i b`, a step `Delta = exp(d)`, output weights `C` and a pass-through `D`,

    h_l = Abar h_{l-1} + Bbar u_l,    y_l = 2 Re sum_n C_n h_l + D u_l,        Abar = e^{A Delta},    Bbar = (e^{A Delta} - 1) / A,

the exact solution of `h' = A h + u` for inputs held over a step. Unrolled it is a convolution with `K_l = 2 Re sum_n C_n Bbar_n Abar_n^l`,
which fast Fourier transforms of length `2L` (zeros behind, or the end would wrap around) do in `O(L log L)`.

A block takes `J` tokens `I` (adaptive scale and shift by the noise level), and works on `M J` finer ones,

    U = act(W_up act(W_0 I)),    Y = [scan(U), flip scan'(flip U)],    I' = act(W_down Y),    I + W_3(act(W_2 I') * act(W_1 I)).

Source: Yan et al. 2023 (arXiv 2311.18257), section 3; the layer is Gu et al. 2022 (arXiv 2206.11893), S4D-Lin.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from sfumato.denoise.networks.network import ConditionedNetwork, seeded, zeroed
from sfumato.errors import ArgumentError


class StateSpaceLayer(nn.Module):
    """The layer of the module's head, over sequences `(batch, length, channels)`; it sees the past and the present.

    Arguments:
        channels: each with modes of its own.
        modes: `N`.
    """

    def __init__(self, channels: int, modes: int = 16) -> None:
        super().__init__()
        if channels < 1 or modes < 1:
            raise ArgumentError("channels, modes", (channels, modes), "at least 1 each")
        self.log_decay = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(modes, dtype=torch.float32).repeat(channels, 1))
        self.log_step = nn.Parameter(torch.empty(channels).uniform_(math.log(1e-3), math.log(1e-1)))
        self.output = nn.Parameter(torch.randn(channels, modes, 2) / math.sqrt(2))
        self.passed = nn.Parameter(torch.randn(channels))

    def _modes(self) -> tuple[Tensor, Tensor]:
        """`A Delta` and `C Bbar`, complex `(channels, modes)`."""
        rate = torch.complex(-torch.exp(self.log_decay), self.frequency)
        moved = rate * torch.exp(self.log_step)[:, None]
        # expm1 for complex numbers: e^x cos y - 1 = expm1(x) cos y - 2 sin^2(y/2), without the difference of near-equals at small steps
        x, y = moved.real, moved.imag
        grown = torch.complex(torch.expm1(x) * torch.cos(y) - 2 * torch.sin(y / 2) ** 2, torch.exp(x) * torch.sin(y))
        return moved, torch.view_as_complex(self.output) * grown / rate

    def kernel(self, length: int) -> Float[Tensor, "channels length"]:
        """`K_0 ... K_{length - 1}`."""
        moved, weight = self._modes()
        powers = torch.exp(moved[..., None] * torch.arange(length, device=moved.device))
        return 2 * torch.einsum("cn,cnl->cl", weight, powers).real

    def forward(self, u: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch length channels"]:
        length = u.shape[1]
        spectrum = torch.fft.rfft(u, 2 * length, dim=1) * torch.fft.rfft(self.kernel(length), 2 * length).T
        return torch.fft.irfft(spectrum, 2 * length, dim=1)[:, :length] + self.passed * u

    def scan(self, u: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch length channels"]:
        """The same by the recurrence, a token at a time, with constant memory."""
        moved, weight = self._modes()
        decay, state, out = torch.exp(moved), torch.zeros_like(moved).expand(len(u), -1, -1), []
        for token in u.unbind(1):
            state = decay * state + token[..., None]
            out.append(2 * (weight * state).sum(-1).real + self.passed * token)
        return torch.stack(out, 1)


class _Hourglass(nn.Module):
    def __init__(self, width: int, ratio: int, modes: int, directions: int, embedding: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.norm, self.film = nn.LayerNorm(width, elementwise_affine=False), zeroed(nn.Linear(embedding, 3 * width))
        self.enter, self.up = nn.Linear(width, width), nn.Linear(width, width * ratio)
        self.scans = nn.ModuleList(StateSpaceLayer(width, modes) for _ in range(directions))
        self.down = nn.Linear(directions * width * ratio, width)
        self.gate, self.mix, self.leave = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, e: Tensor) -> Tensor:
        scale, shift, opened = self.film(e)[:, None].chunk(3, dim=2)
        seen = self.norm(tokens) * (1 + scale) + shift
        batch, coarse, _ = seen.shape
        fine = silu(self.up(silu(self.enter(seen)))).reshape(batch, coarse * self.ratio, -1)
        swept = [scan(fine) if i == 0 else scan(fine.flip(1)).flip(1) for i, scan in enumerate(self.scans)]
        inner = silu(self.down(torch.cat(swept, 2).reshape(batch, coarse, -1)))
        return tokens + (1 + opened) * self.leave(silu(self.mix(inner)) * silu(self.gate(seen)))


class StateSpaceNet(ConditionedNetwork):
    """Tokens in row-major order, one an event's pixel or `ratio` of them, with a learned position each; `depth` blocks; a linear answer.

    Arguments:
        event_shape: `(channels, ...)`; the other axes, flattened, are the sequence, a multiple of `ratio` long.
        width: numbers a token.
        depth: blocks.
        ratio: `M`, fine tokens to a coarse one: dense layers work on coarse tokens, state-space layers on fine ones.
        modes: of a state-space channel.
        directions: 2, or 1 for a network that sees only what comes before.
        classes: the number of classes, or None for an unconditional network.
        seed: of the initial weights.
    """

    kind = "state-space"
    arguments = ("width", "depth", "ratio", "modes", "directions")

    def __init__(
        self,
        event_shape: tuple[int, ...],
        width: int = 24,
        depth: int = 2,
        ratio: int = 1,
        modes: int = 16,
        directions: int = 2,
        classes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(event_shape, classes)
        if len(self.event_shape) < 2:
            raise ArgumentError("event_shape", self.event_shape, "(channels, length) or (channels, height, width)")
        length = self.event_size // self.event_shape[0]
        if ratio < 1 or width < 1 or depth < 1 or length % ratio:
            raise ArgumentError(
                "width, depth, ratio", (width, depth, ratio), f"at least 1 each, and a ratio that divides the length {length}"
            )
        if directions not in (1, 2):
            raise ArgumentError("directions", directions, "1 or 2")
        self.width, self.depth, self.ratio, self.modes, self.directions = width, depth, ratio, modes, directions
        channels = self.event_shape[0] * ratio
        with seeded(seed):
            self.build_conditioning(width)
            self.first = nn.Linear(channels, width)
            self.position = nn.Parameter(torch.zeros(length // ratio, width))
            self.blocks = nn.ModuleList(_Hourglass(width, ratio, modes, directions, width) for _ in range(depth))
            self.norm = nn.LayerNorm(width)
            self.last = zeroed(nn.Linear(width, channels))

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Int[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch *event"]:
        e = self.conditioning(c_noise, condition)
        batch, channels = x.shape[:2]
        pixels = x.flatten(2).transpose(1, 2)
        tokens = self.first(pixels.reshape(batch, -1, channels * self.ratio)) + self.position
        for block in self.blocks:
            tokens = block(tokens, e)
        out: Tensor = self.last(self.norm(tokens))
        return out.reshape(batch, -1, channels).transpose(1, 2).reshape(x.shape)
