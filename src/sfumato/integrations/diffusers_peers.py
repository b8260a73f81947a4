r"""The schedulers of `diffusers` with our denoiser as their model: the baselines.

They are run as well as they can be. The model is asked at the noise level that the scheduler itself computes with, and not at the timestep
it rounds that level to; nothing is clipped; every walk starts from the same noise as ours. What a budget of evaluations buys is worked
out before and checked after the run.

All of them belong to a variance-preserving table of betas, so that a model's input `x` at the ratio `k = sigma / alpha` is
`y = x sqrt(1 + k^2)` in the units of the data, and the noise they ask for is `(y - D) / k`. Known of version 0.42:

- `DDIMScheduler` steps to `t - 1000 // n`, which is its own next timestep only if `n` divides 1000; at other `n` "ddim" pays for that, and
  "euler" is the same method on its own grid.
- `DEISMultistepScheduler` cannot step to zero noise. It ends at the table's least level, `k` about 0.01. On Karras and log-SNR grids it
  repeats that level, a step of no length: it is not taken, and its evaluation goes to another step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, MissingExtraError, SfumatoError
from sfumato.noise import EDM, BetaTable


@dataclass(frozen=True)
class Peer:
    """A setting of a scheduler.

    Arguments:
        name: what it is called in tables and plots.
        scheduler: the class in `diffusers`.
        config: its arguments, besides the betas.
        per_step, extra: `n` inference steps cost `per_step n + extra` evaluations.
    """

    name: str
    scheduler: str
    config: Mapping[str, Any] = field(default_factory=dict)
    per_step: int = 1
    extra: int = 0

    def steps(self, evaluations: int) -> int:
        """The most inference steps that a budget of evaluations pays for.

        Raises:
            ArgumentError: a budget of fewer than two steps, below which some of the grids are not defined.
        """
        steps = (evaluations - self.extra) // self.per_step
        if steps < 2:
            raise ArgumentError("evaluations", evaluations, f"at least {2 * self.per_step + self.extra} for {self.name}")
        return steps

    def evaluations(self, budget: int) -> int:
        """How much of a budget is used."""
        return self.per_step * self.steps(budget) + self.extra


def _spaced(
    name: str, scheduler: str, grids: Mapping[str, Mapping[str, Any]], *, extra: int = 0, per_step: int = 1, **config: Any
) -> list[Peer]:
    return [Peer(f"{name}-{grid}", scheduler, {**config, **how}, per_step, extra) for grid, how in grids.items()]


_UNIFORM: dict[str, dict[str, Any]] = {"linspace": {"timestep_spacing": "linspace"}, "trailing": {"timestep_spacing": "trailing"}}
_KARRAS: dict[str, dict[str, Any]] = {"karras": {"use_karras_sigmas": True}}
_LOG_SNR: dict[str, dict[str, Any]] = {"log-snr": {"use_exponential_sigmas": True}}
_MULTISTEP = "DPMSolverMultistepScheduler"

PEERS: tuple[Peer, ...] = (
    Peer("ddim-trailing", "DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}),
    *_spaced("dpm++2m", _MULTISTEP, _UNIFORM | _KARRAS | {"log-snr": {"use_lu_lambdas": True}}, solver_order=2),
    *_spaced("dpm++3m", _MULTISTEP, _UNIFORM | _KARRAS | {"log-snr": {"use_lu_lambdas": True}}, solver_order=3),
    *_spaced("unipc2", "UniPCMultistepScheduler", _UNIFORM | _KARRAS | _LOG_SNR, solver_order=2),
    *_spaced("unipc3", "UniPCMultistepScheduler", _UNIFORM | _KARRAS | _LOG_SNR, solver_order=3),
    *_spaced("deis2", "DEISMultistepScheduler", _UNIFORM, solver_order=2),
    *_spaced("deis3", "DEISMultistepScheduler", _UNIFORM, solver_order=3),
    *_spaced("deis3", "DEISMultistepScheduler", _KARRAS | _LOG_SNR, extra=-1, solver_order=3),
    *_spaced("euler", "EulerDiscreteScheduler", _UNIFORM | _KARRAS | _LOG_SNR),
    *_spaced("heun", "HeunDiscreteScheduler", _UNIFORM | _KARRAS | _LOG_SNR, per_step=2, extra=-1),
)
"""The settings that samplers are compared with."""


def scheduler_process(scheduler: Any) -> BetaTable:
    """The process of a scheduler, float64, of its table of betas.

    The default table, 1000 betas from 1e-4 to 0.02, is `BetaTable.linear()`, and the usual discretisation of `VariancePreserving()`.
    """
    return BetaTable(tuple(scheduler.betas.to(torch.float64).tolist()))


def run_peer(peer: Peer, denoiser: Denoiser, evaluations: int, x1: Tensor, table: BetaTable | None = None) -> Tensor:
    """Samples of a scheduler with at most `evaluations` evaluations of the denoiser.

    Arguments:
        peer: the setting.
        denoiser: of any scalar process.
        evaluations: the budget, spent as far as whole steps go (`Peer.evaluations`).
        x1: standard normal noise `(batch, *event)`, whose dtype the walk keeps.
        table: the betas; None for `BetaTable.linear()`.

    Returns:
        `(batch, *event)`.

    Raises:
        ArgumentError: a budget of fewer than two steps.
        MissingExtraError: `diffusers` is not installed.
    """
    scheduler = _scheduler(peer, BetaTable.linear() if table is None else table)
    _quietly(scheduler.set_timesteps, peer.steps(evaluations))
    if hasattr(scheduler, "set_begin_index"):
        # else the first step is looked up by its rounded timestep, and finds the second of two equal ones
        scheduler.set_begin_index(0)
    ratios = _ratios(scheduler)
    top = 2 * max(ratios)
    asked = denoiser.under(EDM(top))
    x, calls = x1 * float(scheduler.init_noise_sigma), 0
    with torch.no_grad():
        for t, k, following in zip(scheduler.timesteps, ratios[:-1], ratios[1:], strict=True):
            if k == following and k == ratios[-1]:
                break
            y = scheduler.scale_model_input(x, t) * math.sqrt(1 + k**2)
            noise = (y - asked.denoise(y, k / top)) / k
            calls += 1
            x = _quietly(scheduler.step, noise, t, x).prev_sample
    if calls != peer.evaluations(evaluations):
        raise SfumatoError(f"{peer.name} made {calls} evaluations where {peer.evaluations(evaluations)} were planned: another diffusers?")
    return x


def visited(peer: Peer, evaluations: int, table: BetaTable | None = None) -> list[float]:
    """The noise-to-signal ratios at which `run_peer` would ask the denoiser."""
    scheduler = _scheduler(peer, BetaTable.linear() if table is None else table)
    _quietly(scheduler.set_timesteps, peer.steps(evaluations))
    return _ratios(scheduler)[: peer.evaluations(evaluations)]


def _quietly(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A scheduler's answer, without its notes about the tensors it turns into arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return method(*args, **kwargs)


def _scheduler(peer: Peer, table: BetaTable) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError("diffusers", "diffusers") from error
    betas = {"num_train_timesteps": table.steps, "trained_betas": list(table.betas)}
    return _quietly(getattr(diffusers, peer.scheduler), **betas, **peer.config)


def _ratios(scheduler: Any) -> list[float]:
    """The noise-to-signal ratio at every model call and at the end."""
    if hasattr(scheduler, "sigmas"):
        return [float(k) for k in scheduler.sigmas]
    kept = scheduler.alphas_cumprod[scheduler.timesteps].to(torch.float64)
    return [*torch.sqrt((1 - kept) / kept).tolist(), 0.0]
