r"""Where the training target is noisy: the proxy-score covariance of a training set, drawn in the plane of its leading components.

With `C` of `sfumato.exact.learning.proxy`, the map is `R = tr C / (tr C + |s|^2)`, the noise's share of the power of the target at a
place: ridges between training points at low noise, one blob around their mean at high noise. It is 0/0 where the score vanishes and
nothing scatters, so `tr C` is kept beside it. The share at the noisy data themselves is `E tr C / (d / sigma^2)`.
Source: Vastola 2025 (arXiv 2504.12532), figure 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Law
from sfumato.exact.learning.proxy import proxy_variance
from sfumato.explain.explanation import Explanation
from sfumato.explain.generalising.section import Section
from sfumato.noise import ScalarProcess
from sfumato.seeds import noise


@dataclass(frozen=True, eq=False)
class ProxyMap(Explanation):
    """What `proxy_map` found; maps are `(levels, cells)` or `(levels, cells, cells)`, along the section's axes.

    Arguments:
        ratios: the noise levels `k`.
        section: where the map lies, in units of the data.
        trace: `tr C`, per unit of `x / alpha`.
        share: `R`; 0 where nothing scatters.
        at_data: the noise's share of the target's power at noisy data, by level.
    """

    ratios: list[float]
    section: Section
    trace: Tensor
    share: Tensor
    at_data: list[float]

    @property
    def numbers(self) -> dict[str, float]:
        shares = {f"noise in the target at k = {k:.3g}": share for k, share in zip(self.ratios, self.at_data, strict=True)}
        half = (self.share > 0.5).double().flatten(1).mean(1).tolist()
        return shares | {f"area mostly noise at k = {k:.3g}": area for k, area in zip(self.ratios, half, strict=True)}

    @property
    def meaning(self) -> str:
        worst = max(range(len(self.ratios)), key=self.at_data.__getitem__)
        return (
            f"What the score is trained on is noisiest at the noise level {self.ratios[worst]:.3g}, where "
            f"{100 * self.at_data[worst]:.0f} % of its power is noise that averages out only over many examples. "
            "The map shows where: there the training data say least about "
            "what the model should answer, and there models trained anew will differ most."
        )

    def plot(self, ax: Any) -> None:
        at = self.section.ticks(self.share.shape[1]).tolist()
        if self.section.dims == 1:
            for k, share in zip(self.ratios, self.share.tolist(), strict=True):
                ax.plot(at, share, label=f"k = {k:.3g}")
            ax.plot(self.section.shadow[:, 0].tolist(), [0.0] * len(self.section.shadow), "k|", label="training data")
            ax.set(xlabel="x / alpha along the leading component", ylabel="noise's share of the target R", ylim=(-0.03, 1.03))
        else:
            worst = max(range(len(self.ratios)), key=self.at_data.__getitem__)
            drawn = ax.pcolormesh(at, at, self.share[worst].T.numpy(), vmin=0, vmax=1, shading="nearest")
            ax.figure.colorbar(drawn, ax=ax, label=f"noise's share of the target R at k = {self.ratios[worst]:.3g}")
            ax.plot(*self.section.shadow.T.tolist(), "o", markersize=4, color="white", markeredgecolor="black", label="training data")
            ax.set(xlabel="leading component", ylabel="second component", aspect="equal")
        ax.legend()


def proxy_map(
    law: Law,
    process: ScalarProcess,
    ratios: Sequence[float],
    section: Section,
    *,
    cells: int = 25,
    samples: int = 200,
    seed: int = 0,
) -> ProxyMap:
    """The map of a law at some noise levels.

    Arguments:
        law: e.g. `Empirical(train)`; each of the `cells^2` places and `samples` noisy data costs two passes over its points.
        process: what noises the data.
        ratios: noise-to-signal ratios `k`, above 0.
        section: e.g. `Section.of(train)`.
        cells: places along an axis.
        samples, seed: noisy data at which the share is averaged.

    Raises:
        ArgumentError: no ratios, or one that the process does not have or at which no signal or noise is left.
        ShapeError: a section of events of another size.
    """
    if not ratios:
        raise ArgumentError("ratios", list(ratios), "at least one noise-to-signal ratio")
    if len(section.origin) != law.dim:
        raise ShapeError("section", f"one of {len(section.origin)} numbers", f"one of events of the law's {law.dim}")
    places = section.places(cells).reshape(-1, *law.event_shape)
    clean = law.sample(samples, seed).to(torch.float64)
    eps = noise(seed, 1, tuple(clean.shape), dtype=torch.float64).draw(2)[0]
    exact, shape = law.denoiser(process), (cells,) * section.dims
    traces, shares, at_data = [], [], []
    for k in ratios:
        t = process.time_of_ratio(k)
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        scatter = proxy_variance(law, alpha * places, process, t)
        power = scatter + exact.score(alpha * places, t).flatten(1).square().sum(1)
        traces.append((alpha**2 * scatter).reshape(shape))
        shares.append(torch.where(power > 0, scatter / power, 0.0).reshape(shape))
        at_data.append(float(proxy_variance(law, process.sample(clean, t, eps), process, t).mean()) * sigma**2 / law.dim)
    return ProxyMap([float(k) for k in ratios], section, torch.stack(traces), torch.stack(shares), at_data)
