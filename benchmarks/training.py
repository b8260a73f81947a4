"""Figure 7: examples a second of `learn.fit`, against a training loop written by hand for the same model.

The model is the default for the digits: a residual perceptron behind Gaussian scalings. The loop by hand does the same work and nothing
else: batches in an order of their own each epoch, log-normal noise ratios, the weighted loss, Adam, clipping, the average of the weights;
with all coefficients in float32 and no checks, resumption or reproducible noise. Both are timed from their first step to their last.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from torch import Tensor

from benchmarks.figure import Figure, Row, alternate, at_least, paired_ratio
from sfumato.data import Dataset, digits
from sfumato.denoise import GaussianScalings, Preconditioned
from sfumato.learn import FitSettings, LogNormalRatio, Times, default_denoiser, default_loss, fit

STEPS = 256


def measure(quick: bool = False) -> Figure:
    data = digits()
    model = default_denoiser(data)
    loss = default_loss(data)
    levels, sigma_data = loss.times, getattr(loss.weight, "sigma_data", 0.5)
    settings = FitSettings(64 if quick else STEPS, 256, learning_rate=1e-3)
    tasks = {
        "ours": lambda: fit(copy.deepcopy(model), data, settings, loss).seconds,
        "by hand": lambda: by_hand(copy.deepcopy(model), data, settings, levels, sigma_data),
    }
    seconds = alternate(tasks, 3 if quick else 11)
    examples = settings.steps * settings.batch_size
    rows = [Row(f"{name}: examples a second", examples / statistics.median(values)) for name, values in seconds.items()]
    details = f"{settings.steps} steps of {settings.batch_size}, {sum(p.numel() for p in model.parameters()):,} weights"
    rows.append(at_least("our rate over that by hand", paired_ratio(seconds["by hand"], seconds["ours"]), 0.95, details))
    return Figure(rows, {"seconds": seconds})


def by_hand(model: Preconditioned, data: Dataset, settings: FitSettings, levels: Times, sigma_data: float) -> float:
    """Train for the settings' steps, variance preserving; the seconds it took."""
    scalings = model.scalings
    if not isinstance(scalings, GaussianScalings) or not isinstance(levels, LogNormalRatio):
        raise TypeError("the loop is written for Gaussian scalings and log-normal levels")
    law = scalings.law.to(torch.float32)
    vectors, variances, centre = law.covariance.lift(torch.eye(law.dim)).T, law.covariance.spectrum.float(), law.mean
    clean, network = data.train.flatten(1), model.network
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
    order, place, losses = torch.randperm(len(clean)), 0, []
    start = time.perf_counter()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        if place + settings.batch_size > len(clean):
            order, place = torch.randperm(len(clean)), 0
        x0 = clean[order[place : place + settings.batch_size]]
        place += settings.batch_size
        k = torch.exp(levels.mean + levels.std * torch.randn(len(x0), 1))
        alpha = torch.rsqrt(1 + k**2)
        sigma = k * alpha
        value = _loss(network, x0, alpha, sigma, (vectors, variances, centre), sigma_data).mean()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(settings.ema_decay, (1 + step) / (10 + step)))
        losses.append(value.detach())
    torch.stack(losses).tolist()
    return time.perf_counter() - start


def _loss(
    network: torch.nn.Module, x0: Tensor, alpha: Tensor, sigma: Tensor, law: tuple[Tensor, Tensor, Tensor], sigma_data: float
) -> Tensor:
    """The weighted squared error of each example, behind the scalings of a Gaussian law."""
    vectors, variances, centre = law
    x = alpha * x0 + sigma * torch.randn_like(x0)
    modes = (x - alpha * centre) @ vectors
    total = alpha**2 * variances + sigma**2
    shape = network.event_shape
    said = network((modes * total.rsqrt() @ vectors.T).unflatten(1, shape), torch.log(sigma / alpha)[:, 0] / 4, None).flatten(1)
    answer = (alpha * variances / total * modes + sigma * torch.sqrt(variances / total) * (said @ vectors)) @ vectors.T + centre
    weight = 1 / sigma_data**2 + (alpha / sigma) ** 2
    return weight * (answer - x0).square().mean(1, keepdim=True)
