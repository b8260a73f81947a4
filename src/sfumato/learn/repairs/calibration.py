r"""The mean error of a denoiser, `b(t) = E[D(x_t, t) - x_0]`, measured on the data it was trained on; see `sfumato.denoise.Calibrated`.

Each noisy sample is compared with the very clean one it was made of. That has the mean of `D - E x_0`, and a variance of `mmse / n` in
place of `Var D / n`: at low noise hardly any, so that few draws serve where the plain mean of the predicted noise would need `n` well above
`dim / |E eps|^2`. Source: Pang et al. 2023 (arXiv 2302.10688), section 3.3; the pairing is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sfumato.data import check_finite
from sfumato.denoise.calibrated import MeanError
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, CheckpointError, DataError
from sfumato.learn.training.files import read_tensors, write_tensors
from sfumato.seeds import Noise, noise

_FIRST = 2
"""The first draw of a sample's noise that is used: draws 0 and 1 of the same seed may have made the data."""
_ROWS = 4096
"""So many samples are asked about at a time."""
_FORMAT = {"format": "sfumato-mean-error", "version": 1}


def mean_error(
    denoiser: Denoiser,
    data: Float[Tensor, "n *event"],
    ratios: Sequence[float],
    *,
    labels: Int[Tensor, "n"] | None = None,
    draws: int = 1,
    seed: int = 0,
) -> MeanError:
    """The mean error at the given levels, e.g. those that a sampler asks at.

    Arguments:
        denoiser: asked in its own process.
        data: clean samples of the training data, never of the model.
        ratios: different noise-to-signal ratios, positive and finite.
        labels: of the classes `0, 1, ...`, each of which then has a row of its own; the last row is asked without a class.
        draws: of noise, per sample and level.
        seed: of the noise.

    Raises:
        ArgumentError: no ratios, equal ones, or one that the process does not have with signal and noise left; no draws.
        DataError: fewer than two samples (of a class), NaN or infinite values.
    """
    levels = sorted((float(k) for k in ratios), reverse=True)
    if not levels or len(set(levels)) < len(levels) or not 0 < levels[-1] <= levels[0] < float("inf") or draws < 1:
        raise ArgumentError("ratios, draws", (levels, draws), "different positive ratios, and at least one draw")
    check_finite(data, "data")
    classes = 0 if labels is None else int(labels.max()) + 1
    members = [torch.ones(len(data), dtype=torch.bool)] if labels is None else [labels == c for c in range(classes)]
    if min(int(m.sum()) for m in members) < 2:
        raise DataError("data", f"{[int(m.sum()) for m in members]} samples a class", "at least two")
    source = noise(seed, len(data), tuple(data.shape[1:]), dtype=data.dtype, device=data.device)
    found = []
    with torch.no_grad():
        for i, k in enumerate(levels):
            t = float(denoiser.process.time_of_ratio(k))
            kinds = [(None, members[0])] if labels is None else [(labels, m) for m in members] + [(None, torch.ones_like(members[0]))]
            own = range(_FIRST + i * draws, _FIRST + (i + 1) * draws)
            found.append([_level(denoiser, data[m], t, None if y is None else y[m], source, m, own) for y, m in kinds])
    values, floor, norm = (torch.stack([torch.stack([row[j] for row in rows]) for rows in found]) for j in range(3))
    return MeanError(-torch.log(torch.tensor(levels, dtype=torch.float64)), values, floor, norm[:, -1])


def _level(
    denoiser: Denoiser, clean: Tensor, t: float, labels: Tensor | None, source: Noise, members: Tensor, draws: range
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the error over `sin`, its expected square for an exact belief, and the mean norm of the predicted noise."""
    alpha, sigma = (float(v) for v in denoiser.process.levels(t))
    total, square, norm = clean.new_zeros(clean.shape[1:], dtype=torch.float64), 0.0, 0.0
    for j in draws:
        eps = source.draw(j)[members.to(clean.device)]
        for some in torch.split(torch.arange(len(clean), device=clean.device), _ROWS):
            x = alpha * clean[some] + sigma * eps[some]
            answer = denoiser.denoise(x, t, None if labels is None else labels[some])
            error = (answer - clean[some]).to(torch.float64)
            total += error.sum(0)
            square += float(error.square().sum())
            norm += float(((x - alpha * answer) / sigma).flatten(1).norm(dim=1).sum())
    n, size = len(draws) * len(clean), sigma / (alpha**2 + sigma**2) ** 0.5
    mean = total / n
    floor = (square / n - float(mean.square().sum())) / (n - 1)
    return (mean / size).to(clean.dtype), torch.tensor(floor / size**2, dtype=torch.float64), torch.tensor(norm / n, dtype=torch.float64)


def save_mean_error(error: MeanError, file: str | Path) -> None:
    """Write a measured mean error next to the checkpoint it belongs to, as safetensors.

    Raises:
        OutputError: the file cannot be written.
    """
    names = ("half_log_snr", "values", "floor", "norm")
    write_tensors(Path(file), {name: getattr(error, name) for name in names}, _FORMAT)


def load_mean_error(file: str | Path) -> MeanError:
    """What `save_mean_error` wrote.

    Raises:
        CheckpointError: no such file, or one that is broken or of another kind.
    """
    tensors, record = read_tensors(Path(file))
    if record != _FORMAT:
        raise CheckpointError("file", str(file), "a mean error written by save_mean_error")
    return MeanError(**tensors)
