"""Whether a preset of ours and a sampler elsewhere are the same: the largest distance of samples, same times and noise, in float64.

In the world of G4 over the ratio, 24 steps, unequal in log-SNR, and one to zero noise where the sampler can make it.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from benchmarks.agreement import _as_float64
from benchmarks.peer_walks import Steps, Task, walk
from sfumato.atlas.solvers.worlds import g4
from sfumato.integrations.aliases import ALIASES, Alias
from sfumato.noise import EDM, BetaTable
from sfumato.sample import PRESETS, Fast, run
from sfumato.seeds import noise

TOP, LOW, STEPS, BATCH = 40.0, 0.05, 24, 8


def runnable(*libraries: str) -> list[tuple[str, Alias]]:
    """Every alias that can be run, with its preset."""
    return [(preset, alias) for preset, entries in ALIASES.items() for alias in entries if alias.library in libraries]


def distance(preset: str, alias: Alias) -> float:
    """The largest absolute difference of `BATCH` samples.

    Raises:
        ImportError: the library is absent.
    """
    if alias.own_times:
        return _ddim(preset)
    ratios = _ratios(alias)
    process, draws = EDM(TOP), noise(1, BATCH, (2,), dtype=torch.float64)
    belief, start = g4().denoiser(process), g4().sample(BATCH, 0) + TOP * draws.draw(0)
    program = PRESETS[preset].compile(process, [k / TOP for k in _ours(alias, ratios)])
    theirs = walk(alias, Task(ratios, start, lambda y, k: belief.denoise(y, k / TOP), Steps(draws, ratios)))
    return float((run(program, belief.denoise, start, draws) - theirs).abs().max())


def _ratios(alias: Alias) -> tuple[float, ...]:
    """Equal in log-SNR where the note asks for it."""
    equal = "log-SNR" in alias.note
    lam = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64) if equal else torch.linspace(0, 1, STEPS + 1, dtype=torch.float64) ** 0.8
    ratios = [TOP, *(TOP * (LOW / TOP) ** lam[1:]).tolist()]
    return tuple(ratios if equal or "some noise" in alias.note else [*ratios, 0.0])


def _ours(alias: Alias, ratios: tuple[float, ...]) -> tuple[float, ...]:
    """The times of our steps: of every second of theirs, or of one for each evaluation of theirs."""
    if "Singlestep" in alias.name and "solver_order" not in alias.settings:
        return ratios[::2]
    if "dpm_fast" not in alias.name:
        return ratios
    orders = Fast.orders(len(ratios) - 1)
    length = math.log(LOW / TOP) / len(orders)
    inside = itertools.accumulate((length / order for order in orders for _ in range(order)), initial=0.0)
    return tuple(TOP * math.exp(part) for part in inside)


def _ddim(preset: str) -> float:
    """`DDIMScheduler` on its own times, its table in float64."""
    import diffusers

    process = BetaTable.linear()
    scheduler = diffusers.DDIMScheduler(clip_sample=False, trained_betas=list(process.betas), prediction_type="sample")
    scheduler.alphas_cumprod = torch.cumprod(1 - torch.tensor(process.betas, dtype=torch.float64), 0)
    scheduler.set_timesteps(STEPS + 1)
    times = [*((int(t) + 1) / process.steps for t in scheduler.timesteps), 0.0]
    belief, x = g4().denoiser(process), noise(1, BATCH, (2,), dtype=torch.float64).draw(0)
    ours = run(PRESETS[preset].compile(process, times), belief.denoise, x)
    with _as_float64():
        theirs: Tensor = x
        for stamp, t in zip(scheduler.timesteps, times[:-1], strict=True):
            theirs = scheduler.step(belief.denoise(theirs, t), stamp, theirs).prev_sample
    return float((ours - theirs).abs().max())
