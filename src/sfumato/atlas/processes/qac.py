"""073: learned quantised conditions. Left out: images, and more than 3 bits."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.denoise import ResidualMLP
from sfumato.denoise.networks.network import seeded
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.learn import FitSettings
from sfumato.learn.forward.quantised_conditions import CodedVelocity, CodeHistogram, Codes, fit_coded
from sfumato.metrics import energy_distance
from sfumato.noise import FlowMatching
from sfumato.seeds import noise

F64 = torch.float64
_BITS = (0, 1, 2, 3)
_CARD_EXACT, _CARD_TRAINED, _LIMITS = (3.70, 2.45, 1.21, 0.445), (3.757, 2.739, 1.722, 1.277), (3.9, 3.0, 2.0, 1.6)


def _ring(components: Sequence[int] = range(8)) -> GaussianMixture:
    angle = torch.tensor(components, dtype=F64) * torch.pi / 4
    means = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(None, means, [SpectralCovariance.isotropic(2, 0.14**2)] * len(angle))


def _least_loss(components: Sequence[int]) -> float:
    """`E int tr Cov(eps - x_0 | x_t) dt`, with `Cov(eps - x_0 | x_t) = Cov(x_0 | x_t) / t^2`, by Gauss-Legendre in `t` and draws."""
    import numpy as np

    process, law, total = FlowMatching(), _ring(components), 0.0
    clean, eps = law.sample(300, 1), noise(5, 300, (2,), dtype=F64).draw(7)
    for node, weight in zip(*np.polynomial.legendre.leggauss(16), strict=True):
        t = (float(node) + 1) / 2
        spread = law.posterior_covariance(process.sample(clean, t, eps), process, t)
        total += float(weight) / 2 * float(spread.diagonal(dim1=1, dim2=2).sum(1).mean()) / t**2
    return total


def ideal_codes() -> Iterable[Check]:
    """Check 1, exact: codes that are the leading bits of the component's place on the ring."""
    values = [_least_loss(range(8 >> bits)) for bits in _BITS]
    for bits, value, card in zip(_BITS, values, _CARD_EXACT, strict=True):
        yield close(f"least loss with {bits} ideal bits", value, card, relative=0.05)
    yield at_most("least loss with the first bit, over none", values[1] / values[0], 0.75)
    mixed = sum(_least_loss(part) for part in ((0, 2, 4, 6), (1, 3, 5, 7))) / 2
    yield control(at_most("least loss with the last bit, every other component, over none", mixed / values[0], 0.75))


class _Encoder(nn.Module):
    """Two layers to the bits; `kind` "frozen" never learns, "random" says bits that have nothing to do with the data."""

    def __init__(self, bits: int, kind: str) -> None:
        super().__init__()
        self.bits, self.kind, self.source = bits, kind, torch.Generator().manual_seed(6)
        with seeded(bits):
            last = nn.Linear(16, max(1, bits))
            self.net = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), last)
        if kind == "frozen" or not bits:
            nn.init.zeros_(last.weight)
        self.net.requires_grad_(kind == "learned" and bits > 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "random":
            return torch.randn(len(x), self.bits, generator=self.source)
        out: Tensor = self.net(x)
        return out


@functools.cache
def _trained(bits: int, kind: str = "learned") -> tuple[float, dict[int, float], int]:
    """The loss on fresh data, the energy distance by steps with codes from the histogram, and the codes in use."""
    data, test = _ring().sample(8000, 0).float(), _ring().sample(2000, 1).float()
    codes = Codes(_Encoder(bits, kind))
    velocity = CodedVelocity(ResidualMLP((2 + max(1, bits),), 64, 2), codes)
    fit_coded(velocity, data, FitSettings(500, 128, 5e-3, warmup=20, ema_decay=0.98))
    source = torch.Generator().manual_seed(4)
    with torch.no_grad():
        histogram = CodeHistogram(codes(data))
        loss = float(velocity.loss(test.repeat(20, 1), torch.Generator().manual_seed(3)).mean())
    start, drawn = torch.randn(2000, 2, generator=source), histogram.draw(2000, source)
    return loss, {n: energy_distance(velocity.sample(start, drawn, n), test).value for n in (2, 50)}, len(histogram)


def learned_codes() -> Iterable[Check]:
    """Checks 1 to 3, trained: 500 steps on the ring."""
    for bits, card, limit in zip(_BITS, _CARD_TRAINED, _LIMITS, strict=True):
        yield at_most(f"loss with {bits} learned bits (card: {card})", _trained(bits)[0], limit)
    none, all_bits = _trained(0), _trained(3)
    yield at_most("2 Euler steps: energy distance, 3 bits over none (card: 0.14)", all_bits[1][2] / none[1][2], 0.25)
    yield at_least("codes in use of 8 (card: 6)", all_bits[2], 4)
    yield at_most("50 Euler steps: energy distance with 3 bits (card: 0.0076; none: 0.0009)", all_bits[1][50], 0.03)
    for kind, name in (("random", "random codes"), ("frozen", "no gradient to the encoder")):
        yield control(at_most(f"{name}: loss with 3 bits", _trained(3, kind)[0], _LIMITS[3]))
        yield control(at_most(f"{name}: energy distance of 2 steps, over none", _trained(3, kind)[1][2] / none[1][2], 0.25))


@functools.cache
def _by_bits() -> tuple[list[float], list[float]]:
    """The least loss by ideal bits; and if a bit tells nothing of the side, the components being split evenly."""
    return [_least_loss(range(8 >> bits)) for bits in _BITS], [_least_loss(range(0, 8, 2**bits)) for bits in _BITS]


def figure(ax: Any) -> None:
    """The loss that no network can go below, by how many bits about the data it is told, on a ring of eight modes. It is what bends the
    paths. Bits that name the side of the ring first cut it at once; bits that name every other mode first cut it late.
    """
    for values, colour, label in zip(_by_bits(), ("C0", "C1"), ("side of the ring first", "every other mode first"), strict=True):
        ax.plot(_BITS, values, "o-", color=colour, label=label)
    ax.set(xlabel="bits", ylabel="least loss", ylim=(0, None), xticks=_BITS)
    ax.legend()


ROW = Row(
    id="073",
    slug="qac",
    title="Learning Quantized Adaptive Conditions for Diffusion Models",
    authors="Yuchen Liang, Yuchuan Tian, Lei Yu, Huao Tang, Jie Hu, Xiangzhong Fang, Hanting Chen",
    year=2024,
    arxiv="2409.17487",
    claim=(
        "A few learned bits about the data point, drawn from their histogram, cut the loss that no network can go below, which bends"
        " trajectories: on a ring of eight modes three bits take two Euler steps to a part of the distance without. With 50 steps"
        " little of that is left. Image FIDs were not measured."
    ),
    reproduced="partly",
    checks=(ideal_codes, learned_codes),
    figure=figure,
)
