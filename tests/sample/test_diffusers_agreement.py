"""Our tables against the schedulers of `diffusers`, an independent implementation, in float64 and model input by model input.

Their coefficients are float32 as shipped. Here the noise levels they compute from are replaced by ours in float64, and the casts of the
state to `torch.float32` in their steps are made casts to float64, so that a wrong formula cannot hide behind rounding. Achieved: 1e-15
to 8e-12 of the state's size; the tests ask for 1e-10. As shipped, in float32, they are off by 6e-7 at 50 steps to 1.3e-5 at 5
(`test_as_shipped`).

Found on the way, in version 0.42 (each has its test below):

- third-order multistep halves the curvature (`published=True` here), which makes it order 2; see `test_orders.py`;
- `DDIMScheduler` steps to `t - 1000 // n` and not to its next timestep;
- third-order singlestep with `solver_type="midpoint"` takes its second stage by the midpoint rule where the paper integrates exactly.
"""

from __future__ import annotations

import sys

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import AysSchedules

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, MissingExtraError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.integrations import PEERS, run_peer, scheduler_process
from sfumato.noise import BetaTable, VariancePreserving
from sfumato.sample import Program, karras, run, uniform_log_snr, uniform_time
from sfumato.sample.compilers.ancestral import Ancestral
from sfumato.sample.compilers.heun import Heun
from sfumato.sample.compilers.multistep import ddim, deis, dpm_solver, unipc
from sfumato.sample.compilers.singlestep import Singlestep
from sfumato.sample.times.aligned_schedule import PUBLISHED, published
from sfumato.seeds import noise

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PROCESS = VariancePreserving()
DRAWS = noise(5, 16, (2,), dtype=torch.float64)
STEPS = (2, 7, 15)
FULL = 1e-10


class Bent(Denoiser):
    """Agreement needs no law, only an answer that is nonlinear in the state and changes with the level."""

    process = PROCESS

    def denoise(self, x: torch.Tensor, t: float | torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return torch.tanh(1.3 * x + 0.2) + float(PROCESS.alpha(t)) * torch.sin(2 * x.flip(1))


DENOISER = Bent()


def ours(program: Program, denoiser=DENOISER) -> list[torch.Tensor]:
    """What the denoiser is asked about, and the sample."""
    seen = []

    def ask(x, t):
        seen.append(x)
        return denoiser.denoise(x, t)

    sample = run(program, ask, DRAWS.draw(0), DRAWS)
    return [*seen, sample]


def theirs(scheduler, program: Program, monkeypatch, before=None, draws=False) -> list[torch.Tensor]:
    """The same of a scheduler, over the program's evaluated nodes, in float64."""
    process, seen = program.process, []
    times = [program.times[j] for j in program.evaluated]
    ratios = process.ratio(torch.tensor([*times, program.times[-1]], dtype=torch.float64))
    scheduler.set_timesteps(len(times))
    scheduler.sigmas = ratios
    scheduler.set_begin_index(0)
    monkeypatch.setattr(torch, "float32", torch.float64)
    x = DRAWS.draw(0)
    for i, t in enumerate(times):
        seen.append(x)
        eps = (x - process.alpha(t) * DENOISER.denoise(x, t)) / process.sigma(t)
        if before is not None:
            before(i)
        extra = {"variance_noise": DRAWS.draw(i + 1)} if draws else {}
        x = scheduler.step(eps, scheduler.timesteps[i], x, **extra).prev_sample
    monkeypatch.undo()
    return [*seen, x]


def gap(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    assert len(a) == len(b)
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(a, b, strict=True))


def grids(n: int, end: float = 0.0):
    """Log-SNR spacing, and Karras' to zero noise or a uniform one to some."""
    return uniform_log_snr(PROCESS, n, end=end), uniform_time(n, end=end) if end else karras(PROCESS, n)


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("form", ["midpoint", "taylor"])
def test_multistep_to_zero_noise(n, order, form, monkeypatch):
    """DPM-Solver++ 1M, 2M and (as published) 3M; they lower the last orders below 15 steps."""
    kind = {"midpoint": "midpoint", "taylor": "heun"}[form]
    solver = dpm_solver(order, form=form, published=order == 3, final="lower" if n < 15 else "full")
    for times in grids(n):
        program = solver.compile(PROCESS, times)
        scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order, solver_type=kind)
        assert gap(ours(program), theirs(scheduler, program, monkeypatch)) < FULL


