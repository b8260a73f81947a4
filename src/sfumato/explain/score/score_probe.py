r"""How much of a score closed forms explain, at each noise level.

Per noisy sample `x = alpha x_0 + sigma eps` the share of a denoiser's score `s` that another score `a` explains is

    EV = 1 - |s - a|^2 / |s|^2 = 1 - |alpha (D - D_a)|^2 / |alpha D - x|^2,

averaged over samples (the ratio per sample, not the ratio of averages). Beside it stand the share of the clean-data prediction,
`1 - |D - D_a|^2 / |D|^2`, the share of the score relative to the closed form's, `1 - |s - a|^2 / |a|^2`, and `|D - D_a| / sqrt(dim)`.
They differ: at high noise nearly all of a score is `-x / sigma^2`, which any closed form has, while the clean-data prediction may be
wrong altogether; and where data have a large mean, that alone explains most of `D`. On pure noise instead of noisy data all shares are
others again. Source: Wang & Vastola 2024 (arXiv 2412.09726), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, DataError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.explain.explanation import Explanation
from sfumato.explain.generalising.reference_tables import RATIOS, ReferenceTable
from sfumato.noise import over_events
from sfumato.seeds import noise

Shares = dict[str, tuple[list[float], list[float]]]
"""By name of the approximant: mean and standard deviation over samples, one entry per ratio."""

At = Literal["noisy data", "pure noise"]
"""Where a score is probed: at `alpha x_0 + sigma eps`, or at `sigma eps`."""

NEARLY = 0.99
"""The explained share from which on a closed form is as good as the network."""
DRAW = 2
"""The draw of a probe's noise: draws 0 and 1 of the same seed may have made the clean samples, and would not be independent of them."""
_ROWS = 256
"""So many samples are asked about at a time."""


