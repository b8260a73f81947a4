"""Programs run one after the other, as one program."""

from __future__ import annotations

from collections.abc import Sequence

from sfumato.errors import ArgumentError
from sfumato.sample.program import Coefficients, Program, Row


def chain(programs: Sequence[Program], name: str = "") -> Program:
    """The table that walks every program from where the one before it ends; a program's draws follow those before it.

    Raises:
        ArgumentError: no programs, other processes or laws, or a program that starts at another time than the one before it ends.
    """
    if not programs:
        raise ArgumentError("programs", "none", "at least one program")
    first = programs[0]
    times, rows = list(first.times), list(first.rows)
    for program in programs[1:]:
        if program.process != first.process or program.space is not first.space:
            raise ArgumentError("programs", program.name, "programs of one process and one law")
        if program.times[0] != times[-1]:
            raise ArgumentError("programs", f"a start at {program.times[0]:g}", f"a start where the one before ends, {times[-1]:g}")
        shift = len(rows) - 1
        rows += [Row(_moved(r.states, shift), _moved(r.data, shift), _moved(r.noise, shift)) for r in program.rows[1:]]
        times += program.times[1:]
    return Program(name or first.name, first.process, tuple(times), tuple(rows), first.space)


def quiet_end(program: Program) -> Program:
    """The program whose last row draws no noise: it ends at the mean of its last step."""
    last = program.rows[-1]
    rows = (*program.rows[:-1], Row(last.states, last.data))
    return Program(program.name, program.process, program.times, rows, program.space)


def _moved(part: Coefficients, shift: int) -> Coefficients:
    return {j + shift: c for j, c in part.items()}
