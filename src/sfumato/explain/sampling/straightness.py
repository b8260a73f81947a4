r"""How straight the generative paths are, and what they cost.

Along the flow from noise at `t = 1` to data at `t = 0`, with `x_1 - x_0` the chord of a path,

    bend(t) = E |x_1 - x_0 - v(x_t, t)|^2 / d,        energy = int E |v|^2 dt / d >= E |x_1 - x_0|^2 / d,

with equality, and no bend, exactly where every path is straight and of constant speed: then one Euler step is the flow.
Sources: Lee et al. 2023 (arXiv 2301.12003), section 3; Shaul et al. 2023 (arXiv 2306.06626), eq. 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation
from sfumato.noise import over_events


@dataclass(frozen=True)
class Straightness(Explanation):
    """The bend by time, for a flow and, where there is one, for another that it is compared with.

    Arguments:
        times: falling, the middles of the steps.
        bend: `E |chord - v|^2 / d` there.
        energy, chord: `int E |v|^2 dt / d` and `E |x_1 - x_0|^2 / d`.
        twin: the other flow's, or None.
    """

    times: list[float]
    bend: list[float]
    energy: float
    chord: float
    twin: Straightness | None = None

    @property
    def curvature(self) -> float:
        """The mean bend over time."""
        return sum(self.bend) / len(self.bend)

    @property
    def numbers(self) -> dict[str, float]:
        own = {"curvature": self.curvature, "kinetic energy": self.energy, "squared chord": self.chord}
        return own if self.twin is None else {**own, "curvature of the other flow": self.twin.curvature}

    @property
    def meaning(self) -> str:
        share = self.curvature / self.energy if self.energy else 0.0
        compared = f"; the flow it is compared with has {self.twin.curvature:.3g}" if self.twin is not None else ""
        return (
            f"{share:.1%} of the flow's kinetic energy bends its paths or changes their speed, the rest carries them along their chords. "
            f"The curvature is {self.curvature:.3g} per number{compared}: the nearer to 0, the fewer steps a solver needs."
        )

    def plot(self, ax: Any) -> None:
        """The bend against time, the straight line's zero, and the other flow."""
        ax.plot(self.times, self.bend, color="C0", label="bend of the paths")
        ax.axhline(0.0, color="C1", ls="--", label="straight paths")
        if self.twin is not None:
            ax.plot(self.twin.times, self.twin.bend, color="C2", label="the other flow")
        ax.set(xlabel="time", ylabel="squared distance of velocity and chord, per number")
        ax.legend()


def straightness(denoiser: Denoiser, starts: Float[Tensor, "batch *event"], steps: int = 64, twin: Denoiser | None = None) -> Straightness:
    """Measure along midpoint steps of equal length in time.

    Arguments:
        denoiser: whose probability flow is followed.
        starts: at `t = 1`.
        steps: of two evaluations each.
        twin: another flow, from the same starts.

    Raises:
        ArgumentError: no steps.
    """
    if steps < 1:
        raise ArgumentError("steps", steps, "at least one step")
    h, x, velocities = 1 / steps, starts, []
    times = [1 - (i + 0.5) * h for i in range(steps)]
    with torch.no_grad():
        for t in times:
            # one starts a hair inside where the process's views are infinite at its end
            half = x - h / 2 * _velocity(denoiser, x, t + h / 2)
            velocities.append(_velocity(denoiser, half, t))
            x = x - h * velocities[-1]
    v, chord = torch.stack(velocities).to(torch.float64), (starts - x).to(torch.float64)
    bend = (v - chord).square().flatten(1).mean(1).tolist()
    other = None if twin is None else straightness(twin, starts, steps)
    return Straightness(times, bend, float(v.square().mean()), float(chord.square().mean()), other)


def _velocity(denoiser: Denoiser, x: Tensor, t: float) -> Tensor:
    """`alpha' D + sigma' (x - alpha D) / sigma`."""
    process, said = denoiser.process, denoiser.denoise(x, t)
    slope = process.sigma_rate(t) / process.sigma(t)
    return over_events(process.alpha_rate(t) - slope * process.alpha(t), x) * said + over_events(slope, x) * x
