"""018: diffusion with momentum. Left out: images, long training."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.atlas.solvers.worlds import g4
from sfumato.data import digits
from sfumato.denoise import MomentumPreconditioned, Preconditioned, ResidualMLP
from sfumato.learn import BoundedWeight, DenoisingLoss, EDMWeight, FitSettings, descend, growing_bound
from sfumato.learn.training.descent import pick_rows
from sfumato.noise import EDM, MomentumDecay, ScalarProcess, damped_decay
from sfumato.sample import RungeKutta, run
from sfumato.sample.compilers.runge_kutta import Over
from sfumato.seeds import noise

F64 = torch.float64


def _rates(t: Tensor) -> tuple[Tensor, Tensor]:
    """`F = s'/s` and `Q = (s^2 k^2)' - 2 F s^2 k^2` by differentiation of `s = exp(-B)(1 + B)`, `B` of `MomentumDecay()`."""
    t = t.clone().requires_grad_()
    clock = 2 * (0.1 * t + 19.9 * t**2 / 2)
    scale = torch.exp(-clock) * (1 + clock)
    variance = (scale * 80 * t) ** 2
    slopes = [torch.autograd.grad(v.sum(), t, retain_graph=True)[0] for v in (scale, variance)]
    drift = slopes[0] / scale.detach()
    return drift, slopes[1] - 2 * drift * variance.detach()


def momentum() -> Iterator[Check]:
    """Descent with momentum on `x^2/2` against the damped oscillator, and the process against its table."""
    eta, steps = 1e-6, 6000
    root = math.sqrt(eta)
    x, v, gap, far = 1.0, 0.0, 0.0, 0.0
    for k in range(1, steps + 1):
        v = (1 - root) ** 2 * v - eta * x
        x = x + v
        gap = max(gap, abs(x - (1 + k * root) * (1 - root) ** k))
        far = max(far, abs(x / ((1 + k * root) * math.exp(-k * root)) - 1))
    yield at_most("descent with momentum against (1 + B)(1 - sqrt(eta))^k", gap, 1e-9)
    yield at_most("relative distance from exp(-B)(1 + B), B to 6", far, 1e-2)
    plain = (1 - eta) ** steps
    yield control(at_most("without momentum: the same", abs(plain / (7 * math.exp(-6)) - 1), 1e-2))
    process, t = MomentumDecay(), torch.linspace(0.05, 0.95, 19, dtype=F64)
    drift, spread = _rates(t)
    off = torch.cat([process.drift(t) / drift, process.diffusion_squared(t) / spread]) - 1
    yield at_most("drift s'/s and noise 2 s^2 k k' against derivatives of s, relative", float(off.abs().max()), 1e-9)


def decay() -> Iterator[Check]:
    """Where momentum overtakes plain decay, and what too little damping does."""
    clock = torch.linspace(0.01, 8, 80_000, dtype=F64)
    scale, _ = damped_decay(clock)
    ahead = (scale < torch.exp(-clock / 2)).nonzero().flatten()
    yield close("the clock at which s crosses exp(-B/2)", float(clock[ahead[0]]), 2.513, absolute=0.005)
    yield at_most("and after it, the largest s exp(B/2)", float((scale * torch.exp(clock / 2))[ahead].max()), 1.0)
    yield at_least("critical damping: the least signal", float(scale.min()), 0.0)
    yield control(at_least("damping 0.3: the same", float(damped_decay(clock, 0.3)[0].min()), 0.0))


def _samples(process: ScalarProcess, over: Over) -> Tensor:
    """40 Heun steps of the exact belief from the noise-to-signal ratio 80 to 0.02."""
    belief = g4().denoiser(process)
    ratios = torch.linspace(80 ** (1 / 7), 0.02 ** (1 / 7), 41, dtype=F64) ** 7
    times = (ratios / 80).clamp(max=1).tolist()
    x = process.sigma(times[0]) * noise(0, 64, (2,), dtype=F64).draw(0)
    ends = run(RungeKutta("heun", over).compile(process, times), belief.denoise, x)
    return ends / process.alpha(times[-1])


def scale_invariance() -> Iterator[Check]:
    """The scale changes nothing for a sampler on the noise-to-signal ratio, and does for one on the scaled state."""
    plain = _samples(EDM(), "ratio")
    for damping in (1.0, 2.0):
        gap = float((_samples(MomentumDecay(multiplier=1.0, damping=damping), "ratio") - plain).abs().max())
        yield at_most(f"damping {damping:g}: samples with the scale against those without", gap, 1e-6)
    scaled = float((_samples(MomentumDecay(multiplier=1.0), "time") - plain).abs().max())
    yield control(at_most("steps of the scaled state: the same", scaled, 1e-6))


@functools.cache
def _loss(momentum: bool, bounded: bool = False) -> float:
    """The validation loss (EDM's weights) on the digits after 150 steps."""
    data, steps = digits(), itertools.count()
    clean, net = data.train, ResidualMLP(tuple(data.train.shape[1:]), 96, 2)
    process: ScalarProcess = MomentumDecay(multiplier=1.0) if momentum else EDM()
    belief = MomentumPreconditioned(net, process) if isinstance(process, MomentumDecay) else Preconditioned(net, process, 0.5)
    weight = EDMWeight(0.5)

    def objective(generator: torch.Generator) -> Tensor:
        loss = DenoisingLoss(BoundedWeight(growing_bound(next(steps), 75), weight) if bounded else weight)
        rows = clean[pick_rows(len(clean), 128, generator)]
        return loss(belief.denoise, process, loss.examples(process, rows, generator)).mean()

    descend(belief, objective, FitSettings(150, learning_rate=3e-3, warmup=20, ema_decay=0.9))
    loss = DenoisingLoss(weight)
    with torch.no_grad():
        examples = loss.examples(process, data.test.repeat(8, 1, 1, 1), torch.Generator().manual_seed(1))
        return float(loss(belief.denoise, process, examples).mean())


def training() -> Iterator[Check]:
    """Digits, 150 steps of one network: validation loss with either input."""
    process, k = MomentumDecay(multiplier=1.0), torch.tensor([0.05, 1.0, 20.0], dtype=F64)
    size = process.alpha(process.time_of_ratio(k)) * torch.sqrt(k**2 + 0.25)
    yield at_least("largest size of the network's input (EDM: 1)", float(size.max()), 5.0)
    plain = _loss(False)
    yield at_least("loss with momentum's scale over EDM's (the paper's claim: below 1)", _loss(True) / plain, 1.0)
    yield at_least("the same with a weight bound that grows", _loss(True, True) / plain, 1.0)


def figure(ax: Any) -> None:
    """What is left of the signal as noise is added: with momentum and critical damping it falls later and then faster than without, and
    with too little damping it overshoots zero.
    """
    clock = torch.linspace(0, 12, 200, dtype=F64)
    kinds = (("momentum, critical damping", damped_decay(clock)[0]), ("no momentum", torch.exp(-clock / 2)))
    for i, (name, scale) in enumerate((*kinds, ("momentum, damping 0.3", damped_decay(clock, 0.3)[0]))):
        ax.plot(clock.tolist(), scale.tolist(), color=f"C{i}", label=name)
    ax.axhline(0, color="grey", linewidth=0.8)
    ax.set(xlabel="noise added so far, B", ylabel="signal left")
    ax.legend()


ROW = Row(
    id="018",
    slug="fdm",
    title="Fast Diffusion Model",
    authors="Zike Wu, Pan Zhou, Kenji Kawaguchi, Hanwang Zhang",
    year=2023,
    arxiv="2306.06991",
    claim="Diffusion read as descent with momentum decays like a critically damped oscillator. Samplers on the noise level are untouched "
    "by it; the faster training of the paper does not show on the digits, where the network sees inputs of uneven size.",
    reproduced="partly",
    checks=(momentum, decay, scale_invariance, training),
    figure=figure,
)
