r"""Step 4: where to evaluate, and with which table.

For given nodes the best table is a least-squares problem (`sample.fit_program`), so only the nodes are searched: places on the grid of a
reference trajectory, moved one at a time, wide moves first, as long as the error on starts that the fit did not see falls. On the
mixture world this costs no network call; a few moves on the network then finish it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from sfumato.exact import Gaussian
from sfumato.metrics import endpoint_error
from sfumato.sample import Denoise, Program, Trajectory, fit_program, run

RIDGES = (1e-6, 1e-4, 1e-2)
"""Strengths of regularisation that the last fit chooses among, on starts it did not see."""


@dataclass(frozen=True)
class Found:
    """Nodes (places on the trajectory's grid), the program fitted there, and its error on unseen starts."""

    nodes: tuple[int, ...]
    program: Program
    error: float


@dataclass(frozen=True)
class Bench:
    """What candidates are fitted to and judged on: a denoiser, the flow from two sets of starts, and the law whose modes are fitted."""

    denoise: Denoise
    fit: Trajectory
    judge: Trajectory
    law: Gaussian

    def try_nodes(self, nodes: Sequence[int], ridge: float = RIDGES[0]) -> Found:
        """Fit a program at the nodes and judge it."""
        program = fit_program(self.denoise, self.fit, nodes, self.law, ridge=ridge, name="fitted")
        with torch.no_grad():
            end = run(program, self.denoise, self.judge.states[0])
        error = endpoint_error(end, self.judge.end).value
        return Found(tuple(nodes), program, error if math.isfinite(error) else math.inf)

    def best_ridge(self, nodes: Sequence[int]) -> Found:
        """The best of the regularisations at fixed nodes."""
        return min((self.try_nodes(nodes, r) for r in RIDGES), key=lambda f: f.error)


def first_guesses(trajectory: Trajectory, n: int, tops: Sequence[float], bottoms: Sequence[float]) -> list[tuple[int, ...]]:
    """Log-spaced nodes between each top and bottom ratio, snapped to the trajectory's grid and kept apart."""
    ratios = trajectory.process.ratio(torch.tensor(trajectory.times[:-1], dtype=torch.float64))
    logs = torch.log(ratios.clamp(max=1e6))
    last = len(logs) - 1
    out = []
    for top in tops:
        for bottom in bottoms:
            wanted = torch.linspace(math.log(top), math.log(min(bottom, top)), n, dtype=torch.float64)
            places = [int((logs - w).abs().argmin()) for w in wanted]
            for j in range(1, n):
                places[j] = max(places[j], places[j - 1] + 1)
            for j in range(n - 1, -1, -1):
                places[j] = min(places[j], last - (n - 1 - j))
            if places[0] >= 0 and tuple(places) not in out:
                out.append(tuple(places))
    return out


def _moves(nodes: tuple[int, ...], step: int, last: int) -> Iterator[tuple[int, ...]]:
    for j in range(len(nodes)):
        for shift in (-step, step):
            moved = (*nodes[:j], nodes[j] + shift, *nodes[j + 1 :])
            if moved[0] >= 0 and moved[-1] <= last and all(a < b for a, b in pairwise(moved)):
                yield moved


def search(
    bench: Bench,
    guesses: Sequence[tuple[int, ...]],
    trials: int,
    steps: Sequence[int] = (4, 2, 1),
    advance: Callable[[int], None] | None = None,
) -> Found:
    """The best nodes found from the guesses within a number of trials; deterministic.

    Arguments:
        bench: what to fit to and judge on.
        guesses: nodes to start from; the best of them is improved.
        trials: how many fits may be made, the guesses' included (all guesses are always tried).
        steps: how far a node is moved, in the grid's places.
        advance: called with 1 after every trial.
    """

    def attempt(nodes: tuple[int, ...]) -> Found:
        if advance is not None:
            advance(1)
        return bench.try_nodes(nodes)

    best = min((attempt(g) for g in guesses), key=lambda f: f.error)
    left = trials - len(guesses)
    last = len(bench.fit.times) - 2
    for step in steps:
        improved = True
        while improved:
            improved = False
            for nodes in _moves(best.nodes, step, last):
                if left <= 0:
                    return best
                left -= 1
                found = attempt(nodes)
                if found.error < best.error:
                    best, improved = found, True
                    break
    return best
