r"""A sheet of variations: samples varied along the model's own directions at several noise levels, with the predicted shifts.

Each row varies the same samples from one noise level, see `sfumato.steer.variations`; beside it the same kicks along random directions say
what the directions are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.exact import Gaussian
from sfumato.explain.explanation import Explanation
from sfumato.explain.sampling.response import finishing, nodes_near
from sfumato.explain.sampling.trajectory import ASIDE
from sfumato.sample import Trajectory
from sfumato.seeds import noise
from sfumato.steer.variations import kicked, variations


@dataclass(frozen=True)
class VariationRow:
    """The variations from one noise level, over a batch of samples.

    Arguments:
        ratio: the level's noise-to-signal ratio.
        predicted, measured: the mean length of the samples' shift along each direction, predicted and measured.
        agreement: the mean of measured over predicted length.
        cosine: the mean cosine between shifts and kicks.
        random: the mean length for random directions, over that for the model's own.
        base: the samples without a kick, `(batch, *event)`.
        samples: `(batch, k, amplitudes, *event)`.
    """

    ratio: float
    predicted: list[float]
    measured: list[float]
    agreement: float
    cosine: float
    random: float
    base: Float[Tensor, "batch *event"]
    samples: Float[Tensor, "batch k amplitudes *event"]


@dataclass(frozen=True)
class VariationSheet(Explanation):
    """Variations at several noise levels, noisiest first; `amplitudes` in local standard deviations."""

    rows: list[VariationRow]
    amplitudes: list[float]

    @property
    def numbers(self) -> dict[str, float]:
        """Agreement, cosine and the worth of random directions at both ends."""
        first, last = self.rows[0], self.rows[-1]
        return {
            "early_agreement": first.agreement,
            "late_agreement": last.agreement,
            "early_cosine": first.cosine,
            "late_cosine": last.cosine,
            "early_random": first.random,
            "late_random": last.random,
        }

    @property
    def meaning(self) -> str:
        """How far kicks move samples."""
        first, last = self.rows[0], self.rows[-1]
        return (
            f"A kick of one local standard deviation along a leading direction moves the sample by up to {max(first.measured):.2f} at"
            f" noise-to-signal ratio {first.ratio:.3g} ({first.agreement:.0%} of the prediction) and by up to {max(last.measured):.2f} at"
            f" {last.ratio:.3g} ({last.agreement:.0%}); random kicks as large move it {first.random:.0%} and {last.random:.0%} as far."
        )

    def plot(self, ax: Any) -> None:
        """Measured against predicted shifts, and where random directions of the same size end."""
        for mark, row in zip("osv^D<>", self.rows, strict=False):
            ax.loglog(row.predicted, row.measured, mark, color="C0", label=f"model, from ratio {row.ratio:.2g}")
            ax.loglog(row.predicted, [row.random * m for m in row.measured], mark, color="C2", mfc="none")
        values = [p for row in self.rows for p in row.predicted]
        ax.loglog([min(values), max(values)], [min(values), max(values)], "--", color="C1", label="predicted")
        ax.plot([], [], "o", color="C2", mfc="none", label="random directions")
        ax.set_xlabel("predicted shift of the sample")
        ax.set_ylabel("measured shift")
        ax.legend()


def variation_sheet(
    denoiser: Denoiser,
    trajectory: Trajectory,
    law: Gaussian,
    ratios: Sequence[float],
    *,
    k: int = 4,
    amplitudes: Sequence[float] = (-1.0, 1.0),
    condition: Tensor | None = None,
    seed: int = 0,
) -> VariationSheet:
    """Vary the samples of a trajectory from the nodes nearest to some noise levels.

    Arguments:
        denoiser: the model.
        trajectory: its probability flow, e.g. `sample.reference` from a handful of starts.
        law: the data's Gaussian: the finishing program solves its flow in closed form, and its largest variance bounds the kicks.
        ratios: the levels.
        k: how many directions.
        amplitudes: the kicks in local standard deviations.
        condition: as the denoiser takes it, one row per trajectory.
        seed: of the random directions.

    Raises:
        ArgumentError: no amplitudes, one of 0, or levels that a trajectory cannot have.
    """
    rows, largest = [], float(law.covariance.spectrum.max())
    for i in nodes_near(trajectory, ratios):
        x, program = trajectory.states[i], finishing(trajectory, law, i)
        own = variations(denoiser, x, program, k, amplitudes, condition=condition, largest=largest, seed=seed)
        away = noise(seed, len(x), (k, *x.shape[1:]), dtype=x.dtype, device=x.device).draw(ASIDE)
        unit = (away / away.flatten(2).norm(dim=2).reshape(len(x), k, *[1] * (x.ndim - 1)))[:, :, None]
        lengths = own.kicks.flatten(3).norm(dim=3).reshape(*own.lengths.shape, *[1] * (x.ndim - 1))
        base, moved = kicked(denoiser, x, (unit * lengths).flatten(1, 2), program, condition=condition)
        random = float((moved - base[:, None]).flatten(2).norm(dim=2).mean())
        sizes = own.predicted.new_tensor([abs(float(a)) for a in amplitudes])
        rows.append(
            VariationRow(
                float(trajectory.process.ratio(trajectory.times[i])),
                own.predicted.mean(0).tolist(),
                (own.lengths / sizes).mean((0, 2)).tolist(),
                float(own.ratios.mean()),
                float(own.cosines.mean()),
                random / float(own.lengths.mean()),
                own.base,
                own.samples,
            )
        )
    return VariationSheet(rows, [float(a) for a in amplitudes])
