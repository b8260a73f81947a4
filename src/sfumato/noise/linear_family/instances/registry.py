"""The one list of named members: a line here gives a member every generic test and a way back from plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, SfumatoError
from sfumato.noise.linear_family.instances.bridges import agm, brownian_bridge, vp_bridge
from sfumato.noise.linear_family.instances.flexible import flexible, flexible_spectrum
from sfumato.noise.linear_family.instances.mean_reverting import ir_sde, ouve
from sfumato.noise.linear_family.instances.multivariate import alda, malda, mdm, mdm_two_clocks
from sfumato.noise.linear_family.instances.phase_space import blurred_cld, cld, psld
from sfumato.noise.linear_family.instances.pixel_times import pixel_times
from sfumato.noise.linear_family.instances.spectral import blurring, function_space, heat
from sfumato.noise.linear_family.linear_sde import LinearSDE

_MAKERS: dict[str, Callable[..., LinearSDE]] = {
    make.__name__: make
    for make in (
        agm,
        alda,
        blurring,
        brownian_bridge,
        blurred_cld,
        cld,
        flexible,
        flexible_spectrum,
        function_space,
        heat,
        ir_sde,
        malda,
        mdm,
        mdm_two_clocks,
        ouve,
        pixel_times,
        psld,
        vp_bridge,
    )
}


def _table(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


LINEAR_SDES: dict[str, Callable[[], LinearSDE]] = {
    "cld": cld,
    "psld": psld,
    "blurred_cld": lambda: blurred_cld((2, 2)),
    "mdm": lambda: mdm(_table((0.3, 0.1), (0.1, 1.2)), _table((0.0, -1.5), (1.5, 0.0)), torch.tensor([1.0, 0.5])),
    "alda": alda,
    "malda": malda,
    "mdm_two_clocks": lambda: mdm_two_clocks(_table((0.3, 0.1), (0.1, 1.2)), _table((0.0, -1.5), (1.5, 0.0))),
    "flexible_spectrum": lambda: flexible_spectrum(_table((1.5, 1.0), (1.0, 0.5))),
    "flexible": lambda: flexible(_table((0.6, 0.2), (0.2, 1.4)), _table((0.0, 2.0), (-2.0, 0.0))),
    "ir_sde": ir_sde,
    "ouve": ouve,
    "blurring": lambda: blurring((2, 2), 1.0),
    "heat": lambda: heat((2, 2), 2.0),
    "function_space": lambda: function_space((4,)),
    "pixel_times": lambda: pixel_times(_table((0.0, 0.05), (0.1, 0.2)), _table((0.9, 1.0), (1.0, 1.2))),
    "brownian_bridge": brownian_bridge,
    "vp_bridge": vp_bridge,
    "agm": agm,
}
"""An example of every named member, for tests and demonstrations."""


def linear_sde_from_dict(data: Any) -> LinearSDE:
    """The named member that `LinearSDE.to_dict` wrote down.

    Raises:
        ArgumentError: an unknown kind, or arguments it does not have.
    """
    kind = data.get("kind") if isinstance(data, dict) else data
    if not isinstance(data, dict) or not isinstance(kind, str) or kind not in _MAKERS:
        raise ArgumentError("process.kind", repr(kind)[:60], f"one of {', '.join(_MAKERS)}")
    plain = ("shape", "forget", "turn")
    try:
        values = {
            key: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) and key not in plain else value
            for key, value in data.items()
            if key != "kind"
        }
        return _MAKERS[kind](**values)
    except SfumatoError:
        raise
    # what is read from a file may be of any type at any place
    except (TypeError, AttributeError, ValueError, RuntimeError, IndexError) as wrong:
        raise ArgumentError("process", f"the keys {sorted(map(str, data))}", f"the arguments of {kind}", str(wrong)) from None
