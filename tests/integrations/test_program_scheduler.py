"""Our programs inside `diffusers`: what a pipeline's loop makes of them is what `run` makes of them, and files keep them whole."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)

from sfumato.denoiser import from_data
from sfumato.errors import ArgumentError, RecipeError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.integrations.diffusers import STATISTICS, ProgramScheduler
from sfumato.integrations.training import settings_of
from sfumato.noise import BetaTable, FlowMatching
from sfumato.sample import PRESETS, Exponential, Linearisation, run, uniform_log_snr, uniform_time
from sfumato.sample.compilers.multistep import ddim
from sfumato.seeds import noise

TABLE = BetaTable.linear()
MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-0.6, -1.4]], dtype=torch.float64)
LAW = GaussianMixture([0.4, 0.3, 0.3], MEANS, [SpectralCovariance.isotropic(2, v) for v in (0.25, 0.4, 0.3)])
GAUSSIAN = Gaussian(
    torch.tensor([0.2, -0.1], dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([1.5, 0.6], dtype=torch.float64))
)
VIEW = {"epsilon": "noise", "sample": "data", "v_prediction": "v", "flow_prediction": "velocity"}


def network(scheduler: ProgramScheduler):
    """The mixture's exact belief as a network that predicts what the scheduler wants, asked at the network's times."""
    denoiser, view = LAW.denoiser(scheduler.process), VIEW[scheduler.config.prediction_type]

    def answer(x, index):
        t = scheduler.training.time(float(index))
        return from_data(denoiser.denoise(x, t), view, x, t, scheduler.process)

    return answer


def walk(scheduler: ProgramScheduler, x: torch.Tensor, **step) -> torch.Tensor:
    """The loop of a pipeline."""
    ask = network(scheduler)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        x = scheduler.step(ask(seen, t), t, x, **step).prev_sample
    return x


def start(n: int = 8, seed: int = 0) -> torch.Tensor:
    return noise(seed, n, (2,), dtype=torch.float64).draw(0)


@pytest.mark.parametrize("name", [name for name, solver in PRESETS.items() if solver.deterministic])
def test_a_pipelines_loop_is_run(name):
    """For every deterministic preset, to the rounding of a float32 timestep."""
    scheduler = ProgramScheduler(solver=name)
    scheduler.set_timesteps(6)
    program = PRESETS[name].compile(TABLE, uniform_log_snr(TABLE, 6, t_min=float(TABLE.time_of_ratio(scheduler.training.least_ratio))))
    x = scheduler.init_noise_sigma * start()
    assert len(scheduler.timesteps) == program.evaluations
    assert float((walk(scheduler, x) - run(program, LAW.denoiser(TABLE).denoise, x)).abs().max()) < 2e-4


@pytest.mark.parametrize("prediction", VIEW)
def test_every_prediction_is_the_same_sampler(prediction):
    scheduler = ProgramScheduler(prediction_type=prediction, grid="time")
    scheduler.set_timesteps(8)
    process = scheduler.process
    times = uniform_time(8)
    program = PRESETS["dpm-solver++-2m"].compile(process, times)
    x = process.prior_sample(start())
    assert float((walk(scheduler, x) - run(program, LAW.denoiser(process).denoise, x)).abs().max()) < 2e-4


def recipe_programs() -> dict:
    """A program that is carried by the closed form to its first evaluation, in the modes of a Gaussian."""
    solver = Exponential(Linearisation.gaussian(GAUSSIAN), 2, teleport=True, label="teleported")
    times = (1.0, *uniform_log_snr(TABLE, 6, start=float(TABLE.time_of_ratio(4.0)), t_min=float(TABLE.time_of_ratio(0.05))))
    return {6: solver.compile(TABLE, times), 4: ddim().compile(TABLE, uniform_log_snr(TABLE, 4))}


@pytest.mark.parametrize("evaluations", [4, 6])
def test_a_recipe_comes_back_from_a_folder_with_its_law(evaluations, tmp_path):
    programs = recipe_programs()
    ProgramScheduler.of(programs, DDIMScheduler()).save_pretrained(tmp_path)
    scheduler = ProgramScheduler.from_pretrained(tmp_path)
    scheduler.set_timesteps(evaluations)
    x = start()
    asked = programs[evaluations]
    # this program of 6 evaluations teleports: one more, whose answer is not used
    assert len(scheduler.timesteps) == evaluations + (evaluations == 6)
    assert float((walk(scheduler, x) - run(asked, LAW.denoiser(TABLE).denoise, x)).abs().max()) < 2e-4
    assert json.loads((tmp_path / "scheduler_config.json").read_text())["_class_name"] == "ProgramScheduler"
    (tmp_path / STATISTICS).unlink()
    with pytest.raises(RecipeError, match=r"law of a spectral program"):
        ProgramScheduler.from_pretrained(tmp_path)


class Scaling:
    """A pipeline whose loop asks the scheduler what the network shall see."""

    scheduler = DDIMScheduler()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.scheduler.scale_model_input(x)


def test_a_teleport_needs_no_evaluation_where_the_network_is_shown_its_first_state():
    """Where a pipeline promises `scale_model_input` and does not call it, the network saw another state: refused, not passed over."""
    programs, x = recipe_programs(), start()
    scheduler = ProgramScheduler.of(programs, Scaling())
    scheduler.set_timesteps(6)
    assert float((walk(scheduler, x) - run(programs[6], LAW.denoiser(TABLE).denoise, x)).abs().max()) < 2e-4
    scheduler.set_timesteps(6)
    with pytest.raises(ArgumentError, match="scale_model_input"):
        scheduler.step(x, scheduler.timesteps[0], x)


def test_a_teleport_is_seen_by_guidance_too():
    """Pipelines with guidance scale twice the batch that they step with."""
    scheduler = ProgramScheduler.of(recipe_programs(), Scaling())
    scheduler.set_timesteps(6)
    assert len(scheduler.timesteps) == 6
    x, ask = start(), network(scheduler)
    plain = walk(scheduler, x)
    scheduler.set_timesteps(6)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(torch.cat([x, x]), t)
        x = scheduler.step(ask(seen, t).chunk(2)[0], t, x).prev_sample
    assert torch.equal(x, plain)


def test_starting_anywhere_ends_where_the_flow_ends():
    """Image to image: from the state at any entry on, a first-order step's error apart, the rest of the way is walked."""
    scheduler = ProgramScheduler()
    scheduler.set_timesteps(40)
    x, states = start(), []
    ask = network(scheduler)
    for t in scheduler.timesteps:
        states.append(x)
        x = scheduler.step(ask(x, t), t, x).prev_sample
    for begin in (1, 10, 39):
        scheduler.set_timesteps(40)
        scheduler.set_begin_index(begin)
        y = states[begin]
        for t in scheduler.timesteps[begin:]:
            y = scheduler.step(ask(y, t), t, y).prev_sample
        assert float((y - x).abs().max()) < 0.02


