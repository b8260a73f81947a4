r"""Post-training quantisation: a trained network whose linear and convolutional layers compute with few bits, without retraining.

    q(z) = clamp(round(z / s) + z_0, 0, 2^b - 1),        z ~ s (q(z) - z_0)

*Weights* are symmetric (`z_0` in the middle) with a step `s` per output channel; the *input* of each layer is affine with one step for the
whole tensor, and its range is chosen on calibration inputs: what the network sees during a denoising run, at the times at which it sees it.
Outputs are not quantised. The arithmetic is simulated in floating point and is that of integers exactly (products of integers are exact).

Sources: Shang et al. 2022 (arXiv 2211.15736), section 3; range search by Nagel et al. 2021 (arXiv 2106.08295), section 3.1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from sfumato.errors import ArgumentError

Metric = Literal["range", "percentile", "mse", "l1", "cosine", "kl"]
"""How a range is chosen: all values, all but 0.1 % on each side, or the shrunk range with the least distance of the quantised values."""

_SHRINKS = tuple(1 - 0.025 * n for n in range(21))
_SEEN = 2**16
"""Of a layer's calibration inputs so many are looked at, evenly spread."""
_TAIL = 1e-3

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Quantiser:
    """The map `q` and back.

    Arguments:
        step, zero: `s` and `z_0`, float64; scalars, or one per output channel shaped to broadcast.
        bits: `b`.
    """

    step: Tensor
    zero: Tensor
    bits: int

    def integers(self, z: Tensor) -> Tensor:
        """`q(z)`, whole numbers in the dtype of `z`."""
        return (torch.round(z / self.step.to(z)) + self.zero.to(z)).clamp(0, 2**self.bits - 1)

    def __call__(self, z: Tensor) -> Tensor:
        """`s (q(z) - z_0)`."""
        return (self.integers(z) - self.zero.to(z)) * self.step.to(z)


def affine(low: float, high: float, bits: int) -> Quantiser:
    """The quantiser of a range, which is widened to hold 0, and 0 is exact.

    Raises:
        ArgumentError: fewer than 2 bits or more than 16, or a range that holds nothing but 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if not 2 <= bits <= 16:
        raise ArgumentError("bits", bits, "2 to 16 bits")
    if not high > low:
        raise ArgumentError("low, high", (low, high), "a range with low < high")
    step = (high - low) / (2**bits - 1)
    return Quantiser(torch.tensor(step, dtype=torch.float64), torch.tensor(float(round(-low / step)), dtype=torch.float64), bits)


def symmetric(weight: Tensor, bits: int) -> Quantiser:
    """The quantiser of a layer's weights, one step per output channel (axis 0); a channel of zeros keeps them."""
    top = weight.detach().flatten(1).abs().amax(1).to(torch.float64)
    step = torch.where(top > 0, top, 1.0) / (2 ** (bits - 1) - 1)
    return Quantiser(step.reshape(-1, *[1] * (weight.ndim - 1)), torch.tensor(float(2 ** (bits - 1)), dtype=torch.float64), bits)


def choose(z: Float[Tensor, " n"], bits: int, metric: Metric = "mse") -> Quantiser:
    """The affine quantiser for values like these.

    Raises:
        ArgumentError: an unknown metric, a number of bits that `affine` refuses, values that are all 0.
    """
    if metric not in get_args(Metric):
        raise ArgumentError("metric", repr(metric), f"one of {', '.join(get_args(Metric))}")
    low, high = float(z.min()), float(z.max())
    if metric == "range":
        return affine(low, high, bits)
    if metric == "percentile":
        ends = torch.quantile(z, torch.tensor([_TAIL, 1 - _TAIL], dtype=z.dtype))
        return affine(float(ends[0]), float(ends[1]), bits)
    tried = [affine(low * c, high * c, bits) for c in _SHRINKS]
    return min(tried, key=lambda quantiser: _distance(z, quantiser(z), metric))


def _distance(z: Tensor, rounded: Tensor, metric: str) -> float:
    if metric == "mse":
        return float((z - rounded).square().mean())
    if metric == "l1":
        return float((z - rounded).abs().mean())
    if metric == "cosine":
        return 1 - float((z * rounded).sum() / (z.norm() * rounded.norm()))
    # of histograms over the range of the values, one count a bin more, so that none is empty
    low, high = float(z.min()), float(z.max())
    p, q = (torch.histc(v.float(), 128, low, high) + 1 for v in (z, rounded))
    p, q = p / p.sum(), q / q.sum()
    return float((p * torch.log(p / q)).sum())


class QuantisedLayer(nn.Module):
    """A linear or convolutional layer with quantised weights and input.

    Arguments:
        layer: the layer.
        of_input: the quantiser of what comes in.
        bits: of the weights.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, of_input: Quantiser, bits: int) -> None:
        super().__init__()
        self.layer, self.of_input, self.of_weight = layer, of_input, symmetric(layer.weight, bits)
        self.weight = nn.Parameter(self.of_weight(layer.weight.detach()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x, layer = self.of_input(x), self.layer
        if isinstance(layer, nn.Linear):
            return linear(x, self.weight, layer.bias)
        return conv2d(x, self.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that can be quantised, by name, in the order in which the model holds them."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def observe(model: nn.Module, use: Callable[[nn.Module], object], names: Sequence[str]) -> dict[str, list[Tensor]]:
    """What comes into the named layers while the model is used, call by call: inspect it over time, or choose ranges by it."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    found = layers(model)

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: seen[name].append(inputs[0].detach())

    handles = [found[name].register_forward_pre_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            use(model)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def quantise(
    model: M,
    use: Callable[[M], object],
    bits_w: int = 8,
    bits_a: int = 8,
    metric: Metric = "mse",
    *,
    ends: Sequence[str] = (),
    leave: Sequence[str] = (),
) -> M:
    """A copy of a model whose layers compute with few bits.

    Arguments:
        model: a network, or a denoiser that is a module.
        use: shows the model its calibration inputs, e.g. `lambda model: model(x, t)`.
        bits_w, bits_a: of weights and of inputs.
        metric: how ranges are chosen.
        ends: layers that keep 8 bits whatever the others have, such as the first and the last.
        leave: layers, or modules that hold them, that stay as they are, such as the embedding of time.

    Raises:
        ArgumentError: names that are none of the model's layers, no layers, a layer that saw no input or only zeros, or bad bits.
    """
    found = [n for n in layers(model) if not any(n == part or n.startswith(part + ".") for part in leave)]
    unknown = [name for name in ends if name not in found]
    if unknown or not found:
        raise ArgumentError("ends", unknown or "a model without layers", f"names among {', '.join(layers(model)) or 'linear layers'}")
    copied = copy.deepcopy(model)
    seen = observe(copied, use, found)  # type: ignore[arg-type]
    for name in found:
        if not seen[name]:
            raise ArgumentError("use", f"no input for the layer {name}", "calls in which every layer takes part")
        values = torch.cat([x.flatten() for x in seen[name]])
        values = values[:: max(1, len(values) // _SEEN)]
        of_input = choose(values, 8 if name in ends else bits_a, metric)
        parent, _, last = name.rpartition(".")
        layer = copied.get_submodule(name)
        setattr(copied.get_submodule(parent), last, QuantisedLayer(layer, of_input, 8 if name in ends else bits_w))  # type: ignore[arg-type]
    return copied
