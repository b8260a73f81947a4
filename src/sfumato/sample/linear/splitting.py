r"""Splitting integrators for processes with auxiliary channels: position and the rest take turns.

In reverse time, with `p` the projection on the position (channel 0) or on the other channels, the flow's components are

    A, B:   dx = p (-F x - C y + w Q score) dt,        w = 1/2.

For the reverse SDE (`w = 1`) the forward process's own damping, the diagonal of `F`, and its noise are a third component, solved exactly:

    O:      dx = diag(F) x dt + Q^{1/2} dw,         A, B without -diag(F) x of O, i.e. with -F x - diag(F) x.

A step runs through the letters of a scheme, letters that repeat sharing the step's length. A *naive* scheme asks for a score before
every `A` and `B`; a *reduced* one reuses a score, at the price of order and for the gain of evaluations. A step's later scores may be
asked for at the step's end time (late, the default) or at its beginning.
Source: Pandey et al. 2024 (arXiv 2310.07894), section 4; stochastic schemes as the cards reconstruct them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, Operator
from sfumato.noise.linear_family.van_loan import constant_transition
from sfumato.sample.linear.conjugate import Bend, Frame, Prediction, predicted
from sfumato.sample.linear.linear_form import Form, Forms
from sfumato.sample.linear.linear_program import LinearProgram, LinearSolver, LinearTable
from sfumato.sample.times.schedules import custom

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
        bend: the hybrid: each component is one step of a conjugate integrator with this `B`; None for Euler's steps.
        prediction: what the hybrid holds. Data keep the linear part and the score, which nearly cancel, together; the others do not.
    """

    scheme: Scheme = "RVV"
    late: bool = True
    bend: Bend | None = None
    prediction: Prediction = "data"

    def __post_init__(self) -> None:
        if self.scheme not in get_args(Scheme):
            raise ArgumentError("scheme", repr(self.scheme), f"one of {', '.join(get_args(Scheme))}")

    @property
    def name(self) -> str:
        bent = "" if self.bend is None else f"-{self.bend.kind}{self.bend.size:g}-{self.prediction.replace(' ', '-')}"
        return f"{self.scheme.lower()}{'' if self.late else '-early'}{bent}"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        times = custom(times)
        parts = _Components(process, times)
        table = LinearTable(process, times[:1])
        letters, asked = _SCHEMES[self.scheme]
        for t, s in pairwise(times):
            states, clock = [len(table.rows) - 1], dict.fromkeys(letters, t)
            for k, (letter, node) in enumerate(zip(letters, asked, strict=True)):
                begin, seen = clock[letter], (states[node], table.times[states[node]])
                clock[letter] = end = s if letters.rfind(letter) == k else (t + s) / 2
                if self.bend is None:
                    forms = parts.euler(letter, end - begin, (states[-1], t), seen)
                else:
                    forms = self._conjugate(parts, letter, (begin, end), (states[-1], t), seen)
                # the state before a last letter with a score of its own stands at the time of that score
                own = self.late and k == len(letters) - 2 and asked[-1] == k + 1
                states.append(table.add(s if own or k == len(letters) - 1 else t, forms))
        return table.program(self.name)

    def _conjugate(
        self, parts: _Components, letter: str, span: tuple[float, float], at: tuple[int, float], seen: tuple[int, float]
    ) -> dict[int, Form]:
        (begin, end), (node, t), (asked, when), part = span, at, seen, parts[letter]
        bend = part @ (self.bend or Bend()).operator(parts.forms.process.channels)
        frame = Frame(parts.forms.process, begin, bend, self.prediction, part)
        shift, weights = frame.integrals(begin, end, [begin])
        moved = parts.forms.toward(t, parts.forms.one + (end - begin) * bend, shift)
        back = frame.back(end)
        held = predicted(parts.forms, when, self.prediction).under(back @ weights[0])
        return _merged((node, moved.under(back)), (asked, held))


@dataclass(frozen=True)
class StochasticSplitting(LinearSolver):
    """The reverse SDE, split into O, A and B, with all coefficients and scores at a step's beginning; every O takes the next draw.

    Arguments:
        letters: the scheme, e.g. OBA, BAO, OBAB or OABA.
        reduced: one score a step, at the state where its first A or B starts; otherwise one before every A and B.
        position_noise: the share of the noise that O puts on the position.
    """

    letters: str = "OABA"
    reduced: bool = True
    position_noise: float = 1.0

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
        parts = _Components(process, times)
        table = LinearTable(process, times[:1])
        for t, s in pairwise(times):
            node, asked = len(table.rows) - 1, -1
            for k, letter in enumerate(self.letters):
                h, reached = (t - s) / self.letters.count(letter), s if k == len(self.letters) - 1 else t
                if letter == "O":
                    state, noise = parts.damped(t, h, self.position_noise)
                    node = table.add(reached, {node: Form(state)}, noise)
                    continue
                asked = node if asked < 0 or not self.reduced else asked
                node = table.add(reached, parts.euler(letter, -h, (node, t), (asked, t), stochastic=True))
        return table.program(self.name)


