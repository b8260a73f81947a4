r"""Checkpoints of EDM (Karras et al. 2022, arXiv 2206.00364) as models of ours, offline, without running the code that they hold.

`network-snapshot-*.pkl` is a pickle of a dict, whose `ema` is an object stored with the source of its class, which its own reader would
run. Here the file is read inert (`inert_pickle`): the class's name, the arguments it was made with and the tensors under their names say
all that is needed, since `EDMUNet` is the same network and `Preconditioned` the same preconditioning,

    D(x, sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.denoise import EDMUNet, Preconditioned
from sfumato.errors import ArgumentError, CheckpointError
from sfumato.holding import held
from sfumato.integrations.inert_pickle import Inert, inert_tensor, read_inert_file
from sfumato.learn import save_model
from sfumato.noise import EDM

_SONG: dict[str, Any] = {
    "model_channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "channel_mult_emb": 4,
    "num_blocks": 4,
    "attn_resolutions": [16],
    "dropout": 0.1,
    "label_dropout": 0,
    "label_dim": 0,
    "augment_dim": 0,
    "embedding_type": "positional",
    "channel_mult_noise": 1,
    "encoder_type": "standard",
    "decoder_type": "standard",
    "resample_filter": [1, 1],
}
_ADM: dict[str, Any] = {name: _SONG[name] for name in list(_SONG)[:9]} | {
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "num_blocks": 3,
    "attn_resolutions": [32, 16, 8],
}
_FAMILIES = {"SongUNet": ("song", _SONG), "DhariwalUNet": ("adm", _ADM)}
"""Our name for a class of theirs, and what its arguments are where a file does not say."""
_SIZES = ("img_resolution", "in_channels", "out_channels")
_NOISE = {"positional": "waves", "fourier": "random-waves"}
_ENCODER = {"standard": "plain", "residual": "residual"}
_LAYERS = {
    "waves.frequencies": "map_noise.freqs",
    "augment": "map_augment",
    "embed1": "map_layer0",
    "embed2": "map_layer1",
    "table": "map_label",
}
_PLACES = {"halve": "down", "double": "up", "keep": "block", "join": "block", "enter": "in"}
_PARTS = {
    "norm1": "norm0",
    "conv1": "conv0",
    "film": "affine",
    "norm2": "norm1",
    "conv2": "conv1",
    "attention.norm": "norm2",
    "attention.mix": "qkv",
    "attention.last": "proj",
    "skip": "skip",
}
_SIGMA_MAX = 80.0
"""The prior's noise level in the paper's table 1; networks themselves know no highest one."""
_LARGE = 1e9
_DEPTH = 8
_TABLES = ("_parameters", "_buffers", "_modules")


def edm_name(ours: str, network: EDMUNet) -> str:
    """EDM's name of a tensor of an `EDMUNet`."""
    layer, _, leaf = ours.rpartition(".")
    size = network.event_shape[1]
    if ours in _LAYERS or layer in _LAYERS:
        return _LAYERS.get(ours) or f"{_LAYERS[layer]}.{leaf}"
    if layer == "first":
        return f"enc.{size}x{size}_conv.{leaf}"
    if layer in ("norm", "last"):
        end = {"norm": "norm", "last": "conv"}[layer]
        return f"out_{end}.{leaf}" if network.form.adm else f"dec.{size}x{size}_aux_{end}.{leaf}"
    side, here, place, number, part = re.fullmatch(r"(down|side|up)\.(\d+)_([a-z]+)(\d*)\.(.+)", layer).groups()  # type: ignore[union-attr]
    if side == "side":
        return f"enc.{here}x{here}_aux_residual.{leaf}"
    return f"{'enc' if side == 'down' else 'dec'}.{here}x{here}_{_PLACES[place]}{number}.{_PARTS[part]}.{leaf}"