def test_the_consistent_third_order_is_not_theirs(monkeypatch):
    """Negative control: without the halved curvature the agreement is gone."""
    program = dpm_solver(3).compile(PROCESS, uniform_log_snr(PROCESS, 20))
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3)
    assert gap(ours(program), theirs(scheduler, program, monkeypatch)) > 1e-4


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_multistep_noise_prediction(n, order, monkeypatch):
    """DPM-Solver's noise forms, and DEIS, whose exact integrals over log k they write in closed form."""
    final = "lower" if n < 15 else "full"
    for times in grids(n, end=0.01):
        for form, kind in (("midpoint", "midpoint"), ("taylor", "heun")):
            program = dpm_solver(order, "noise", form, published=order == 3, final=final).compile(PROCESS, times)
            scheduler = diffusers.DPMSolverMultistepScheduler(
                solver_order=order, solver_type=kind, algorithm_type="dpmsolver", final_sigmas_type="sigma_min"
            )
            assert gap(ours(program), theirs(scheduler, program, monkeypatch)) < FULL
        program = deis(order, final).compile(PROCESS, times)
        assert gap(ours(program), theirs(diffusers.DEISMultistepScheduler(solver_order=order), program, monkeypatch)) < FULL


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc(n, order, variant, monkeypatch):
    """Predictor and corrector, data prediction to zero noise as shipped, and noise prediction at full order."""
    for times in grids(n):
        program = unipc(order, variant).compile(PROCESS, times)
        scheduler = diffusers.UniPCMultistepScheduler(solver_order=order, solver_type=variant)
        assert gap(ours(program), theirs(scheduler, program, monkeypatch)) < FULL
    for times in grids(n, end=0.01):
        program = unipc(order, variant, "noise", final="full").compile(PROCESS, times)
        scheduler = diffusers.UniPCMultistepScheduler(solver_order=order, solver_type=variant, predict_x0=False, lower_order_final=False)
        assert gap(ours(program), theirs(scheduler, program, monkeypatch)) < FULL


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("form", ["midpoint", "taylor"])
def test_singlestep(n, stages, prediction, form, monkeypatch):
    """2S and 3S over grids whose inner nodes stand at the ratios; the second of three stages is integrated exactly in both forms."""
    end = {"data": 0.0, "noise": 0.01}[prediction]
    for times in grids(n, end=end):
        program = Singlestep(stages, prediction, form).compile(PROCESS, times)
        scheduler = diffusers.DPMSolverSinglestepScheduler(
            solver_order=stages,
            algorithm_type={"data": "dpmsolver++", "noise": "dpmsolver"}[prediction],
            final_sigmas_type="zero" if end == 0 else "sigma_min",
            lower_order_final=True,
        )

        orders = list(range(1, stages + 1)) * (n - 1 if end == 0 else n) + [1] * (end == 0)

        def prepare(i, orders=orders, scheduler=scheduler):
            scheduler.order_list = orders
            exact = form == "taylor" or orders[i] < stages
            scheduler.register_to_config(solver_type="heun" if exact else "midpoint")

        assert gap(ours(program), theirs(scheduler, program, monkeypatch, before=prepare)) < FULL


def test_their_third_order_midpoint_singlestep_has_another_second_stage(monkeypatch):
    """With `solver_type="midpoint"` their second stage takes the midpoint rule too: two model inputs agree, the third does not."""
    program = Singlestep(3).compile(PROCESS, uniform_log_snr(PROCESS, 5))
    scheduler = diffusers.DPMSolverSinglestepScheduler(solver_order=3, lower_order_final=True)

    def prepare(i):
        scheduler.order_list = [1, 2, 3] * 4 + [1]

    mine, other = ours(program), theirs(scheduler, program, monkeypatch, before=prepare)
    assert gap(mine[:2], other[:2]) < FULL
    assert gap(mine[2:3], other[2:3]) > 1e-5


@pytest.mark.parametrize("n", STEPS)
def test_stochastic_second_order(n, monkeypatch):
    """SDE-DPM-Solver++(1M and 2M), fed the same draws."""
    for times in grids(n):
        for order in (1, 2):
            program = Ancestral(1.0, order).compile(PROCESS, times)
            scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order, algorithm_type="sde-dpmsolver++", lower_order_final=False)
            assert gap(ours(program), theirs(scheduler, program, monkeypatch, draws=True)) < FULL


