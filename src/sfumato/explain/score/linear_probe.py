r"""The linear part of a denoiser, measured, and what it should be.

Whatever the law of the data, with mean `m` and covariance `Sigma` the best affine denoiser is its Gaussian's:

    W* = alpha Sigma (alpha^2 Sigma + sigma^2)^-1,    b* = (1 - alpha W*) m,    loss  sigma^2 tr[Sigma (alpha^2 Sigma + sigma^2)^-1],

and so the regression of any exact posterior mean on the noisy data is `W*` too. Two estimates of a denoiser's own `W` are compared with
it, in the coordinates of the law's leading eigenvectors: centred least squares of `D(x)` on `x` over `x = alpha x_0 + sigma eps`, and the
mean Jacobian `E dD/dx` (the same thing if `x` is Gaussian, by Stein's identity). What the regression leaves is the non-linear share.

Source: Wang & Vastola 2023 (arXiv 2311.10892).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian
from sfumato.explain.explanation import Explanation, plain
from sfumato.explain.score.score_probe import DRAW
from sfumato.noise import ScalarProcess, Time
from sfumato.seeds import noise

LEADING = 10
"""So many modes of the largest variance are judged: in the others `W*` is small, and at high noise a network's errors drown it."""
WHOLE, PART = 256, 128
"""Up to `WHOLE` dimensions all are regressed, beyond that the leading `PART`, unless one asks for more."""
_ROWS = 256
_OFF, _LINEAR, _MIXTURE = 0.05, 0.05, 0.5


def linear_loss(law: Gaussian, process: ScalarProcess, t: Time) -> Tensor:
    """`sigma^2 tr[Sigma (alpha^2 Sigma + sigma^2)^-1]`: the mean square error of the best affine denoiser, float64, shaped as `t`."""
    alpha, sigma = (c.to(law.device)[..., None] for c in process.levels(t))
    v = law.covariance.spectrum
    return law.covariance.basis.total(torch.where(v == 0, 0.0, sigma**2 * v / (alpha**2 * v + sigma**2)))


@dataclass(frozen=True)
class LinearLevel:
    """One noise level.

    Arguments:
        ratio: noise-to-signal ratio `k`.
        cosine, distance: of the regressed `W` to `W*`: their cosine, and `|W - W*| / |W*|` (Frobenius).
        leading_error: the largest error of `u_k W u_k` among the `LEADING` modes.
        nonlinear: `1 - R^2`, the share of the answer's variance that no affine map explains.
        antisymmetric: `|W - W^T| / |W + W^T|`; a gradient field's is 0.
        off_diagonal: the share of `|W|^2` off the diagonal in the data's eigenbasis; that of `W*` is 0.
        shrinkage, theory: `u_k W u_k` and `alpha l / (alpha^2 l + sigma^2)` for every mode.
        jacobian_cosine, jacobian_distance, jacobian_antisymmetric: the same of the mean Jacobian; NaN if it was left out.
    """

    ratio: float
    cosine: float
    distance: float
    leading_error: float
    nonlinear: float
    antisymmetric: float
    off_diagonal: float
    shrinkage: tuple[float, ...]
    theory: tuple[float, ...]
    jacobian_cosine: float = math.nan
    jacobian_distance: float = math.nan
    jacobian_antisymmetric: float = math.nan

    @property
    def verdict(self) -> str:
        """Linear: all but 5 % of the answer is affine, and that part is the data's; "mixture-like": the affine part is the data's, and up
        to half of the answer is not affine; "non-linear": more than half; "off": leading modes are not shrunk as the data's covariance
        asks, by 0.05 or more.
        """
        if not self.leading_error < _OFF:
            return "off"
        return "linear" if self.nonlinear <= _LINEAR else "mixture-like" if self.nonlinear <= _MIXTURE else "non-linear"


