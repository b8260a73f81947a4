"""093: eight bits without retraining, and what they are calibrated on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, within
from sfumato.data import Dataset, digits
from sfumato.denoise import ResidualMLP, Wrapped
from sfumato.denoise.networks.quantised import QuantisedLayer, affine, quantise
from sfumato.learn import FitSettings
from sfumato.learn.repairs.quantisation_inputs import Inputs, leaning_times, run_inputs
from sfumato.learn.training.descent import descend, normal, pick_rows
from sfumato.metrics import energy_distance
from sfumato.noise import VariancePreserving
from sfumato.sample import Sampler, ddim, uniform_log_snr

PROCESS = VariancePreserving()
PROGRAM = ddim().compile(PROCESS, uniform_log_snr(PROCESS, 25))
CALIBRATION, HELD = 512, 300


@functools.cache
def data() -> Dataset:
    """The digits."""
    return digits()


@functools.cache
def network() -> ResidualMLP:
    """A perceptron that predicts the noise, trained for a few seconds."""
    made, clean = ResidualMLP((1, 8, 8), 128, 3, seed=0), data().train

    def objective(generator: torch.Generator) -> Tensor:
        x = clean[pick_rows(len(clean), 128, generator)]
        t, eps = torch.rand(len(x), generator=generator, dtype=torch.float64), normal(x, generator)
        return (made(PROCESS.sample(x, t, eps), _clock(t).to(x)) - eps).square().mean()

    descend(made, objective, FitSettings(900, 128, 2e-3, warmup=20, ema_decay=0.99))
    return made


def _clock(t: Tensor) -> Tensor:
    return 4 * t - 2


def sampler(model: nn.Module) -> Sampler:
    """25 steps of DDIM."""
    return Sampler(Wrapped(model, PROCESS, "noise", time=_clock), PROGRAM, (1, 8, 8))


@functools.cache
def inputs(kind: str) -> Inputs:
    """The card's six calibration sets."""
    clean, n = data().train[:CALIBRATION], CALIBRATION
    white = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    if kind == "raw data":
        return clean, torch.zeros(n, dtype=torch.float64)
    if kind == "noise":
        return white, uniform
    if kind == "noised data":
        return PROCESS.sample(clean, uniform, white), uniform
    fixed = torch.full((n,), 0.4, dtype=torch.float64)
    times = {"one time": fixed, "uniform times": uniform, "leaning times": leaning_times(n)}[kind]
    return run_inputs(sampler(network()), times, 6)


@functools.cache
def made(kind: str, bits: int = 8) -> ResidualMLP:
    """The network with all layers in so many bits, calibrated on such inputs."""
    x, t = inputs(kind)
    return quantise(network(), lambda m: m(x, _clock(t).to(x)), bits, bits)


def error(model: nn.Module) -> float:
    """The mean squared difference of the predicted noise along a held-out run of the network itself."""
    x, t = run_inputs(sampler(network()), torch.rand(HELD, generator=torch.Generator().manual_seed(7), dtype=torch.float64), 8)
    with torch.no_grad():
        return float((model(x, _clock(t).to(x)) - network()(x, _clock(t).to(x))).square().mean())


