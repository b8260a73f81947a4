"""Programs one after the other: whose name, whose law, and which rows and draws the whole has."""

from __future__ import annotations

import torch
from asymmetric import FULL, THIN, VP

from sfumato.sample import Ancestral, Exponential, Linearisation, unipc
from sfumato.sample.compilers.chain import chain, quiet_end


def test_every_part_is_the_block_of_its_program():
    """A row reads its own program only: coefficients stand in blocks on the diagonal that share the states where programs meet."""
    parts = [Ancestral(1.0, 2).compile(VP, (0.9, 0.7, 0.6)), unipc(2).compile(VP, (0.6, 0.4, 0.3)), Ancestral(0.5).compile(VP, (0.3, 0.1))]
    whole = chain(parts)
    assert whole.times == (0.9, 0.7, 0.6, 0.4, 0.4, 0.3, 0.1)
    assert whole.draws == (1, 2, 6)
    for k, table in enumerate(whole.dense()):
        start = 0
        for part in parts:
            end = start + len(part.rows)
            assert torch.equal(table[start + 1 : end, start:end], part.dense()[k][1:])
            table[start + 1 : end, start:end] = 0
            start = end - 1
        assert not bool(table.any())


def test_names_and_laws():
    """The first one's, unless a name is given; a program alone is its own chain."""
    parts = [
        Exponential(Linearisation.gaussian(THIN), 2, label=name).compile(VP, times)
        for name, times in (("a", (0.9, 0.5)), ("b", (0.5, 0.2)))
    ]
    assert [chain(parts).name, chain(parts, "both").name, chain(parts[1:]).name] == ["a", "both", "b"]
    assert chain(parts).space is THIN
    assert chain(parts).process == VP
    assert chain(parts[:1]).rows == parts[0].rows


def test_a_quiet_end_takes_the_last_noise_and_nothing_else():
    for program in (
        Ancestral(1.0, label="loud").compile(VP, (0.9, 0.5, 0.2)),
        Exponential(Linearisation.gaussian(FULL)).compile(VP, (0.9, 0.5)),
    ):
        quiet = quiet_end(program)
        assert (quiet.name, quiet.process, quiet.times, quiet.space) == (program.name, program.process, program.times, program.space)
        assert quiet.rows[:-1] == program.rows[:-1]
        assert (quiet.rows[-1].states, quiet.rows[-1].data, quiet.rows[-1].noise) == (program.rows[-1].states, program.rows[-1].data, {})
