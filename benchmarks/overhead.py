"""Figure 6: what a step costs beside the network: 50 steps on a (16, 4, 64, 64) float32 tensor with a denoiser that does nothing.

Ours are DDIM and DPM-Solver++(2M) as tables, run by `sample.run`; the others are `diffusers`' DPMSolverMultistepScheduler (asked with
`prediction_type="sample"`, its leanest), azula's DDIMSampler and k-diffusion's `sample_dpmpp_2m`. What each prepares once for a number of
steps (our plan, their tables and timesteps) is outside the measured time where they allow it. The samplers take turns.

Install the peers with `pip install diffusers azula einops torchdiffeq torchsde tqdm` and `pip install --no-deps k-diffusion`, of which only
`sampling.py` is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.figure import Figure, Row, alternate, at_most, paired_ratio, timed
from sfumato.noise import BetaTable
from sfumato.sample import Plan, run, uniform_log_snr
from sfumato.sample.compilers.multistep import ddim, dpm_solver
from sfumato.seeds import noise

SHAPE = (16, 4, 64, 64)
STEPS = 50
_OURS = ("ours: DDIM", "ours: 2M")

Task = Callable[[], object]


def measure(quick: bool = False) -> Figure:
    x, answer = (noise(0, SHAPE[0], SHAPE[1:]).draw(j) for j in (0, 1))
    tasks: dict[str, Task] = _ours(x, answer)
    absent = {}
    for name, make in {"diffusers: 2M": _diffusers, "azula: DDIM": _azula, "k-diffusion: 2M": _k_diffusion}.items():
        try:
            tasks[name] = make(x, answer)
        except ImportError as error:
            absent[name] = str(error)
    with torch.no_grad():
        seconds = alternate({name: timed(task) for name, task in tasks.items()}, rounds=5 if quick else 41)
    each = {name: 1e6 * statistics.median(values) / STEPS for name, values in seconds.items()}
    rows = [Row(f"{name}: microseconds a step", value) for name, value in each.items()]
    rows += [Row(f"{name}: microseconds a step", None, "", None, f"absent: {why}") for name, why in absent.items()]
    peers = [name for name in each if name not in _OURS]
    leanest = min(peers, key=lambda name: each[name], default=None)
    for name in _OURS if leanest else ():
        row = at_most(f"{name} over the leanest peer", paired_ratio(seconds[name], seconds[leanest]), 1.0, f"leanest: {leanest}")
        # a missing peer might have been leaner
        rows.append(Row(row.name, row.value, row.target, False if not row.passed else None if absent else True, row.details))
    return Figure(rows, {"shape": list(SHAPE), "steps": STEPS, "seconds per run": seconds})


def _ours(x: Tensor, answer: Tensor) -> dict[str, Task]:
    process = BetaTable.linear()
    times = uniform_log_snr(process, STEPS)
    plans = [Plan.of(s.compile(process, times), x.dtype, x.device) for s in (ddim(), dpm_solver(2))]
    return {name: lambda plan=plan: run(plan, lambda x, t: answer, x) for name, plan in zip(_OURS, plans, strict=True)}  # type: ignore[misc]


def _diffusers(x: Tensor, answer: Tensor) -> Task:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(solver_order=2, prediction_type="sample", use_lu_lambdas=True)
    scheduler.set_timesteps(STEPS)

    def task() -> Tensor:
        # what set_timesteps does to start again, without its tables
        scheduler.model_outputs, scheduler.lower_order_nums, scheduler._step_index = [None] * 2, 0, None
        scheduler.set_begin_index(0)
        state = x
        for t in scheduler.timesteps:
            state = scheduler.step(answer, t, state, return_dict=False)[0]
        return state

    return task


def _azula(x: Tensor, answer: Tensor) -> Task:
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    class Free(Denoiser):
        schedule = VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
            return DiracPosterior(answer)

    sampler = DDIMSampler(Free(), steps=STEPS, silent=True)
    return lambda: sampler(x)


def _k_diffusion(x: Tensor, answer: Tensor) -> Task:
    process = BetaTable.linear()
    sigmas = process.ratio(torch.tensor(uniform_log_snr(process, STEPS), dtype=torch.float64)).to(x.dtype)
    sampling = _k_diffusion_sampling()
    return lambda: sampling.sample_dpmpp_2m(lambda x, sigma: answer, x, sigmas, disable=True)


def _k_diffusion_sampling() -> Any:
    """Its `sampling.py` alone: the package itself imports all that its training needs, down to wandb."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        raise ImportError("No module named 'k_diffusion'")
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(spec.submodule_search_locations or [])
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "k_diffusion"]:
            del sys.modules[name]
