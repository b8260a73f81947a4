"""Checkpoints of EDM become models of ours bit for bit, and no file, whatever it asks for, gets anything run.

The files are made here in the form that EDM's training writes: objects that carry the source of their class, to be run by their reader.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import pickle
import random
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sfumato.denoise import EDMUNet
from sfumato.errors import CheckpointError
from sfumato.integrations.edm_checkpoint import convert, edm_name, read_edm
from sfumato.integrations.inert_pickle import Inert, inert_tensor, read_inert, read_inert_file
from sfumato.learn import about_model, load_model

SONG = {"family": "song", "width": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4], "embedding": 2, "augment": 2}
NCSN = SONG | {"noise": "random-waves", "noise_width": 2, "encoder": "residual", "taps": [1, 3, 3, 1]}
ADM = {"family": "adm", "width": 64, "multipliers": [1, 2], "blocks": 1, "attention": [8, 4], "embedding": 1, "augment": 2}
SIZES = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 3,
    "augment_dim": 2,
    "channel_mult": [1, 2],
    "num_blocks": 1,
}
THEIRS = {
    "ddpm++": ("SongUNet", SONG, {"model_channels": 16, "attn_resolutions": [4], "channel_mult_emb": 2}),
    "ncsn++": (
        "SongUNet",
        NCSN,
        {
            "model_channels": 16,
            "attn_resolutions": [4],
            "channel_mult_emb": 2,
            "embedding_type": "fourier",
            "encoder_type": "residual",
            "channel_mult_noise": 2,
            "resample_filter": [1, 3, 3, 1],
        },
    ),
    "adm": ("DhariwalUNet", ADM, {"model_channels": 64, "attn_resolutions": [8, 4], "channel_mult_emb": 1}),
}
# of the sorted names of all tensors but resample_filter, joined by spaces, of the authors' networks with these arguments
NAMES = {"ddpm++": "2d7fb41135f97c11", "ncsn++": "63fc16bf7fb0a0ac", "adm": "c77956a1f5a6431d"}


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def marker(tmp_path):
    """A file that appears if code of a checkpoint runs."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


@pytest.fixture
def stored(monkeypatch, marker):
    """`stored(class name, fields)`: an object pickled with the source of its class, which writes the marker when its own reader runs it."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        exec(meta["module_src"], {})
        return meta

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    source = f"open({str(marker)!r}, 'w').close()\nclass EDMPrecond: pass\n"

    def make(name, fields):
        empty = {"training": False, "_parameters": {}, "_buffers": {}, "_modules": {}, "_non_persistent_buffers_set": set()}
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": name, "state": empty | fields}
        return Call(_reconstruct_persistent_obj, meta)

    return make


def network(kind="ddpm++"):
    """Weights that are nowhere zero."""
    out = EDMUNet((3, 8, 8), THEIRS[kind][1], 3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in out.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return out.eval().requires_grad_(False)


def tensors_of(net):
    return {edm_name(ours, net): value.clone() for ours, value in net.state_dict().items()}


def checkpoint(stored, kind="ddpm++", tensors=None, outer="EDMPrecond", **said):
    """What EDM's training pickles: modules by name, those of their own with source, the lists of modules plain."""
    family, _, own = THEIRS[kind]
    tree: dict = {}
    for name, value in (tensors_of(network(kind)) if tensors is None else tensors).items():
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value

    def module(node, plain=False):
        modules = {name: module(child, name in ("enc", "dec")) for name, child in node.items() if isinstance(child, dict)}
        buffers = {name: v for name, v in node.items() if name in ("freqs", "resample_filter")} | {"absent": None}
        values = {n: v for n, v in node.items() if n not in modules and n not in buffers}
        parameters = {n: torch.nn.Parameter(v) if isinstance(v, torch.Tensor) else v for n, v in values.items()}
        if plain:
            out = torch.nn.ModuleDict()
            out._modules.update(modules)
            return out
        return stored("Layer", {"_parameters": parameters, "_buffers": buffers, "_modules": modules, "skip_scale": np.sqrt(0.5)})

    inner = module(tree).call[1][0]["state"] | {"_init_args": (), "_init_kwargs": SIZES | own | {"dropout": 0.13} | said}
    fields = {"_modules": {"model": stored(family, inner)}, "sigma_data": 0.5, "sigma_min": 0, "sigma_max": float("inf"), "use_fp16": True}
    return {
        "ema": stored(outer, fields),
        "loss_fn": stored("EDMLoss", {"P_mean": -1.2}),
        "augment_pipe": None,
        "dataset_kwargs": {"path": "x"},
    }


