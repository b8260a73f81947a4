r"""Splitting integrators for processes with auxiliary channels: position and the rest take turns.

In reverse time, with `p` the projection on the position (channel 0) or on the other channels, the flow's components are

    A, B:   dx = p (-F x - C y + w Q score) dt,        w = 1/2.

For the reverse SDE (`w = 1`) the forward process's own damping, the diagonal of `F`, and its noise are a third component, solved exactly:

    O:      dx = diag(F) x dt + Q^{1/2} dw,         A, B without -diag(F) x of O, i.e. with -F x - diag(F) x.

A step runs through the letters of a scheme, letters that repeat sharing the step's length. A *naive* scheme asks for a score before every
`A` and `B`; a *reduced* one reuses a score, at the price of order and for the gain of evaluations. Every score but that of a step's beginning
may be asked for at the step's end time (late, the default) or at its beginning.
Source: Pandey et al. 2024 (arXiv 2310.07894), section 4; stochastic schemes as the cards reconstruct them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, Operator
from sfumato.noise.van_loan import constant_transition
from sfumato.sample.conjugate import Bend, conjugate_step, predicted
from sfumato.sample.linear_form import Form, forward_form, identity, score_form, toward
from sfumato.sample.linear_program import LinearProgram, LinearSolver, LinearTable
from sfumato.sample.schedules import custom

Scheme = Literal["NSE", "RSE", "NVV", "RVV"]
"""Naive or reduced, symplectic Euler (A, B) or velocity Verlet (B/2, A, B/2)."""

# letters, and at which state of the step each one's score is asked for: 0 its beginning, 1 after the first letter, ...
_SCHEMES = {"NSE": ("AB", (0, 1)), "RSE": ("AB", (0, 0)), "NVV": ("BAB", (0, 1, 2)), "RVV": ("BAB", (0, 0, 2))}


@dataclass(frozen=True)
class Splitting(LinearSolver):
    """The flow, split; evaluations a step: NSE 2, RSE 1, NVV 3, RVV 2 (a naive step's last and the next one's first are not shared).

    Arguments:
        scheme: see `Scheme`.
        late: whether the last letter's score, if it is one of its own, is asked for at the step's end time.
        bend: `B` of a conjugate integrator for each component (the hybrid); None for Euler's steps.
    """

    scheme: Scheme = "RVV"
    late: bool = True
    bend: Bend | None = None

    def __post_init__(self) -> None:
        if self.scheme not in get_args(Scheme):
            raise ArgumentError("scheme", repr(self.scheme), f"one of {', '.join(get_args(Scheme))}")

    @property
    def name(self) -> str:
        bent = "" if self.bend is None else f"-{self.bend.kind}{self.bend.size:g}"
        return f"{self.scheme.lower()}{'' if self.late else '-early'}{bent}"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times = custom(times)
        parts = _components(process)
        table = LinearTable(process, times[:1])
        letters, asked = _SCHEMES[self.scheme]
        for t, s in pairwise(times):
            states = [len(table.rows) - 1]
            for k, (letter, node) in enumerate(zip(letters, asked, strict=True)):
                last = k == len(letters) - 1
                h = (t - s) / letters.count(letter)
                # the state before a last letter with a score of its own stands at the time of that score
                early = s if self.late and k == len(letters) - 2 and asked[-1] == k + 1 else t
                forms = self._letter(process, parts[letter], h, (states[-1], t), (states[node], table.times[states[node]]))
                states.append(table.add(s if last else early, forms))
        return table.program(self.name)

    def _letter(self, process: LinearSDE, part: Operator, h: float, at: tuple[int, float], seen: tuple[int, float]) -> dict[int, Form]:
        """`p`'s component over a time `h`, from node `at` with the score of node `seen`, each with its time."""
        if self.bend is None:
            return _euler(process, part, h, at, seen, 0.5)
        (node, t), (score, when) = at, seen
        bend = part @ self.bend.operator(process.channels)
        step = conjugate_step(process, [t], max(t - h, 0.0), bend, "cholesky noise", part)
        return _merged((node, toward(process, t, step.state, step.shift)), (score, predicted(process, when, "cholesky noise").under(step.weights[0])))


