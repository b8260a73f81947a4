"""Figure 7: examples a second of `learn.fit`, against a training loop written by hand for the same model.

The model is the default for the digits: a residual perceptron behind Gaussian scalings. The loop by hand does the same work and nothing
else: batches in an order of their own each epoch, log-normal noise ratios, the weighted loss, Adam, clipping, the average of the weights;
with all coefficients in float32 and no checks, resumption or reproducible noise. Around our own denoiser, the same loop says how much of
the difference is the preconditioning's; behind isotropic scalings, `fit` says what Gaussian ones cost. All are timed from their first
step to their last.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.figure import Figure, Row, alternate, at_least, at_most, paired_ratio
from sfumato.data import Dataset, digits
from sfumato.denoise import GaussianScalings, Preconditioned
from sfumato.learn import FitSettings, LogNormalRatio, Times, default_denoiser, default_loss, fit

STEPS = 128

Answer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Flat noisy events, `alpha` and `sigma` `(batch, 1)` to the posterior mean."""


def measure(quick: bool = False) -> Figure:
    data = digits()
    model = default_denoiser(data)
    loss = default_loss(data)
    levels, sigma_data = loss.times, getattr(loss.weight, "sigma_data", 0.5)
    settings = FitSettings(64 if quick else STEPS, 256, learning_rate=1e-3)
    tasks = {
        "ours": lambda: fit(copy.deepcopy(model), data, settings, loss).seconds,
        "by hand": lambda: by_hand(copy.deepcopy(model), data, settings, levels, sigma_data),
        "by hand around our denoiser": lambda: by_hand(copy.deepcopy(model), data, settings, levels, sigma_data, shared=True),
    }
    plain = Preconditioned(model.network, model.process, sigma_data)
    tasks["ours, isotropic scalings"] = lambda: fit(copy.deepcopy(plain), data, settings, loss).seconds
    seconds = alternate(tasks, 3 if quick else 25)
    examples = settings.steps * settings.batch_size
    rows = [Row(f"{name}: examples a second", examples / statistics.median(values)) for name, values in seconds.items()]
    details = f"{settings.steps} steps of {settings.batch_size}, {sum(p.numel() for p in model.parameters()):,} weights"
    rows.append(at_least("our rate over that by hand", paired_ratio(seconds["by hand"], seconds["ours"]), 0.95, details))
    rows.append(Row("our rate over that around our denoiser", paired_ratio(seconds["by hand around our denoiser"], seconds["ours"])))
    cost = paired_ratio(seconds["ours"], seconds["ours, isotropic scalings"])
    rows.append(at_most("a step behind Gaussian scalings over one behind isotropic ones", cost, 1.05))
    return Figure(rows, {"seconds": seconds})


def by_hand(model: Preconditioned, data: Dataset, settings: FitSettings, levels: Times, sigma_data: float, shared: bool = False) -> float:
    """Train for the settings' steps, variance preserving; the seconds it took."""
    if not isinstance(levels, LogNormalRatio):
        raise TypeError("the loop is written for log-normal levels")
    answer = _shared(model) if shared else _by_hand(model)
    clean, top = data.train.flatten(1), float(model.process.ratio(1.0))
    parameters = list(model.parameters())
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
        k = torch.exp(levels.mean + levels.std * torch.randn(len(x0), 1)).clamp(max=top)
        alpha = torch.rsqrt(1 + k**2)
        sigma = k * alpha
        error = answer(alpha * x0 + sigma * torch.randn_like(x0), alpha, sigma) - x0
        value = ((1 / sigma_data**2 + (alpha / sigma) ** 2) * error.square()).mean()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(settings.ema_decay, (1 + step) / (10 + step)))
        losses.append(value.detach())
    torch.stack(losses).tolist()
    return time.perf_counter() - start


def _shared(model: Preconditioned) -> Answer:
    def answer(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        t = model.process.time_of_ratio((sigma / alpha)[:, 0].double().clamp(max=float(model.process.ratio(1.0))))
        return model(x.unflatten(1, model.event_shape), t).flatten(1)

    return answer


def _by_hand(model: Preconditioned) -> Answer:
    """The posterior mean behind the scalings of a Gaussian law."""
    if not isinstance(model.scalings, GaussianScalings):
        raise TypeError("the loop is written for Gaussian scalings")
    law, network = model.scalings.law.to(torch.float32), model.network
    vectors, variances, centre = law.covariance.lift(torch.eye(law.dim)).T, law.covariance.spectrum.float(), law.mean

    def answer(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        modes = (x - alpha * centre) @ vectors
        total = alpha**2 * variances + sigma**2
        seen = (modes * total.rsqrt() @ vectors.T).unflatten(1, model.event_shape)
        said = network(seen, torch.log(sigma / alpha)[:, 0] / 4, None).flatten(1)
        return (alpha * variances / total * modes + sigma * torch.sqrt(variances / total) * (said @ vectors)) @ vectors.T + centre

    return answer
