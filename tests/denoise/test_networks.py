"""Networks start silent, depend on their seed alone, can be written down, and know their classes."""

from __future__ import annotations

import json

import pytest
import torch

from sfumato.denoise import ConvNet, DiffusersUNet, ResidualMLP, network_from_config
from sfumato.errors import ArgumentError, ShapeError

UNET = {
    "block_out_channels": [8, 8],
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
}


def build(kind, classes=None, seed=0, shape=(2, 8, 8)):
    if kind == "diffusers-unet":
        return DiffusersUNet(shape, UNET, classes, seed)
    return {"residual-mlp": ResidualMLP, "conv": ConvNet}[kind](shape, 16, 2, classes, seed)


KINDS = ["residual-mlp", "conv", "diffusers-unet"]


def awake(network):
    """Output layers off zero, so that there is something to see."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return network.requires_grad_(False).eval()


def some(batch=3, shape=(2, 8, 8)):
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, *shape, generator=g), torch.linspace(-2, 2, batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_network_is_the_zero_function_and_awakes(kind):
    x, c = some()
    assert torch.equal(build(kind)(x, c), torch.zeros_like(x))
    assert float(awake(build(kind))(x, c).abs().max()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator(kind):
    torch.manual_seed(5)
    first = build(kind).state_dict()
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    again, other = build(kind).state_dict(), build(kind, seed=1).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_written_down_and_read_it_is_the_same_function(kind, classes):
    network = awake(build(kind, classes))
    config = json.loads(json.dumps(network.to_config()))
    twin = network_from_config(config).eval()
    twin.load_state_dict(network.state_dict())
    x, c = some()
    assert twin.to_config() == config
    assert torch.equal(twin(x, c), network(x, c))


@pytest.mark.parametrize("kind", KINDS)
def test_class_and_noise_level_change_the_answer_and_negative_labels_are_no_class(kind):
    network = awake(build(kind, classes=3))
    x, c = some()
    none = network(x, c)
    assert torch.equal(none, network(x, c, torch.tensor([-1, -1, -1])))
    mixed = network(x, c, torch.tensor([0, -1, 2]))
    torch.testing.assert_close(mixed[1], none[1], rtol=1e-5, atol=1e-6)
    assert float((mixed[0] - none[0]).abs().max()) > 1e-3
    assert float((mixed[2] - none[2]).abs().max()) > 1e-3
    assert float((network(x, c + 0.1) - none).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_batch_do_not_see_each_other(kind):
    network = awake(build(kind))
    x, c = some()
    torch.testing.assert_close(network(x, c)[1:2], network(x[1:2], c[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 8), (4, 12, 12)])
def test_convolutions_take_images_of_many_shapes(shape):
    x, c = some(2, shape)
    out = awake(ConvNet(shape, 8, 2))(x, c)
    # a pixel's change is seen elsewhere: the levels are connected
    moved = x.clone()
    moved[:, :, 0, 0] += 1
    far = (awake(ConvNet(shape, 8, 2))(moved, c) - out)[:, :, -1, -1]
    assert out.shape == x.shape
    assert float(far.abs().max()) > 0


def test_labels_that_mean_nothing_are_refused():
    x, c = some()
    with pytest.raises(ArgumentError, match="knows no classes"):
        build("residual-mlp")(x, c, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ArgumentError, match="label 3"):
        build("residual-mlp", 3)(x, c, torch.tensor([0, 3, 1]))
    with pytest.raises(ShapeError, match="one integer label"):
        build("residual-mlp", 3).labels(torch.zeros(2, dtype=torch.long), 3, x.device)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"kind": "perceptron"},
        {**ResidualMLP((4,)).to_config(), "heads": 3},
        {k: v for k, v in ResidualMLP((4,)).to_config().items() if k != "width"},
        {**ResidualMLP((4,)).to_config(), "width": "256"},
        {**ResidualMLP((4,)).to_config(), "width": -1},
        {**ResidualMLP((4,)).to_config(), "classes": 0},
        {**ResidualMLP((4,)).to_config(), "event_shape": [0]},
        {**ResidualMLP((4,)).to_config(), "event_shape": "4"},
        {**DiffusersUNet((1, 8, 8), UNET).to_config(), "options": {"nonsense": 1}},
    ],
)
def test_broken_configurations_are_refused(config):
    with pytest.raises(ArgumentError):
        network_from_config(config)


@pytest.mark.parametrize("arguments", [((8, 8), 16, 1), ((1, 8, 8), 12, 1), ((1, 6, 6), 16, 2)])
def test_images_that_a_convolution_cannot_halve_are_refused(arguments):
    with pytest.raises(ArgumentError):
        ConvNet(*arguments)
