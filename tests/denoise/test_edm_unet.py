"""The networks of EDM agree with the numbers that their authors' implementation gives for the same weights, are functions of their own
dtype, and can be written down."""

from __future__ import annotations

import json
import math

import pytest
import torch

from sfumato.denoise import EDMUNet, Preconditioned, network_from_config
from sfumato.errors import ArgumentError
from sfumato.noise import EDM

FORMS = {
    "ddpm++": {"family": "song", "width": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4], "embedding": 2, "augment": 2},
    "ncsn++": {
        "family": "song",
        "width": 16,
        "multipliers": [1, 2, 2],
        "blocks": 1,
        "attention": [4],
        "embedding": 2,
        "augment": 2,
        "noise": "random-waves",
        "noise_width": 2,
        "encoder": "residual",
        "taps": [1, 3, 3, 1],
    },
    "adm": {"family": "adm", "width": 64, "multipliers": [1, 2], "blocks": 1, "attention": [8, 4], "embedding": 1, "augment": 2},
}
# `filled` networks on `given()`, measured once with the authors' implementation (torch 2.13, float32): the elements [0, 0, 0, 0],
# [0, 1, 3, 4] and [1, 2, 7, 7], and the root mean square
MEASURED = {
    "ddpm++": [0.829806, 0.993179, -0.388376, 0.792264],
    "ncsn++": [0.783033, 1.236393, -0.258055, 0.878681],
    "adm": [0.758674, 0.680251, 0.438236, 1.021542],
}


def rough(count, shift):
    """Numbers in [-1, 1] that no generator is needed for."""
    return torch.sin(torch.arange(1, count + 1, dtype=torch.float64) ** 2 * 0.618 + shift).float()


def filled(network):
    """Weights of a usual size, the same on every machine."""
    with torch.no_grad():
        for i, value in enumerate(network.state_dict().values()):
            wave = rough(value.numel(), i).reshape(value.shape)
            value.copy_(wave * math.sqrt(2 / value[0].numel()) if value.ndim > 1 else 0.5 + 0.5 * wave)
    return network.eval().requires_grad_(False)


def given():
    x = rough(2 * 3 * 8 * 8, 0.5).reshape(2, 3, 8, 8) * 1.5
    return x, torch.tensor([-1.2, 0.4]), torch.tensor([2, 0]), rough(4, 7.0).reshape(2, 2)


def network(kind, classes=3):
    return EDMUNet((3, 8, 8), FORMS[kind], classes)


def seen(out):
    return [float(v) for v in (out[0, 0, 0, 0], out[0, 1, 3, 4], out[1, 2, 7, 7], out.square().mean().sqrt())]


@pytest.mark.parametrize("kind", FORMS)
def test_it_gives_the_numbers_of_the_authors_implementation(kind):
    x, c, labels, augment = given()
    out = filled(network(kind))(x, c, labels, augment)
    assert seen(out) == pytest.approx(MEASURED[kind], abs=2e-5)


@pytest.mark.parametrize("kind", FORMS)
def test_class_augmentation_and_noise_level_each_matter_and_no_class_is_one_more(kind):
    x, c, labels, augment = given()
    net = filled(network(kind))
    base = net(x, c, labels)
    for other in (net(x, c + 0.3, labels), net(x, c, labels, augment), net(x, c, labels.flip(0)), net(x, c)):
        assert float((other - base).abs().max()) > 1e-3
    assert torch.equal(net(x, c), net(x, c, torch.tensor([-1, -1])))
    assert torch.equal(net(x, c, labels, torch.zeros(2, 2)), base)


@pytest.mark.parametrize("kind", FORMS)
def test_new_it_is_zero_and_written_down_it_is_the_same_function(kind):
    x, c, labels, _ = given()
    assert torch.equal(network(kind)(x, c, labels), torch.zeros_like(x))
    net = filled(network(kind))
    twin = network_from_config(json.loads(json.dumps(net.to_config()))).eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x, c, labels), net(x, c, labels))


@pytest.mark.parametrize(
    ("size", "classes", "options", "parameters"),
    [
        (32, 10, {"family": "song", "width": 128, "multipliers": [2, 2, 2], "blocks": 4, "attention": [16], "augment": 9}, 55_735_299),
        (64, 1000, {"family": "adm", "width": 192, "multipliers": [1, 2, 3, 4], "blocks": 3, "attention": [32, 16, 8]}, 295_899_267),
    ],
)
def test_the_papers_networks_have_as_many_parameters_as_there(size, classes, options, parameters):
    """56 and 296 million: DDPM++ of CIFAR-10 and ADM of ImageNet-64 (Karras et al. 2022, table 7); in full as in their implementation."""
    with torch.device("meta"):
        net = EDMUNet((3, size, size), options, classes)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_samples_in_float64_go_with_a_network_in_float32():
    """As EDM samples: the answer differs from that of the network in float64 by float32's rounding, and states keep their digits."""
    x, _, labels, _ = given()
    net = filled(network("ddpm++"))
    t = torch.tensor([0.001, 0.5], dtype=torch.float64)
    coarse = Preconditioned(net, EDM(), 0.5).denoise(x.double(), t, labels)
    fine = Preconditioned(net.double(), EDM(), 0.5).denoise(x.double(), t, labels)
    assert coarse.dtype == fine.dtype == torch.float64
    assert float((coarse - fine).abs().max()) < 1e-5
    assert float((coarse - coarse.float().double()).abs().max()) > 0


@pytest.mark.parametrize("kind", ["ncsn++", "adm"])
def test_forward_derivatives_are_those_of_finite_differences(kind):
    x, c, labels, _ = given()
    net, x, c = filled(network(kind)).double(), x.double(), c.double()
    along = rough(x.numel(), 3.0).reshape(x.shape).double()
    _, exact = torch.func.jvp(lambda y: net(y, c, labels), (x,), (along,))
    h = 1e-5
    measured = (net(x + h * along, c, labels) - net(x - h * along, c, labels)) / (2 * h)
    assert float((exact - measured).abs().max()) < 1e-6 * float(exact.abs().max())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"family": "edm2"}, "family"),
        ({"noise": "sines"}, "noise"),
        ({"taps": [1, 2, 1]}, "taps"),
        ({"taps": [1.0, 1.0]}, "taps"),
        ({"multipliers": []}, "multipliers"),
        ({"width": 18}, "width"),
        ({"width": True}, "width"),
        ({"blocks": 0}, "blocks"),
        ({"family": "adm", "encoder": "residual"}, "adm"),
        ({"width": 100, "multipliers": [1, 2]}, "width"),
        ({"family": "adm", "width": 224, "multipliers": [1]}, "heads"),
        ({"multipliers": [1] * 5}, "divisible by 16"),
        ({"depth": 3}, "family, width, multipliers, blocks"),
    ],
)
def test_options_without_a_network_are_refused(change, name):
    with pytest.raises(ArgumentError, match=name):
        EDMUNet((3, 8, 8), FORMS["ddpm++"] | change)


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 4), (3, 7, 7)])
def test_events_that_are_no_square_images_are_refused(shape):
    with pytest.raises(ArgumentError, match="event_shape"):
        EDMUNet(shape, FORMS["ddpm++"])
