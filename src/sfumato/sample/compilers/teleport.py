r"""Teleportation: the first part of any sampler is replaced by the closed form of a Gaussian law.

At high noise a denoiser is nearly that of the Gaussian `N(m, Sigma)` with the data's mean and covariance. There the way from `t` to `s` is
known, mode by mode with `V_t = alpha_t^2 l + sigma_t^2` and centred states `X~ = X - alpha m`, and needs no evaluation:

    deterministic programs   X~_s = sqrt(V_s / V_t) X~_t                                      the law's probability flow
    stochastic programs      X~_s = phi (V_s / V_t) X~_t + sqrt(V_s q / V_t) eps              its exact reverse kernel

with `x_t | x_s ~ N(phi x_s, q)`. This is a transformation of tables: the rows up to the landing are replaced by such steps, and the rest
of the table is kept. A later row of a multistep program still reads skipped nodes: they become analytic states, with the law's own answers

    D~_j = alpha_j l / V_j X~_j,

so that the history is warm and the program does not have to start again at order 1.

Source: Wang & Vastola 2024 (arXiv 2412.09726), section 6, for the flow and Heun's method; table, kernel and warm history are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.noise import ScalarProcess
from sfumato.sample.judges.consistency import consistency
from sfumato.sample.program import Coefficients, Program, Row
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom


@dataclass(frozen=True)
class Teleported(Solver):
    """A solver whose first steps are taken by a Gaussian law, without an evaluation; say where it lands by `skip` or by `ratio`.

    Arguments:
        solver: any solver.
        law: usually `sfumato.exact.fit_gaussian(...)` of the data.
        skip: how many steps of the times are skipped.
        ratio: land at the last of the times whose noise-to-signal ratio is at least this (EDM's `sigma_skip`); `forecast_skip` finds one.
        warm: whether a multistep solver gets the law's answers at skipped nodes as its history, or starts anew.

    Raises:
        ArgumentError: both or none of `skip` and `ratio`, or values that mean nothing.
    """

    solver: Solver
    law: Gaussian
    skip: int | None = None
    ratio: float | None = None
    warm: bool = True

    def __post_init__(self) -> None:
        if (self.skip is None) == (self.ratio is None):
            raise ArgumentError("skip, ratio", (self.skip, self.ratio), "one of the two")
        if self.skip is not None and self.skip < 1:
            raise ArgumentError("skip", self.skip, "at least 1 step to skip")
        if self.ratio is not None and not self.ratio > 0:
            raise ArgumentError("ratio", self.ratio, "a positive noise-to-signal ratio")

    @property
    def name(self) -> str:
        return f"{self.solver.name}-teleported"

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def deterministic(self) -> bool:
        return self.solver.deterministic

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        skip = self.skip if self.skip is not None else steps_above(process, times, self.ratio or 0.0)
        if not 1 <= skip <= len(times) - 2:
            raise ArgumentError("skip", skip, f"1 to {len(times) - 2} of the {len(times) - 1} steps", "The last one is the denoiser's.")
        if not self.warm:
            return teleport(self.solver.compile(process, times[skip:]), self.law, times[skip], self.name, start=times[0])
        return teleport(self.solver.compile(process, times), self.law, times[skip], self.name)


def steps_above(process: ScalarProcess, times: Sequence[float], ratio: float) -> int:
    """How many steps of falling times end at a noise-to-signal ratio of at least `ratio`."""
    k = process.ratio(torch.tensor(list(times), dtype=torch.float64))
    return int((k[1:] >= ratio * (1 - 1e-9)).sum())


def teleport(program: Program, law: Gaussian, landing: float, name: str = "", *, start: float | None = None) -> Program:
    """The program that lands at one of its times by the closed form of a law, with a warm history; see the module.

    It lands in the last row at that time at which the denoiser is asked, so a corrected state that is not asked about is still corrected.

    Arguments:
        program: scalar, or spectral over this very law; stochastic ones too.
        law: what carries the state. The new program is spectral over it.
        landing: one of the program's times at which the denoiser is asked.
        name: of the new program; by default the old one's.
        start: where the new program starts, if that is above the old one's first time (which may then be the landing).

    Raises:
        ArgumentError: a landing at which nothing is asked, or none to fly from; a spectral program over another law; a scalar one that
            is not consistent, and so does not act on centred states; a row past the landing that reads the noise of a skipped one.
    """
    cut = max((j for j in program.evaluated if program.times[j] == landing), default=None)
    first = program.times[0] if start is None else start
    if cut is None or not landing < first:
        asked = sorted({program.times[j] for j in program.evaluated if program.times[j] < first}, reverse=True)
        raise ArgumentError("landing", landing, f"one of the times below {first:g} at which the denoiser is asked, {asked}")
    if program.space is not None and program.space is not law:
        raise ArgumentError("law", "another law than the program's", "the program's own law")
    if program.space is None and consistency(program).data > 1e-9:
        raise ArgumentError("program", "a table that is not consistent", "rows that keep a constant denoiser's answer")
    tail = program.rows[cut + 1 :]
    skipped = {j for row in tail for part in (row.states, row.data) for j in part if j < cut}
    if any(j <= cut for row in tail for j in row.noise):
        raise ArgumentError("program", "rows that read the noise of skipped ones", "fresh noise past the landing")
    if start is None:
        skipped.discard(0)
    walked = [*sorted(skipped), cut]
    place = {j: i for i, j in enumerate(walked if start is not None else [0, *walked], start=int(start is not None))}
    times = (first, *(program.times[j] for j in walked))
    steps = [Row(), *(_step(program.process, law, a, b, i, bool(program.draws)) for i, (a, b) in enumerate(pairwise(times), start=1))]
    shift = len(walked) - cut
    moved = [_moved(row, program, law, place, cut, shift) for row in tail]
    return Program(name or program.name, program.process, (*times, *program.times[cut + 1 :]), (*steps, *moved), law)


def _step(process: ScalarProcess, law: Gaussian, t: float, s: float, row: int, stochastic: bool) -> Row:
    """Row number `row`, at `s`, from the one before it at `t`: the law's flow, or its reverse kernel with the row's own draw."""
    spectrum = law.covariance.spectrum.to("cpu")
    there, here = [process.alpha(u) ** 2 * spectrum + process.sigma(u) ** 2 for u in (t, s)]
    if not stochastic or s == t:
        return Row({row - 1: torch.sqrt(here / there)})
    forward = process.transition(s, t)
    return Row({row - 1: forward.phi * here / there}, {}, {row: torch.sqrt(here * forward.covariance / there)})


def _moved(row: Row, program: Program, law: Gaussian, place: dict[int, int], cut: int, shift: int) -> Row:
    """A row past the landing, with the nodes' new numbers; what it read of a skipped answer it reads of that node's state."""
    spectrum = law.covariance.spectrum.to("cpu")

    def number(j: int) -> int:
        return place[j] if j <= cut else j + shift

    states: dict[int, Tensor] = {number(j): c.expand_as(spectrum) for j, c in row.states.items()}
    data: dict[int, Tensor] = {}
    for j, c in row.data.items():
        if j >= cut:
            data[number(j)] = c.expand_as(spectrum)
            continue
        alpha, sigma = (level[j] for level in program.levels)
        answer = c * alpha * spectrum / (alpha**2 * spectrum + sigma**2)
        states[number(j)] = states.get(number(j), torch.zeros_like(spectrum)) + answer
    noise: Coefficients = {j + shift: c.expand_as(spectrum) for j, c in row.noise.items()}
    return Row(states, data, noise)
