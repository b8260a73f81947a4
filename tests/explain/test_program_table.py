"""A table read as shares of its answers: the states of a run say the same, and the shares of consistent tables are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.explain import program_table
from sfumato.noise import EDM, BetaTable, VariancePreserving
from sfumato.sample import PRESETS, Exponential, Linearisation, Program, Row, ddim, dpm_solver, run, uniform_log_snr
from sfumato.sample.compilers.ancestral import Ancestral
from sfumato.sample.compilers.extrapolation import Extrapolation

PROCESS = VariancePreserving()
TIMES = uniform_log_snr(PROCESS, 6, t_min=float(PROCESS.time_of_ratio(0.1)))


@pytest.mark.parametrize("process", [BetaTable.linear(), EDM(20.0)], ids=["vp", "edm"])
def test_the_shares_of_every_published_solver_add_up_to_one(process):
    """An identity of consistent tables, stochastic ones too; a table with a tenth too much of one answer fails it."""
    times = uniform_log_snr(process, 7, t_min=float(process.time_of_ratio(0.05)))
    for solver in PRESETS.values():
        program = solver.compile(process, times)
        sums = torch.tensor(program_table(program).shares).sum(1)
        assert float((sums - 1).abs().max()) < 1e-6, solver.name
    rows = (*program.rows[:-1], replace(program.rows[-1], data={j: 1.1 * c for j, c in program.rows[-1].data.items()}))
    wrong = Program("wrong", process, program.times, rows)
    assert sum(program_table(wrong).shares[-1]) == pytest.approx(1.1)


def test_shares_are_the_form_that_all_ways_of_writing_have_in_common():
    """DDIM is one answer a step, as data prediction, as noise prediction, and with all noise drawn anew."""
    noise = Exponential(Extrapolation.of("noise"), 1)
    for solver in (ddim(), noise, Ancestral(1.0)):
        shares = torch.tensor(program_table(solver.compile(PROCESS, TIMES)).shares)
        torch.testing.assert_close(shares, torch.eye(6), atol=1e-9, rtol=0)
    two = torch.tensor(program_table(dpm_solver(2).compile(PROCESS, TIMES)).shares)
    torch.testing.assert_close(two[2, :4], torch.tensor([0.0, -0.5, 1.5, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["deis-3", "unipc-3-bh2", "ghvb-2-beta0.8", "dpm-solver-3s"])
def test_a_run_with_unit_answers_shows_the_same_shares(name):
    """With answer `j` the `j`-th unit vector, whatever the state, the states of `run` are the weights, by the loop's own sums."""
    program = PRESETS[name].compile(PROCESS, TIMES)
    n, states = program.evaluations, {}
    asked = iter(range(n))
    end = run(
        program,
        lambda x, t: torch.nn.functional.one_hot(torch.tensor([next(asked)]), n).double(),
        torch.zeros(1, n, dtype=torch.float64),
        None,
        lambda event: states.update({event.node: event.state[0]}),
    )
    table, (alpha, sigma) = program_table(program), program.levels
    i = len(program.times) - 2
    base = max(j for j in range(i) if program.times[j] > program.times[i])
    keep = sigma[i] / sigma[base]
    moved = states[i] - keep * states[base]
    assert torch.allclose(moved, (alpha[i] - keep * alpha[base]) * torch.tensor(table.shares[i - 1], dtype=torch.float64), atol=1e-10)
    assert torch.allclose(end[0], torch.tensor(table.shares[-1], dtype=torch.float64), atol=1e-10)


def test_an_error_that_alternates_counts_as_often_as_the_amplification_says():
    table = program_table(dpm_solver(3).compile(PROCESS, TIMES))
    assert table.amplification[0] == pytest.approx(1.0)
    assert table.numbers["amplification"] == pytest.approx(max(sum(map(abs, row)) for row in table.shares))
    assert table.numbers["most_answers"] == 3
    assert "3 of the answers" in table.meaning
    assert program_table(ddim().compile(PROCESS, TIMES)).numbers["amplification"] == pytest.approx(1.0)


def test_a_teleport_is_made_of_no_answer():
    law = Gaussian(
        torch.zeros(3, dtype=torch.float64), SpectralCovariance.low_rank(torch.eye(3, 1, dtype=torch.float64), torch.ones(1), 0.1)
    )
    program = Exponential(Linearisation.gaussian(law), 2, teleport=True).compile(PROCESS, TIMES)
    table = program_table(program)
    assert table.reads[0] == []
    assert table.newest[0] == -1
    assert min(map(len, table.reads[1:])) > 0


def test_it_draws_and_refuses_a_program_that_asks_nothing():
    ax = Figure().subplots()
    program_table(dpm_solver(2).compile(PROCESS, TIMES)).plot(ax)
    assert [text.get_text() for text in ax.texts][:3] == ["1.00", "-0.50", "1.50"]
    silent = Program("silent", PROCESS, (1.0, 0.5), (Row(), Row({0: torch.ones(1, dtype=torch.float64)})))
    with pytest.raises(ArgumentError, match="asks the denoiser"):
        program_table(silent)
