"""What a sampler is worth: its end points against the flow's, and its samples against data it never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import MissingExtraError
from sfumato.exact import Gaussian
from sfumato.integrations.diffusers_peers import PEERS, Peer, run_peer, visited
from sfumato.metrics import Estimate, endpoint_error, energy_distance
from sfumato.sample import Denoise, Exponential, Linearisation, Program, Trajectory, run, uniform_log_snr
from sfumato.sample.compilers.multistep import ddim, dpm_solver, unipc
from sfumato.tune.result import Candidate, Family


def ratios_of(program: Program) -> list[float]:
    """The noise-to-signal ratios at which a program evaluates."""
    times = torch.tensor([program.times[j] for j in program.evaluated], dtype=torch.float64)
    return program.process.ratio(times).tolist()


def measure_program(program: Program, family: Family, denoise: Denoise, truth: Trajectory) -> Candidate:
    """A program's error on the starts of a reference trajectory, and its seconds per sample."""
    x = truth.states[0]
    began = time.perf_counter()
    with torch.no_grad():
        end = run(program, denoise, x)
    seconds = (time.perf_counter() - began) / len(x)
    return Candidate(program.name, family, program.evaluations, endpoint_error(end, truth.end), None, seconds, ratios_of(program))


def classic_programs(denoiser: Denoiser, law: Gaussian, n: int, top: float) -> list[Program]:
    """Published solvers with `n` evaluations as tables of ours, and the Gaussian exponential integrator as it comes, unfitted."""
    process = denoiser.process
    times = uniform_log_snr(process, n, t_min=float(process.time_of_ratio(0.02)))
    split = Linearisation.gaussian(law, 0.5)
    ours = (1.0, *uniform_log_snr(process, n, start=float(process.time_of_ratio(top)), t_min=float(process.time_of_ratio(0.1))))
    return [
        ddim().compile(process, times),
        dpm_solver(2).compile(process, times),
        unipc(2).compile(process, times),
        Exponential(split, 2, corrector=True, teleport=True, label="gaussian exponential").compile(process, ours),
    ]


def measure_peers(
    denoiser: Denoiser, truth: Trajectory, budgets: Sequence[int], advance: Callable[[int], None]
) -> tuple[list[Candidate], dict[tuple[str, int], Callable[[Tensor], Tensor]]]:
    """Every `diffusers` setting at every budget, from the same noise; empty if `diffusers` is not installed.

    Returns:
        The candidates, and for each `(name, evaluations)` the sampler itself as a function of its start noise.
    """
    found: list[Candidate] = []
    samplers: dict[tuple[str, int], Callable[[Tensor], Tensor]] = {}
    unit = truth.states[0] / denoiser.process.prior_std
    for n in budgets:
        for setting in PEERS:
            began = time.perf_counter()
            advance(1)
            if n < 2 * setting.per_step + setting.extra:
                continue
            try:
                end = run_peer(setting, denoiser, n, unit)
            except MissingExtraError:
                return [], {}
            seconds = (time.perf_counter() - began) / len(unit)
            used = setting.evaluations(n)
            found.append(Candidate(setting.name, "diffusers", used, endpoint_error(end, truth.end), None, seconds, visited(setting, n)))
            samplers[setting.name, used] = _walk(setting, denoiser, n)
    return found, samplers


def _walk(setting: Peer, denoiser: Denoiser, n: int) -> Callable[[Tensor], Tensor]:
    return lambda x: run_peer(setting, denoiser, n, x)


def distance_to(test: Tensor, samples: Tensor) -> Estimate:
    """The energy distance between samples and held-out data."""
    return energy_distance(samples, test)