@dataclass(frozen=True)
class ScoreKick(LinearSolver):
    """SSCS: half a step of an exactly solved linear process, the score's kick, and the other half.

    With `Q (score + P^{-1} x)`, `P` the prior's covariance, left to the kick, `dx = -(F + Q P^{-1}) x dt + Q^{1/2} dw` is exact in reverse
    time. The score is taken at the time of the step's beginning; every half step takes the next draw.
    Source: Dockhorn et al. 2022 (arXiv 2112.07068), section 3.3.

    Raises:
        ArgumentError: a process with a condition.
    """

    @property
    def name(self) -> str:
        return "score-kick"

    def compile(self, process: LinearSDE, times: Sequence[float]) -> LinearProgram:
        if process.conditions:
            raise ArgumentError("process", "a process with a condition", "one without")
        times = custom(times)
        middles = [(t + s) / 2 for t, s in pairwise(times)]
        table, forms = LinearTable(process, times[:1]), Forms(process, [*times[:-1], *middles])
        rest = process.prior().covariance.inverse()
        for t, s, middle in zip(times, times[1:], middles, strict=False):
            h, law = t - s, forms.coefs(middle)
            drift = -1.0 * (law.phi + law.covariance @ rest)
            kept, _, spread = constant_transition(h / 2 * drift.coef, drift.coef[..., :0], h / 2 * law.covariance.coef)
            half, root = Form(Operator(kept, drift.basis)), Operator(spread, drift.basis).cholesky()
            before = table.add(t, {len(table.rows) - 1: half}, root)
            kick = (forms.score(t) + Form(rest)).under(h * law.covariance)
            kicked = table.add(t, {before: Form(forms.one) + kick})
            table.add(s, {kicked: half}, root)
        return table.program(self.name)


class _Components:
    """A, the flow's part that moves the position, B, the part that moves the other channels, and O.

    Raises:
        ArgumentError: a process with one channel.
    """

    def __init__(self, process: LinearSDE, times: Sequence[float]) -> None:
        if process.channels < 2:
            raise ArgumentError("process", "one channel", "auxiliary channels to take turns with")
        self.forms = Forms(process, times)
        position = torch.zeros(process.channels, process.channels, dtype=torch.float64)
        position[0, 0] = 1.0
        self._parts = {"A": Operator(position[None]), "B": self.forms.one - Operator(position[None])}

    def __getitem__(self, letter: str) -> Operator:
        return self._parts[letter]

    def euler(self, letter: str, h: float, at: tuple[int, float], seen: tuple[int, float], stochastic: bool = False) -> dict[int, Form]:
        """Euler's step of a component over the (negative) time `h`, from the node and time `at`, with the score of those of `seen`."""
        (node, t), (asked, when), part = at, seen, self[letter]
        law, forward = self.forms.coefs(t), self.forms.forward(t)
        if stochastic:
            # O damps, so this does the opposite
            forward = forward + Form(_diagonal(law.phi))
        pull = self.forms.score(when).under((-h if stochastic else -h / 2) * (part @ law.covariance))
        return _merged((node, Form(self.forms.one) + forward.under(h * part)), (asked, pull))

    def damped(self, t: float, h: float, position_noise: float) -> tuple[Operator, Operator]:
        """What O makes of the state, and of noise, over a time `h`.

        Raises:
            ArgumentError: noise that is correlated between channels.
        """
        law = self.forms.coefs(t)
        if float((law.covariance.coef - _diagonal(law.covariance).coef).abs().max()) > 0:
            raise ArgumentError("process", "noise that is correlated between channels", "noise on each channel by itself")
        drift, noise = _diagonal(law.phi).coef, law.covariance.coef
        kept, _, spread = constant_transition(h * drift, drift[..., :0], h * noise)
        scale = self.forms.one + (position_noise - 1) * self["A"]
        return Operator(kept, law.phi.basis), scale @ Operator(spread, law.covariance.basis).cholesky()


def _merged(*forms: tuple[int, Form]) -> dict[int, Form]:
    out: dict[int, Form] = {}
    for node, form in forms:
        out[node] = out[node] + form if node in out else form
    return out


def _diagonal(operator: Operator) -> Operator:
    return operator.map(lambda c: torch.diag_embed(c.diagonal(dim1=-2, dim2=-1)))
