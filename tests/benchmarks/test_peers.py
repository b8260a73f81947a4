"""The peers' measures: exact moments are those of samples, absent libraries become rows, and the page says what was saved."""

from __future__ import annotations

import json

import pytest
import torch
from benchmarks.peer_aliases import distance
from benchmarks.peer_cases import FLOW, LAW, Case, Ours
from benchmarks.peer_walks import Basis, Steps, Task
from benchmarks.peers import _rows, order
from benchmarks.peers_law import VARIANCES, law_error, variances, weak_order
from benchmarks.peers_page import PAGE, RESULT, page

from sfumato.atlas.solvers.worlds import PROCESS
from sfumato.integrations.aliases import Alias
from sfumato.sample import Ancestral
from sfumato.seeds import noise

RATIOS = (3.0, 1.2, 0.5, 0.2)


def _case(name: str, cases: tuple[Case, ...] = FLOW) -> Case:
    return next(case for case in cases if case.name == name)


def test_exact_variances_are_those_of_samples():
    """20,000 samples of the same sampler, drawn by its own generator: within 4 standard errors of the variance told without a sample."""
    pytest.importorskip("diffusers")
    case, n = _case("EulerAncestralDiscrete", LAW), 20_000
    spread = torch.tensor(VARIANCES, dtype=torch.float64)
    draws = noise(3, n, (3,), dtype=torch.float64)
    start = draws.draw(9) * (spread + RATIOS[0] ** 2).sqrt()
    out = case.walk(Task(RATIOS, start, lambda y, k: spread / (spread + k**2) * y, Steps(draws, RATIOS)))
    told = variances(case, RATIOS)
    assert ((out.var(0) / told - 1).abs() < 4 * (2 / n) ** 0.5).all()


def test_unit_vectors_and_the_response_of_our_table_tell_the_same():
    """Two ways to one number: `sample.response`, and the scheduler that is the same sampler, run on unit vectors."""
    pytest.importorskip("diffusers")
    theirs = variances(_case("EulerAncestralDiscrete", LAW), RATIOS)
    assert torch.allclose(theirs, variances(Ours(Ancestral(1.0), PROCESS), RATIOS), rtol=1e-9)


def test_overlapping_intervals_share_their_noise():
    """The Brownian path: unit variance each, and the covariance of an interval with its first half is the root of the half's share."""
    basis = Basis((4.0, 1.0), 1)
    half, whole = basis.between(4.0, 2.0), basis.between(4.0, 1.0)
    assert float((half**2).sum()) == pytest.approx(1)
    assert float((half * whole).sum()) == pytest.approx((2 / 3) ** 0.5)


def test_what_is_claimed_and_not_so_is_seen():
    """The published third-order form converges with order 2, its law with order 1 where it draws ancestral noise."""
    pytest.importorskip("diffusers")
    assert abs(order(_case("DPMSolverMultistep(solver_order=3)"))["order"] - 2) < 0.15
    assert abs(weak_order(_case("EulerAncestralDiscrete", LAW))["order"] - 1) < 0.15
    assert law_error(_case("EulerAncestralDiscrete", LAW), RATIOS) > 0.05


def test_an_absent_library_is_a_row_that_was_not_measured(monkeypatch):
    def absent(*_: object) -> torch.Tensor:
        raise ImportError("No module named 'azula'")

    from benchmarks import peers

    monkeypatch.setattr("benchmarks.peer_cases.walk", absent)
    told = peers._told(_case("REAB(order=3)"), order)
    facts = {name: [] for name in ("orders", "weak orders", "budgets", "seeds", "aliases")} | {"orders": [told]}
    (row,) = _rows(facts)
    assert (row.value, row.passed, row.details) == (None, None, "No module named 'azula'")


def test_k_diffusion_and_azula_agree_with_a_preset_where_they_are_installed():
    pytest.importorskip("azula")
    assert distance("deis-3", Alias("azula", "zEABSampler", {"order": 3}, "to a last time with some noise")) < 1e-12


def test_the_page_is_written_from_the_saved_result():
    assert PAGE.read_text() == page(json.loads(RESULT.read_text()))
