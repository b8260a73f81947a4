"""Figure 3: our classic solvers against `diffusers`, on the same times and from the same noise: the largest relative distance of samples.

The schedulers keep their noise levels and coefficients in float32. With these levels replaced by ours in float64, and the casts in their
steps made casts to float64, what is left is the formulas' own difference; as shipped, it is their rounding. On the digits' mixture,
20 steps equal in log-SNR down to the ratio 0.02 and one to zero noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.figure import Figure, at_most
from benchmarks.world import World, world
from sfumato.sample import Program, run, uniform_log_snr
from sfumato.sample.multistep import ddim, deis, dpm_solver, unipc

STEPS = 20
_CASES = (
    ("DDIM (as DPM-Solver++ of order 1)", "DPMSolverMultistepScheduler", {"solver_order": 1}, ddim()),
    ("DDIM (as Euler's method over the ratio)", "EulerDiscreteScheduler", {}, ddim()),
    ("DPM-Solver++(2M)", "DPMSolverMultistepScheduler", {"solver_order": 2}, dpm_solver(2)),
    ("DPM-Solver++(3M), as published", "DPMSolverMultistepScheduler", {"solver_order": 3}, dpm_solver(3, published=True)),
    ("UniPC-2", "UniPCMultistepScheduler", {"solver_order": 2}, unipc(2)),
    ("UniPC-3", "UniPCMultistepScheduler", {"solver_order": 3}, unipc(3)),
    ("DEIS-2, to the ratio 0.02", "DEISMultistepScheduler", {"solver_order": 2}, deis(2)),
)


def measure(quick: bool = False) -> Figure:
    w, rows = world("digits"), []
    for name, scheduler, config, solver in _CASES:
        low = float(w.process.time_of_ratio(0.02))
        to_zero = "DEIS" not in name
        times = uniform_log_snr(w.process, STEPS, end=0.0 if to_zero else low, t_min=low)
        program = solver.compile(w.process, times)
        ours = run(program, w.law.denoiser(w.process).denoise, w.start(32, 3))
        with _as_float64():
            exact = _walk(w, scheduler, config, program, torch.float64)
        shipped = _walk(w, scheduler, config, program, torch.float32)
        details = f"as shipped, with float32 levels and coefficients: {_distance(ours, shipped):.2g}"
        rows.append(at_most(f"{name}: relative distance", _distance(ours, exact), 1e-5, details))
    return Figure(rows, {"steps": STEPS})


def _walk(w: World, name: str, config: dict[str, Any], program: Program, dtype: torch.dtype) -> Tensor:
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
        x, denoiser = w.start(32, 3), w.law.denoiser(process)
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
