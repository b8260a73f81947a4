"""From a saved pipeline to a recipe and back into the pipeline: the README's section, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDPMPipeline, DDPMScheduler, DiTPipeline, DiTTransformer2DModel, UNet2DModel

from sfumato.cli import main
from sfumato.data import digits
from sfumato.errors import ArgumentError, DataError
from sfumato.integrations.subject import is_pipeline, open_pipeline, own_samples, pipeline_data
from sfumato.tune import Recipe, TuneSettings, tune

ROOT = Path(__file__).parents[2]
LITTLE = TuneSettings((8,), fit=32, judge=16, measure=16, steps=24, quality=0, world_trials=12, network_trials=1, closed_forms=0, fits=())
BLOCKS = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}


def pixels() -> DDPMPipeline:
    torch.manual_seed(0)
    names = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return DDPMPipeline(UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **BLOCKS, **names), DDPMScheduler())


def latents() -> DiTPipeline:
    torch.manual_seed(0)
    names = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4, "patch_size": 2}
    network = DiTTransformer2DModel(in_channels=4, out_channels=8, num_embeds_ada_norm=1000, **sizes)
    return DiTPipeline(network, AutoencoderKL(latent_channels=4, sample_size=8, **BLOCKS, **names), DDPMScheduler())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("work")
    pixels().save_pretrained(where / "path/to/pipeline")
    return where


@pytest.fixture(scope="module")
def recipe(folder):
    """A recipe for it, beside it."""
    denoiser = open_pipeline(folder / "path/to/pipeline")
    found, _ = tune(denoiser, pipeline_data(denoiser, "digits"), LITTLE)
    found.save(folder / "tuned")
    return found


def test_the_readme_takes_a_recipe_back_into_the_pipeline(folder, recipe, monkeypatch):
    """Its images are those of the recipe's own sampler from the same noise."""
    denoiser = open_pipeline(folder / "path/to/pipeline")
    section = (ROOT / "README.md").read_text().split("## Use it with diffusers")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert len(names["images"]) == 1
    pipe = names["pipe"]
    pipe.set_progress_bar_config(disable=True)
    images = pipe(2, torch.Generator().manual_seed(5), num_inference_steps=8, output_type="np").images
    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    alone = Recipe.load(folder / "tuned").sampler(denoiser, 8).sample(2, start=start)
    assert float((torch.from_numpy(images).permute(0, 3, 1, 2) - (alone / 2 + 0.5).clamp(0, 1)).abs().max()) < 1e-4


def test_the_command_line_samples_a_recipe_of_a_pipeline(folder, recipe):
    for argument in ("--model", "--nothing"):
        with pytest.raises(SystemExit) as stop:
            main(["sample", str(folder / "tuned"), argument, str(folder / "path/to/pipeline"), "-n", "2", "--out", str(folder / "a.npy")])
        assert (stop.value.code == 0) == (argument == "--model")
    assert (folder / "a.npy").exists()


def test_data_become_the_networks_events_and_without_data_the_model_draws_them(tmp_path):
    latents().save_pretrained(tmp_path / "dit")
    denoiser = open_pipeline(tmp_path / "dit").given(3)
    drawn = own_samples(denoiser, 12, seed=1)
    assert drawn.event_shape == (4, 4, 4)
    assert torch.equal(drawn.train, own_samples(denoiser, 12, seed=1).train)
    data = pipeline_data(denoiser, "digits")
    assert data.event_shape == (4, 4, 4)
    with torch.no_grad():
        assert torch.allclose(data.train[:2], denoiser.inner.encode(digits().train[:2].repeat(1, 3, 1, 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: open_pipeline(f / "nothing"), "saved pipeline"),
        (lambda f: open_pipeline(f / "path/to/pipeline", "a cat"), "reads no prompts"),
        (lambda f: open_pipeline(f / "path/to/pipeline", guidance=3), "without a prompt"),
        (lambda f: pipeline_data(open_pipeline(f / "path/to/pipeline"), "moons"), "as the pipeline's"),
    ],
)
def test_what_cannot_be_used_is_refused(make, says, folder):
    with pytest.raises((ArgumentError, DataError), match=says):
        make(folder)


def test_names_of_the_hub_are_told_from_folders(folder):
    assert is_pipeline("owner/name")
    assert is_pipeline(folder / "path/to/pipeline")
    assert not is_pipeline(folder)
    assert not is_pipeline("./owner/name")