@dataclass(frozen=True)
class LinearProbe(Explanation):
    """The linear part of a denoiser at each noise level.

    Arguments:
        levels: what was measured.
        components, dim: how many leading modes were regressed, of how many dimensions.
        probes: noisy samples per level.
        matrices, jacobians: `W` in the coordinates of the leading modes, one float64 `(components, components)` a level; not in `to_dict`.
    """

    levels: tuple[LinearLevel, ...]
    components: int
    dim: int
    probes: int
    matrices: tuple[Tensor, ...] = field(repr=False)
    jacobians: tuple[Tensor, ...] = field(repr=False)

    @property
    def numbers(self) -> dict[str, float]:
        out = {}
        for level in self.levels:
            for name in ("cosine", "leading_error", "nonlinear", "antisymmetric"):
                out[f"{name} at {level.ratio:.3g}"] = float(getattr(level, name))
        return out

    @property
    def meaning(self) -> str:
        kinds = {level.ratio: level.verdict for level in self.levels}
        said = "; ".join(
            f"{kind} at {', '.join(f'{k:.2g}' for k, v in kinds.items() if v == kind)}" for kind in dict.fromkeys(kinds.values())
        )
        worst = max(self.levels, key=lambda level: level.leading_error)
        return (
            f"By noise-to-signal ratio the model is {said}. The shrinkage of the {min(LEADING, self.components)} leading modes is within "
            f"{worst.leading_error:.2g} of what the data's covariance asks for, worst at {worst.ratio:.2g}."
        )

    def plot(self, ax: Any) -> None:
        """Shrinkage of the first, the fifth and the tenth mode against noise, on the curves that the covariance predicts."""
        ratios = [level.ratio for level in self.levels]
        for i, mode in enumerate(m for m in (0, 4, 9) if m < self.components):
            ax.plot(ratios, [level.theory[mode] for level in self.levels], color=f"C{i}", label=f"mode {mode + 1}, covariance")
            ax.plot(ratios, [level.shrinkage[mode] for level in self.levels], "o", color=f"C{i}", label=f"mode {mode + 1}, model")
        ax.plot(ratios, [level.nonlinear for level in self.levels], color="0.5", ls="--", label="non-linear share")
        ax.set(xscale="log", xlabel="noise-to-signal ratio", ylabel="shrinkage of a mode")
        ax.legend()

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the matrices, and the verdicts."""
        out = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name not in ("matrices", "jacobians")}
        return {**out, "verdicts": [level.verdict for level in self.levels], "numbers": plain(self.numbers), "meaning": self.meaning}


def linear_probe(
    denoiser: Denoiser,
    law: Gaussian,
    x0: Float[Tensor, "n *event"],
    ratios: Sequence[float],
    *,
    components: int | None = None,
    probes: int | None = None,
    jacobian: int = 64,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> LinearProbe:
    """Measure the linear part of a denoiser.

    Arguments:
        denoiser: whose.
        law: the mean and covariance of the data, e.g. `fit_gaussian`.
        x0: clean data; probes go round it, each with its own noise (the same one at every level).
        ratios: positive noise-to-signal ratios.
        components: how many leading modes of the law to regress on each other; see `WHOLE` and `PART`. No larger matrix is made.
        probes: noisy samples per level; default: 50 per component.
        jacobian: samples for the mean Jacobian, at one reverse differentiation per sample and component; 0 leaves it out.
        progress: called with the number of probes done.

    Raises:
        ArgumentError: a ratio that is not positive, more components than the law has modes, fewer than 10 probes per component (least
            squares would fit noise).
    """
    r, n = _sizes(law, ratios, components, probes)
    coordinates = _Coordinates(law, r)
    times = [float(denoiser.process.time_of_ratio(k)) for k in ratios]
    sums = [_Regression(r) for _ in times]
    for first in range(0, n, _ROWS):
        rows = torch.arange(first, min(first + _ROWS, n), device=x0.device) % len(x0)
        eps = noise(seed, len(rows), tuple(x0.shape[1:]), first=first, dtype=x0.dtype, device=x0.device).draw(DRAW)
        for t, total in zip(times, sums, strict=True):
            x = denoiser.process.sample(x0[rows], t, eps)
            with torch.no_grad():
                total.add(coordinates.of(x), coordinates.of(denoiser.denoise(x, t)))
        if progress is not None:
            progress(min(first + _ROWS, n))
    fitted, jacobians, levels = [total.solve() for total in sums], [], []
    for k, t, (W, nonlinear) in zip(ratios, times, fitted, strict=True):
        alpha, sigma = (float(c) for c in denoiser.process.levels(t))
        J = _mean_jacobian(denoiser, coordinates, x0[torch.arange(jacobian, device=x0.device) % len(x0)], t, seed) if jacobian else None
        levels.append(_level(float(k), W, nonlinear, J, coordinates.variances, alpha, sigma))
        jacobians += [] if J is None else [J]
    return LinearProbe(tuple(levels), r, law.dim, n, tuple(W for W, _ in fitted), tuple(jacobians))


def _sizes(law: Gaussian, ratios: Sequence[float], components: int | None, probes: int | None) -> tuple[int, int]:
    """How many modes and how many probes, checked."""
    modes = law.covariance.rank
    r = min(modes, law.dim if law.dim <= WHOLE else PART) if components is None else components
    if not 1 <= r <= modes:
        raise ArgumentError("components", r, f"1 to {modes} modes of the law")
    n = 50 * r if probes is None else probes
    if n < 10 * r:
        raise ArgumentError("probes", n, f"at least {10 * r}, ten per component", "Least squares with fewer fits the noise.")
    if not ratios or not all(0 < k < math.inf for k in ratios):
        raise ArgumentError("ratios", list(ratios), "positive noise-to-signal ratios")
    return r, n


class _Coordinates:
    """The leading modes of a law: coefficients along them, and their variances, falling."""

    def __init__(self, law: Gaussian, count: int) -> None:
        self.covariance, self.event_shape = law.covariance, law.event_shape
        self.variances, self.kept = torch.sort(law.covariance.eigenvalues, descending=True, stable=True)
        self.variances, self.kept = self.variances[:count].cpu(), self.kept[:count]
        self.mean = law.covariance.project(law.mean[None])[:, self.kept]

    def of(self, x: Tensor) -> Tensor:
        """`U^T (x - m)`, `(batch, count)`, in the law's dtype; the mean is only a shift that keeps digits."""
        return (self.covariance.project(x.flatten(1).to(self.covariance.dtype))[:, self.kept] - self.mean).to("cpu", torch.float64)

    def directions(self, like: Tensor) -> Tensor:
        """The modes as events, `(count, *event)`."""
        unit = torch.zeros(len(self.kept), self.covariance.rank, dtype=self.covariance.dtype, device=self.covariance.device)
        unit[torch.arange(len(self.kept)), self.kept] = 1
        return self.covariance.lift(unit).reshape(-1, *self.event_shape).to(like)