def test_what_is_painted_over_between_steps_is_seen():
    scheduler = ProgramScheduler(solver="ddim")
    scheduler.set_timesteps(5)
    ask, x = network(scheduler), start()
    t = scheduler.timesteps[0]
    x = scheduler.step(ask(x, t), t, x).prev_sample
    program = ddim().compile(TABLE, scheduler._times)
    y, t = x + 1, scheduler.timesteps[1]
    data = LAW.denoiser(TABLE).denoise(y, scheduler.training.time(float(t)))
    expected = float(program.rows[2].states[1]) * y + float(program.rows[2].data[1]) * data
    assert float((scheduler.step(ask(y, t), t, y).prev_sample - expected).abs().max()) < 1e-4


def test_a_generator_per_sample_makes_samples_of_their_own():
    """Sample 1 of a batch is the sample made alone from its generator; a different seed is a different sample."""

    def made(x, seeds):
        scheduler = ProgramScheduler(solver="ddpm")
        scheduler.set_timesteps(6)
        return walk(scheduler, x, generator=[torch.Generator().manual_seed(s) for s in seeds])

    x = start(2)
    both = made(x, [3, 4])
    assert torch.allclose(both[1:], made(x[1:], [4]), atol=1e-12)
    assert float((both[1:] - made(x[1:], [5])).abs().max()) > 1e-3


def test_euler_of_flow_matching_is_ours():
    """On the same sigmas, to float32."""
    theirs, ours = FlowMatchEulerDiscreteScheduler(), ProgramScheduler(prediction_type="flow_prediction", solver="ddim")
    sigmas = [1.0, 0.8, 0.55, 0.3, 0.1]
    theirs.set_timesteps(sigmas=sigmas)
    ours.set_timesteps(sigmas=theirs.sigmas)
    assert torch.allclose(ours.timesteps, theirs.timesteps, atol=1e-3)
    ask, x = network(ours), start().to(torch.float32)
    y = x
    for t in theirs.timesteps:
        y = theirs.step(ask(y, t), t, y).prev_sample
    assert float((walk(ours, x) - y).abs().max()) < 1e-5