def integers() -> Iterator[Check]:
    """The simulated layer computes what integers compute, and its error is that of a uniform grid."""
    layer, x = nn.Linear(32, 16), torch.rand(64, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = layer.double()
    for p in layer.parameters():
        nn.init.normal_(p, generator=torch.Generator().manual_seed(2))
    folded = QuantisedLayer(layer, affine(0.0, 1.0, 8), 8)
    a = (folded.of_input.integers(x) - folded.of_input.zero).to(torch.int64)
    w = (folded.of_weight.integers(layer.weight.detach()) - folded.of_weight.zero).to(torch.int64)
    exact = (a @ w.T).double() * folded.of_input.step * folded.of_weight.step.T + layer.bias.detach()
    yield at_most("simulated against integer arithmetic", float((folded(x).detach() - exact).abs().max()), 1e-12)
    z = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    found = [float((affine(0.0, 1.0, bits)(z) - z).square().mean()) for bits in (5, 8)]
    yield close("squared error in 8 bits over step^2/12", found[1] * 12 * 255**2, 1.0, relative=0.03)
    yield close("5 bits over 8 bits", found[0] / found[1], (255 / 31) ** 2, relative=0.05)
    narrow = affine(0.0, 0.5, 8)
    yield control(
        close("the same over step^2/12 with half of the range", float((narrow(z) - z).square().mean()) * 12 * 510**2, 1.0, relative=0.03)
    )


def calibration() -> Iterator[Check]:
    """The card's check: errors by calibration set and by bits."""
    errors = {kind: error(made(kind)) for kind in ("leaning times", "uniform times", "one time", "noise", "noised data", "raw data")}
    said = ", ".join(f"{kind} {value:.2g}" for kind, value in errors.items())
    yield at_most(f"squared error of the noise in 8 bits, leaning times ({said})", errors["leaning times"], 2e-3)
    yield at_most("the same over that of raw data", errors["leaning times"] / errors["raw data"], 0.01)
    yield within("5 bits over 8 bits", error(made("leaning times", 5)) / errors["leaning times"], 10, 100)


def samples() -> Iterator[Check]:
    """The card's check: what is sampled, in the ten leading components."""
    held = data().test.flatten(1)
    axes = torch.linalg.svd(data().train.flatten(1) - data().train.flatten(1).mean(0), full_matrices=False)[2][:10].T

    def distance(model: nn.Module) -> float:
        return energy_distance(sampler(model).sample(HELD, 9).flatten(1) @ axes, held @ axes).value

    truth = distance(network())
    quantised, raw = (distance(made(kind)) for kind in ("leaning times", "raw data"))
    yield within(f"energy distance in 8 bits over that in floating point ({truth:.3g})", quantised / truth, 0.9, 1.1)
    yield at_least("the same calibrated on raw data", raw / truth, 3)
    yield control(within("calibrated on raw data, as good as floating point", raw / truth, 0.9, 1.1))


_TIMES = [0.04 * i for i in range(26)]


@functools.cache
def _by_time() -> dict[str, list[float]]:
    """Squared errors of the states at each time, on grids of 8 bits whose range holds what was seen at calibration."""
    clean = data().train[:CALIBRATION].double()
    eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    states = {t: PROCESS.sample(clean, t, eps) for t in _TIMES}
    seen = {"all times": torch.cat(list(states.values())), "one time, t = 0.1": PROCESS.sample(clean, 0.1, eps), "clean data": clean}
    grids = {name: affine(float(x.min()), float(x.max()), 8) for name, x in seen.items()}
    return {name: [float((grid(x) - x).square().mean()) for x in states.values()] for name, grid in grids.items()}


def figure(ax: Any) -> None:
    """The error of storing noisy digits in 8 bits, by time, for ranges chosen on three calibration sets. Chosen on all times of a run it is
    small throughout; chosen on clean data, or on one early time, the range cuts off the noise.
    """
    for i, (name, values) in enumerate(_by_time().items()):
        ax.plot(_TIMES, values, color=f"C{i}", label=f"calibrated on {name}")
    ax.set(yscale="log", xlabel="time, from data to noise", ylabel="squared error of the state")
    ax.legend()


ROW = Row(
    id="093",
    slug="ptq4dm",
    title="Post-training Quantization on Diffusion Models",
    authors="Yuzhang Shang, Zhihang Yuan, Bin Xie, Bingzhe Wu, Yan Yan",
    year=2022,
    arxiv="2211.15736",
    claim=(
        "Eight bits cost a small network of the digits nothing that its samples show, if ranges are chosen on states of a denoising run;"
        " chosen on clean data they ruin it. That times which lean towards the clean end are better than uniform ones does not show in a"
        " perceptron, whose ranges hardly drift."
    ),
    reproduced="partly",
    checks=(integers, calibration, samples),
    figure=figure,
)
