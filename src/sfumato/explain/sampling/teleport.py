r"""How far down a model may be teleported: the predicted cost by level, and what the jump saves.

See `sfumato.sample.judges.skip` for the prediction and `sfumato.sample.compilers.teleport` for the jump. Ours, after the analytical
teleportation of Wang & Vastola 2024 (arXiv 2412.09726).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.exact import Gaussian
from sfumato.explain.explanation import Explanation
from sfumato.sample import forecast_skip, karras, reference, reference_times
from sfumato.sample.compilers.teleport import steps_above
from sfumato.seeds import noise

STEPS = 18
"""The savings are stated for Karras's grid of so many steps, 35 evaluations of Heun's method."""


@dataclass(frozen=True)
class TeleportForecast(Explanation):
    """The error that a jump by the data's Gaussian adds to final samples, by the level that it lands on.

    Arguments:
        ratios: noise-to-signal ratios, falling.
        predicted: root mean square error of the final sample, relative to its root mean square size.
        ungained: the same, were deviations carried along unchanged by the flow.
        ratio, tolerance: the lowest level within tolerance.
        within: whether there is one.
        saved: of the `STEPS` steps of Karras's grid, the share that stands above it.
        measured_at, measured: levels at which the error was measured with an accurate solver, and those errors.
    """

    ratios: tuple[float, ...]
    predicted: tuple[float, ...]
    ungained: tuple[float, ...]
    ratio: float
    tolerance: float
    within: bool
    saved: float
    measured_at: tuple[float, ...] = field(default=())
    measured: tuple[float, ...] = field(default=())

    @property
    def numbers(self) -> dict[str, float]:
        cost = self.predicted[self.ratios.index(self.ratio)]
        out = {"teleport to": self.ratio, "predicted error": cost, "share of steps saved": self.saved if self.within else 0.0}
        return out | {f"measured error at {k:.3g}": e for k, e in zip(self.measured_at, self.measured, strict=True)}

    @property
    def meaning(self) -> str:
        if not self.within:
            return f"No level keeps the predicted error of a jump within {self.tolerance:.2g}, so the model has to be asked from the start."
        cost = self.predicted[self.ratios.index(self.ratio)]
        return (
            f"Down to a noise-to-signal ratio of {self.ratio:.2g} a matrix product can stand for the model, at a predicted error of "
            f"{cost:.2g} of the final sample's size. On a usual grid of {STEPS} steps that saves {self.saved:.0%} of them."
        )

    def plot(self, ax: Any) -> None:
        """Predicted error by level, the same without the flow's gain, what was measured, and the tolerance."""
        ax.plot(self.ratios, self.predicted, color="C0", label="predicted")
        ax.plot(self.ratios, self.ungained, color="C1", ls="--", label="predicted, deviations carried unchanged")
        if self.measured_at:
            ax.plot(self.measured_at, self.measured, "o", color="C2", label="measured")
        ax.axhline(self.tolerance, color="0.5", lw=0.8, label="tolerance")
        ax.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio landed on", ylabel="relative error of the final sample")
        ax.legend()


def teleport_forecast(
    denoiser: Denoiser,
    law: Gaussian,
    tolerance: float = 0.02,
    *,
    measure_at: Sequence[float] = (),
    batch: int = 64,
    seed: int = 0,
) -> TeleportForecast:
    """Predict, and where asked measure, what teleporting costs.

    Arguments:
        denoiser: of the model.
        law: the Gaussian of its data.
        tolerance: relative root mean square error of final samples.
        measure_at: levels at which to measure too, by 60 evaluations each and 60 for the truth, on `batch` samples.
        batch: trajectories.
        seed: of their starts.

    Raises:
        ArgumentError: see `forecast_skip`.

    Example:
        >>> from sfumato.data import moons
        >>> from sfumato.exact import fit_gaussian, fit_mixture
        >>> from sfumato.explain import teleport_forecast
        >>> from sfumato.noise import VariancePreserving
        >>> data = moons()
        >>> model = fit_mixture(data.batches(512), 8).denoiser(VariancePreserving())  # stands for a network
        >>> found = teleport_forecast(model, fit_gaussian(data.batches(512)), tolerance=0.02)
        >>> print(f"to k = {found.ratio:.2g}, {found.saved:.0%} of the steps saved")
        to k = 1.1, 56% of the steps saved
    """
    found = forecast_skip(denoiser, law, tolerance, batch=batch, seed=seed)
    process = denoiser.process
    measured = []
    if measure_at:
        x = process.prior_sample(noise(seed, batch, law.event_shape, device=law.device).draw(0))
        truth = _end(denoiser, law, x, 1.0)
        for ratio in measure_at:
            t = float(process.time_of_ratio(ratio))
            away = _end(denoiser, law, law.flow(process, 1.0, t)(x), t) - truth
            measured.append(float(away.square().sum() / truth.square().sum()) ** 0.5)
    times = karras(process, STEPS)
    saved = steps_above(process, times, found.ratio) / STEPS
    levels = tuple(float(k) for k in measure_at)
    return TeleportForecast(
        found.ratios, found.predicted, found.ungained, found.ratio, tolerance, found.within, saved, levels, tuple(measured)
    )


def _end(denoiser: Denoiser, law: Gaussian, x: Float[Tensor, "batch *event"], t: float) -> Tensor:
    """Where the flow from `x` at `t` ends, by an accurate solver on the part below `t` of one grid."""
    times = reference_times(denoiser.process, 60)
    with torch.no_grad():
        return reference(denoiser.denoise, x, denoiser.process, law, (t, *(s for s in times if s < t * (1 - 1e-9)))).end
