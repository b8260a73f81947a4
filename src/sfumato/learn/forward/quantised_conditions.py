r"""A few learned bits about the data point as a condition, so that the flow of each code is straighter than the flow of all.

    c = q(u) (gradients as of u),    u = tanh(E(x_0)),    L = E |v(x_t, t, c) - (eps - x_0)|^2,    x_t = (1 - t) x_0 + t eps,

with `q` one of `levels` even numbers from -1 to 1. The encoder `E` and the velocity descend the one loss; no term holds the codes
back, for codes of a few bits are drawn from their own histogram. By the law of total variance the least loss
`V(c) = E int tr Cov(eps - x_0 | x_t, c) dt` is at most the `V` without codes, and it is what bends trajectories. Code 0 stands for none.

Source: Liang et al. 2024 (arXiv 2409.17487), section 3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sfumato.denoise import Network
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.learn.training.descent import descend, normal, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.noise import over_events


class Codes(nn.Module):
    """The encoder with its quantiser.

    Arguments:
        encoder: events to `(n, symbols)`.
        levels: of a symbol, at least 2 (bits).
    """

    def __init__(self, encoder: nn.Module, levels: int = 2) -> None:
        super().__init__()
        if levels < 2:
            raise ArgumentError("levels", levels, "at least 2")
        self.encoder, self.levels = encoder, levels

    def forward(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n symbols"]:
        """`c`, with the gradients of `u`."""
        u = torch.tanh(self.encoder(x))
        gap = 2 / (self.levels - 1)
        # the cell's number is clamped at the end u = 1, which belongs to the last cell
        cell = torch.floor((u.detach() + 1) / 2 * self.levels).clamp(max=self.levels - 1)
        return u + (cell * gap - 1 - u).detach()


class CodeHistogram:
    """How often each code occurs in the data: what sampling draws codes from.

    Arguments:
        codes: of the data, as `Codes` gives them (after training, with the averaged weights).
    """

    def __init__(self, codes: Float[Tensor, "n symbols"]) -> None:
        if not codes.numel():
            raise DataError("codes", f"codes of shape {tuple(codes.shape)}", "at least one code of at least one symbol")
        self.values, self.counts = torch.unique(codes.detach(), dim=0, return_counts=True)

    def __len__(self) -> int:
        """How many codes are in use."""
        return len(self.counts)

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, "n symbols"]:
        """`n` codes, independent."""
        return self.values[torch.multinomial(self.counts.double(), n, replacement=True, generator=generator)]


class AutoregressiveCodes(nn.Module):
    """A prior for many bits: `p(c) = prod_i sigmoid(+-logit_i(c_1 ... c_{i-1}))`, every logit a small network of the bits before.

    Arguments:
        symbols: bits of a code.
        width: of each network's hidden layer.
    """

    def __init__(self, symbols: int, width: int = 32) -> None:
        super().__init__()
        if symbols < 1 or width < 1:
            raise ArgumentError("symbols, width", (symbols, width), "at least 1 each")
        self.symbols = symbols
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(max(1, i), width), nn.SiLU(), nn.Linear(width, 1)) for i in range(symbols))

    def log_prob(self, codes: Float[Tensor, "n symbols"]) -> Float[Tensor, "n"]:
        """`log p(c)` of codes of -1 and 1."""
        return torch.stack([nn.functional.logsigmoid(codes[:, i] * self._logit(codes, i)) for i in range(self.symbols)]).sum(0)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, "n symbols"]:
        """`n` codes, bit after bit."""
        codes = torch.zeros(n, self.symbols)
        for i in range(self.symbols):
            codes[:, i] = torch.where(torch.rand(n, generator=generator) < torch.sigmoid(self._logit(codes, i)), 1.0, -1.0)
        return codes

    def _logit(self, codes: Tensor, i: int) -> Tensor:
        before = codes[:, :i] if i else torch.zeros_like(codes[:, :1])
        out: Tensor = self.nets[i](before)[:, 0]
        return out


class CodedVelocity(nn.Module):
    """`v(x, t, c)`, a network over the flat event with the code behind it, for `noise.FlowMatching`.

    Arguments:
        network: over events `(dim + symbols,)`; of its answer the first `dim` numbers are read.
        codes: the encoder it is trained with.
    """

    def __init__(self, network: Network, codes: Codes) -> None:
        super().__init__()
        if len(network.event_shape) != 1:
            raise ShapeError("network", network.event_shape, "flat events (dim + symbols,)")
        self.network, self.codes = network, codes

    def forward(self, x: Float[Tensor, "n *event"], t: Float[Tensor, "n"], code: Float[Tensor, "n symbols"]) -> Float[Tensor, "n *event"]:
        seen = torch.cat([x.flatten(1), code], 1)
        if seen.shape[1] != self.network.event_size:
            raise ShapeError("x, code", tuple(seen.shape), f"{self.network.event_size} numbers in all")
        out: Tensor = self.network(seen, 5 * t - 2.5)
        return out[:, : x[0].numel()].reshape(x.shape)

    def loss(self, clean: Float[Tensor, "n *event"], generator: torch.Generator, dropout: float = 0.0) -> Float[Tensor, "n"]:
        """`|v - (eps - x_0)|^2` of events at random times, with the code left out of a share `dropout` of them."""
        code = self.codes(clean)
        kept = torch.rand(len(clean), generator=generator) >= dropout
        eps, t = normal(clean, generator), torch.rand(len(clean), generator=generator, dtype=clean.dtype)
        noisy = clean + over_events(t, clean) * (eps - clean)
        return (self(noisy, t, over_events(kept.to(code), code) * code) - (eps - clean)).square().flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, start: Float[Tensor, "n *event"], code: Float[Tensor, "n symbols"], steps: int) -> Float[Tensor, "n *event"]:
        """Euler's steps of the flow from noise at `t = 1` to 0; `code` from a histogram, a prior, or of a reference: `codes(reference)`."""
        if steps < 1:
            raise ArgumentError("steps", steps, "at least 1")
        x = start
        for i in range(steps, 0, -1):
            x = x - self(x, torch.full((len(x),), i / steps, dtype=x.dtype), code) / steps
        return x


