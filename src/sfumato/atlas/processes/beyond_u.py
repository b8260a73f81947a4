"""031: U-nets whose blocks are differential equations. Left out: larger images, seconds per call, an adaptive solver."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, control, holds
from sfumato.data import digits
from sfumato.denoise import ConvNet, Network
from sfumato.denoise.networks.dynamical_system import ContinuousUNet, DynamicBlock
from sfumato.denoise.networks.network import seeded
from sfumato.denoise.operations import operations
from sfumato.learn import FitSettings
from sfumato.learn.training.descent import descend, normal, pick_rows

F64 = torch.float64


def _gradient_gap(steps: int) -> float:
    """The largest relative distance between the adjoint's gradients and backpropagation's."""
    found = []
    for adjoint in (True, False):
        with seeded(0):
            block = DynamicBlock(8, 4, steps, "rk4", adjoint=adjoint).to(F64)
            h, e = torch.randn(2, 8, 4, 4, dtype=F64).requires_grad_(), torch.randn(2, 4, dtype=F64).requires_grad_()
        found.append(torch.autograd.grad(block(h, e).square().sum(), [h, e, *block.parameters()]))
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True))


def gradients() -> Iterable[Check]:
    """The adjoint and backpropagation agree as steps get fine."""
    gap = {n: _gradient_gap(n) for n in (1, 8, 16)}
    yield at_most("16 steps of order 4: adjoint against backpropagation", gap[16], 1e-4)
    yield at_least("8 to 16 steps: the difference falls by", gap[8] / gap[16], 12)
    yield control(at_most("1 step: adjoint against backpropagation", gap[1], 1e-4))


def _loss(net: Network, clean: Tensor, generator: torch.Generator) -> Tensor:
    """The mean square error of the predicted noise, `t` even, on the circle `cos, sin`."""
    angle = torch.rand(len(clean), 1, 1, 1, generator=generator) * math.pi / 2
    eps = normal(clean, generator)
    said: Tensor = net(angle.cos() * clean + angle.sin() * eps, 10 / math.pi * angle.flatten() - 2.5)
    return (said - eps).square().mean()


@functools.cache
def _trained(name: str) -> tuple[Network, float]:
    """A network after 120 steps, and its loss on the test digits."""
    nets: dict[str, Network] = {
        "continuous": ContinuousUNet((1, 8, 8), 16),
        "no span": ContinuousUNet((1, 8, 8), 16, span=0),
        "residual": ConvNet((1, 8, 8), 24, 1),
        "small residual": ConvNet((1, 8, 8), 8, 1),
    }
    net, data = nets[name], digits()

    def objective(generator: torch.Generator) -> Tensor:
        return _loss(net, data.train[pick_rows(len(data.train), 64, generator)], generator)

    descend(net, objective, FitSettings(120, 64, 4e-3, warmup=20, ema_decay=0.98))
    with torch.no_grad():
        return net, float(_loss(net, data.test.repeat(10, 1, 1, 1), torch.Generator().manual_seed(1)))


def _size(net: Network) -> int:
    return sum(p.numel() for p in net.parameters())


def _cost(net: Network) -> int:
    return operations(net, torch.zeros(1, 1, 8, 8), torch.zeros(1))


def parameters() -> Iterable[Check]:
    """Digits, 120 steps: fewer parameters than a residual network, and what they cost."""
    (mine, loss), (base, best) = _trained("continuous"), _trained("residual")
    (small, small_loss), (_, still) = _trained("small residual"), _trained("no span")
    yield at_most("parameters over the residual network's", _size(mine) / _size(base), 0.3)
    yield holds(
        "loss over the residual network's", loss / best, "1.15 or less on the card, which does not come out", 1.0 < loss / best < 1.3
    )
    yield at_most("loss over that of blocks without span", loss / still, 0.85)
    yield control(at_most("no span: loss over the residual network's", still / best, 1.3))
    yield at_most("operations over the residual network's (paper: 0.3)", _cost(mine) / _cost(base), 0.7)
    yield at_most("a residual network of the same size: loss over the continuous one's", small_loss / loss, 1.0)
    yield at_most("a residual network of the same size: operations over the continuous one's", _cost(small) / _cost(mine), 0.25)


def refinement() -> Iterable[Check]:
    """The trained network with finer steps: how nearly its 3 steps solve an equation."""
    net, _ = _trained("continuous")
    clean = digits().test[:100]
    noisy = math.sqrt(0.5) * (clean + normal(clean, torch.Generator().manual_seed(2)))
    blocks = [m for m in net.modules() if isinstance(m, DynamicBlock)]

    def answer(steps: int) -> Tensor:
        for block in blocks:
            block.steps = steps
        with torch.no_grad():
            return net(noisy, torch.zeros(100))

    by = {n: answer(n) for n in (3, 6, 12, 24, 48)}
    answer(3)
    moved = {n: float((by[n] - by[2 * n]).norm() / by[48].norm()) for n in (3, 12, 24)}
    yield at_most("12 to 24 over 24 to 48 steps, a first-order solver halves: within", abs(moved[12] / moved[24] - 2), 0.2)
    far = float((by[3] - by[12]).norm() / by[12].norm())
    yield holds("3 to 12 Euler steps: relative change", far, "below 0.02 on the card, which does not come out", 0.02 < far < 0.5)


@functools.cache
def _sizes() -> dict[str, list[tuple[int, int]]]:
    """Parameters and operations of networks of rising width."""
    continuous = [ContinuousUNet((1, 8, 8), width) for width in (8, 16, 32)]
    residual = [ConvNet((1, 8, 8), width, 1) for width in (8, 16, 32)]
    return {name: [(_size(n), _cost(n)) for n in nets] for name, nets in (("continuous", continuous), ("residual", residual))}


def figure(ax: Any) -> None:
    """What networks of three widths cost. Blocks that integrate an equation need few parameters, but at the same number of parameters a
    residual network needs far fewer operations.
    """
    for name, colour, label in (("continuous", "C0", "blocks that integrate an equation"), ("residual", "C1", "residual blocks")):
        ax.plot(*zip(*_sizes()[name], strict=True), "o-", color=colour, label=label)
    ax.set(xscale="log", yscale="log", xlabel="parameters", ylabel="operations a call")
    ax.legend()


ROW = Row(
    id="031",
    slug="beyond-u",
    title="Beyond U: Making Diffusion Models Faster & Lighter",
    authors="Sergio Calvo-Ordonez, Jiahao Huang, Lipei Zhang, Guang Yang, Carola-Bibiane Schönlieb, Angelica I. Aviles-Rivero",
    year=2023,
    arxiv="2310.20092",
    claim=(
        "Blocks that integrate an equation make a network an eighth of a residual one's size, with more loss on the digits; a residual"
        " network as small has no more loss at a fifth of the operations. Fewer parameters or operations for one loss do not show here."
    ),
    reproduced="no",
    checks=(gradients, parameters, refinement),
    figure=figure,
)
