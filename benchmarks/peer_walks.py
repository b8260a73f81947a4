"""Any sampler of `diffusers`, k-diffusion and azula over any times: noise-to-signal ratios in, states in the data's units out.

All state spaces are one: `y = x / alpha` at the ratio `k = sigma / alpha`. A walk keeps the dtype of its start. In float64 the schedulers
of `diffusers` get levels in float64 and cast to it where they cast to float32; in float32 they are as shipped. Where the last ratio is
above zero, schedulers that lower their order before zero noise are told that this is not it (`final_sigmas_type="sigma_min"`), and those
of two evaluations a step make both in the last step too.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.agreement import _as_float64
from benchmarks.overhead import _k_diffusion_sampling
from sfumato.integrations.aliases import Alias
from sfumato.seeds import Noise

_TWICE = ("HeunDiscrete", "KDPM2Discrete", "DPMSolverSDE")
_OVER_RATIO = ("EulerDiscrete", "EulerAncestralDiscrete", "LMSDiscrete", *_TWICE)


_sampling = functools.cache(_k_diffusion_sampling)


class Increments(Protocol):
    """Standard normal noise by the interval of ratios that it belongs to."""

    def between(self, a: float, b: float) -> Tensor:
        """Of the interval from `a` down to `b`."""


@dataclass(frozen=True)
class Task:
    """What is walked.

    Arguments:
        ratios: falling, the last may be 0.
        start: `y` at the first `(batch, *event)`.
        answer: `(y, k) -> E[x_0 | y]`.
        noise: for samplers that draw some; None for the library's own generators.
        generator: what `diffusers` is given as such, where `noise` is None.
    """

    ratios: tuple[float, ...]
    start: Tensor
    answer: Callable[[Tensor, float], Tensor]
    noise: Increments | None = None
    generator: Any = None

    @property
    def levels(self) -> Tensor:
        return torch.tensor(self.ratios, dtype=self.start.dtype)

    def steps(self) -> Iterator[Tensor]:
        """The noise of step after step."""
        return (self.noise.between(a, b) for a, b in itertools.pairwise(self.ratios))  # type: ignore[union-attr]


@dataclass(frozen=True)
class Steps:
    """Addressable draws as increments: draw number `i` for the step that ends at ratio number `i`."""

    draws: Noise
    ratios: tuple[float, ...]

    def between(self, a: float, b: float) -> Tensor:
        return self.draws.draw(min(range(len(self.ratios)), key=lambda i: abs(self.ratios[i] - b)))


@dataclass(frozen=True)
class Basis:
    """One unit vector a piece of the Brownian path over the ratio: what a linear sampler makes of it is its exact response.

    The pieces are the halves of the steps in log-ratio, where samplers with an inner node draw. Sample 0 is for the start.
    """

    ratios: tuple[float, ...]
    event: int

    @property
    def places(self) -> list[float]:
        inner = [(a * b) ** 0.5 for a, b in itertools.pairwise(self.ratios)]
        return [*itertools.chain.from_iterable(zip(self.ratios[:-1], inner, strict=True)), self.ratios[-1]]

    def between(self, a: float, b: float) -> Tensor:
        places = self.places
        first, last = (min(range(len(places)), key=lambda i: abs(places[i] - k)) for k in (a, b))
        out = torch.zeros(len(places), self.event, dtype=torch.float64)
        for i in range(first, last):
            out[1 + i] = (places[i] - places[i + 1]) ** 0.5
        return out / (places[first] - places[last]) ** 0.5


def walk(sampler: Alias, task: Task) -> Tensor:
    """`y` at the last ratio.

    Raises:
        ImportError: the library is absent.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"diffusers": _diffusers, "k-diffusion": _k_diffusion, "azula": _azula}[sampler.library](sampler, task)


def _k_diffusion(sampler: Alias, task: Task) -> Tensor:
    sampling = _sampling()
    # of its utilities, which are not loaded, the samplers use this one
    sampling.utils.append_dims = lambda v, ndim: v.reshape(-1, *[1] * (ndim - 1))
    method, options = getattr(sampling, sampler.name), dict(sampler.settings)
    if task.noise is not None and "noise_sampler" in inspect.signature(method).parameters:
        options["noise_sampler"] = lambda a, b: task.noise.between(float(a), float(b))  # type: ignore[union-attr]

    def model(y: Tensor, k: Tensor) -> Tensor:
        return task.answer(y, float(k[0]))

    if sampler.name == "sample_dpm_fast":
        low, top = task.ratios[-1], task.ratios[0]
        with _default_dtype(task.start.dtype):  # in which it makes its times
            return method(model, task.start, low, top, len(task.ratios) - 1, disable=True, **options)  # type: ignore[no-any-return]
    return method(model, task.start, task.levels, disable=True, **options)  # type: ignore[no-any-return]


