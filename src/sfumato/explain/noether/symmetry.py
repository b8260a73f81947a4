r"""Continuous symmetries of a noisy system, how far each is from holding, and the charges that follow from them.

A generator `xi` is a symmetry if it preserves the noise metric and carries the drift along:

    noise   K = D^-1 dxi + dxi^T D^-1 + (xi.grad) D^-1 = 0
    drift   c = d_t xi + (dxi) f - (df) xi = 0.

Its charge is `Q = p.xi`. On any most likely path, by Hamilton's equations, the charge drifts by

    dQ/dt = p.d_t xi + p.(dxi) dH/dp - xi.dH/dx,

which for an intact noise part is `p.c` (Freidlin-Wentzell), and `p.c + 1/2 xi.grad div f` for Onsager-Machlup: the drift of a charge is
predicted, not only flagged.

Source: Vastola 2024 (arXiv 2504.09761), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.explain.differentiate import against, along, check_differentiable
from sfumato.explain.explanation import Explanation
from sfumato.explain.noether.dynamics import Dynamics
from sfumato.explain.noether.generators import Generator, auto_generators
from sfumato.explain.noether.lagrangian import hamilton_field, momentum
from sfumato.explain.noether.paths import MostLikelyPath
from sfumato.seeds import noise

_TURNS = 8
"""Finite transformations are tried by this many equal parts of a full turn, or of one unit of a translation."""


@dataclass(frozen=True)
class Drift:
    """A charge along a path: measured, and predicted by its violation law from its first value."""

    times: list[float]
    measured: list[float]
    predicted: list[float]

    @property
    def total(self) -> float:
        """The measured change from the first node to the last."""
        return self.measured[-1] - self.measured[0]

    @property
    def error(self) -> float:
        """The largest difference between the two."""
        return max(abs(a - b) for a, b in zip(self.measured, self.predicted, strict=True))


@dataclass(frozen=True)
class SymmetryReport(Explanation):
    """How far generators are from being symmetries.

    Arguments:
        times: of the levels that were looked at.
        violation: by generator, one value a level: 0 for a symmetry of the drift, about 1 for any other direction.
        noise_violation: the same for the noise metric.
        charges: by generator, the charge along the example path, if one was given.
    """

    times: list[float]
    violation: dict[str, list[float]]
    noise_violation: dict[str, list[float]]
    charges: dict[str, Drift]

    @property
    def ranked(self) -> list[str]:
        """The generators, the best kept first: by the mean over levels of both violations together."""
        return sorted(self.violation, key=lambda name: _mean(self.violation[name]) + _mean(self.noise_violation[name]))

    @property
    def numbers(self) -> dict[str, float]:
        out = {f"violation of {name}": _mean(values) for name, values in self.violation.items()}
        out |= {f"noise violation of {name}": _mean(values) for name, values in self.noise_violation.items()}
        return out | {f"drift of the charge of {name}": drift.total for name, drift in self.charges.items()}

    @property
    def meaning(self) -> str:
        best, worst = self.ranked[0], self.ranked[-1]
        low, high = (_mean(self.violation[name]) + _mean(self.noise_violation[name]) for name in (best, worst))
        word = "is a symmetry" if low < 1e-3 else "is nearly a symmetry" if low < 0.1 else "comes nearest to a symmetry, and is none"
        text = f"{best} {word} (violation {low:.2g} on a scale on which no symmetry is about 1)"
        text += f"; {worst} is broken most ({high:.2g})." if worst != best else "."
        if best in self.charges:
            drift = self.charges[best]
            expected = drift.predicted[-1] - drift.predicted[0]
            text += f" Its charge moves by {drift.total:.2g} along the example path, where {expected:.2g} is predicted."
        return text[0].upper() + text[1:]

    def plot(self, ax: Any) -> None:
        best, worst = self.ranked[0], self.ranked[-1]
        if not self.charges:
            ax.plot(self.times, self.violation[best], "o-", color="C0", label=f"{best} (best kept)")
            ax.plot(self.times, self.violation[worst], "o-", color="C1", label=f"{worst} (most broken)")
            ax.set_xlabel("time of the process")
            ax.set_ylabel("violation")
        else:
            for name, colour in dict.fromkeys([(best, "C0"), (worst, "C1")]):
                drift = self.charges[name]
                ax.plot(drift.times, [q - drift.measured[0] for q in drift.measured], color=colour, label=f"charge of {name}")
                moved = [q - drift.measured[0] for q in drift.predicted]
                ax.plot(drift.times, moved, "--", color="C2", label="violation law" if colour == "C0" else None)
            ax.set_xlabel("time")
            ax.set_ylabel("change of the charge")
        ax.legend()


def symmetry_report(
    dynamics: Dynamics,
    states: Float[Tensor, "levels n dim"],
    times: Float[Tensor, "times"],
    generators: Sequence[Generator] | Literal["auto"] = "auto",
    path: MostLikelyPath | None = None,
) -> SymmetryReport:
    """Measure generators against drift and noise; for a denoiser:
    `symmetry_report(Dynamics.reverse(denoiser, event_shape), *noisy_states(denoiser, data, ratios))`.

    Arguments:
        dynamics: of any dtype.
        states: where to look, some at each of the times.
        times: one a level.
        generators: `auto`: see `auto_generators`.
        path: an example along which to follow the charges.

    Raises:
        ShapeError: states of another dimension, or not one time a level.
        ArgumentError: no states or generators, two generators of one name, or what `Dynamics` and `check_differentiable` refuse.
    """
    if states.shape[2] != dynamics.dim or len(times) != len(states):
        raise ShapeError("states", tuple(states.shape), f"({len(times)} levels, n, {dynamics.dim})")
    if not states.numel():
        raise ArgumentError("states", tuple(states.shape), "at least one level of at least one state")
    states = states.to(dtype=dynamics.dtype, device=dynamics.device)
    chosen = auto_generators(states.flatten(0, 1)) if generators == "auto" else list(generators)
    names = [g.name for g in chosen]
    if not names or len(set(names)) < len(names):
        raise ArgumentError("generators", names, "at least one generator, each of its own name")
    violation: dict[str, list[float]] = {name: [] for name in names}
    noise_violation: dict[str, list[float]] = {name: [] for name in names}
    for x, time in zip(states, times.to(torch.float64), strict=True):
        t = time.to(x.device).expand(len(x))
        check_differentiable(lambda y, t=t: dynamics.f(y, t), x)  # type: ignore[misc]
        for g in chosen:
            violation[g.name].append(drift_violation(dynamics, g, x, t))
            noise_violation[g.name].append(metric_violation(dynamics, g, x, t))
    charges = {} if path is None else {g.name: charge_drift(dynamics, g, path) for g in chosen}
    return SymmetryReport(times.tolist(), violation, noise_violation, charges)


def noisy_states(
    denoiser: Denoiser, x0: Float[Tensor, "n *event"], ratios: Sequence[float], *, seed: int = 0
) -> tuple[Float[Tensor, "levels n dim"], Float[Tensor, "levels"]]:
    """Data plus noise at the given noise-to-signal ratios, flat, and the times `w = 1 - t` at which the reverse process sees them."""
    process = denoiser.process
    eps = noise(seed, len(x0), tuple(x0.shape[1:]), dtype=x0.dtype, device=x0.device).draw(0)
    times = process.time_of_ratio(torch.tensor([float(k) for k in ratios], dtype=torch.float64))
    return torch.stack([process.sample(x0, t, eps).flatten(1) for t in times]), 1 - times


def commutator(dynamics: Dynamics, generator: Generator, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(d_t xi, (dxi) f, (df) xi)`; `c` is the first two less the third."""
    with torch.no_grad():
        f, xi = dynamics.f(x, t), generator.field(x, t)
    later = along(lambda s: generator.field(x, s[:, 0].to(t)), t[:, None], torch.ones_like(t[:, None]))
    return later, along(lambda y: generator.field(y, t), x, f), along(lambda y: dynamics.f(y, t), x, xi)


