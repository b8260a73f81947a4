"""What may be chosen and what it is judged by: programs with the reasons for those left out, trajectories with their draws, a ranking."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from sfumato.errors import ArgumentError
from sfumato.metrics import Estimate, endpoint_error
from sfumato.sample import Denoise, Program, Starts, Trajectory, check_apart, run
from sfumato.sample.fits.calibration import Keys


@dataclass(frozen=True)
class Paths:
    """Trajectories of the flow, and the draws that their starts were made of."""

    trajectory: Trajectory
    keys: Keys

    def __getitem__(self, rows: slice) -> Paths:
        """Some of them; draws are in order."""
        return Paths(self.trajectory[rows], frozenset(sorted(self.keys)[rows]))

    def __len__(self) -> int:
        return len(self.trajectory.end)

    @property
    def starts(self) -> Starts:
        """Where they start."""
        return Starts(self.trajectory.process, self.trajectory.times[0], self.trajectory.states[0], self.keys)


@dataclass(frozen=True)
class Proposals:
    """Programs that may be chosen.

    Arguments:
        programs: with names that tell them apart.
        skipped: what was refused, by name, with its reason.
        fitted_on: the draws they must not be judged on.
    """

    programs: tuple[Program, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    fitted_on: Keys = frozenset()

    def __iter__(self) -> Iterator[Program]:
        return iter(self.programs)

    def __len__(self) -> int:
        return len(self.programs)

    def __add__(self, other: Proposals) -> Proposals:
        return Proposals(self.programs + other.programs, self.skipped | other.skipped, self.fitted_on | other.fitted_on)


class Ranked(NamedTuple):
    """A program and its relative error at the end; infinite if the end is not finite."""

    program: Program
    error: Estimate


def best(proposals: Proposals, denoise: Denoise, judge: Paths, advance: Callable[[int], None] | None = None) -> list[Ranked]:
    """Measure programs on starts they were not fitted on; the ranking, best first.

    Arguments:
        proposals: what to measure.
        denoise: the denoiser whose flow the paths are.
        judge: starts and ends.
        advance: called with 1 after every program.

    Raises:
        ArgumentError: starts that share draws with the calibration, or a program that does not start where they stand.
    """
    check_apart(proposals.fitted_on, judge.keys)
    out = []
    for program in proposals:
        if (program.process, program.times[0]) != (judge.trajectory.process, judge.trajectory.times[0]):
            raise ArgumentError("proposals", f"{program.name}, from t = {program.times[0]:g}", "programs that start where the paths do")
        with torch.no_grad():
            error = endpoint_error(run(program, denoise, judge.trajectory.states[0]), judge.trajectory.end)
        out.append(Ranked(program, error if math.isfinite(error.value) else Estimate(math.inf, math.inf)))
        if advance is not None:
            advance(1)
    return sorted(out, key=lambda r: r.error.value)


def gather(makers: Iterable[tuple[str, Callable[[], Program]]]) -> tuple[list[Program], dict[str, str]]:
    """The programs made, under their names, and the reasons of those that were refused."""
    made: list[Program] = []
    skipped: dict[str, str] = {}
    for name, make in makers:
        try:
            program = make()
        except ArgumentError as e:
            skipped[name] = str(e)
            continue
        made.append(Program(name, program.process, program.times, program.rows, program.space))
    return made, skipped