def _azula(sampler: Alias, task: Task) -> Tensor:
    sampling = importlib.import_module("azula.sample")
    levels, n = task.levels, len(task.ratios) - 1

    def place(u: Tensor) -> Tensor:
        return (n * (1 - u)).round().long()

    class Belief:
        schedule = staticmethod(lambda u: (torch.ones_like(u), levels[place(u)]))

        def __call__(self, y: Tensor, u: Tensor) -> SimpleNamespace:
            return SimpleNamespace(mean=task.answer(y, task.ratios[int(place(u))]))

    method = getattr(sampling, sampler.name)(Belief(), steps=n, silent=True, dtype=levels.dtype, **sampler.settings)
    with _drawing(torch, "randn_like", task):
        return method(task.start)  # type: ignore[no-any-return]


def _diffusers(sampler: Alias, task: Task) -> Tensor:
    double = task.start.dtype == torch.float64
    with _as_float64() if double else contextlib.nullcontext():
        scheduler = _scheduler(sampler, task)
        with _drawing(sys.modules[type(scheduler).__module__], "randn_tensor", task):
            return _walk_scheduler(scheduler, sampler, task)


def _scheduler(sampler: Alias, task: Task) -> Any:
    """A scheduler with the task's levels."""
    import diffusers

    cls, short, levels, n = getattr(diffusers, sampler.name), _short(sampler), task.levels, len(task.ratios) - 1
    known = inspect.signature(cls.__init__).parameters
    told = {key: value for key, value in sampler.settings.items() if key in known}  # the others are arguments of `step`
    if short not in (*_OVER_RATIO, "IPNDM"):
        told["prediction_type"] = "sample"
    if task.ratios[-1] and "final_sigmas_type" in known:
        told["final_sigmas_type"] = "sigma_min"
    if "Singlestep" in short:  # else it says that it will, and does
        told["lower_order_final"] = task.ratios[-1] == 0
    scheduler = cls(**told)
    scheduler.set_timesteps(n)
    scheduler.set_begin_index(0)
    scheduler.is_scale_input_called, scheduler.sigmas = True, levels
    if short in _TWICE:
        scheduler.sigmas = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:], levels[-1:]])
    if short == "KDPM2Discrete":
        middles = torch.cat([levels[:1], (levels[1:].log() / 2 + levels[:-1].log() / 2).exp()])
        scheduler.sigmas_interpol = torch.cat([middles[:1], middles[1:].repeat_interleave(2)])
    if short == "IPNDM":
        scheduler.alphas = (1 + levels**2) ** -0.5
        scheduler.betas = levels * scheduler.alphas
    if hasattr(scheduler, "noise_sampler") and task.noise is not None:
        scheduler.noise_sampler = lambda a, b: task.noise.between(float(a), float(b))  # type: ignore[union-attr]
    return scheduler


def _walk_scheduler(scheduler: Any, sampler: Alias, task: Task) -> Tensor:
    short, known = _short(sampler), inspect.signature(scheduler.step).parameters
    options = {key: value for key, value in sampler.settings.items() if key in known}
    if task.generator is not None and "generator" in known:
        options["generator"] = task.generator
    asked, over = _asked(short, task.ratios), short in _OVER_RATIO
    x = task.start if over else task.start * (1 + task.ratios[0] ** 2) ** -0.5
    for i, k in enumerate(asked):
        alpha = (1 + k**2) ** -0.5
        y = x if over else x / alpha
        output = clean = task.answer(y, k)
        if over:
            output = (y - clean) / k
        elif short == "IPNDM":  # which asks for the velocity
            output = alpha * ((y - clean) / k - k * clean)
        x = scheduler.step(output, scheduler.timesteps[min(i, len(scheduler.timesteps) - 1)], x, **options).prev_sample
    return x if over else x * (1 + task.ratios[-1] ** 2) ** 0.5


def _asked(short: str, ratios: Sequence[float]) -> list[float]:
    """Where a scheduler wants answers."""
    if short not in _TWICE:
        return list(ratios[:-1])
    inner = [b if short == "HeunDiscrete" else (a * b) ** 0.5 for a, b in itertools.pairwise(ratios)]
    both = list(itertools.chain.from_iterable(zip(ratios[:-1], inner, strict=True)))
    return both if ratios[-1] else both[:-1]


def _short(sampler: Alias) -> str:
    return sampler.name.removesuffix("Scheduler")


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


@contextlib.contextmanager
def _drawing(module: Any, name: str, task: Task) -> Iterator[None]:
    """Inside, a module's function hands out the task's noise, step after step; nothing changes if it has none."""
    if task.noise is None or not hasattr(module, name):
        yield
        return
    usual, fresh = getattr(module, name), task.steps()
    setattr(module, name, lambda *_, **__: next(fresh))
    try:
        yield
    finally:
        setattr(module, name, usual)