def read_edm(path: str | Path) -> tuple[Preconditioned, dict[str, Any]]:
    """The denoiser of a checkpoint, in float32 and evaluation mode, and facts about it.

    Raises:
        CheckpointError: no checkpoint of EDM's own preconditioning, or one that asks for anything beyond its tensors; the file is
            truncated; its tensors are not those of the network that it names, or not finite.
    """
    path = Path(path)
    root = read_inert_file(path)
    if type(root) is not dict or "ema" not in root:
        given = f"the keys {_names(root)[:8]}" if isinstance(root, dict) else type(root).__name__
        raise CheckpointError("file", given[:200], "a dict with the averaged network under 'ema'", "EDM's training writes such files.")
    kind, outer = _recorded(root["ema"])
    if kind != "EDMPrecond":
        hint = "EDM2's networks (Precond) and EDM's baselines (VPPrecond, VEPrecond, iDDPMPrecond) have another one."
        raise CheckpointError("ema", f"an object of the class {kind}"[:120], "EDMPrecond, EDM's own preconditioning", hint)
    family, inner = _recorded(_fields(outer, "_modules").get("model"))
    arguments = _fields(inner, "_init_kwargs")
    tensors = dict(_tensors(inner, set()))
    network = _network(family, arguments, tensors)
    _load(network, tensors)
    sigma_data, sigma_max = _level(outer, "sigma_data", most=_SIGMA_MAX), _level(outer, "sigma_max", most=math.inf)
    facts = {
        "name": path.stem,
        "converted": f"EDM checkpoint, {family}",
        "sha256": _digest(path),
        "dropout": arguments.get("dropout", _SONG["dropout"]),
    }
    return Preconditioned(network, EDM(min(sigma_max, _SIGMA_MAX)), sigma_data).eval(), facts


def convert(path: str | Path, out: str | Path) -> Preconditioned:
    """Write the model of an EDM checkpoint to a folder that `learn.load_model` reads, and return it.

    Raises:
        CheckpointError: as `read_edm`.
        OutputError: the folder cannot be written.
    """
    denoiser, facts = read_edm(path)
    with held(Path(out)):
        save_model(denoiser, out, facts)
    return denoiser


def _recorded(node: Any) -> tuple[str, dict[str, Any]]:
    """The class's name and the fields of an object that was stored with its source; the source is not looked at."""
    meta = node.args[0] if isinstance(node, Inert) and node.name.endswith("persistence._reconstruct_persistent_obj") and node.args else None
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str) or not isinstance(meta.get("state"), dict):
        raise CheckpointError("ema", getattr(node, "name", type(node).__name__), "a network as EDM's training stores it")
    return meta["class_name"], meta["state"]


def _fields(state: dict[str, Any], name: str) -> dict[str, Any]:
    out = state.get(name)
    if not isinstance(out, dict):
        raise CheckpointError("ema", f"an object without {name}", "a network as EDM's training stores it")
    return out


def _level(state: dict[str, Any], name: str, most: float) -> float:
    value: Any = state.get(name)
    if not isinstance(value, int | float) or not 0 < value <= most:
        given = value if type(value) is float else type(value).__name__
        raise CheckpointError(f"ema.{name}", given, f"a positive number up to {most:g}")
    return float(min(value, most, _LARGE))


