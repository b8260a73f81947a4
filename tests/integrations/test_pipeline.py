"""Whole pipelines of `diffusers` as denoisers: a sampler of ours on one ends where the pipeline's own loop ends."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sfumato.errors import ArgumentError, ShapeError
from sfumato.integrations.pipeline import PipelineDenoiser, Prompt, pipeline_denoiser
from sfumato.integrations.training import Training
from sfumato.sample import run
from sfumato.sample.compilers.multistep import ddim
from sfumato.seeds import noise

BLOCKS = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}


def alive(network: torch.nn.Module) -> torch.nn.Module:
    """Every weight random: zero-initialised layers would hide what a network is given."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return network.eval()


def unet(**more: object) -> UNet2DModel:
    names = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return alive(UNet2DModel(sample_size=8, **BLOCKS, **names, **more))


def vae(**more: object) -> AutoencoderKL:
    names = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return alive(AutoencoderKL(latent_channels=4, sample_size=16, **BLOCKS, **names, **more))


def dit_pipeline() -> DiTPipeline:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "patch_size": 2}
    network = DiTTransformer2DModel(in_channels=4, out_channels=8, num_embeds_ada_norm=1000, **sizes)
    return DiTPipeline(alive(network), vae(), DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"))


def stable_diffusion(encoder=None, tokenizer=None) -> StableDiffusionPipeline:
    names = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    network = UNet2DConditionModel(sample_size=8, cross_attention_dim=8, attention_head_dim=2, **BLOCKS, **names)
    scheduler = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear", clip_sample=False, timestep_spacing="trailing", steps_offset=1)
    return StableDiffusionPipeline(vae(), encoder, tokenizer, alive(network), scheduler, None, None, requires_safety_checker=False)


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=16, pooled_projection_dim=6, pos_embed_max_size=8,
    )  # fmt: skip
    auto = vae(shift_factor=0.06)
    return StableDiffusion3Pipeline(alive(network), FlowMatchEulerDiscreteScheduler(shift=3.0), auto, *[None] * 6)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).abs().max()) < 2e-4 * float(b.abs().max())


def ours(denoiser, times: list[float], x: torch.Tensor) -> torch.Tensor:
    """DDIM as a table, on the pipeline's times."""
    with torch.no_grad():
        return run(ddim().compile(denoiser.process, times), denoiser.denoise, x)


def times_of(pipe, training: Training) -> list[float]:
    """The times of DDIM's steps; as published the last step goes to the table's first entry, or to clean data."""
    return [training.time(float(t)) for t in pipe.scheduler.timesteps]


