"""117: diffusion models without attention. Left out: images (29 layers, 673M weights) and the learned variance."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, control
from sfumato.denoise.networks.network import seeded
from sfumato.denoise.networks.state_space import StateSpaceLayer, StateSpaceNet
from sfumato.denoise.operations import operations
from sfumato.learn import FitSettings
from sfumato.learn.training.descent import descend
from sfumato.metrics import fit_rate

_LENGTH, _LENGTHS = 48, (256, 1024, 4096)


def recurrence() -> Iterable[Check]:
    """Check 2: the convolution by transforms is the recurrence."""
    with seeded(0), torch.no_grad():
        layer, u = StateSpaceLayer(24), torch.randn(4, 64, 24)
        whole = layer.scan(u)
        yield at_most("convolution against recurrence (card: 1e-6)", float((layer(u) - whole).abs().max()), 1e-5)
        spectrum = torch.fft.rfft(u, dim=1) * torch.fft.rfft(layer.kernel(64), 64).T
        wrapped = torch.fft.irfft(spectrum, 64, dim=1) + layer.passed * u
        yield control(at_most("transforms without zeros behind: error", float((wrapped - whole).abs().max()), 1e-5))


def _seconds(function: Callable[[], object]) -> float:
    def once() -> float:
        start = time.process_time()
        function()
        return time.process_time() - start

    return min(once() for _ in range(3))


def cost() -> Iterable[Check]:
    """Check 3 and half of 4: how the cost grows with the length, and what the hourglass saves."""
    with seeded(0), torch.no_grad():
        layer, tokens = StateSpaceLayer(24, 8), [torch.randn(1, n, 24) for n in _LENGTHS]

        def attention(x: Tensor) -> Tensor:
            return torch.softmax(x @ x.transpose(1, 2), 2) @ x

        counts = [[operations(f, x) for x in tokens] for f in (layer, attention)]
        yield at_most("operations of a state-space layer, slope in the length", fit_rate(_LENGTHS, counts[0]).slope, 1.3)
        yield control(at_most("operations of attention, slope in the length", fit_rate(_LENGTHS, counts[1]).slope, 1.3))
        spent = [_seconds(functools.partial(f, tokens[-1])) for f in (layer, attention)]
        yield at_least("seconds at 4,096 tokens, attention over state space", spent[1] / spent[0], 1.0)
        nets = [StateSpaceNet((1, 256), 256, 2, ratio, 8) for ratio in (1, 2)]
        plain, halved = (operations(net, torch.zeros(1, 1, 256), torch.zeros(1)) for net in nets)
        yield at_most("operations at width 256, hourglass of 2 over 1 (dense layers alone: 5/7)", halved / plain, 0.75)


@functools.cache
def _world() -> tuple[Tensor, Tensor, float]:
    """The covariance of AR(1) sequences of correlation 0.9, the Wiener smoother for noise 1, and the best causal filter's error."""
    place = torch.arange(_LENGTH, dtype=torch.float64)
    covariance = 0.9 ** (place[:, None] - place).abs()
    noisy = covariance + torch.eye(_LENGTH, dtype=torch.float64)
    gains = [torch.linalg.solve(noisy[: j + 1, : j + 1], covariance[j, : j + 1]) @ covariance[j, : j + 1] for j in range(_LENGTH)]
    return covariance, covariance @ torch.linalg.inv(noisy), float(1 - sum(gains) / _LENGTH)


def _batch(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    clean = torch.randn(n, 1, _LENGTH, generator=generator) @ torch.linalg.cholesky(_world()[0]).float().T
    return clean, clean + torch.randn(n, 1, _LENGTH, generator=generator)


@functools.cache
def _error(ratio: int, directions: int) -> float:
    """The mean square error of a trained network over the Wiener smoother's, on the same 2,000 sequences."""
    net = StateSpaceNet((1, _LENGTH), 24, 2, ratio, 8, directions)

    def objective(generator: torch.Generator) -> Tensor:
        clean, noisy = _batch(64, generator)
        return (net(noisy, torch.zeros(64)) - clean).square().mean()

    descend(net, objective, FitSettings(150, 64, 1e-2, warmup=20, ema_decay=0.98))
    clean, noisy = _batch(2000, torch.Generator().manual_seed(99))
    with torch.no_grad():
        said = net(noisy, torch.zeros(2000))
    return float((said - clean).square().mean() / (noisy @ _world()[1].float().T - clean).square().mean())


def smoothing() -> Iterable[Check]:
    """Check 1 and half of 4: AR(1) sequences of 48, noise 1; the least possible errors are known, all seen and the past seen."""
    covariance, smoother, causal = _world()
    least = float((covariance - smoother @ covariance).diagonal().mean())
    both = _error(1, 2)
    yield at_most("both ways: error over the Wiener smoother's (card: 1.013)", both, 1.05)
    yield control(at_most("one way: error over the Wiener smoother's (card: 1.39)", _error(1, 1), 1.05))
    yield at_least("one way: error over the best causal filter's (card: 1.002)", _error(1, 1) * least / causal, 0.98)
    yield at_most("hourglass of 2: error over that of 1", _error(2, 2) / both, 1.03)


_SHOWN = (64, 128, 256, 512, 1024, 2048)


@functools.cache
def _growth() -> tuple[list[int], list[int]]:
    with seeded(0), torch.no_grad():
        layer, tokens = StateSpaceLayer(24, 8), [torch.randn(1, n, 24) for n in _SHOWN]
        return [operations(layer, x) for x in tokens], [operations(lambda x: torch.softmax(x @ x.mT, 2) @ x, x) for x in tokens]


def figure(ax: Any) -> None:
    """Operations of one layer by the length of the sequence: those of a state-space scan grow as the length, those of attention as its
    square.
    """
    for values, colour, label in zip(_growth(), ("C0", "C1"), ("state space", "attention"), strict=True):
        ax.plot(_SHOWN, values, "o-", color=colour, label=label)
    ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel="operations")
    ax.legend()


ROW = Row(
    id="117",
    slug="diffussm",
    title="Diffusion Models Without Attention",
    authors="Jing Nathan Yan, Jiatao Gu, Alexander M. Rush",
    year=2023,
    arxiv="2311.18257",
    claim=(
        "Two state-space scans see a whole sequence at a cost that grows as its length, and come within a few percent of the best possible"
        " denoiser of AR(1) sequences, which one scan cannot; an hourglass of 2 costs 3/4 of one of 1, for 2 percent of error. That images"
        " come out as with attention was not measured."
    ),
    reproduced="partly",
    checks=(recurrence, cost, smoothing),
    figure=figure,
)