def over_ratio(name: str, program: Program, monkeypatch) -> list[torch.Tensor]:
    """A scheduler that keeps `x / alpha`: its scaled model inputs, and the sample."""
    scheduler, process, seen = getattr(diffusers, name)(), program.process, []
    times = [program.times[j] for j in program.evaluated]
    scheduler.set_timesteps((len(times) + 1) // 2 if "Heun" in name else len(times))
    scheduler.sigmas = process.ratio(torch.tensor([*times, 0.0], dtype=torch.float64))
    if "Heun" in name:
        # they list every level but the ends twice, once as the end of a step
        assert torch.equal(scheduler.sigmas[1:-1:2], scheduler.sigmas[2:-1:2])
    scheduler.set_begin_index(0)
    monkeypatch.setattr(torch, "float32", torch.float64)
    y = DRAWS.draw(0) / process.alpha(times[0])
    for i, t in enumerate(times):
        x = scheduler.scale_model_input(y, scheduler.timesteps[i])
        seen.append(x)
        eps = (x - process.alpha(t) * DENOISER.denoise(x, t)) / process.sigma(t)
        y = scheduler.step(eps, scheduler.timesteps[i], y).prev_sample
    monkeypatch.undo()
    return [*seen, y]


@pytest.mark.parametrize("n", STEPS)
def test_euler_and_heun_over_the_ratio(n, monkeypatch):
    """Euler in `x / alpha` over `k` is DDIM, and Heun is ours; 2 steps of Heun are left out, for they magnify rounding to 1e-9."""
    for times in grids(n):
        euler, heun = ddim().compile(PROCESS, times), Heun().compile(PROCESS, times)
        assert gap(ours(euler), over_ratio("EulerDiscreteScheduler", euler, monkeypatch)) < FULL
        assert heun.evaluations == 2 * n - 1
        assert n == 2 or gap(ours(heun), over_ratio("HeunDiscreteScheduler", heun, monkeypatch)) < FULL


def ddim_trailing(n: int, eta: float) -> tuple[list[torch.Tensor], Program]:
    """Their DDIM over a float64 table of alphas, and our program over its timesteps."""
    table = BetaTable.linear()
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.alphas_cumprod = torch.cumprod(1 - torch.tensor(table.betas, dtype=torch.float64), 0)
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(n)
    times = [*((scheduler.timesteps.to(torch.float64) + 1) / 1000).tolist(), 0.0]
    denoiser, x, seen = DENOISER.under(table), DRAWS.draw(0), []
    for i, t in enumerate(times[:-1]):
        seen.append(x)
        eps = denoiser.noise(x, t)
        x = scheduler.step(eps, int(scheduler.timesteps[i]), x, eta=eta, variance_noise=DRAWS.draw(i + 1)).prev_sample
    return [*seen, x], Ancestral(eta).compile(table, times)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_ancestral_family(n, eta):
    """DDIM's eta family, fed the same draws, at numbers of steps that divide 1000."""
    other, program = ddim_trailing(n, eta)
    assert gap(ours(program, DENOISER.under(program.process)), other) < FULL


@pytest.mark.parametrize("n", [3, 6, 7, 15])
def test_their_ddim_misses_its_own_grid(n):
    """At numbers of steps that do not divide 1000 they step to `t - 1000 // n`, and take the state for one at the next timestep."""
    other, program = ddim_trailing(n, 0.0)
    assert gap(ours(program, DENOISER.under(program.process)), other) > 3e-4


def test_as_shipped():
    """Nothing patched: float32 levels, coefficients and (inside the step) states agree with our float64; achieved: 1.5e-6 and 3e-6."""
    table = BetaTable.linear()
    for scheduler, solver in (
        (diffusers.DPMSolverMultistepScheduler(solver_order=2, use_karras_sigmas=True), dpm_solver(2, final="full")),
        (diffusers.UniPCMultistepScheduler(solver_order=3, use_karras_sigmas=True), unipc(3)),
    ):
        scheduler.set_timesteps(20)
        scheduler.set_begin_index(0)
        ratios = scheduler.sigmas.to(torch.float64).clamp(max=float(table.ratio(1.0)))
        times, denoiser, x = table.time_of_ratio(ratios).tolist(), DENOISER.under(table), DRAWS.draw(0)
        for t, stamp in zip(times, scheduler.timesteps, strict=False):
            x = scheduler.step(denoiser.noise(x, t), stamp, x).prev_sample
        mine = run(solver.compile(table, times), denoiser.denoise, DRAWS.draw(0))
        assert float((mine - x).abs().max() / mine.abs().max()) < 1e-5


LAW = Gaussian(torch.tensor([0.3, -0.5], dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([0.6, 0.15], dtype=torch.float64)))


class Counted(Denoiser):
    """Counts how often it is asked."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.process, self.calls = inner, inner.process, 0

    def denoise(self, x: torch.Tensor, t: float | torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1
        return self.inner.denoise(x, t, condition)


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
def test_peers_converge_to_the_flow_within_their_budget(peer):
    """Levels, scalings and starts of every baseline are right: each comes close to the exact flow of a Gaussian law under the schedulers'
    own table, though the denoiser belongs to another process; and it asks as often as it says, never beyond the budget.
    """
    table, x1 = BetaTable.linear(), DRAWS.draw(0)
    exact = LAW.flow(table, 1.0, 0.0)(x1)
    errors = []
    for budget in (8, 48):
        denoiser = Counted(LAW.denoiser(PROCESS))
        x = run_peer(peer, denoiser, budget, x1)
        assert denoiser.calls == peer.evaluations(budget) <= budget
        errors.append(float((x - exact).square().mean().sqrt()))
    assert errors[1] < 0.08
    assert errors[1] < 0.5 * errors[0]


def test_a_peer_is_the_solver_of_its_name():
    """The path of a baseline as run, float32 coefficients and all, against our table over the levels of its scheduler."""
    table = BetaTable.linear()
    scheduler = diffusers.DPMSolverMultistepScheduler(use_lu_lambdas=True)
    scheduler.set_timesteps(20)
    ratios = scheduler.sigmas.to(torch.float64).clamp(max=float(table.ratio(1.0)))
    program = dpm_solver(2).compile(table, table.time_of_ratio(ratios).tolist())
    mine = run(program, LAW.denoiser(table).denoise, DRAWS.draw(0))
    peer = next(p for p in PEERS if p.name == "dpm++2m-log-snr")
    assert float((run_peer(peer, LAW.denoiser(table), 20, DRAWS.draw(0)) - mine).abs().max()) < 1e-5


def test_the_schedulers_process_is_their_table():
    """Their float32 betas, accumulated in float64, against the exact table; and a table of the user's is passed on."""
    ours, other = BetaTable.linear(), scheduler_process(diffusers.DDIMScheduler())
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert float((ours.alpha(t) / other.alpha(t) - 1).abs().max()) < 1e-6
    table, peer = BetaTable.scaled_linear(), PEERS[1]
    exact = LAW.flow(table, 1.0, 0.0)(DRAWS.draw(0))
    x = run_peer(peer, LAW.denoiser(table), 48, DRAWS.draw(0), table)
    # the table stops at k = 14.6, so a start of unit noise is off by what is left of the mean
    assert float((x - exact).square().mean().sqrt()) < 0.02


def test_peers_refuse_what_they_cannot_run(monkeypatch):
    heun = next(p for p in PEERS if p.scheduler == "HeunDiscreteScheduler")
    with pytest.raises(ArgumentError, match="at least 3"):
        run_peer(heun, DENOISER, 2, DRAWS.draw(0))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match="sfumato\\[diffusers\\]"):
        run_peer(heun, DENOISER, 9, DRAWS.draw(0))


def test_published_schedules_are_those_that_are_shipped():
    """The same tables, copied by others; and the first one's times are the timesteps (from 0) at which they are asked for."""
    names = {"stable-diffusion-1.5": "Diffusion", "stable-diffusion-xl": "DiffusionXL", "stable-video-diffusion": "DiffusionVideo"}
    assert {name: [*PUBLISHED[name], 0.0] for name in PUBLISHED} == {ours: AysSchedules[f"Stable{n}Sigmas"] for ours, n in names.items()}
    times = published(BetaTable.scaled_linear(), "stable-diffusion-1.5")
    assert [round(1000 * t) - 1 for t in times[:-1]] == pytest.approx(AysSchedules["StableDiffusionTimesteps"], abs=1)