def drift_violation(dynamics: Dynamics, generator: Generator, x: Float[Tensor, "n dim"], t: Float[Tensor, "n"]) -> float:
    """`E|c|^2 / (E|(dxi) f|^2 + E|(df) xi|^2 / 2 + E|(df) z|^2 / 2)`, norms weighed by `D^-1`, `z` a random direction as long as `xi`.

    The random direction gives a translation something to be compared with: its `dxi` is 0, so that without it the ratio would be 1 for
    every translation that is not exact.
    """
    later, turned, carried = commutator(dynamics, generator, x, t)
    z = noise(0, len(x), (dynamics.dim,), dtype=x.dtype, device=x.device).draw(0)
    length = generator.field(x, t).norm(dim=1, keepdim=True)
    other = along(lambda y: dynamics.f(y, t), x, z / z.norm(dim=1, keepdim=True) * length)

    def size(v: Tensor) -> float:
        return float((v * dynamics.precision(x, t, v)).sum(1).mean())

    return _share(size(later + turned - carried), size(later) + size(turned) + size(carried) / 2 + size(other) / 2)


def metric_violation(dynamics: Dynamics, generator: Generator, x: Float[Tensor, "n dim"], t: Float[Tensor, "n"]) -> float:
    """`E|K z|^2 / (E|D^-1 dxi z|^2 + E|dxi^T D^-1 z|^2 + E|(xi.grad) D^-1 z|^2)` over standard normal `z`, one a state."""
    z = noise(1, len(x), (dynamics.dim,), dtype=x.dtype, device=x.device).draw(0)
    with torch.no_grad():
        xi = generator.field(x, t)
    stretched = dynamics.precision(x, t, along(lambda y: generator.field(y, t), x, z))
    pulled = against(lambda y: generator.field(y, t), x, dynamics.precision(x, t, z))
    moved = torch.zeros_like(z) if dynamics.additive else along(lambda y: dynamics.precision(y, t, z), x, xi)
    parts = [float(v.square().sum(1).mean()) for v in (stretched, pulled, moved)]
    return _share(float((stretched + pulled + moved).square().sum(1).mean()), sum(parts))


