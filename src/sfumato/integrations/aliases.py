"""Which of our presets is which sampler elsewhere.

One sampler has many names, and one name may stand for several samplers. Every row was found by running both in float64 on the same times
and noise (`tests/integrations/test_aliases.py`, `python -m benchmarks peers`); rows of A1111 and ComfyUI, which are applications, say
which of k-diffusion's functions or which settings their source calls. What is equal is a step: times are chosen apart from the solver, so
a name such as "DPM++ 2M Karras" is the preset and the spacing `karras`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from sfumato.errors import ArgumentError
from sfumato.sample import PRESETS

Library = Literal["diffusers", "k-diffusion", "azula", "A1111", "ComfyUI"]


@dataclass(frozen=True)
class Alias:
    """A sampler elsewhere.

    Arguments:
        library: whose.
        name: its class, function or entry in a menu.
        settings: arguments that differ from its defaults and matter.
        note: on which times it is equal, if not on all.
        own_times: it cannot be given times.
    """

    library: Library
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    own_times: bool = False

    def __str__(self) -> str:
        told = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        return f"{self.name}({told})" if told else self.name


def _diffusers(name: str, note: str = "", *, own_times: bool = False, **settings: Any) -> Alias:
    return Alias("diffusers", f"{name}Scheduler", settings, note, own_times)


def _k(name: str, note: str = "", **settings: Any) -> Alias:
    return Alias("k-diffusion", f"sample_{name}", settings, note)


def _azula(name: str, note: str = "", **settings: Any) -> Alias:
    return Alias("azula", f"{name}Sampler", settings, note)


def _menus(a1111: str = "", comfyui: str = "", note: str = "") -> tuple[Alias, ...]:
    both: tuple[tuple[Library, str], ...] = (("A1111", a1111), ("ComfyUI", comfyui))
    return tuple(Alias(library, name, note=note) for library, name in both if name)


_MULTI, _SINGLE, _SDE = "DPMSolverMultistep", "DPMSolverSinglestep", "sde-dpmsolver++"
_NOT_ZERO = "to a last time with some noise"
_PAIRS = f"{_NOT_ZERO}; two of its steps are one of ours, their common time in the middle in log-SNR"
_EQUAL = "its steps are equal in log-SNR, those of a lower order too"

ALIASES: Mapping[str, tuple[Alias, ...]] = MappingProxyType(
    {
        "ddim": (
            _diffusers("EulerDiscrete"),
            _diffusers("DDIM", "spacing leading, and a number of steps that divides the table's length", own_times=True, clip_sample=False),
            _diffusers(_MULTI, solver_order=1),
            _diffusers(_SINGLE, solver_order=1),
            _k("euler"),
            _k("lms", order=1),
            _azula("Euler"),
            _azula("DDIM"),
            *_menus("Euler", "euler"),
            *_menus("DDIM", "ddim", "its own spacing"),
        ),
        "ddpm": (
            _diffusers("EulerAncestralDiscrete"),
            _diffusers(_MULTI, solver_order=1, algorithm_type=_SDE),
            _k("euler_ancestral"),
            _azula("DDPM"),
            _azula("DDIM", eta=1.0),
            *_menus("Euler a", "euler_ancestral"),
            *_menus("", "ddpm"),
        ),
        "heun": (
            _diffusers("HeunDiscrete"),
            _k("heun"),
            _azula("Heun", _NOT_ZERO),
            *_menus("Heun", "heun"),
        ),
        "dpm-solver++-2m": (
            _diffusers(_MULTI),
            _k("dpmpp_2m"),
            _k("dpmpp_2m_sde", eta=0.0),
            *_menus("DPM++ 2M", "dpmpp_2m"),
        ),
        "dpm-solver++-3m-published": (_diffusers(_MULTI, solver_order=3),),
        "sde-dpm-solver++-2m": (
            _diffusers(_MULTI, algorithm_type=_SDE),
            _k("dpmpp_2m_sde"),
            *_menus("DPM++ 2M SDE", "dpmpp_2m_sde"),
        ),
        "dpm-solver++-2s": (
            _diffusers(_SINGLE, _PAIRS),
            _k("dpmpp_2s_ancestral", eta=0.0),
            _k("dpmpp_sde", eta=0.0),
        ),
        "dpm-solver-2s": (
            _diffusers(_SINGLE, _PAIRS, algorithm_type="dpmsolver"),
            _diffusers("KDPM2Discrete"),
            _k("dpm_2"),
            *_menus("DPM2", "dpm_2"),
        ),
        "dpm-solver-fast": (
            _k("dpm_fast", _EQUAL),
            *_menus("DPM fast", "dpm_fast", _EQUAL),
        ),
        "deis-2": (_diffusers("DEISMultistep", _NOT_ZERO), _azula("zEAB", _NOT_ZERO)),
        "deis-3": (_diffusers("DEISMultistep", _NOT_ZERO, solver_order=3), _azula("zEAB", _NOT_ZERO, order=3)),
        "deis-ratio-3": (_k("lms", _NOT_ZERO, order=3), _azula("zAB", _NOT_ZERO, order=3)),
        "ipndm-4": (
            _diffusers("IPNDM", "its own spacing, unless `betas` and `alphas` are replaced"),
            *_menus("", "ipndm", _NOT_ZERO),
        ),
        "unipc-2-bh2": (_diffusers("UniPCMultistep"),),
        "unipc-3-bh2": (
            _diffusers("UniPCMultistep", solver_order=3),
            *_menus("", "uni_pc_bh2", "ends at the ratio 0.001 instead of 0"),
        ),
        "unipc-3-bh1": (
            _diffusers("UniPCMultistep", _NOT_ZERO, solver_order=3, solver_type="bh1"),
            *_menus("UniPC", "uni_pc", "order 3, the default; ends at the ratio 0.001 instead of 0"),
        ),
        "er-sde-3[k(exp(k^0.3)+10)]": _menus("", "er_sde", "up to its integrals, which are sums over 200 points"),
    }
)
"""Preset to its names elsewhere."""

_SPACINGS = ("karras", "exponential")


def alias(name: str, **settings: Any) -> str:
    """The preset that a sampler elsewhere is.

    Arguments:
        name: anybody's, e.g. "DPM++ 2M Karras", "sample_dpmpp_2m", "UniPCMultistepScheduler", or a preset's own.
        settings: what differs from that sampler's defaults, e.g. `solver_order=3`.

    Returns:
        The name of a preset, a key of `sfumato.sample.PRESETS`.

    Raises:
        ArgumentError: a name, or settings of a known name, that no preset is equal to.
    """
    known = _names()
    key = _key(name)
    if key not in known:
        shown = {_key(str(a.name)): a.name for entries in ALIASES.values() for a in entries} | {_key(p): p for p in PRESETS}
        near = [shown[k] for k in difflib.get_close_matches(key, known, n=3, cutoff=0.5)]
        hint = f"The nearest are {', '.join(near)}." if near else "See sfumato.integrations.aliases.ALIASES."
        raise ArgumentError("name", repr(name), "a preset, or a sampler that one of them is equal to", hint)
    for preset, known_settings in known[key]:
        if dict(known_settings) == settings:
            return preset
    options = "; ".join(", ".join(f"{k}={v!r}" for k, v in s.items()) or "its defaults" for _, s in known[key])
    raise ArgumentError("settings", settings, f"settings of {name} that a preset is equal to: {options}")


def _names() -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """By name in one spelling: the presets that it may stand for, and with which settings."""
    out: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for preset, entries in ALIASES.items():
        for entry in entries:
            out.setdefault(_key(entry.name), []).append((preset, entry.settings))
    for preset in PRESETS:
        out.setdefault(_key(preset), []).insert(0, (preset, {}))
    return out


def _key(name: str) -> str:
    """One spelling: without case, spaces and the words that only say that it is a sampler, or which spacing goes with it."""
    plain = re.sub(r"^(sample_|k_)|(scheduler|sampler)$", "", name.strip().lower()).replace("dpmpp", "dpm++")
    for spacing in _SPACINGS:
        plain = plain.removesuffix(f" {spacing}")
    return re.sub(r"[^a-z0-9+]", "", plain)
