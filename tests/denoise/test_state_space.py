"""State-space layers: convolution, recurrence and scipy's held-input system agree; what a network can see follows its directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from sfumato.denoise.networks.state_space import StateSpaceLayer, StateSpaceNet
from sfumato.denoise.operations import operations
from sfumato.errors import ArgumentError


def _layer(channels=3, modes=4):
    torch.manual_seed(0)
    return StateSpaceLayer(channels, modes)


U = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(1))


def test_the_convolution_is_the_recurrence():
    """To rounding in float64, and to 1e-5 in float32."""
    layer = _layer()
    torch.testing.assert_close(layer(U), layer.scan(U), atol=1e-5, rtol=0)
    layer = layer.double()
    torch.testing.assert_close(layer(U.double()), layer.scan(U.double()), atol=1e-13, rtol=0)


def test_a_layer_is_the_held_input_solution_of_its_equation():
    """scipy discretises and simulates `h' = A h + u`, `y = 2 Re C h`, mode by mode."""
    layer = _layer(1, 2).double()
    u, step = U[:1, :, :1].double(), float(torch.exp(layer.log_step.detach()))
    total = layer.passed.detach().item() * u[0, :, 0].numpy()
    weights = torch.view_as_complex(layer.output.detach())
    for n in range(2):
        pole = complex(-torch.exp(layer.log_decay[0, n]).item(), layer.frequency[0, n].item())
        a, b, *_ = signal.cont2discrete((np.array([[pole]]), np.array([[1.0]]), np.array([[1.0]]), np.array([[0.0]])), step)
        state = signal.lfilter([b[0, 0]], [1, -a[0, 0]], u[0, :, 0].numpy())
        total = total + 2 * np.real(complex(weights[0, n]) * state)
    torch.testing.assert_close(layer(u)[0, :, 0], torch.from_numpy(total), atol=1e-12, rtol=0)


def test_small_steps_keep_their_digits():
    """As `Delta -> 0` the input weight tends to `C Delta`; without expm1 it would be rounding."""
    layer = _layer()
    with torch.no_grad():
        layer.log_step.fill_(-18.0)
    _, weight = layer._modes()
    torch.testing.assert_close(weight, torch.view_as_complex(layer.output) * np.exp(-18.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("directions", "ratio"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_one_direction_sees_no_future_token_and_two_see_all(directions, ratio):
    net = StateSpaceNet((1, 12), 8, 1, ratio, 4, directions)
    torch.nn.init.normal_(net.last.weight)
    x = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(2))
    seen = torch.autograd.functional.jacobian(lambda y: net(y, torch.zeros(1))[0, 0], x)[:, 0, 0]
    future = torch.triu(seen, ratio)  # tokens of `ratio` numbers see the whole of themselves
    past = torch.tril(seen, -ratio)
    assert float(past.abs().max()) > 1e-6
    assert (float(torch.triu(future, ratio).abs().max()) > 1e-6) == (directions == 2)


def test_images_are_sequences_in_row_major_order_and_weights_belong_to_the_seed():
    nets = [StateSpaceNet((2, 4, 4), 8, 1, classes=3, seed=s) for s in (0, 0, 1)]
    for net in nets:
        torch.nn.init.ones_(net.last.weight)
    x, c = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(3)), torch.tensor([0.1, -0.4])
    out = [net(x, c, torch.tensor([1, -1])) for net in nets]
    assert torch.equal(out[0], out[1])
    assert not torch.allclose(out[0], out[2])
    flat = StateSpaceNet((2, 16), 8, 1, classes=3)
    flat.load_state_dict(nets[0].state_dict())
    torch.testing.assert_close(flat(x.flatten(2), c, torch.tensor([1, -1])).reshape(x.shape), out[0])


def test_operations_are_those_of_the_formulas():
    a, b = torch.randn(3, 16, 4), torch.randn(4, 5)
    assert operations(lambda: a @ b) == 2 * 3 * 16 * 4 * 5
    # 12 real transforms of length 32, 5/2 n log2 n each, either way
    assert operations(lambda: torch.fft.rfft(a, 32, dim=1)) == 12 * 2.5 * 32 * 5
    spectrum = torch.fft.rfft(a, 32, dim=1)
    assert operations(lambda: torch.fft.irfft(spectrum, 32, dim=1)) == 12 * 2.5 * 32 * 5


def test_bad_sizes_are_refused():
    for make in (
        lambda: StateSpaceNet((16,)),
        lambda: StateSpaceNet((1, 15), ratio=2),
        lambda: StateSpaceNet((1, 16), directions=3),
        lambda: StateSpaceLayer(0),
    ):
        with pytest.raises(ArgumentError):
            make()