def _tensors(state: dict[str, Any], met: set[int], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers under their names; every module is met once, so a small file cannot stand for a large tree."""
    if id(state) in met or prefix.count(".") > _DEPTH:
        raise CheckpointError("ema", f"a module that holds itself, or too deep, at {prefix}"[:120], "a tree of modules")
    met.add(id(state))
    if not all(isinstance(name, str) for table in _TABLES for name in _fields(state, table)):
        raise CheckpointError("ema", f"names that are no text at {prefix}"[:120], "a tree of modules")
    for name, node in {**state["_parameters"], **state["_buffers"]}.items():
        if node is not None:
            yield f"{prefix}{name}", inert_tensor(node)
    for name, node in state["_modules"].items():
        if node is not None:
            module = node.state if isinstance(node, Inert) and isinstance(node.state, dict) else _recorded(node)[1]
            yield from _tensors(module, met, f"{prefix}{name}.")


def _names(mapping: dict[Any, Any]) -> list[str]:
    return sorted(name for name in mapping if isinstance(name, str))


def _plain(value: Any) -> bool:
    """A text, or a number or short list of numbers of a size that sizes have."""
    if isinstance(value, list | tuple):
        return len(value) <= 16 and all(type(n) is int and _plain(n) for n in value)
    return isinstance(value, str) or (isinstance(value, int | float) and abs(value) < 2**31)


def _network(kind: str, given: dict[str, Any], tensors: dict[str, Tensor]) -> EDMUNet:
    """The network of the recorded arguments, once its tensors are known to be those of the file."""
    if kind not in _FAMILIES:
        raise CheckpointError("ema.model", f"an object of the class {kind}"[:120], f"one of {', '.join(_FAMILIES)}")
    family, defaults = _FAMILIES[kind]
    if unknown := [name for name in _names(given) if name not in defaults and name not in _SIZES]:
        raise CheckpointError(
            "ema.model", f"the arguments {unknown[:8]}"[:200], f"{', '.join((*_SIZES, *defaults))}", "It is another version."
        )
    said = defaults | given
    if odd := [name for name in (*_SIZES, *defaults) if not _plain(said.get(name))]:
        raise CheckpointError("ema.model", f"{odd[0]} of the type {type(said.get(odd[0])).__name__}", "a text, a number, or a few of them")
    if said["num_blocks"] not in range(len(tensors)):
        raise CheckpointError("ema.model", f"{said['num_blocks']} blocks of {len(tensors)} tensors"[:120], "tensors for every block")
    options = _options(family, said)
    channels, size = said["in_channels"], said["img_resolution"]
    if channels != said["out_channels"]:
        raise CheckpointError("ema.model", f"{channels} channels in and {said['out_channels']} out"[:120], "as many in as out")
    classes = said["label_dim"] or None
    try:
        with torch.device("meta"):
            # sizes cost nothing here, whatever they are
            _agree(EDMUNet((channels, size, size), options, classes), tensors)
        return EDMUNet((channels, size, size), options, classes)
    except CheckpointError:
        raise
    except (ArgumentError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError("ema.model", "arguments of no network", "those of an EDM network", str(error)[:200]) from error


def _options(family: str, said: dict[str, Any]) -> dict[str, Any]:
    """Our options of their arguments."""
    options = {
        "family": family,
        "width": said["model_channels"],
        "multipliers": said["channel_mult"],
        "blocks": said["num_blocks"],
        "attention": said["attn_resolutions"],
        "embedding": said["channel_mult_emb"],
        "augment": said["augment_dim"],
        "taps": [1, 1],
    }
    if family == "adm":
        return options
    noise, encoder = _NOISE.get(str(said["embedding_type"])), _ENCODER.get(str(said["encoder_type"]))
    if noise is None or encoder is None or said["decoder_type"] != "standard":
        given = tuple(str(said[n])[:20] for n in ("embedding_type", "encoder_type", "decoder_type"))
        raise CheckpointError("ema.model", given, "positional or fourier, standard or residual, standard")
    return options | {"noise": noise, "encoder": encoder, "noise_width": said["channel_mult_noise"], "taps": said["resample_filter"]}


def _agree(network: EDMUNet, tensors: dict[str, Tensor]) -> None:
    """The tensors are those of the network in name and shape, all of them finite; beside them there are filters that resize."""
    shapes = {edm_name(ours, network): tuple(value.shape) for ours, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items() if not name.endswith("resample_filter")}
    if wrong := sorted(name for name in shapes | found if shapes.get(name) != found.get(name)):
        name = wrong[0]
        given = f"{found.get(name, 'no tensor')} for {name} ({len(wrong)} such)"
        raise CheckpointError("ema.model", given, f"{shapes.get(name, 'no tensor')}", "It is another version, or altered.")
    if bad := [name for name in found if not bool(torch.isfinite(tensors[name]).all())]:
        raise CheckpointError("ema.model", f"numbers that are not finite in {bad[0]}", "finite weights")
    taps = torch.tensor(network.form.taps, dtype=torch.float32, device="cpu")
    filters = [v for name, v in tensors.items() if name.endswith("resample_filter")]
    line = taps / taps.sum()
    if any(v.shape != (1, 1, len(line), len(line)) or not torch.allclose(v.float()[0, 0], torch.outer(line, line)) for v in filters):
        raise CheckpointError("ema.model", "another filter for resizing", f"the one of the taps {network.form.taps}")


def _load(network: EDMUNet, tensors: dict[str, Tensor]) -> None:
    network.load_state_dict({ours: tensors[edm_name(ours, network)] for ours in network.state_dict()})


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
