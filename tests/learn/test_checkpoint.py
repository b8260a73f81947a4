"""A model folder gives back the model bit for bit, or refuses; it never runs what it holds."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.denoise import ConvNet, DiffusersUNet, GaussianScalings, Isotropic, Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError, CheckpointError, OutputError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import about_model, load_model, save_model
from sfumato.noise import EDM, BetaTable, VariancePreserving

SHAPE = (1, 4, 4)


def law(covariance):
    return Gaussian(torch.linspace(-1, 1, 16, dtype=torch.float64), covariance, SHAPE)


def scalings(name):
    generator = torch.Generator().manual_seed(2)
    columns = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64)).Q
    values = torch.rand(16, generator=generator, dtype=torch.float64) + 0.1
    return {
        "number": Isotropic(0.3, 0.1),
        "full": GaussianScalings(law(SpectralCovariance.low_rank(columns, values, 0.0))),
        "low rank": GaussianScalings(law(SpectralCovariance.low_rank(columns[:, :3], values[:3], 0.2)), floor=0.15),
        "cosine": GaussianScalings(law(SpectralCovariance.dct(SHAPE, values, channels=True))),
        "diagonal": GaussianScalings(law(SpectralCovariance.diagonal(values))),
    }[name]


def model(name="number", network=None, process=None):
    network = network or ResidualMLP(SHAPE, 8, 1, classes=3)
    generator = torch.Generator().manual_seed(1)
    for p in network.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator))
    return Preconditioned(network, process or VariancePreserving(), scalings(name)).requires_grad_(False).eval()


def answers(denoiser):
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))
    return denoiser.denoise(x, torch.tensor([0.1, 0.8]))


@pytest.mark.parametrize("name", ["number", "full", "low rank", "cosine", "diagonal"])
def test_round_trip_is_bit_exact_for_every_scaling(tmp_path, name):
    denoiser = model(name)
    save_model(denoiser, tmp_path, {"data": "none"})
    assert torch.equal(answers(load_model(tmp_path)), answers(denoiser))
    assert about_model(tmp_path) == {"data": "none"}


@pytest.mark.parametrize("process", [EDM(20.0), BetaTable.linear(50)], ids=lambda p: p.kind)
@pytest.mark.parametrize("kind", ["conv", "unet"])
def test_round_trip_is_bit_exact_for_other_networks_and_processes(tmp_path, kind, process):
    options = {"block_out_channels": [8], "norm_num_groups": 4, "layers_per_block": 1}
    options |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    denoiser = model(network=ConvNet(SHAPE, 8, 1) if kind == "conv" else DiffusersUNet(SHAPE, options), process=process)
    save_model(denoiser, tmp_path)
    back = load_model(tmp_path)
    assert back.process == process
    assert torch.equal(answers(back), answers(denoiser))


def test_saving_again_replaces_and_leaves_nothing_else_behind(tmp_path):
    first, second = model("full"), model("number")
    save_model(first, tmp_path / "a" / "b")
    save_model(second, tmp_path / "a" / "b")
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(answers(load_model(tmp_path / "a" / "b")), answers(second))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_truncated_at_any_of_many_places_is_refused(tmp_path, file):
    save_model(model(), tmp_path)
    whole = (tmp_path / file).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little") if file == "model.safetensors" else 100
    # the last byte of config.json is a line's end, without which it is still whole
    last = len(whole) - 2
    for cut in {0, 1, 7, 8, 9, header - 1, header, header + 1, last, *range(0, last, len(whole) // 40)}:
        (tmp_path / file).write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            load_model(tmp_path)
    (tmp_path / file).write_bytes(whole)
    load_model(tmp_path)


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    """Weights, header, checksum and record alike."""
    save_model(model(), tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 150):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 7)
        path.write_bytes(bytes(broken))
        with pytest.raises(CheckpointError):
            load_model(tmp_path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="a folder of a model"):
        load_model(tmp_path / "nowhere")
    save_model(model(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model"):
        load_model(tmp_path)


@pytest.mark.parametrize("change", [{"version": 2}, {"format": "other"}, {"about": {"data": "forged"}}, {"process": {"kind": "edm"}}])
def test_a_config_that_is_not_the_weights_own_is_refused(tmp_path, change):
    save_model(model(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError):
        load_model(tmp_path)


def test_weights_of_somebody_else_are_refused(tmp_path):
    """Plain safetensors without our record, and our tensors under a new header."""
    save_model(model(), tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(load_file(path), path)
    with pytest.raises(CheckpointError, match="checksum"):
        load_model(tmp_path)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(self.where),)

    def __init__(self, where):
        self.where = str(where)


@pytest.mark.parametrize("writer", [lambda o: pickle.dumps(o), None], ids=["pickle", "torch.save"])
def test_a_pickle_in_the_place_of_weights_is_refused_and_not_run(tmp_path, writer):
    save_model(model(), tmp_path)
    path, mark = tmp_path / "model.safetensors", tmp_path / "exploded"
    if writer is None:
        torch.save({"w": Bomb(mark)}, path)
    else:
        path.write_bytes(writer(Bomb(mark)))
    with pytest.raises(CheckpointError):
        load_model(tmp_path)
    assert not mark.exists()
    # the bomb is live: this is what unpickling would have done
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_what_cannot_be_written_down_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="network"):
        save_model(Preconditioned(torch.nn.Identity(), EDM()), tmp_path)
    with pytest.raises(ArgumentError, match="about"):
        save_model(model(), tmp_path, {"data": object()})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_model(model(), tmp_path / "file" / "folder")
