r"""What of a model comes of its mean fit, what of the noise of its training target, and where in space either acts.

K models are trained on the usual noisy target and K on the exact one, with nothing else changed. At noisy data and on a map through it

    bias      |E_models D - D_exact|^2,
    variance  V = tr Cov_models[D]                      of either kind of model,
    noise     tr Cov[x_0 | x],                          what the target scatters by,
    share     1 - V_clean / V_proxy,                    how much of the variance is the target's noise.

Then all models sample, through one sampler: the average of their laws, and two counterfactuals, the flow of the average model (`V = 0`)
and of the exact denoiser, which ends at the data blurred by the last noise level, not at the points: laws are compared with that.
Nothing here assumes the sign of what variance does: gaps between training points may fill or empty.
Source: Vastola 2025 (arXiv 2504.12532).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, DataError
from sfumato.exact import Empirical
from sfumato.exact.learning.proxy import posterior_variance
from sfumato.explain.explanation import Explanation
from sfumato.explain.generalising.memorization import memorised_share, nearest
from sfumato.explain.generalising.proxy_map import ProxyMap, proxy_map
from sfumato.explain.generalising.regions import Masses, masses
from sfumato.explain.generalising.section import Section
from sfumato.explain.generalising.variance import AverageDenoiser, ensemble
from sfumato.learn.closed.triples import Target
from sfumato.metrics import sliced_wasserstein
from sfumato.noise import ScalarProcess
from sfumato.seeds import noise

Factory = Callable[[Target, int], Denoiser]
"""Trains a model on the target "proxy" or "clean", everything else (initial weights, order of the data, noise) drawn by the integer."""

_BINS = 40


@dataclass(frozen=True)
class SampledLaw:
    """A law by its samples.

    Arguments:
        masses: in the three regions of `sfumato.explain.generalising.regions`.
        memorised: the share of samples three times nearer to one training event than to any other.
        density: along the leading component, `(bins,)`.
    """

    masses: Masses
    memorised: float
    density: Tensor


@dataclass(frozen=True)
class Budget:
    """Where the models' error comes from, by noise level: at noisy data, in units of the data, summed over an event.

    Arguments:
        bias, variance, variance_clean, target_noise, noise_share: see the module.
    """

    bias: list[float]
    variance: list[float]
    variance_clean: list[float]
    target_noise: list[float]
    noise_share: list[float]


@dataclass(frozen=True, eq=False)
class GeneralizationReport(Explanation):
    """What `generalization_report` found.

    Arguments:
        ratios: the noise levels.
        budget: see `Budget`.
        map: of the target's noise.
        bias_map, variance_map: of the models on the noisy target, on the same places as `map`.
        edges: of the bins along the leading component.
        learned, mean_model, exact: the average of the models' laws, and the two counterfactuals.
        band: the 25th and 75th percentile over models of the density, `(2, bins)`.
        distances: total variation (of the binned densities) and (sliced) `W_1` of the learned law to either counterfactual.
    """

    ratios: list[float]
    budget: Budget
    map: ProxyMap
    bias_map: Tensor
    variance_map: Tensor
    edges: Tensor
    learned: SampledLaw
    mean_model: SampledLaw
    exact: SampledLaw
    band: Tensor
    distances: dict[str, float]

    @property
    def numbers(self) -> dict[str, float]:
        share = _share_of_noise(sum(self.budget.variance), sum(self.budget.variance_clean))
        out = {"variance due to target noise": share, **self.distances}
        for name, law in (("learned", self.learned), ("without variance", self.mean_model), ("exact", self.exact)):
            out |= {f"{name}: {where}": mass for where, mass in asdict(law.masses).items()} | {f"{name}: memorised": law.memorised}
        return out

    @property
    def meaning(self) -> str:
        learned, mean, exact = (law.masses for law in (self.learned, self.mean_model, self.exact))
        turn = "adds to" if learned.gap > mean.gap else "takes from"
        bias, variance = sum(self.budget.bias), sum(self.budget.variance)
        noise_part = self.numbers["variance due to target noise"]
        return (
            f"{100 * learned.gap:.1f} % of the samples lie between training events and {100 * learned.outside:.1f} % outside them, against "
            f"{100 * exact.gap:.1f} % and {100 * exact.outside:.1f} % for the exact denoiser. The average model alone gives "
            f"{100 * mean.gap:.1f} % between, so variance between models {turn} the gaps here. Of the models' squared error "
            f"{100 * bias / (bias + variance) if bias + variance else 0:.0f} % is common to all of them, and {100 * noise_part:.0f} % of "
            "the rest is noise of the training target."
        )

    def plot(self, ax: Any) -> None:
        middles = ((self.edges[1:] + self.edges[:-1]) / 2).tolist()
        ax.plot(middles, self.learned.density.tolist(), "C0", label="learned, average over models")
        ax.fill_between(middles, *self.band.tolist(), color="C0", alpha=0.25, label="25 to 75 % of models")
        ax.plot(middles, self.exact.density.tolist(), "C1", label="exact denoiser")
        ax.plot(middles, self.mean_model.density.tolist(), "C2--", label="average model (V = 0)")
        ax.set(xlabel="leading component", ylabel="density of samples")
        ax.legend()

    def plot_levels(self, ax: Any) -> None:
        """The budget by noise level: bias, variance on either target, target noise."""
        for name, values, style in (
            ("bias", self.budget.bias, "C2-o"),
            ("variance, usual target", self.budget.variance, "C0-o"),
            ("variance, exact target", self.budget.variance_clean, "C0--o"),
            ("target noise", self.budget.target_noise, "C1-o"),
        ):
            # a level at which nothing scatters has no place on a logarithmic axis
            shown = [(k, v) for k, v in zip(self.ratios, values, strict=True) if v > 1e-12]
            ax.loglog([k for k, _ in shown], [v for _, v in shown], style, label=name)
        ax.set(xlabel="noise-to-signal ratio k", ylabel="squared, summed over an event")
        ax.legend()


def generalization_report(
    factory: Factory,
    points: Float[Tensor, "N *event"],
    process: ScalarProcess,
    times: Sequence[float],
    *,
    models: int = 10,
    samples: int = 1000,
    ratios: Sequence[float] = (0.1, 0.3, 1.0, 3.0),
    cells: int = 25,
    seed: int = 0,
) -> GeneralizationReport:
    """Train `2 models` models, compare them and sample them.

    Arguments:
        factory: see `Factory`; its models are asked under `process`.
        points: the training set, at least 3 events.
        times: the sampler's, strictly falling, above 0.
        models: of each kind, at least 2.
        samples: of each model.
        ratios: noise levels at which the models are compared.
        cells: places of the maps along an axis.
        seed: of everything; model `i` is made with `seed + i`.

    Raises:
        ArgumentError: fewer than 2 models; times or ratios as in `ensemble` and `proxy_map`.
        DataError: fewer than 3 points.
    """
    if models < 2:
        raise ArgumentError("models", models, "at least 2 models", "One model has no variance.")
    if len(points) < 3:
        raise DataError("points", f"{len(points)} events", "at least 3")
    law, section = Empirical(points), Section.of(points)
    proxies, cleans = ([factory(target, seed + i).under(process) for i in range(models)] for target in ("proxy", "clean"))
    event = tuple(points.shape[1:])
    learned = ensemble(proxies, event, times, samples, seed)
    alone, true = (ensemble([d], event, times, samples * models, seed)[0] for d in (AverageDenoiser(proxies), law.denoiser(process)))
    bias_map, variance_map = _maps(law, process, proxies, ratios, section, cells)
    # what the exact denoiser reaches is near; 1 in 100 of its samples may be farther
    reach = float(nearest(true, points, 1)[0].quantile(0.99))
    edges = torch.linspace(-section.reach, section.reach, _BINS + 1, dtype=torch.float64)
    average, without, blurred = (_law(x, points, reach, section, edges) for x in (learned.flatten(0, 1), alone, true))
    others = {"average model": (alone, without), "exact denoiser": (true, blurred)}
    return GeneralizationReport(
        [float(k) for k in ratios],
        _budget(law, process, proxies, cleans, ratios, seed),
        proxy_map(law, process, ratios, section, cells=cells, seed=seed),
        bias_map,
        variance_map,
        edges,
        average,
        without,
        blurred,
        torch.quantile(torch.stack([_density(x, section, edges) for x in learned]), edges.new_tensor([0.25, 0.75]), 0),
        _distances(learned.flatten(0, 1), average, others, edges, seed),
    )


def _budget(
    law: Empirical, process: ScalarProcess, proxies: list[Denoiser], cleans: list[Denoiser], ratios: Sequence[float], seed: int
) -> Budget:
    """Bias, the two variances, the target's noise and the noise's share of the variance, by level, at 300 noisy data."""
    clean = law.sample(300, seed).to(torch.float64)
    eps = noise(seed, 1, tuple(clean.shape), dtype=torch.float64).draw(2)[0]
    rows = []
    for k in ratios:
        t = process.time_of_ratio(k)
        x = process.sample(clean, t, eps)
        bias, variance = _spread(proxies, law, x, process, float(t))
        _, without = _spread(cleans, law, x, process, float(t))
        values = [max(0.0, float(v.mean())) for v in (bias, variance, without, posterior_variance(law, x, process, t))]
        rows.append([*values, _share_of_noise(values[1], values[2])])
    return Budget(*(list(column) for column in zip(*rows, strict=True)))


def _share_of_noise(variance: float, clean: float) -> float:
    # models that do not differ owe nothing to the noise
    return 1 - clean / variance if variance > 0 else 0.0


def _maps(
    law: Empirical, process: ScalarProcess, proxies: list[Denoiser], ratios: Sequence[float], section: Section, cells: int
) -> tuple[Tensor, Tensor]:
    """Bias and variance on the section, `(levels, cells, ...)`."""
    places, maps = section.places(cells).reshape(-1, *law.event_shape), []
    for k in ratios:
        t = process.time_of_ratio(k)
        maps.append(torch.stack(_spread(proxies, law, float(process.alpha(t)) * places, process, float(t))))
    bias, variance = torch.stack(maps, 1).reshape(2, len(ratios), *(cells,) * section.dims)
    return bias, variance


def _spread(denoisers: list[Denoiser], law: Empirical, x: Tensor, process: ScalarProcess, t: float) -> tuple[Tensor, Tensor]:
    """Squared bias and variance over models at each `x`, summed over the event; the bias is corrected for the finite
    number of models, which leaves it unbiased and at times below 0."""
    with torch.no_grad():
        answers = torch.stack([d.denoise(x, t).flatten(1) for d in denoisers])
    variance = answers.var(0).sum(1)
    away = (answers.mean(0) - law.posterior_mean(x, process, t).flatten(1)).square().sum(1)
    return away - variance / len(denoisers), variance


def _law(x: Tensor, points: Tensor, reach: float, section: Section, edges: Tensor) -> SampledLaw:
    return SampledLaw(masses(x, points, reach), memorised_share(x, points), _density(x, section, edges))


def _density(x: Tensor, section: Section, edges: Tensor) -> Tensor:
    """Along the leading component; samples beyond the ends count in the outermost bins."""
    along = ((x.flatten(1) - section.origin) @ section.axes[0]).clamp(float(edges[0]), float(edges[-1]))
    counts = torch.histc(along, len(edges) - 1, float(edges[0]), float(edges[-1]))
    return counts / counts.sum() / (edges[1] - edges[0])


def _distances(
    learned: Tensor, average: SampledLaw, others: dict[str, tuple[Tensor, SampledLaw]], edges: Tensor, seed: int
) -> dict[str, float]:
    out = {}
    for name, (x, law) in others.items():
        out[f"total variation to the {name}"] = float((average.density - law.density).abs().sum() * (edges[1] - edges[0])) / 2
        out[f"W1 to the {name}"] = sliced_wasserstein(learned, x, 64, 1, seed).value
    return out