def test_a_class_conditional_latent_transformer_with_guidance():
    """Down to images: latent scale, guidance and learned variance as DiT's own pipeline has them."""
    pipe = dit_pipeline()
    pipe.set_progress_bar_config(disable=True)
    images = pipe([3, 7], guidance_scale=4.0, generator=torch.Generator().manual_seed(0), num_inference_steps=5, output_type="np").images
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    denoiser = pipeline_denoiser(pipe, guidance=4.0)
    program = ddim().compile(denoiser.process, [*times_of(pipe, denoiser.training), 0.0])
    with torch.no_grad():
        latents = run(program, lambda y, t: denoiser.denoise(y, t, torch.tensor([3, 7])), x)
        mine = (denoiser.decode(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert denoiser.conditions == 1000
    assert float((mine - torch.from_numpy(images)).abs().max()) < 1e-3
    with torch.no_grad():
        plain = run(program, lambda y, t: pipeline_denoiser(pipe).denoise(y, t, torch.tensor([3, 7])), x)
    assert not close(plain, latents)


def embeddings(n: int, dim: int) -> torch.Tensor:
    return noise(5, n, (4, dim)).draw(0)


def test_text_to_image_with_guidance_in_latents():
    """Embeddings stand for the prompts, so that no tokenizer is needed."""
    pipe = stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    hidden, x = embeddings(2, 8), noise(1, 1, (4, 8, 8)).draw(0)
    embedded = {"prompt_embeds": hidden[:1], "negative_prompt_embeds": hidden[1:]}
    theirs = pipe(**embedded, guidance_scale=5.0, num_inference_steps=5, latents=x.clone(), output_type="latent").images
    denoiser = PipelineDenoiser(
        pipe.unet, Training.of(pipe.scheduler), prompts=[Prompt(hidden[0]), Prompt(hidden[1])], guidance=5.0, vae=pipe.vae
    )
    mine = ours(denoiser.given(0), [*times_of(pipe, denoiser.training), 0.0], x)
    assert close(mine, theirs)
    assert denoiser.event_shape == (4, 8, 8)


def test_a_flow_matching_transformer_with_guidance():
    pipe = stable_diffusion_3()
    pipe.set_progress_bar_config(disable=True)
    hidden, pooled, x = embeddings(2, 8), noise(6, 2, (6,)).draw(0), noise(1, 1, (4, 8, 8)).draw(0)
    embedded = {"prompt_embeds": hidden[:1], "negative_prompt_embeds": hidden[1:]}
    embedded |= {"pooled_prompt_embeds": pooled[:1], "negative_pooled_prompt_embeds": pooled[1:]}
    theirs = pipe(**embedded, guidance_scale=3.0, num_inference_steps=5, latents=x.clone(), output_type="latent").images
    prompts = [Prompt(h, p) for h, p in zip(hidden, pooled, strict=True)]
    denoiser = PipelineDenoiser(pipe.transformer, Training.of(pipe.scheduler), prompts=prompts, guidance=3.0, vae=pipe.vae)
    times = [*(denoiser.training.time_of_sigma(float(s)) for s in pipe.scheduler.sigmas[:-1]), 0.0]
    assert close(ours(denoiser.given(0), times, x), theirs)


def letters() -> tuple[CLIPTextModel, CLIPTokenizer]:
    """A text encoder of random weights and a tokenizer that knows letters."""
    ends = [f"{c}{end}" for c in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    vocabulary = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", *ends])}
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
    config = CLIPTextConfig(vocab_size=len(vocabulary), bos_token_id=0, eos_token_id=1, pad_token_id=1, **sizes)
    return alive(CLIPTextModel(config)), CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)


def test_prompts_are_read_by_the_pipelines_own_encoder():
    """Condition 1 is the second prompt, and the last one the negative prompt."""
    pipe = stable_diffusion(*letters())
    pipe.set_progress_bar_config(disable=True)
    x = noise(1, 1, (4, 8, 8)).draw(0)
    with torch.no_grad():
        denoiser = pipeline_denoiser(pipe, ["a cat", "a dog"], negative="blur", guidance=5.0)
    more = {"guidance_scale": 5.0, "num_inference_steps": 5, "latents": x.clone(), "output_type": "latent"}
    theirs = pipe("a dog", negative_prompt="blur", **more).images
    times = [*times_of(pipe, denoiser.training), 0.0]
    assert close(ours(denoiser.given(1), times, x), theirs)
    assert not close(ours(denoiser.given(0), times, x), theirs)


@pytest.mark.parametrize("make", [dit_pipeline, stable_diffusion_3], ids=["scale", "scale and shift"])
def test_latents_are_scaled_there_and_back(make):
    """`decode` is the pipeline's own formula; `encode` undoes the scaling that `decode` undoes."""
    pipe = make()
    auto = pipe.vae
    null = [Prompt(torch.zeros(4, 8), torch.zeros(6))]
    denoiser = PipelineDenoiser(pipe.transformer, Training.of(pipe.scheduler), prompts=null if make is stable_diffusion_3 else (), vae=auto)
    images = noise(2, 2, (3, 16, 16)).draw(0)
    with torch.no_grad():
        latents = denoiser.encode(images)
        raw = auto.encode(images).latent_dist.mode()
        assert torch.allclose(denoiser.decode(latents), auto.decode(raw).sample, atol=1e-4)
    assert torch.allclose(latents, (raw - (auto.config.shift_factor or 0)) * auto.config.scaling_factor)


def test_pixels_labels_and_half_precision():
    pipe = DDPMPipeline(unet(num_class_embeds=3), DDPMScheduler())
    denoiser = pipeline_denoiser(pipe)
    x, t = noise(3, 2, (3, 8, 8)).draw(0), 0.5
    labels = torch.tensor([0, 2])
    with torch.no_grad():
        full = denoiser.denoise(x, t, labels)
        eps = pipe.unet(x, denoiser.training.index(torch.tensor(t)), class_labels=labels).sample
        alpha, sigma = denoiser.process.levels(t)
        assert torch.allclose(full, (x - float(sigma) * eps) / float(alpha), atol=1e-4)
        assert not torch.allclose(full, denoiser.denoise(x, t, torch.tensor([1, 2])))
        pipe.unet.to(torch.bfloat16)
        half = denoiser.denoise(x, t, labels)
    assert half.dtype == torch.float32
    assert float((half - full).abs().max()) < 0.1 * float(full.abs().max())
    assert torch.equal(denoiser.decode(x), x)
    assert torch.equal(denoiser.encode(x), x)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PipelineDenoiser(torch.nn.Linear(2, 2), Training.of(DDPMScheduler())), "Wrapped"),
        (lambda: PipelineDenoiser(unet(), Training.of(DDPMScheduler()), guidance=2.0), "no null condition"),
        (lambda: pipeline_denoiser(DDPMPipeline(unet(), DDPMScheduler()), ["a cat"]), "reads no prompts"),
        (lambda: pipeline_denoiser(dit_pipeline()).given(1000), "from 0 to 999"),
        (lambda: pipeline_denoiser(DDPMPipeline(unet(), DDPMScheduler())).denoise(torch.zeros(1, 3, 9, 9), 0.5), "events of shape"),
        (lambda: pipeline_denoiser(dit_pipeline()).denoise(torch.zeros(2, 4, 8, 8), 0.5, torch.tensor([1])), "integers from 0"),
        (
            lambda: pipeline_denoiser(DDPMPipeline(unet(num_class_embeds=3), DDPMScheduler())).denoise(torch.zeros(1, 3, 8, 8), 0.5),
            "labels",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(make, says):
    with pytest.raises((ArgumentError, ShapeError), match=says):
        make()
