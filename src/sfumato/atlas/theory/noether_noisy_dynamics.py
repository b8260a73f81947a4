"""T2: every continuous symmetry of drift and noise gives a quantity that is constant along most likely paths."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, holds, within
from sfumato.data import patches
from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.exact import DriftDiffusion, Ring, noise_bridge
from sfumato.explain import Dynamics, MostLikelyPath, most_likely_path, noisy_states, reverse_times
from sfumato.explain.noether import example_dynamics
from sfumato.explain.noether.generators import rotation
from sfumato.explain.noether.lagrangian import Action, energy
from sfumato.explain.noether.paths import spread
from sfumato.explain.noether.symmetry import asymmetry, charge_drift
from sfumato.learn import DenoisingLoss, EDMWeight, FitSettings, LogNormalRatio, fit
from sfumato.noise import EDM

_LEVELS = (0.3, 0.6, 1.0, 2.0)
_PLANE = torch.eye(2, dtype=torch.float64)
_TURN = rotation(_PLANE[0], _PLANE[1])


def _state(*values: int | float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _time(end: int | float, steps: int) -> Tensor:
    return torch.linspace(0, end, steps + 1, dtype=torch.float64)


def _middles(path: MostLikelyPath) -> tuple[Tensor, Tensor, Tensor]:
    """Midpoints, velocities and times of the steps."""
    x, t = path.path, path.times
    return (x[1:] + x[:-1]) / 2, x.diff(dim=0) / t.diff()[:, None], (t[1:] + t[:-1]) / 2


def _monostable() -> Iterator[Check]:
    system, start, end = example_dynamics.monostable(), _state(-2, 2), _state(2, 2)

    def path(T: int | float) -> MostLikelyPath:
        return most_likely_path(system, start, end, _time(T, 200), generators=[_TURN])

    for T, speeds, turning, tolerance in ((1.0, 11.584987, -6.807345, 1e-5), (10.0, 1.319e-7, -7.264e-4, 1e-2)):
        found = path(T)
        x, v, time = _middles(found)
        yield close(f"|x'|^2 - |x|^2, T = {T:g}", float((v.square() - x.square()).sum(1).mean()), speeds, relative=tolerance)
        yield close(f"x y' - y x', T = {T:g}", float(found.charges["rotation"].mean()), turning, relative=tolerance)
        if T == 1:
            t = found.times[:, None]
            exact = (start * torch.sinh(T - t) + end * torch.sinh(t)) / math.sinh(T)
            yield at_most("distance to the sinh formula, T = 1", float((found.path - exact).abs().max()), 1e-6)
            yield at_most("spread of L_12 along the path", spread(found.charges["rotation"]), 1e-9)
            line = start + (end - start) * t
            straight = (line[1:] + line[:-1]) / 2
            likely, slope = energy(system, "onsager-machlup", x, v, time), (end - start).expand_as(straight)
            yield at_most("spread of the energy along the path", spread(likely), 1e-9)
            yield control(at_most("along a straight line", spread(energy(system, "onsager-machlup", straight, slope, time)), 1e-9))
    rate = (path(3.001).action - path(2.999).action) / 0.002
    yield close("-dS/dT against the energy, T = 3", -rate, float(path(3).energy.mean()), absolute=1e-4)


def _ring() -> Iterator[Check]:
    process = EDM(2.0)
    reverse = Dynamics.reverse(Ring(2.0, 0.5).denoiser(process), (2,))
    start, end = _state(0, 3), _state(math.sqrt(2), math.sqrt(2))
    times = reverse_times(process, 2.0, 0.2, 120)
    straight, _ = noise_bridge(process, end, start, 0.1, 1.0, 1 - times)
    paths = {}
    actions: tuple[Action, ...] = ("onsager-machlup", "freidlin-wentzell", "cross-dropped")
    for action in actions:
        paths[action] = most_likely_path(reverse, start, end, times, action=action, generators=[_TURN])
    likely, small_noise = paths["onsager-machlup"], paths["freidlin-wentzell"]
    yield at_most("OM path against the straight line in sigma^2", float((likely.path - straight).abs().max()), 1e-5)
    yield control(at_most("FW path against it", float((small_noise.path - straight).abs().max()), 0.12))
    for name, path in (("OM", likely), ("FW", small_noise)):
        x, v, t = _middles(path)
        turning = x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]
        yield at_most(f"spread of the discrete charge, {name}", spread(path.charges["rotation"]), 1e-9)
        yield at_most(f"spread of (x y' - y x') / 2D, {name}", spread(turning / (2 * reverse.D(x, t))), 1e-2)
        yield control(at_most(f"spread of x y' - y x', {name}", spread(turning), 0.5))
    fine = 1 - torch.linspace(1.0, 0.1, 361, dtype=torch.float64)
    kept = []
    for first in range(0, 60_000, 10_000):
        walks = reverse.simulate(start.expand(10_000, 2), fine, 1, first=first)
        kept.append(walks[:, (walks[-1] - end).norm(dim=1) < 0.15])
    near = torch.cat(kept, dim=1)
    mean, error = near.mean(1)[1:], near.std(1)[1:] / math.sqrt(near.shape[1])

    def away(action: Action) -> float:
        path = most_likely_path(reverse, start, end, fine, action=action)
        return float(((mean - path.path[1:]) / error).abs().max())

    yield at_most(f"OM path against the mean of {near.shape[1]} simulated paths to the end, in standard errors", away(actions[0]), 4.0)
    yield control(at_most("the same for FW", away("freidlin-wentzell"), 4.0))
    yield control(at_most("the same for the Lagrangian without its cross term", away("cross-dropped"), 4.0))


def _rnn() -> Iterator[Check]:
    def charge_spread(neurons: int, weights: Tensor | None = None) -> float:
        start, end = (example_dynamics.ring_bump(neurons, angle) for angle in (0.0, math.pi / 2))
        system, generator = example_dynamics.ring_rnn(neurons, weights=weights), example_dynamics.ring_rotation(neurons)
        path = most_likely_path(system, start, end, _time(6, 32), action="freidlin-wentzell", generators=[generator])
        return path.numbers["spread of ring rotation"]

    for neurons, limit in ((12, 1e-3), (16, 1e-4), (24, 1e-6)):
        yield at_most(f"spread of p.dtheta(h), {neurons} neurons", charge_spread(neurons), limit)
    uneven = 1 + 0.1 * torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield control(at_most("16 neurons, weights 10 percent uneven", charge_spread(16, uneven * example_dynamics.ring_weights(16)), 1e-4))

    def field(x: Tensor, t: Tensor) -> Tensor:
        a, b = x.unbind(1)
        return x * (1 - x.square().sum(1, keepdim=True)) + torch.stack([0.8 * a * b, 0.3 * torch.sin(b) - 0.5 * a**2], dim=1)

    broken = Dynamics.constant(field, 2, 0.3)
    for action in ("freidlin-wentzell", "onsager-machlup"):
        path = most_likely_path(broken, _state(1.2, 0), _state(-0.9, -0.8), _time(2, 200), action=action)
        drift = charge_drift(broken, _TURN, path)
        yield at_least(f"drift of the charge where rotation is broken, {action}", abs(drift.total), 0.5)
        yield at_most(f"violation law against it, {action}", drift.error, 1e-4)
        yield control(at_most(f"no drift against it, {action}", abs(drift.total), 1e-4))


@functools.cache
def _spectrum() -> Tensor:
    """Fourier transform of grey 16x16 patches of photographs, without their mean, in a Hann window."""
    grey = patches(16, 20_000).train.mean(1)
    window = torch.hann_window(16)
    return torch.fft.fft2((grey - grey.mean((1, 2), keepdim=True)) * window[:, None] * window)


def _turned(pair: Tensor) -> tuple[list[float], float]:
    """Of a network trained on pairs of numbers: asymmetry of its score by noise level, and std/mean of a charge along four paths."""
    pair = pair / pair.var(0).mean().sqrt()
    denoiser = Preconditioned(ResidualMLP((2,), 96, 3, seed=0), EDM(), 1.0)
    fit(denoiser, pair, FitSettings(1500, 256, 3e-3, warmup=0), DenoisingLoss(EDMWeight(1.0), LogNormalRatio(-0.6, 1.2)))
    reverse = Dynamics.reverse(denoiser, (2,))
    states, times = noisy_states(denoiser, pair[:1000], _LEVELS)
    found = [asymmetry(reverse, _TURN, x, t.expand(len(x))) for x, t in zip(states.double(), times, strict=True)]
    nodes, spreads = reverse_times(denoiser.process, 2.0, 0.3, 60), []
    for quarter in range(4):
        start, end = (_TURN.transform(point[None], quarter * math.pi / 2)[0][0] for point in (_state(0, 2), _state(1, 1)))
        path = most_likely_path(reverse, start, end, nodes, action="freidlin-wentzell", generators=[_TURN])
        charge = path.charges["rotation"]
        spreads.append(float(charge.std() / charge.mean().abs()))
    return found, sum(spreads) / len(spreads)


def _photographs() -> Iterator[Check]:
    modes = _spectrum()[:, 0]
    pair, kept = _turned(torch.view_as_real(modes[:, 1]))
    other, lost = _turned(torch.stack([modes[:, 1].real, modes[:, 3].real], dim=1))
    for level, a, b in zip(_LEVELS, pair, other, strict=True):
        yield at_most(f"asymmetry {a:.2g} of (Re, Im) of mode (0, 1) at sigma = {level:g}, over {b:.2g} of Re of modes 1, 3", a / b, 0.3)
    yield at_most("largest asymmetry of the pair", max(pair), 0.03)
    yield control(at_most("largest asymmetry of Re of modes 1, 3", max(other), 0.03))
    yield at_most(f"std/mean {kept:.2g} of the pair's angular momentum (mean of four paths), over {lost:.2g}", kept / lost, 0.3)


def _decision() -> Iterator[Check]:
    path = most_likely_path(example_dynamics.decision(), _state(0.5), _state(-1), _time(1, 50))
    yield close("momentum of the decision, v = .1, s = 1", float(path.momenta.mean()), -1.6, relative=1e-9)
    yield at_most("spread of that momentum", spread(path.momenta), 1e-9)
    times = _state(0.1, 0.25, 0.5, 0.75, 0.9)
    mean = DriftDiffusion(0.1, 1.0).conditioned_mean(times, 0.5, 1.0)
    expected = (0.340, 0.165, -0.035, -0.265, -0.511)
    yield at_most("mean given first hit of -1 at T = 1, against the card", float((mean - _state(*expected)).abs().max()), 1e-3)
    line = 0.5 - 1.5 * times
    for noise, gap in ((1.0, 0.36), (0.5, 0.127), (0.25, 0.037)):
        bent = DriftDiffusion(0.1, noise).conditioned_mean(times, 0.5, 1.0)
        yield close(f"its deviation from a straight line, s = {noise:g}", float((bent - line).abs().max()), gap, absolute=1e-3)
    yield control(at_most("straight line at s = 1", float((mean - line).abs().max()), 0.05))


def _memory() -> Iterator[Check]:
    system = example_dynamics.three_attractors()
    left, third = example_dynamics.resting_state(system, _state(3.25, 0.35)), example_dynamics.resting_state(system, _state(2.35, 2.35))
    table = ((1, 26.0, 0.67), (3, 2.86, 0.42), (6, 0.584, 0.26), (12, 0.061, 0.12), (20, 3.9e-3, 0.034), (40, 2e-6, 0.002))
    near, actions = [], []
    for T, level, closest in table:
        path = most_likely_path(system, left, left.flip(0), _time(T, 400), action="freidlin-wentzell", through=[third.expand(3, 2)])
        distance = (path.path - third).norm(dim=1)
        near.append(float(distance.min()))
        actions.append(path.action)
        # where it is slow the energy is a small number in itself, elsewhere a difference of large ones
        slow = float(path.energy[int(distance.argmin()) - 1])
        if T < 40:
            yield close(f"energy, T = {T}", slow, level, relative=0.05)
            yield close(f"closest approach to the third attractor, T = {T}", near[-1], closest, relative=0.05)
        else:
            yield within("energy, T = 40", slow, -1e-5, 1e-5)
            yield at_most("closest approach to the third attractor, T = 40", near[-1], 0.003)
    falls = all(a > b for a, b in pairwise(near))
    yield holds("slow transitions pass nearer to the third attractor", ", ".join(f"{d:.3g}" for d in near), "falling with T", falls)
    yield close("action, T = 1", actions[0], 26.7, relative=0.01)
    yield control(at_most("direct transition (T = 1): distance from the third attractor", near[0], 0.05))


@functools.cache
def _energies() -> tuple[list[float], list[float], list[float]]:
    """Times, and the energy along the most likely path of the monostable system and along a straight line."""
    system, start, end = example_dynamics.monostable(), _state(-2, 2), _state(2, 2)
    found = most_likely_path(system, start, end, _time(1, 100))
    x, v, time = _middles(found)
    line = start + (end - start) * time[:, None]
    paths = ((x, v), (line, (end - start).expand_as(line)))
    likely, straight = (energy(system, "onsager-machlup", *path, time).tolist() for path in paths)
    return time.tolist(), likely, straight


def figure(ax: Any) -> None:
    """The energy of a noisy system along two paths with the same ends: constant along the most likely one, as the symmetry in time
    demands, and not along the straight line.
    """
    time, likely, straight = _energies()
    ax.plot(time, likely, color="C0", label="most likely path")
    ax.plot(time, straight, color="C1", label="straight line")
    ax.set(xlabel="time", ylabel="energy")
    ax.legend()


ROW = Row(
    id="T2",
    slug="noether-noisy-dynamics",
    title="Dynamical symmetries in the fluctuation-driven regime: an application of Noether's theorem to noisy dynamical systems",
    authors="John J. Vastola",
    year=2024,
    arxiv="2504.09761",
    claim="Continuous symmetries of drift and noise give quantities (energy, momentum, angular momentum, weighted by the inverse noise) "
    "that are constant along most likely paths. This holds: to rounding where the symmetry is exact (decision, monostable, reverse "
    "diffusion of a ring), to 5e-8 on a ring of 24 neurons, and slow transitions between two of three attractors visit the third. "
    "Two details do not hold: the figure's reverse-diffusion arcs drop a cross term that is no boundary term, and the divergence: they miss"
    " the mean of simulated paths by 4.6 standard errors, where the full Onsager-Machlup path (straight in sigma^2 for any data) stays "
    "within 2.7; and the path of a decision given its first passage is straight in the limit of small noise only (0.36 off at s = 1).",
    reproduced="partly",
    checks=[_monostable, _ring, _rnn, _photographs, _decision, _memory],
    figure=figure,
)
