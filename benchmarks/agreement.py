"""Figure 3: our classic solvers against `diffusers`, k-diffusion and azula, on the same times and noise: the largest relative distance.

The schedulers of `diffusers` keep their noise levels and coefficients in float32. With these levels replaced by ours in float64, and the
casts in their steps made casts to float64, what is left is the formulas' own difference; as shipped, it is their rounding. k-diffusion and
azula compute in the state's own dtype. On the digits' mixture, 20 steps equal in log-SNR down to the ratio 0.02 and one to zero noise;
k-diffusion walks `x / alpha` over the ratio.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.figure import Figure, Row, at_most
from benchmarks.overhead import _k_diffusion_sampling
from benchmarks.world import World, world
from sfumato.noise import EDM
from sfumato.sample import Ancestral, Heun, Linearisation, Program, Singlestep, Solver, deis, run, uniform_log_snr
from sfumato.sample.compilers.exponential import Exponential
from sfumato.sample.compilers.multistep import ddim, dpm_solver, unipc
from sfumato.seeds import Noise, noise

STEPS, LOW, START, LIMIT = 20, 0.02, 32, 1e-5
_DIFFUSERS = (
    ("DDIM (as DPM-Solver++ of order 1)", "DPMSolverMultistepScheduler", {"solver_order": 1}, ddim()),
    ("DDIM (as Euler's method over the ratio)", "EulerDiscreteScheduler", {}, ddim()),
    ("DPM-Solver++(2M)", "DPMSolverMultistepScheduler", {"solver_order": 2}, dpm_solver(2)),
    ("DPM-Solver++(3M), as published", "DPMSolverMultistepScheduler", {"solver_order": 3}, dpm_solver(3, published=True)),
    ("UniPC-2", "UniPCMultistepScheduler", {"solver_order": 2}, unipc(2)),
    ("UniPC-3", "UniPCMultistepScheduler", {"solver_order": 3}, unipc(3)),
    ("DEIS-2, to the ratio 0.02", "DEISMultistepScheduler", {"solver_order": 2}, deis(2)),
)


@dataclass(frozen=True)
class _Case:
    """One sampler of a peer: its name there, its options, the solver of ours that should be the same, and how far the times go."""

    peer: str
    options: dict[str, Any]
    ours: Solver
    to_zero: bool = True


_K_DIFFUSION = (
    _Case("euler", {}, ddim()),
    _Case("heun", {}, Heun()),
    _Case("dpm_2", {}, Singlestep(2, "noise")),
    _Case("lms", {}, deis(4, variable="ratio"), to_zero=False),
    _Case("dpmpp_2m", {}, dpm_solver(2)),
    _Case("dpmpp_2s_ancestral", {"eta": 0.0}, Singlestep(2)),
    _Case("dpmpp_sde", {"eta": 0.0}, Singlestep(2)),
    _Case("dpmpp_2m_sde", {"eta": 0.0}, dpm_solver(2)),
    _Case("dpmpp_3m_sde", {"eta": 0.0}, dpm_solver(3, form="taylor", published=True)),
    _Case("euler_ancestral", {"eta": 1.0}, Ancestral(1.0)),
    _Case("dpmpp_2m_sde", {"eta": 1.0}, Ancestral(1.0, 2)),
)
_AZULA = (
    _Case("EulerSampler", {}, ddim()),
    _Case("DDIMSampler", {"eta": 0.0}, ddim()),
    _Case("DDPMSampler", {}, Ancestral(1.0)),
    _Case("HeunSampler", {}, Heun(), to_zero=False),
    _Case("zABSampler", {"order": 3}, deis(3, variable="ratio"), to_zero=False),
    _Case("zEABSampler", {"order": 3}, deis(3), to_zero=False),
    _Case("xEABSampler", {"order": 2}, dpm_solver(2, form="taylor"), to_zero=False),
    _Case("xEABSampler", {"order": 3}, Exponential(Linearisation.data(), 3), to_zero=False),
)


def measure(quick: bool = False) -> Figure:
    w, rows = world("digits"), []
    for name, scheduler, config, solver in _DIFFUSERS:
        rows.append(_diffusers_row(w, name, scheduler, config, solver))
    for package, cases, walk in (("k-diffusion", _K_DIFFUSION, _k_diffusion), ("azula", _AZULA, _azula)):
        rows += [_row(w, package, case, walk) for case in cases]
    return Figure(rows, {"steps": STEPS})


def _diffusers_row(w: World, name: str, scheduler: str, config: dict[str, Any], solver: Solver) -> Row:
    times = _times(w, to_zero="DEIS" not in name)
    program = solver.compile(w.process, times)
    ours = run(program, w.law.denoiser(w.process).denoise, w.start(START, 3))
    with _as_float64():
        exact = _diffusers(w, scheduler, config, program, torch.float64)
    shipped = _diffusers(w, scheduler, config, program, torch.float32)
    details = f"as shipped, with float32 levels and coefficients: {_distance(ours, shipped):.2g}"
    return at_most(f"diffusers, {name}: relative distance", _distance(ours, exact), LIMIT, details)


def _row(w: World, package: str, case: _Case, walk: Callable[[World, _Case, Noise], tuple[Tensor, Tensor]]) -> Row:
    told = ", ".join(f"{key} {value:g}" for key, value in case.options.items())
    name = f"{package}, {case.peer}{f' ({told})' if told else ''}, against {case.ours.name}: relative distance"
    try:
        ours, theirs = walk(w, case, noise(3, START, w.law.event_shape, dtype=torch.float64))
    except ImportError as missing:
        return Row(name, None, f"<= {LIMIT:g}", None, f"not measured: {missing}")
    return at_most(name, _distance(ours, theirs), LIMIT, "" if case.to_zero else f"to the ratio {LOW:g}")


def _times(w: World, *, to_zero: bool) -> tuple[float, ...]:
    low = float(w.process.time_of_ratio(LOW))
    return uniform_log_snr(w.process, STEPS, end=0.0 if to_zero else low, t_min=low)


def _k_diffusion(w: World, case: _Case, draws: Noise) -> tuple[Tensor, Tensor]:
    """Our sample and theirs; ours of the process without scaling, which is what they walk."""
    sampling = _k_diffusion_sampling()
    ratios = w.process.ratio(torch.tensor(_times(w, to_zero=case.to_zero), dtype=torch.float64))
    process = EDM(float(ratios[0]))
    belief, x = w.law.denoiser(process), process.prior_sample(draws.draw(0))
    program = case.ours.compile(process, (ratios / ratios[0]).tolist())
    # of its utilities, which are not loaded, the samplers use this one
    sampling.utils.append_dims = lambda v, ndim: v.reshape(-1, *[1] * (ndim - 1))
    sampler, fresh = getattr(sampling, f"sample_{case.peer}"), itertools.count(1)
    options = {**case.options, "noise_sampler": lambda *_: draws.draw(next(fresh))} if "eta" in case.options else case.options
    theirs = sampler(lambda y, k: belief.denoise(y, float(k[0] / ratios[0])), x, ratios, disable=True, **options)
    return run(program, belief.denoise, x, draws), theirs


def _azula(w: World, case: _Case, draws: Noise) -> tuple[Tensor, Tensor]:
    """Our sample and theirs; their time counts our times."""
    sampling = importlib.import_module("azula.sample")
    times = _times(w, to_zero=case.to_zero)
    belief, x = w.law.denoiser(w.process), w.process.prior_sample(draws.draw(0))
    ours = run(case.ours.compile(w.process, times), belief.denoise, x, draws)

    def ours_of(u: Tensor) -> Tensor:
        return torch.tensor(times, dtype=torch.float64)[(STEPS * (1 - u)).round().long()]

    class _Belief:
        schedule = staticmethod(lambda u: w.process.levels(ours_of(u)))

        def __call__(self, y: Tensor, u: Tensor) -> SimpleNamespace:
            return SimpleNamespace(mean=belief.denoise(y, float(ours_of(u))))

    sampler = getattr(sampling, case.peer)(_Belief(), steps=STEPS, silent=True, dtype=torch.float64, **case.options)
    with _drawing(draws):
        return ours, sampler(x)


@contextmanager
def _drawing(draws: Noise) -> Iterator[None]:
    """Inside, `torch.randn_like` hands out draw after draw."""
    usual, fresh = torch.randn_like, itertools.count(1)
    torch.randn_like = lambda *_, **__: draws.draw(next(fresh))
    try:
        yield
    finally:
        torch.randn_like = usual


def _diffusers(w: World, name: str, config: dict[str, Any], program: Program, dtype: torch.dtype) -> Tensor:
    """A scheduler's sample over the program's nodes, with levels of the given dtype and a state in float64."""
    import diffusers

    process, times = program.process, [program.times[j] for j in program.evaluated]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler = getattr(diffusers, name)(**config)
        scheduler.set_timesteps(len(times))
        scheduler.sigmas = process.ratio(torch.tensor([*times, program.times[-1]], dtype=torch.float64)).to(dtype)
        scheduler.set_begin_index(0)
        over_ratio = name == "EulerDiscreteScheduler"  # which keeps x / alpha
        x, denoiser = w.start(START, 3), w.law.denoiser(process)
        x = x / process.alpha(times[0]) if over_ratio else x
        for i, t in enumerate(times):
            stamp = scheduler.timesteps[i]
            noise = denoiser.noise(scheduler.scale_model_input(x, stamp) if over_ratio else x, t)
            x = scheduler.step(noise, stamp, x).prev_sample
    return x


@contextmanager
def _as_float64() -> Iterator[None]:
    """Inside, what casts to `torch.float32` casts to float64."""
    single, torch.float32 = torch.float32, torch.float64
    try:
        yield
    finally:
        torch.float32 = single


def _distance(x: Tensor, y: Tensor) -> float:
    return float(((x - y).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).max())
