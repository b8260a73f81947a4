"""Figure 5: the denoiser of 50,000 points in 3,072 dimensions, on batches of 256 in float32.

Two matrix products of that size are the floor: every distance, then the weighted sum. The rate is asked of `images`, smooth random pictures
`(3, 32, 32)` with a `1/f` spectrum, between which distances are what they are between photographs. Accuracy is asked of `clusters` too: ten
of ten of ten of fifty points, whose distances are comparable to the noise at every level asked about, so that at none of them one point
wins. That is the hardest case for the rate as well, and there it is a fact without a target. The measure of accuracy is a direct evaluation
with differences and weights in float64, sample by sample; the usual float32 form `|y|^2 - 2 y.x + |x|^2` stands beside.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.figure import Figure, Row, alternate, at_least, at_most, paired_ratio, timed
from sfumato.exact import Empirical, ExactDenoiser
from sfumato.noise import EDM

RATIOS = (0.01, 0.1, 1.0, 10.0)
_SPREADS = (15.0, 1.5, 0.15, 0.015)
"""Distance of a cluster's members from its centre, level by level."""
_CHECKED = 8


def measure(quick: bool = False) -> Figure:
    n, side, batch, rounds = (4_000, 16, 256, 3) if quick else (50_000, 32, 256, 5)
    dim = 3 * side**2
    rows: list[Row] = []
    facts: dict[str, Any] = {"points": n, "dim": dim, "batch": batch, "spreads": list(_SPREADS)}
    for name, make in {"images": lambda: images(n, side), "clusters": lambda: clusters(n, dim)}.items():
        more, facts[name] = _with(name, make(), batch, rounds)
        rows += more
    return Figure(rows, facts)


def _with(name: str, points: Tensor, batch: int, rounds: int) -> tuple[list[Row], dict[str, Any]]:
    before = _resident()
    denoiser = Empirical(points).denoiser(EDM())
    held = _resident() - before
    rows, facts = [], {}
    for k in RATIOS:
        more, facts[f"seconds at {k:g}"] = _at(name, denoiser, points, k, batch, held, rounds)
        rows += more
    return rows, facts


def _at(name: str, denoiser: ExactDenoiser, points: Tensor, k: float, batch: int, held: int, rounds: int) -> tuple[list[Row], Any]:
    """The rows of one set of points at one level; `held` bytes are kept by the denoiser."""
    x, t = _noisy(points, batch, k), EDM().time_of_ratio(k)
    tasks = {"ours": timed(lambda: denoiser.denoise(x, t)), "products": timed(_products(x, points))}
    peak = max(_peak(tasks["ours"]) for _ in range(2))
    seconds = alternate(tasks, rounds if name == "images" else 2)
    few = x[:_CHECKED]
    truth = direct(few, points, k)
    error, usual = distance(denoiser.denoise(few, t), truth), distance(squared_distance_form(few, points, k), truth)
    rate = paired_ratio(seconds["products"], seconds["ours"])
    took = f"{statistics.median(seconds['ours']):.3g} s, two products {statistics.median(seconds['products']):.3g} s (medians)"
    label = f"{name}, k = {k:g}: rate over that of two products"
    rows = [
        at_least(label, rate, 0.8, took) if name == "images" else Row(label, rate, details=took),
        at_most(f"{name}, k = {k:g}: extra memory, GB", (held + peak) / 1e9, 1.0, f"{peak / 1e6:.0f} MB of it for the call"),
        at_most(f"{name}, k = {k:g}: largest relative error", error, 1e-5, f"{_CHECKED} samples; the usual form: {usual:.2g}"),
    ]
    return rows, seconds


def images(n: int, side: int) -> Tensor:
    """`n` smooth random pictures `(3, side, side)` in [-1, 1], flat and float32: Gaussian with amplitudes that fall as `1/f`."""
    generator = torch.Generator().manual_seed(0)
    down, across = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
    amplitude = 1 / torch.sqrt(down**2 + across**2).clamp(min=1 / side)
    out = torch.empty(n, 3 * side**2)
    for first in range(0, n, 1024):
        part = out[first : first + 1024]
        white = torch.randn(len(part), 3, side, side, generator=generator)
        smooth = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(side, side)).flatten(1)
        part.copy_((smooth / smooth.std() / 2).clamp(-1, 1))
    return out


def clusters(n: int, dim: int) -> Tensor:
    """`n` points `(n, dim)`, float32: 10 clusters of 10 clusters of 10 clusters, each level narrower."""
    generator = torch.Generator().manual_seed(0)
    out = torch.zeros(n, dim)
    for level, spread in enumerate(_SPREADS):
        count = min(n, 10 ** (level + 1)) if level < 3 else n
        centres = torch.randn(count, dim, generator=generator).mul_(spread / dim**0.5)
        for first in range(0, n, 4096):
            rows = torch.arange(first, min(n, first + 4096))
            out[rows] += centres[rows % count]
    return out


def _noisy(points: Tensor, batch: int, k: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randint(len(points), (batch,), generator=generator)
    return points[chosen] + k * torch.randn(batch, points.shape[1], generator=generator)


def _products(x: Tensor, points: Tensor) -> Callable[[], None]:
    scores, sums = torch.empty(len(x), len(points)), torch.empty_like(x)

    def task() -> None:
        torch.mm(x, points.T, out=scores)
        torch.mm(scores, points, out=sums)

    return task


def direct(x: Tensor, points: Tensor, k: float) -> Tensor:
    """The posterior mean at `alpha = 1`, `sigma = k` from differences in float64, sample by sample."""
    wide, parts = x.double(), torch.split(points, 2048)
    squares = torch.cat([torch.stack([(one - part).square().sum(1) for one in wide]) for part in map(Tensor.double, parts)], 1)
    weights = torch.softmax(-squares / (2 * k**2), 1)
    sums = (w @ part.double() for w, part in zip(torch.split(weights, 2048, 1), parts, strict=True))
    return torch.stack(list(sums)).sum(0)


def squared_distance_form(x: Tensor, points: Tensor, k: float) -> Tensor:
    """The same as it is usually written, in float32: what is lost where distances are small beside the norms."""
    squares = x.square().sum(1, keepdim=True) - 2 * x @ points.T + points.square().sum(1)
    return torch.softmax(-squares / (2 * k**2), 1) @ points


def distance(x: Tensor, truth: Tensor) -> float:
    """The largest `|x_i - truth_i| / |truth_i|`."""
    return float(((x.double() - truth).norm(dim=1) / truth.norm(dim=1)).max())


def _memory(kind: str) -> int:
    """Bytes of this process in memory: now (`VmRSS`), or the most since the mark was last reset (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))


def _resident() -> int:
    # what earlier work freed may still be resident, and would be used again unseen
    ctypes.CDLL(None).malloc_trim(0)
    return _memory("VmRSS")


def _peak(task: Callable[[], Any]) -> int:
    """The most memory that a task takes beyond what was resident before it; Linux keeps count."""
    before = _resident()
    Path("/proc/self/clear_refs").write_text("5")
    task()
    return _memory("VmHWM") - before