def written(path, content, protocol=4):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("kind", THEIRS)
def test_names_are_those_of_the_authors_networks(kind):
    names = " ".join(sorted(tensors_of(network(kind))))
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == NAMES[kind]


@pytest.mark.parametrize(("kind", "protocol"), [("ddpm++", 3), ("ncsn++", 4), ("adm", 5)])
def test_a_checkpoint_becomes_the_same_model_bit_for_bit_and_its_source_is_not_run(kind, protocol, stored, tmp_path):
    file = written(tmp_path / "network-snapshot-1.pkl", checkpoint(stored, kind), protocol)
    convert(file, tmp_path / "model")
    out, expected = load_model(tmp_path / "model"), network(kind)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in out.network.state_dict().items())
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels, sigma = torch.tensor([1, -1]), 2.0
    c_skip, c_out, c_in = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25) ** 0.5, (sigma**2 + 0.25) ** -0.5
    by_hand = c_skip * x + c_out * expected(c_in * x, torch.full((2,), np.log(sigma) / 4), labels).double()
    assert torch.allclose(out.denoise(x, sigma / 80, labels), by_hand, rtol=0, atol=1e-6)
    assert about_model(tmp_path / "model")["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_plain_reader_would_have_run_the_source(stored, marker, tmp_path):
    """The negative control of all the rest: the files here are dangerous."""
    pickle.loads(written(tmp_path / "a.pkl", checkpoint(stored)).read_bytes())
    assert marker.exists()
    marker.unlink()


def evil(marker):
    command = f"touch {marker}"
    nested = pickle.dumps(Call(os.system, command), 2)
    return {
        "os.system": Call(os.system, command),
        "eval": Call(builtins.eval, f"open({str(marker)!r}, 'w')"),
        "exec": Call(builtins.exec, f"open({str(marker)!r}, 'w')"),
        "Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "pickle.loads": Call(pickle.loads, nested),
        "open": Call(open, str(marker), "w"),
        "storage": Call(torch.storage._load_from_bytes, nested),
        "torch.load": Call(torch.load, Call(io.BytesIO, nested)),
    }


@pytest.mark.parametrize("way", evil("x"))
@pytest.mark.parametrize("place", ["root", "ema", "beside", "weight"])
def test_code_anywhere_in_a_file_is_refused_and_not_run(way, place, stored, marker, tmp_path):
    content = {"ema": stored("EDMPrecond", {}), "loss_fn": evil(marker)[way]}
    if place == "root":
        content = evil(marker)[way]
    if place == "ema":
        content["ema"] = evil(marker)[way]
    if place == "weight":
        content = checkpoint(stored, tensors={"map_layer0.weight": evil(marker)[way]})
    with pytest.raises(CheckpointError, match="expected"):
        read_edm(written(tmp_path / "a.pkl", content))


def test_an_unneeded_name_is_told_and_what_to_do(marker, tmp_path):
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.system.*Nothing that the file holds was run"):
        read_edm(written(tmp_path / "a.pkl", {"ema": evil(marker)["os.system"]}))


RAW = {
    "a call by the old instruction": b"\x80\x02(X\x04\x00\x00\x00exitios\nsystem\n.",
    "the extension registry": b"\x80\x02\x82\x01.",
    "a memo of 2^31 places": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "bytes of 2^60": b"\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x10abc.",
    "a text of 2^31": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a frame of 2^60": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x10N.",
    "a state for a class": b"\x80\x02ccollections\nOrderedDict\n}U\x04argsNsb.",
    "attributes for a class": b"\x80\x02ccollections\nOrderedDict\nN}U\x04nameNs\x86b.",
    "a state for a list": b"\x80\x02]}U\x01aNsb.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "no instruction": b"\x80\x02\xff.",
    "nothing on the stack": b"\x80\x02.",
    "protocol 9": b"\x80\x09N.",
    "more after its end": b"\x80\x02N.N.",
    "text": b"import os",
    "protocol 0": b"cos\nsystem\n(S'true'\ntR.",
    "nothing": b"",
}


@pytest.mark.parametrize("what", RAW)
def test_instructions_that_no_checkpoint_needs_are_refused(what, tmp_path):
    with pytest.raises(CheckpointError):
        read_inert_file(written(tmp_path / "a.pkl", RAW[what]))
    assert Inert.name == ""
    assert Inert(1).args == (1,)


def test_calls_are_remembered_and_not_made():
    out = read_inert(io.BytesIO(pickle.dumps([Call(torch.hub.load, "a", "b"), torch.nn.ModuleDict(), torch.zeros(2, 2).t()], 4)))
    assert out[0].name == "torch.hub.load"
    assert out[0].args == ("a", "b")
    assert out[1].name == "torch.nn.modules.container.ModuleDict"
    assert out[1].state["_parameters"] == {}
    assert inert_tensor(out[2]).stride() == (1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_out_as_they_went_in(dtype):
    tensor = torch.arange(12).reshape(3, 4).to(dtype)[1:, ::2]
    out = inert_tensor(read_inert(io.BytesIO(pickle.dumps(torch.nn.Parameter(tensor, requires_grad=False)))))
    assert out.dtype == dtype
    assert torch.equal(out, tensor)


@pytest.mark.parametrize(
    "view",
    [
        (0, (10**6, 10**6), (0, 0)),
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2,), (9,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2.0,), (1,)),
        (0, (2,), (1, 1)),
        (0, (1,) * 9, (1,) * 9),
        (0, 4, 1),
    ],
)
def test_tensors_that_say_more_than_they_hold_are_refused(view):
    whole = torch.zeros(4).untyped_storage()
    node = Call(torch._utils._rebuild_tensor_v2, torch.storage.TypedStorage(wrap_storage=whole, dtype=torch.float32, _internal=True), *view)
    with pytest.raises(CheckpointError, match="tensor"):
        inert_tensor(read_inert(io.BytesIO(pickle.dumps(node))))