def fit_coded(
    velocity: CodedVelocity,
    data: Float[Tensor, "n *event"],
    settings: FitSettings,
    *,
    dropout: float = 0.0,
    freeze_after: int | None = None,
) -> Tensor:
    """Train velocity and encoder together, in place; the losses `(steps,)`.

    Arguments:
        velocity, data, settings: what, on what, how.
        dropout: the share of examples whose code is withheld.
        freeze_after: steps after which the encoder rests.

    Raises:
        ArgumentError: a dropout that is no probability, a loss that is not finite.
    """
    if not 0 <= dropout <= 1:
        raise ArgumentError("dropout", dropout, "a probability")
    resting = [p for p in velocity.codes.parameters() if p.requires_grad]

    def after(step: int) -> None:
        if freeze_after is not None and step + 1 == freeze_after:
            for p in resting:
                p.requires_grad_(False)

    def objective(generator: torch.Generator) -> Tensor:
        return velocity.loss(data[pick_rows(len(data), settings.batch_size, generator)], generator, dropout).mean()

    try:
        return descend(velocity, objective, settings, after=after)
    finally:
        for p in resting:
            p.requires_grad_(True)


def fit_codes_prior(prior: AutoregressiveCodes, codes: Float[Tensor, "n symbols"], settings: FitSettings) -> Tensor:
    """Maximise the likelihood of codes of -1 and 1, in place; the losses `(steps,)`."""
    if codes.shape[1] != prior.symbols or not bool((codes.abs() == 1).all()):
        raise ShapeError("codes", tuple(codes.shape), f"codes of {prior.symbols} bits, -1 or 1 each")
    return descend(prior, lambda g: -prior.log_prob(codes[pick_rows(len(codes), settings.batch_size, g)]).mean(), settings)


def code_numbers(codes: Float[Tensor, "n symbols"], levels: int = 2) -> Int[Tensor, "n"]:
    """One whole number a code, the first symbol counting most."""
    digits = torch.round((codes + 1) / 2 * (levels - 1)).to(torch.int64)
    return (digits * levels ** torch.arange(codes.shape[1] - 1, -1, -1)).sum(1)
