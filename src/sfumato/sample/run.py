r"""The one loop that runs every program.

A row whose coefficients are the same in every mode costs one fused multiply-add a term. Otherwise a coefficient is split into its rest
(a plain number) and the modes' difference from it, and the row costs one thin product more to write it back, and one for each state
and answer it reads in the modes:

    X_i = sum rest(A) X_j + sum rest(B) D_j + kappa_i m + U (sum (A - rest) U^T X~_j + sum (B - rest) U^T D~_j)

with `kappa_i = alpha_i - sum rest(A) alpha_j - sum rest(B)` and centred `X~ = X - alpha m`, `D~ = D - m`. Only what a later row needs is
kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.sample.program import Program


@dataclass(frozen=True)
class Event:
    """What a callback sees after a node is reached: its number, its time, the state there, and the last denoised prediction, if any."""

    node: int
    time: float
    state: Tensor
    denoised: Tensor | None


Denoise = Callable[[Tensor, float], Tensor]
"""`(x (batch, *event), t) -> E[x_0 | x_t = x]`."""


@runtime_checkable
class Draws(Protocol):
    """Addressable standard normal draws, e.g. `sfumato.seeds.Noise`."""

    def draw(self, j: int) -> Tensor:
        """Draw number `j`, shaped as the state."""


class _Term(NamedTuple):
    kind: int  # 0 state, 1 data, 2 noise: the order of Row.parts()
    node: int
    rest: float
    modes: Tensor | None  # (rank,): the modes' coefficients less the rest; None where they are all the same


@dataclass(frozen=True)
class Plan:
    """A program made ready for a dtype and a device: numbers on the host, modes on the device, and what may be forgotten when."""

    program: Program
    terms: tuple[tuple[_Term, ...], ...]
    mean_weight: tuple[float, ...]
    forget: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, program: Program, dtype: torch.dtype, device: torch.device) -> Plan:
        """Split every coefficient into its rest and its modes."""
        alpha = program.levels[0].tolist()
        spanned = program.space is not None and program.space.covariance.rank == program.modes
        terms, weights = [], []
        last: dict[tuple[int, int], int] = {}
        for i, row in enumerate(program.rows):
            line = []
            last[0, i] = i  # a state may be read by the denoiser alone
            for kind, (_, part) in enumerate(row.parts()):
                for j, c in part.items():
                    # where eigenvectors span the space there is no rest, and the modes may as well carry it all
                    rest = float(c[-1]) if not spanned or bool((c == c[0]).all()) else 0.0
                    modes = None if bool((c == rest).all()) else ((c if spanned else c[:-1]) - rest).to(device=device, dtype=dtype)
                    line.append(_Term(kind, j, rest, modes))
                    if kind < 2:
                        last[kind, j] = i
            terms.append(tuple(line))
            used = sum(t.rest * (alpha[t.node] if t.kind == 0 else 1.0) for t in line if t.kind < 2)
            weights.append(alpha[i] - used if program.space is not None and i else 0.0)
        forget: list[list[tuple[int, int]]] = [[] for _ in terms]
        for key, reader in last.items():
            forget[reader].append(key)
        return cls(program, tuple(terms), tuple(weights), tuple(map(tuple, forget)))


class Walk:
    """A program on its way: for callers that ask the network themselves, such as the schedulers of other libraries.

    `run` is the loop `while (node := walk.advance()) is not None: walk.tell(answer)`.

    Arguments:
        program: the table, or its plan if many batches are to run.
        x: the start `X_0` `(batch, *event)`, whose dtype and device the walk keeps.
        draws: the noise, for a stochastic program.
        on_node: called after every node.

    Raises:
        ArgumentError: a stochastic program without draws, or a spectral one on another event size than its law's.
    """

    def __init__(
        self, program: Program | Plan, x: Tensor, draws: Draws | None = None, on_node: Callable[[Event], None] | None = None
    ) -> None:
        self.plan = program if isinstance(program, Plan) else Plan.of(program, x.dtype, x.device)
        table = self.plan.program
        if table.draws and draws is None:
            raise ArgumentError("draws", None, f"noise for the {len(table.draws)} draws of the stochastic program {table.name}")
        self.x, self.node, self._draws, self._on_node = x, 0, draws, on_node
        self._space = None if table.space is None else _Space(table, x)
        self._asked, self._done = set(table.evaluated), False
        self._latest: Tensor | None = None
        # what the rows read: states, answers and, only while a row is written, noise
        self._seen: tuple[dict[int, Tensor], dict[int, Tensor], dict[int, Tensor]] = ({0: x}, {}, {})

    def advance(self) -> int | None:
        """Go on to the next node whose answer the table uses, and return its number; None at the end. The state there is `x`."""
        while True:
            if not self._done and self.node in self._asked:
                return self.node
            if not self._done:
                self._leave()
            if self.node + 1 == len(self.plan.terms):
                return None
            self.node, self._done = self.node + 1, False
            self._enter(self.plan.terms[self.node])

    def tell(self, answer: Tensor) -> None:
        """The denoiser's answer `(batch, *event)` at the node that `advance` returned."""
        self._latest = self._seen[1][self.node] = answer
        self._leave()

    def replace(self, x: Tensor) -> None:
        """Go on from another state at the present node, e.g. one of which a part was painted over."""
        self.x = self._seen[0][self.node] = x
        if self._space is not None:
            self._space.modes.pop((0, self.node), None)

    def _enter(self, line: tuple[_Term, ...]) -> None:
        for term in line:
            if term.kind == 2 and self._draws is not None:
                self._seen[2][term.node] = self._draws.draw(term.node)
        self.x = _row(line, self._seen, self.x)
        if self._space is not None:
            self.x = self._space.correct(self.x, line, self._seen, self.plan.mean_weight[self.node])
        self._seen[0][self.node] = self.x
        self._seen[2].clear()

    def _leave(self) -> None:
        if self._on_node is not None:
            self._on_node(Event(self.node, self.plan.program.times[self.node], self.x, self._latest))
        for kind, j in self.plan.forget[self.node]:
            del self._seen[kind][j]
            if self._space is not None:
                self._space.modes.pop((kind, j), None)
        self._done = True


