"""067: the flow as an operator in time, learned from trajectories."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sfumato.atlas.row import Check, Row, at_most, control
from sfumato.denoise import ResidualMLP
from sfumato.denoise.networks.flow_operator import FlowOperator, TimeConvolution
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.learn import FitSettings
from sfumato.learn.students.trajectory_regression import fit_operator
from sfumato.metrics import energy_distance
from sfumato.noise import VariancePreserving
from sfumato.sample import Trajectory, reference, reference_times

PROCESS, SIGMA_DATA = VariancePreserving(), 1.1
RING = [(1.5 * math.cos(a), 1.5 * math.sin(a)) for a in (2 * math.pi * n / 5 for n in range(5))]
HELD = 1000


@functools.cache
def law() -> GaussianMixture:
    """Five modes of variance 0.09 on a circle of radius 1.5."""
    parts = [SpectralCovariance.isotropic(2, 0.09)] * 5
    return GaussianMixture(None, torch.tensor(RING, dtype=torch.float64), parts).to(torch.float32)


@functools.cache
def teacher() -> Trajectory:
    """The exact flow from 6000 starts, by 32 steps of the integrator of order 4."""
    start = PROCESS.prior_sample(torch.randn(6000, 2, generator=torch.Generator().manual_seed(0)))
    ball = Gaussian(torch.zeros(2), SpectralCovariance.isotropic(2, SIGMA_DATA**2)).to(torch.float32)
    return reference(law().denoiser(PROCESS).denoise, start, PROCESS, ball, reference_times(PROCESS, 32))


def operator(places: Sequence[int], modes: int) -> FlowOperator:
    """A student that answers at some of the teacher's times."""
    times = [teacher().times[i] for i in places]
    made = FlowOperator(ResidualMLP((2,), 64, 3, seed=0), PROCESS, 1.0, times, SIGMA_DATA, modes)
    for n, layer in enumerate(made.mixing):
        nn.init.normal_(layer.weight, std=0.02, generator=torch.Generator().manual_seed(n))  # type: ignore[arg-type]
    return made


def trained(places: Sequence[int], modes: int, path: Trajectory, steps: int = 200) -> FlowOperator:
    """A student after regression on trajectories, with equal weights."""
    made = operator(places, modes)
    fit_operator(made, path, FitSettings(steps, 256, 5e-3, warmup=10, ema_decay=0.98), weights=torch.ones(len(places)))
    return made


def error(student: FlowOperator) -> float:
    """The root mean square distance per coordinate to the teacher's end, on held-out starts."""
    with torch.no_grad():
        end = student(teacher().states[0][-HELD:])[:, -1]
    return float((end - teacher().end[-HELD:]).square().mean().sqrt())


def convolution() -> Iterator[Check]:
    """The temporal layer is a circular convolution, for odd and for even numbers of times."""
    generator = torch.Generator().manual_seed(3)
    for times in (4, 5):
        layer = TimeConvolution(3, times // 2 + 1).double()
        nn.init.normal_(layer.weight, generator=generator)
        u = torch.randn(2, times, 3, generator=generator, dtype=torch.float64)
        impulse = torch.zeros(3, times, 3, dtype=torch.float64)
        impulse[range(3), 0, range(3)] = 1.0
        kernel = layer.convolve(impulse)
        direct = sum(torch.einsum("btc,cd->btd", u.roll(s, 1), kernel[:, s]) for s in range(times))
        found = layer.convolve(u)
        yield at_most(f"{times} times: Fourier against direct convolution", float((found - direct).detach().abs().max()), 1e-12)
    spectrum = torch.fft.rfft(u, dim=1)
    yield control(at_most("5 times, the length left unsaid: missing times", 5 - torch.fft.irfft(spectrum, dim=1).shape[1], 0))
    ball = Gaussian(torch.zeros(2), SpectralCovariance.isotropic(2, SIGMA_DATA**2))
    x, student = teacher().states[0][:64].double(), operator((8, 16, 24, 32), 2).double()
    flows = torch.stack([ball.flow(PROCESS, 1.0, t)(x) for t in student.times], 1)
    yield at_most("untrained, against the flow of the Gaussian", float((student(x).detach() - flows).abs().max()), 1e-12)


def one_call() -> Iterator[Check]:
    """The card's check: four times with the layer and without, and the last one alone."""
    path = teacher()[:-HELD]
    places = (8, 16, 24, 32)
    mixed = trained(places, 2, path)
    plain, single = error(trained(places, 0, path)), error(trained(places[-1:], 0, path))
    yield at_most("root mean square distance to the teacher's end", error(mixed), 0.08)
    yield at_most(f"the same over that without the layer ({plain:.3g}; the last time alone: {single:.3g})", error(mixed) / plain, 0.9)
    with torch.no_grad():
        samples = mixed(path.states[0][:HELD])[:, -1]
    yield at_most("energy distance of the samples of one call", energy_distance(samples, law().sample(HELD, 3)).value, 0.005)
    order = torch.randperm(len(path.states[0]), generator=torch.Generator().manual_seed(1))
    shuffled = replace(path, states=(path.states[0][order], *path.states[1:]))
    yield control(at_most("the distance with noises and ends shuffled", error(trained(places, 0, shuffled, 100)), 0.08))


@functools.cache
def _by_time() -> dict[str, list[float]]:
    """Root mean square distances to the teacher at four times, on held-out starts."""
    path, places = teacher()[:-HELD], (8, 16, 24, 32)
    truth = torch.stack([teacher().states[i][-HELD:] for i in places], 1)
    students = {
        "with the layer in time": trained(places, 2, path, 60),
        "without it": trained(places, 0, path, 60),
        "untrained": operator(places, 2),
    }
    with torch.no_grad():
        return {name: (s(teacher().states[0][-HELD:]) - truth).square().mean((0, 2)).sqrt().tolist() for name, s in students.items()}


def figure(ax: Any) -> None:
    """How far one call is from the exact flow at four times, after 60 steps of training: nearer to the end with convolutions
    along time than without. Untrained it is the flow of a Gaussian.
    """
    for i, (name, values) in enumerate(_by_time().items()):
        ax.plot(range(1, 5), values, "o-", color=f"C{i}", label=name)
    ax.set(xlabel="which of the four times, the last is the data's", ylabel="distance to the flow", xticks=range(1, 5))
    ax.legend()


ROW = Row(
    id="067",
    slug="dsno",
    title="Fast Sampling of Diffusion Models via Operator Learning",
    authors="Hongkai Zheng, Weili Nie, Arash Vahdat, Kamyar Azizzadenesheli, Anima Anandkumar",
    year=2022,
    arxiv="2211.13449",
    claim=(
        "A network with convolutions along time learns the flow of a ring of five modes from trajectories and samples it in one call; with"
        " equally few steps of training the end is nearer with the layer than without it, and nearer than by regression on the end alone."
        " Image quality was not measured."
    ),
    reproduced="partly",
    checks=(convolution, one_call),
    figure=figure,
)