def test_a_file_cut_anywhere_is_refused(stored, tmp_path):
    whole = pickle.dumps(checkpoint(stored, tensors={"map_layer0.weight": torch.ones(3)}), 4)
    for cut in range(0, len(whole), 101):
        with pytest.raises(CheckpointError):
            read_edm(written(tmp_path / "a.pkl", whole[:cut]))


def test_a_file_with_wrong_bytes_is_read_or_refused_and_nothing_else(stored, tmp_path):
    whole = pickle.dumps(checkpoint(stored, tensors={"map_layer0.weight": torch.ones(3)}), 4)
    chance = random.Random(3)
    for _ in range(150):
        spoilt = bytearray(whole)
        for _ in range(chance.choice((1, 2, 5))):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        with pytest.raises(CheckpointError):
            read_edm(written(tmp_path / "a.pkl", bytes(spoilt)))


def spoilt_tensors(change):
    out = tensors_of(network())
    change(out)
    return out


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("map_layer1.bias"), r"no tensor for map_layer1\.bias"),
        (lambda t: t.update({"map_layer2.bias": torch.ones(3)}), r"\(3,\) for map_layer2\.bias"),
        (lambda t: t.update({"map_layer1.bias": torch.ones(3)}), r"\(3,\) for map_layer1\.bias.*expected|expected \(32,\)"),
        (lambda t: t["map_layer1.bias"].fill_(float("nan")), r"not finite in map_layer1\.bias"),
        (lambda t: t.update({"enc.4x4_down.conv0.resample_filter": torch.ones(1, 1, 2, 2)}), "filter"),
    ],
)
def test_tensors_of_another_network_are_refused(change, match, stored, tmp_path):
    with pytest.raises(CheckpointError, match=match):
        read_edm(written(tmp_path / "a.pkl", checkpoint(stored, tensors=spoilt_tensors(change))))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"model_channels": 10**6}, "for "),
        ({"model_channels": 10**9}, "no network"),
        ({"num_blocks": 10**9}, "blocks"),
        ({"num_blocks": 1.5}, "blocks"),
        ({"channel_mult": [1] * 1000}, "channel_mult"),
        ({"channel_mult": [1, 2**40]}, "channel_mult"),
        ({"model_channels": "16"}, "width"),
        ({"img_resolution": 9}, "divisible"),
        ({"out_channels": 6}, "as many in as out"),
        ({"decoder_type": "skip"}, "standard"),
        ({"channels_per_head": 64}, "channels_per_head"),
        ({"dropout": np.float64(0.1)}, "dropout"),
        ({"label_dim": 10}, "map_label"),
    ],
)
def test_arguments_of_another_network_are_refused(said, match, stored, tmp_path):
    with pytest.raises(CheckpointError, match=match):
        read_edm(written(tmp_path / "a.pkl", checkpoint(stored, **said)))