def asymmetry(
    dynamics: Dynamics, generator: Generator, x: Float[Tensor, "n dim"], t: Float[Tensor, "n"], amount: float = 2 * math.pi
) -> float:
    """`E|f(R x) - R f(x)|^2 / E|f(x)|^2` over the states and 8 equal parts of `amount`: the violation by finite transformations.

    Raises:
        ArgumentError: a generator that is not affine.
    """
    with torch.no_grad():
        f = dynamics.f(x, t)
        missed = []
        for i in range(1, _TURNS):
            turned, linear = generator.transform(x, amount * i / _TURNS)
            missed.append(float((dynamics.f(turned, t) - f @ linear.T).square().sum(1).mean()))
    return _share(_mean(missed), float(f.square().sum(1).mean()))


def charge_drift(dynamics: Dynamics, generator: Generator, path: MostLikelyPath) -> Drift:
    """The charge at the nodes, and what the violation law makes of its first value, integrated by midpoints."""
    charge = (path.momenta * generator.field(path.path, path.times)).sum(1).detach()
    h = path.times.diff()
    x, t = (path.path[1:] + path.path[:-1]) / 2, (path.times[1:] + path.times[:-1]) / 2
    p = momentum(dynamics, path.lagrangian, x, path.path.diff(dim=0) / h[:, None], t).detach()
    dx, dp = hamilton_field(dynamics, path.lagrangian, x, p, t)
    later = along(lambda s: generator.field(x, s[:, 0]), t[:, None], torch.ones_like(t[:, None]))
    moved = along(lambda y: generator.field(y, t), x, dx)
    with torch.no_grad():
        rate = (p * (later + moved)).sum(1) + (dp * generator.field(x, t)).sum(1)
    predicted = charge[0] + torch.cat([h.new_zeros(1), (h * rate).cumsum(0)])
    return Drift(path.times.tolist(), charge.tolist(), predicted.tolist())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
