"""Networks by name: what a checkpoint's configuration is read with."""

from __future__ import annotations

from typing import Any

from sfumato.denoise.networks.conv import ConvNet
from sfumato.denoise.networks.diffusers_network import DiffusersUNet
from sfumato.denoise.networks.dynamical_system import ContinuousUNet
from sfumato.denoise.networks.edm_unet import EDMUNet
from sfumato.denoise.networks.mlp import ResidualMLP
from sfumato.denoise.networks.network import Network
from sfumato.denoise.networks.state_space import StateSpaceNet
from sfumato.errors import ArgumentError

NETWORKS: dict[str, type[Network]] = {n.kind: n for n in (ResidualMLP, ConvNet, DiffusersUNet, StateSpaceNet, ContinuousUNet, EDMUNet)}
"""Every network that can be written down, by its `kind`."""


def network_from_config(config: dict[str, Any]) -> Network:
    """A network of the form that `Network.to_config` wrote down.

    Raises:
        ArgumentError: an unknown kind, keys that are missing or that the kind does not have, values of the wrong type.
    """
    if not isinstance(config, dict) or config.get("kind") not in NETWORKS:
        given = config.get("kind") if isinstance(config, dict) else type(config).__name__
        raise ArgumentError("network.kind", repr(given), f"one of {', '.join(NETWORKS)}")
    kind = NETWORKS[config["kind"]]
    known = {"kind", "event_shape", "classes", *kind.arguments}
    if set(config) != known:
        raise ArgumentError("network", f"the keys {sorted(config)}", f"the keys {sorted(known)} of {kind.kind}")
    shape, classes = config["event_shape"], config["classes"]
    if not isinstance(shape, list):
        raise ArgumentError("network.event_shape", repr(shape), "a list of sizes")
    own = {name: config[name] for name in kind.arguments}
    for name, value in {"classes": classes or 0, **own}.items():
        expected = dict if name == "options" else int
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ArgumentError(f"network.{name}", repr(value)[:60], expected.__name__)
    return kind(event_shape=tuple(shape), classes=classes, **own)