@dataclass(frozen=True)
class StochasticSplitting(LinearSolver):
    """The reverse SDE, split into O, A and B; row noise is drawn in the order of the O letters.

    Arguments:
        letters: the scheme, e.g. OBA, BAO, OBAB or OABA.
        reduced: one score a step, at the state where its first A or B starts; otherwise one before every A and B.
        position_noise: the share of the noise that O puts on the position.
        late: whether a naive scheme's later scores are asked for at the step's end time.
    """

    letters: str = "OABA"
    reduced: bool = True
    position_noise: float = 1.0
    late: bool = True

    def __post_init__(self) -> None:
        if set(self.letters) != set("OAB"):
            raise ArgumentError("letters", repr(self.letters), "a word of the letters O, A and B, with each of them")
        if not 0 <= self.position_noise < math.inf:
            raise ArgumentError("position_noise", self.position_noise, "a number of at least 0")

    @property
    def name(self) -> str:
        return f"{'reduced' if self.reduced else 'naive'}-{self.letters.lower()}"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times = custom(times)
        parts = _components(process)
        table = LinearTable(process, times[:1])
        for t, s in pairwise(times):
            node, asked, split = len(table.rows) - 1, -1, sum(letter != "O" for letter in self.letters)
            for k, letter in enumerate(self.letters):
                h, end = (t - s) / self.letters.count(letter), k == len(self.letters) - 1
                done = split < sum(c != "O" for c in self.letters)
                if letter == "O":
                    state, noise = self._damped(process, t, h)
                    node = table.add(s if end else table.times[node], {node: Form(state)}, noise)
                    continue
                if asked < 0 or not self.reduced:
                    asked = node
                split -= 1
                forms = _euler(process, parts[letter], h, (node, t), (asked, table.times[asked]), 1.0, damped=True)
                later = s if end or (self.late and not self.reduced and not done and split == 1) else table.times[node]
                node = table.add(later, forms)
        return table.program(self.name)

    def _damped(self, process: LinearSDE, t: float, h: float) -> tuple[Operator, Operator]:
        """What O makes of the state, and of noise, over a time `h` from `t` down."""
        law = process.coefs(max(t - h / 2, 0.0))
        if float((law.covariance.coef - _diagonal(law.covariance).coef).abs().max()) > 0:
            raise ArgumentError("process", "noise that is correlated between channels", "noise on each channel by itself")
        drift, noise = _diagonal(law.phi).coef, law.covariance.coef
        kept, _, spread = constant_transition(h * drift, drift[..., :0], h * noise)
        share = torch.ones(process.channels, dtype=torch.float64)
        share[0] = self.position_noise
        return Operator(kept, law.phi.basis), Operator(torch.diag(share)[None]) @ Operator(spread, law.covariance.basis).cholesky()


@dataclass(frozen=True)
class ScoreKick(LinearSolver):
    """SSCS: half a step of an exactly solved linear process, the score's kick, and the other half.

    With the prior's covariance `P`, reverse time and `Q (score + P^{-1} x)` left to the kick, `dx = -(F + Q P^{-1}) x dt + Q^{1/2} dw` is exact.
    Row noise: draws 2i + 1 and 2i + 2 in step i. Source: Dockhorn et al. 2022 (arXiv 2112.07068), section 3.3.
    """

    @property
    def name(self) -> str:
        return "score-kick"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        _unconditional(process)
        times = custom(times)
        table = LinearTable(process, times[:1])
        rest = process.prior().covariance.inverse()
        for t, s in pairwise(times):
            h, node = t - s, len(table.rows) - 1
            law = process.coefs((t + s) / 2)
            drift = -1.0 * (law.phi + law.covariance @ rest)
            kept, _, spread = constant_transition(h / 2 * drift.coef, drift.coef[..., :0], h / 2 * law.covariance.coef)
            half, root = Form(Operator(kept, drift.basis)), Operator(spread, drift.basis).cholesky()
            middle = table.add((t + s) / 2, {node: half}, root)
            kick = (score_form(process, (t + s) / 2) + Form(rest)).under(h * law.covariance)
            kicked = table.add((t + s) / 2, {middle: Form(identity(process.channels)) + kick})
            table.add(s, {kicked: half}, root)
        return table.program(self.name)


def _euler(
    process: LinearSDE, part: Operator, h: float, at: tuple[int, float], seen: tuple[int, float], weight: float, damped: bool = False
) -> dict[int, Form]:
    """Euler's step of a component; `damped`: with the diagonal of `F` taken twice, as O takes it away."""
    (node, t), (score, when) = at, seen
    forward = forward_form(process, t)
    if damped:
        forward = forward + Form(_diagonal(process.coefs(t).phi))
    pull = score_form(process, when).under((h * weight) * (part @ process.coefs(t).covariance))
    return _merged((node, Form(identity(process.channels)) + forward.under(-h * part)), (score, pull))


def _merged(*forms: tuple[int, Form]) -> dict[int, Form]:
    out: dict[int, Form] = {}
    for node, form in forms:
        out[node] = out[node] + form if node in out else form
    return out


def _components(process: LinearSDE) -> dict[str, Operator]:
    """The projections of A on the position and of B on the other channels."""
    if process.channels < 2:
        raise ArgumentError("process", "one channel", "auxiliary channels to take turns with")
    position = torch.zeros(process.channels, process.channels, dtype=torch.float64)
    position[0, 0] = 1.0
    return {"A": Operator(position[None]), "B": Operator((torch.eye(process.channels, dtype=torch.float64) - position)[None])}


def _diagonal(operator: Operator) -> Operator:
    return operator.map(lambda c: torch.diag_embed(c.diagonal(dim1=-2, dim2=-1)))


def _unconditional(process: LinearSDE) -> None:
    if process.conditions:
        raise ArgumentError("process", "a process with a condition", "one without")