def tiny_unet() -> UNet2DModel:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "block_out_channels": (8, 8)}
    return UNet2DModel(sample_size=8, norm_num_groups=4, layers_per_block=1, **blocks).eval()


def test_a_pipeline_runs_with_it_in_full_and_half_precision():
    """The pipeline's own loop, against the program run by hand from the same noise; bfloat16 networks stay near."""
    pipe = DDPMPipeline(tiny_unet(), DDPMScheduler())
    pipe.scheduler = ProgramScheduler(**settings_of(pipe.scheduler))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(2, torch.Generator().manual_seed(3), num_inference_steps=4, output_type="np").images
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    ends = {}
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            pipe.scheduler.set_timesteps(4)
            y = x.to(dtype)
            for t in pipe.scheduler.timesteps:
                y = pipe.scheduler.step(pipe.unet.to(dtype)(y, t).sample, t, y).prev_sample
            ends[dtype] = y
    by_hand = (ends[torch.float32] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert float((torch.from_numpy(images) - by_hand).abs().max()) < 1e-5
    assert ends[torch.bfloat16].dtype == torch.bfloat16
    away = (ends[torch.float32] - ends[torch.bfloat16]).abs().mean()
    assert float(away) < 0.1 * float(ends[torch.float32].abs().mean())


@pytest.mark.parametrize("grid", ["log-snr", "karras", "time"])
def test_no_network_is_asked_below_the_first_entry_of_its_table(grid):
    """Latent diffusion's table begins at a ratio of 0.029, above the 0.01 at which others may be asked last."""
    scheduler = ProgramScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", grid=grid)
    scheduler.set_timesteps(7)
    assert float(scheduler.timesteps.min()) >= 0
    assert grid == "time" or float(scheduler.timesteps[-1]) < 1e-3
    assert float(scheduler.training.index(torch.tensor(0.0))) == 0


def test_noise_is_added_as_the_process_says():
    scheduler, theirs = ProgramScheduler(), EulerDiscreteScheduler()
    x, eps, t = start(4), start(4, 1), torch.tensor([0, 10, 500, 999])
    kept = theirs.alphas_cumprod[t].to(torch.float64)[:, None]
    assert torch.allclose(scheduler.add_noise(x, eps, t), kept.sqrt() * x + (1 - kept).sqrt() * eps, atol=1e-6)
    assert torch.allclose(scheduler.scale_noise(x, t[:1], eps), scheduler.add_noise(x, eps, t[:1]))


def test_learned_variance_is_left_out():
    scheduler = ProgramScheduler(variance_type="learned_range")
    scheduler.set_timesteps(4)
    x = start().reshape(4, 2, 2)
    t, answer = scheduler.timesteps[0], 0.1 * x
    once = scheduler.step(answer, t, x).prev_sample
    scheduler.set_timesteps(4)
    assert torch.equal(scheduler.step(torch.cat([answer, 7 * x], 1), t, x).prev_sample, once)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ProgramScheduler(solver="ddmi"), "solver"),
        (lambda: ProgramScheduler(grid="cosine"), "grid"),
        (lambda: ProgramScheduler(prediction_type="score"), "prediction_type"),
        (lambda: ProgramScheduler(beta_schedule="sine"), "beta_schedule"),
        (lambda: ProgramScheduler().set_timesteps(), "a number of steps"),
        (lambda: ProgramScheduler().set_timesteps(timesteps=[1, 2]), "fall strictly"),
        (lambda: ProgramScheduler.of(recipe_programs(), DDIMScheduler()).set_timesteps(5), "numbers of evaluations, 4, 6"),
        (lambda: ProgramScheduler.of(recipe_programs(), DDIMScheduler(beta_end=0.01)), "the scheduler's process"),
        (lambda: settings_of(EDMEulerScheduler()), "table of betas"),
        (lambda: ProgramScheduler.of({2: ddim().compile(FlowMatching(), (1.0, 0.5, 0.0))}, DDIMScheduler()), "process"),
    ],
)
def test_what_cannot_be_used_is_refused(make, says):
    with pytest.raises((ArgumentError, RecipeError), match=says):
        make()


def test_a_recipe_is_not_entered_in_the_middle():
    scheduler = ProgramScheduler.of(recipe_programs(), DDIMScheduler())
    scheduler.set_timesteps(4)
    scheduler.set_begin_index(2)
    with pytest.raises(ArgumentError, match="begin at noise"):
        scheduler.step(start(), scheduler.timesteps[2], start())
