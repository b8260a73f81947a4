"""Presets are the samplers of `diffusers` that the alias table says, to rounding; names are found, and unknown ones refused with help."""

from __future__ import annotations

import pytest
from benchmarks.peer_aliases import distance, runnable

from sfumato.errors import ArgumentError
from sfumato.integrations.aliases import ALIASES, Alias, alias
from sfumato.sample import PRESETS


@pytest.mark.parametrize(("preset", "other"), runnable("diffusers"), ids=lambda v: str(v))
def test_a_preset_is_the_scheduler_that_the_table_says(preset, other):
    """Float64, the same times and noise, down to zero noise where the scheduler can: what is left is rounding."""
    pytest.importorskip("diffusers")
    assert distance(preset, other) < 1e-12


def test_agreement_is_not_an_accident_of_the_world():
    """Negative control: neighbours in the table differ by far more."""
    pytest.importorskip("diffusers")
    assert distance("dpm-solver++-3m", Alias("diffusers", "DPMSolverMultistepScheduler", {"solver_order": 3})) > 1e-5
    assert distance("unipc-3-bh2", Alias("diffusers", "UniPCMultistepScheduler")) > 1e-5
    assert distance("dpm-solver++-2m", Alias("diffusers", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"})) > 1e-3


def test_every_entry_finds_its_own_preset():
    """So no name with the same settings stands for two presets."""
    assert set(ALIASES) <= set(PRESETS)
    for preset, entries in ALIASES.items():
        for entry in entries:
            assert alias(entry.name, **entry.settings) == preset


@pytest.mark.parametrize(
    ("name", "settings", "preset"),
    [
        ("DPM++ 2M Karras", {}, "dpm-solver++-2m"),
        ("k_dpmpp_2m", {}, "dpm-solver++-2m"),
        ("euler a", {}, "ddpm"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpm-solver++-3m-published"),
        ("DDIMSampler", {"eta": 1.0}, "ddpm"),
        ("uni_pc", {}, "unipc-3-bh1"),
        ("Unipc-2-BH2", {}, "unipc-2-bh2"),
    ],
)
def test_names_are_found_as_people_write_them(name, settings, preset):
    assert alias(name, **settings) == preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_own_alias(name):
    assert alias(name) == name


def test_unknown_names_and_settings_are_refused_with_what_is_near():
    with pytest.raises(ArgumentError, match=r"EulerDiscreteScheduler"):
        alias("EulerDiscreet")
    with pytest.raises(ArgumentError, match=r"ALIASES"):
        alias("9999")
    with pytest.raises(ArgumentError, match=r"settings: expected .*solver_order=3.*got \{'solver_order': 7\}"):
        alias("UniPCMultistepScheduler", solver_order=7)