def run(
    program: Program | Plan,
    denoise: Denoise,
    x: Tensor,
    draws: Draws | None = None,
    on_node: Callable[[Event], None] | None = None,
) -> Tensor:
    """Walk a program from `x` at its first node and return `X_N`.

    Arguments:
        denoise: the denoiser, asked at the nodes that the table uses.
        program, x, draws, on_node: see `Walk`.

    Raises:
        ArgumentError: see `Walk`.
    """
    walk = Walk(program, x, draws, on_node)
    times = walk.plan.program.times
    while (node := walk.advance()) is not None:
        walk.tell(denoise(walk.x, times[node]))
    return walk.x


def _row(line: tuple[_Term, ...], seen: tuple[dict[int, Tensor], ...], like: Tensor) -> Tensor:
    """The rest of a row, `sum rest * value`."""
    out: Tensor | None = None
    for kind, node, rest, _ in line:
        if rest:
            value = seen[kind][node]
            out = value * rest if out is None else out.add_(value, alpha=rest)
    return torch.zeros_like(like) if out is None else out


class _Space:
    """The modes of a spectral program's law, in the state's dtype and on its device."""

    def __init__(self, table: Program, x: Tensor) -> None:
        law = table.space
        if law is None or x[0].numel() != law.dim:
            raise ArgumentError("x", f"events of shape {tuple(x.shape[1:])}", f"events of {law.dim if law else 0} numbers, as the law's")
        law = law.to(x.dtype, x.device)
        self.mean, self.covariance = law.mean.reshape(x.shape[1:]), law.covariance
        self.mean_modes = self.covariance.project(law.mean.reshape(1, -1))
        self.alpha = table.levels[0].tolist()
        self.modes: dict[tuple[int, int], Tensor] = {}

    def of(self, kind: int, node: int, value: Tensor) -> Tensor:
        """The modes of a centred state or answer (noise is centred as it is), `(batch, rank)`; read once and kept."""
        if (kind, node) not in self.modes:
            read = self.covariance.project(value.reshape(value.shape[0], -1))
            if kind == 2:
                return read
            self.modes[kind, node] = read - (self.alpha[node] if kind == 0 else 1.0) * self.mean_modes
        return self.modes[kind, node]

    def correct(self, x: Tensor, line: tuple[_Term, ...], seen: tuple[dict[int, Tensor], ...], mean_weight: float) -> Tensor:
        """Add to a row's rest what the mean and the modes contribute."""
        # an inconsistency of rounding size is none
        if abs(mean_weight) > 1e-12:
            x = x + mean_weight * self.mean
        spectral = [(t.modes, self.of(t.kind, t.node, seen[t.kind][t.node])) for t in line if t.modes is not None]
        if not spectral:
            return x
        total = sum((c * value for c, value in spectral[1:]), spectral[0][0] * spectral[0][1])
        return x + self.covariance.lift(total).reshape(x.shape)