class _Regression:
    """Sums of products of `z` and `d`, merged batch by batch about running means."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = torch.zeros(2 * size, dtype=torch.float64)
        self.scatter = torch.zeros(2 * size, 2 * size, dtype=torch.float64)

    def add(self, z: Tensor, d: Tensor) -> None:
        both = torch.cat([z, d], 1)
        mean, total = both.mean(0), self.count + len(both)
        gap = mean - self.mean
        self.scatter += (both - mean).T @ (both - mean) + torch.outer(gap, gap) * (self.count * len(both) / total)
        self.mean += gap * (len(both) / total)
        self.count = total

    def solve(self) -> tuple[Tensor, float]:
        """`W` of `d = W z + b` by least squares, and `1 - R^2`."""
        size = len(self.mean) // 2
        zz, dz = self.scatter[:size, :size], self.scatter[size:, :size]
        W = torch.linalg.solve(zz, dz.T).T
        variance = float(self.scatter[size:, size:].trace())
        return W, 1 - float((W * dz).sum()) / variance if variance else 0.0


def _mean_jacobian(denoiser: Denoiser, coordinates: _Coordinates, x0: Tensor, t: float, seed: int) -> Tensor:
    """`U^T E[dD/dx] U`: one evaluation of all samples, and a reverse differentiation for every mode."""
    eps = noise(seed, len(x0), tuple(x0.shape[1:]), dtype=x0.dtype, device=x0.device).draw(DRAW)
    with torch.enable_grad():
        x = denoiser.process.sample(x0, t, eps).requires_grad_()
        said = denoiser.denoise(x, t)
        if not said.requires_grad:
            raise ArgumentError("denoiser", "answers without a gradient", "a differentiable denoiser", "`jacobian=0` leaves that part out.")
        # the sum over samples of u^T J is one gradient, since a sample's answer depends on that sample alone
        rows = [torch.autograd.grad(said, x, u.expand_as(said), retain_graph=True)[0].sum(0) for u in coordinates.directions(x)]
    pulled = torch.stack(rows).flatten(1).to(coordinates.covariance.dtype) / len(x)
    return coordinates.covariance.project(pulled)[:, coordinates.kept].to("cpu", torch.float64)


def _level(ratio: float, W: Tensor, nonlinear: float, J: Tensor | None, variances: Tensor, alpha: float, sigma: float) -> LinearLevel:
    theory = alpha * variances / (alpha**2 * variances + sigma**2)
    best = torch.diag(theory)
    own = W.diagonal()
    off = float((W - torch.diag(own)).square().sum() / W.square().sum()) if bool(W.any()) else 0.0
    of_jacobian = () if J is None else (*_likeness(J, best), _antisymmetry(J))
    return LinearLevel(
        ratio,
        *_likeness(W, best),
        float((own - theory)[:LEADING].abs().max()),
        nonlinear,
        _antisymmetry(W),
        off,
        tuple(own.tolist()),
        tuple(theory.tolist()),
        *of_jacobian,
    )


def _likeness(W: Tensor, best: Tensor) -> tuple[float, float]:
    """The cosine and the relative distance."""
    return float((W * best).sum() / (W.norm() * best.norm())), float((W - best).norm() / best.norm())


def _antisymmetry(W: Tensor) -> float:
    return float((W - W.T).norm() / (W + W.T).norm())