@dataclass(frozen=True)
class ScoreProbe(Explanation):
    """Explained shares by name of the approximant: mean and standard deviation over samples, one entry per ratio `k`.

    Arguments:
        ratios: noise-to-signal ratios.
        explained: of the score, relative to the denoiser's own.
        denoised: of the clean-data prediction.
        reverse: of the score, relative to the approximant's.
        distance: `|D - D_a| / sqrt(dim)`, in units of the data.
        at: where it was probed.
        reference: published curves to draw beneath, or None.
    """

    ratios: list[float]
    explained: Shares
    denoised: Shares = field(default_factory=dict)
    reverse: Shares = field(default_factory=dict)
    distance: Shares = field(default_factory=dict)
    at: At = "noisy data"
    reference: ReferenceTable | None = None

    def crossing(self, name: str, share: float = NEARLY) -> float | None:
        """The lowest ratio from which on all higher ones have at least this share explained, or None."""
        found = None
        for ratio, mean in sorted(zip(self.ratios, self.explained[name][0], strict=True), reverse=True):
            if not mean >= share:
                break
            found = ratio
        return found

    @property
    def numbers(self) -> dict[str, float]:
        """The level from which on each approximant explains `NEARLY` all, where there is one, and the least share of each."""
        out = {}
        for name, (mean, _) in self.explained.items():
            out[f"{name}: least share"] = min(mean)
            level = self.crossing(name)
            if level is not None:
                out[f"{name}: {NEARLY:.0%} from"] = level
        return out

    @property
    def meaning(self) -> str:
        level = self.crossing("gaussian") if "gaussian" in self.explained else None
        low = self.ratios.index(min(self.ratios))
        best = max(self.explained, key=lambda name: self.explained[name][0][low])
        share = self.explained[best][0][low]
        first = (
            f"From a noise-to-signal ratio of {level:.2g} upwards the mean and covariance of the data explain at least {NEARLY:.0%} of the "
            "score: the model says nothing there that a matrix product would not."
            if level is not None
            else f"Mean and covariance of the data do not explain {NEARLY:.0%} of the score even at the highest level probed."
        )
        return (
            f"{first} At the lowest level, {min(self.ratios):.2g}, the closed form nearest to it is `{best}`, with a share of {share:.2g}."
        )

    def plot(self, ax: Any) -> None:
        """Shares left unexplained on logarithmic axes; published curves dashed."""
        for i, (name, (mean, deviation)) in enumerate(self.explained.items()):
            left = [max(1 - m, 1e-7) for m in mean]
            ax.plot(self.ratios, left, color=f"C{i}", label=name)
            ax.fill_between(
                self.ratios,
                [max(v - s, 1e-7) for v, s in zip(left, deviation, strict=True)],
                [v + s for v, s in zip(left, deviation, strict=True)],
                color=f"C{i}",
                alpha=0.15,
                lw=0,
            )
            if self.reference is not None and name in self.reference.score:
                published = [max(1 - m, 1e-7) for m in self.reference.score[name]]
                ax.plot(RATIOS, published, color=f"C{i}", ls="--", lw=1, label=f"{name}, {self.reference.model}")
        ax.axhline(1 - NEARLY, color="0.5", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio", ylabel="share of the score left unexplained")
        ax.legend()


def gaussian_approximants(law: Gaussian, regular: float = 1e-4) -> dict[str, Gaussian]:
    """What knows less than a Gaussian law, and the law itself: its mean alone, one variance for all directions, the law, and the law with
    `regular` added to every variance.
    """
    covariance = law.covariance
    balls = {
        name: SpectralCovariance.isotropic(law.dim, v, dtype=law.dtype, device=law.device)
        for name, v in (("mean", 0.0), ("isotropic", float(covariance.trace()) / law.dim))
    }
    laws = {name: Gaussian(law.mean, ball, law.event_shape) for name, ball in balls.items()}
    return {**laws, "gaussian": law, "regularised": Gaussian(law.mean, covariance.map(lambda v: v + regular), law.event_shape)}


def score_probe(
    denoiser: Denoiser,
    approximants: Mapping[str, Denoiser],
    x0: Float[Tensor, "n *event"],
    ratios: Sequence[float],
    *,
    at: At = "noisy data",
    seed: int = 0,
    reference: ReferenceTable | None = None,
    progress: Callable[[int], None] | None = None,
) -> ScoreProbe:
    """Probe a denoiser's score at `x0` plus noise, or at pure noise.

    Arguments:
        denoiser: whose score is to be explained.
        approximants: closed forms by name, asked under the denoiser's process.
        x0: clean data to probe around; the same noise is used at every level.
        ratios: noise-to-signal ratios `k`.
        at: where to probe; of pure noise there are as many samples as of `x0`.
        seed: of the noise.
        reference: published curves for the plot, see `reference_tables.REFERENCES`.
        progress: called with the number of levels done.

    Raises:
        ArgumentError: no ratios, a ratio the process does not have, no approximant, or another place to probe at.
        DataError: fewer than two samples, which have no standard deviation.

    Example:
        >>> from sfumato.data import moons
        >>> from sfumato.exact import fit_gaussian, fit_mixture
        >>> from sfumato.explain import score_probe
        >>> from sfumato.noise import VariancePreserving
        >>> data, process = moons(), VariancePreserving()
        >>> model = fit_mixture(data.batches(512), 8).denoiser(process)  # stands for a network
        >>> gaussian = fit_gaussian(data.batches(512)).denoiser(process)
        >>> found = score_probe(model, {"gaussian": gaussian}, data.test[:200], [1.0, 3.0, 10.0])
        >>> [round(share, 3) for share in found.explained["gaussian"][0]]  # of the score, by noise level
        [0.987, 1.0, 1.0]
    """
    if not ratios or not approximants:
        raise ArgumentError("ratios, approximants", (list(ratios), sorted(approximants)), "at least one of each")
    if at not in get_args(At):
        raise ArgumentError("at", repr(at), f"one of {', '.join(get_args(At))}")
    if len(x0) < 2:
        raise DataError("x0", f"{len(x0)} samples", "at least two")
    asked = {name: a.under(denoiser.process) for name, a in approximants.items()}
    found: dict[str, list[list[Tensor]]] = {name: [] for name in approximants}
    with torch.no_grad():
        for done, k in enumerate(ratios, start=1):
            parts = [_compare(denoiser, asked, *probe) for probe in _probes(denoiser, x0, k, at, seed)]
            for name in approximants:
                found[name].append([torch.cat(values) for values in zip(*(part[name] for part in parts), strict=True)])
            if progress is not None:
                progress(done)

    def shares(i: int) -> Shares:
        return {name: ([float(v[i].mean()) for v in levels], [float(v[i].std()) for v in levels]) for name, levels in found.items()}

    return ScoreProbe([float(k) for k in ratios], shares(0), shares(1), shares(2), shares(3), at, reference)


def _probes(denoiser: Denoiser, x0: Tensor, k: float, at: At, seed: int) -> Iterator[tuple[Tensor, float]]:
    """Noisy samples a few at a time, and their time; the noise belongs to the sample, not to the chunk."""
    process = denoiser.process
    t = float(process.time_of_ratio(k))
    for first in range(0, len(x0), _ROWS):
        clean = x0[first : first + _ROWS]
        eps = noise(seed, len(clean), tuple(clean.shape[1:]), first=first, dtype=x0.dtype, device=x0.device).draw(DRAW)
        yield process.sample(clean if at == "noisy data" else torch.zeros_like(clean), t, eps), t


def _compare(denoiser: Denoiser, asked: Mapping[str, Denoiser], x: Tensor, t: float) -> dict[str, list[Tensor]]:
    """Per approximant the four measures, each `(batch,)`."""
    alpha = over_events(denoiser.process.alpha(t), x)
    own = denoiser.denoise(x, t)
    out = {}
    for name, approximant in asked.items():
        other = approximant.denoise(x, t)
        apart = _square(own - other)
        score, theirs = _square(alpha * own - x), _square(alpha * other - x)
        missed = alpha**2 * apart
        out[name] = [1 - missed / score, 1 - apart / _square(own), 1 - missed / theirs, torch.sqrt(apart / x[0].numel())]
    return out


def _square(v: Tensor) -> Tensor:
    return (v**2).flatten(1).sum(1)