@pytest.mark.parametrize("name", ["Precond", "VPPrecond", "iDDPMPrecond", "Generator"])
def test_other_preconditionings_are_told_apart(name, stored, tmp_path):
    with pytest.raises(CheckpointError, match=f"class {name}.*EDM2"):
        read_edm(written(tmp_path / "a.pkl", checkpoint(stored, outer=name)))


def test_other_files_are_told_apart(stored, tmp_path):
    loop: dict = {"_parameters": {}, "_buffers": {}}
    loop["_modules"] = {"again": stored("Layer", loop)}
    loop["_modules"]["again"].call[1][0]["state"] = loop
    inside = stored("EDMPrecond", {"_modules": {"model": stored("SongUNet", {"_modules": loop["_modules"], "_init_kwargs": {}})}})
    contents = {
        "keys": {"G_ema": 1, "D": 2},
        "ema": [1, 2],
        "int": {"ema": 3},
        "_modules": {"ema": stored("EDMPrecond", {"_modules": None})},
        "class Linear": {"ema": stored("EDMPrecond", {"_modules": {"model": stored("Linear", {"_init_kwargs": {}})}})},
        "holds itself": {"ema": inside},
    }
    for sigma in (0.0, float("nan"), float("inf"), None):
        content = checkpoint(stored)
        content["ema"].call[1][0]["state"]["sigma_data"] = sigma
        contents[f"sigma_data: expected a positive number up to 80, got {'NoneType' if sigma is None else sigma}"] = content
    for match, content in contents.items():
        with pytest.raises(CheckpointError, match=match):
            read_edm(written(tmp_path / "a.pkl", content))
    torch.save({"ema": torch.ones(2)}, tmp_path / "a.pt")
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors", "none.pkl", "."):
        with pytest.raises(CheckpointError, match="file"):
            read_edm(tmp_path / name)


def test_a_refused_file_leaves_no_model(stored, tmp_path):
    with pytest.raises(CheckpointError):
        convert(written(tmp_path / "a.pkl", checkpoint(stored, outer="Precond")), tmp_path / "model")
    assert not (tmp_path / "model").exists()
