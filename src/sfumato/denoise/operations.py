"""What an evaluation costs, in floating-point operations counted as they are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def _transform(*args: Any, out_val: Tensor, **kwargs: Any) -> int:
    """`5/2 n log2 n` a real transform of length `n` (Cooley & Tukey's count), for all transforms of the call."""
    signal = max((args[0], out_val), key=lambda x: 0 if x.is_complex() else x.numel())
    lengths = [signal.shape[i] for i in args[1]]
    return int(2.5 * signal.numel() * math.log2(max(2, math.prod(lengths))))


def operations(function: Callable[..., object], *inputs: object) -> int:
    """Two for each multiply-and-add of matrix products and convolutions, and those of real Fourier transforms; the rest is not counted.

    Arguments:
        function: a network, or anything that computes with tensors.
        inputs: what it is called with, without gradients.
    """
    transforms = {torch.ops.aten._fft_r2c: _transform, torch.ops.aten._fft_c2r: _transform}
    for call in transforms.values():
        call._get_raw = True  # type: ignore[attr-defined]
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=transforms) as counter:
        function(*inputs)
    return int(counter.get_total_flops())
