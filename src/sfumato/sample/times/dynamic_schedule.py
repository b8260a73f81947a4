r"""Schedules by dynamic programming: which few of a reference trajectory's nodes to stop at.

In `y = x / alpha` over `k = sigma / alpha`, Euler's step from the reference state `Y_i` to node `j` misses it by

    C_ij = E | Y_i + (k_j - k_i) (Y_i - D_i) / k_i - Y_j |,

and trajectories of one model bend so much alike that the matrix of a few of them serves every sample. The cheapest path of `n` steps from
the first node to the last,

    V_m(j) = min_{i > j} C_ji + discount V_{m-1}(i),        V_1(j) = C_j,last,

is found for every `n` at once. Costs are Euler's, so that the path is optimal for Euler alone: a multistep solver may lose by it at few
steps. Source: Chen et al. 2024 (arXiv 2405.11326), section 4 (GITS); 1.15 is the discount of the authors' code, 1 was better here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.metrics import endpoint_error
from sfumato.sample.fits.reference import Trajectory
from sfumato.sample.run import Denoise, run
from sfumato.sample.solver import Solver

Distance = Literal["l2", "l1", "deviation"]
"""How a jump's miss is measured: its length, the sum of its entries' sizes, or the change of the distance from the chord."""


def jump_costs(denoise: Denoise, trajectory: Trajectory, distance: Distance = "l2") -> Float[Tensor, "nodes nodes"]:
    """The costs `C_ij` of Euler's jumps between a trajectory's nodes, averaged over its batch; infinite where `j <= i`.

    "deviation" is `| |r(Y_j)| - |r(Y_i jumped)| |` with `r` a point's offset from the line through the trajectory's ends.

    Raises:
        ArgumentError: an unknown distance, or a trajectory with infinite or no noise before its last node.
    """
    if distance not in get_args(Distance):
        raise ArgumentError("distance", repr(distance), f"one of {', '.join(get_args(Distance))}")
    t = torch.tensor(trajectory.times, dtype=torch.float64)
    alpha, k = trajectory.process.alpha(t), trajectory.process.ratio(t)
    if not bool((torch.isfinite(k[0]) & (k[:-1] > 0)).all()):
        raise ArgumentError("trajectory", f"ratios from {float(k[0]):.3g}", "finite noise-to-signal ratios, positive but for the last")
    y = torch.stack([x.flatten(1).to(torch.float64) / a for x, a in zip(trajectory.states, alpha, strict=True)])
    chord = torch.nn.functional.normalize(y[0] - y[-1], dim=-1)

    def off(points: Tensor) -> Tensor:
        away = points - y[-1]
        return (away - (away * chord).sum(-1, keepdim=True) * chord).norm(dim=-1)

    costs = torch.full((len(y), len(y)), math.inf, dtype=torch.float64)
    with torch.no_grad():
        for i, x in enumerate(trajectory.states[:-1]):
            answer = denoise(x, trajectory.times[i]).flatten(1).to(torch.float64)
            jumped = y[i] + ((k[i + 1 :] - k[i]) / k[i])[:, None, None] * (y[i] - answer)
            miss = jumped - y[i + 1 :]
            if distance == "deviation":
                each = (off(jumped) - off(y[i + 1 :])).abs()
            else:
                each = miss.norm(dim=-1) if distance == "l2" else miss.abs().sum(-1)
            costs[i, i + 1 :] = each.mean(-1)
    return costs


def cheapest_paths(costs: Float[Tensor, "nodes nodes"], steps: int, discount: int | float = 1.0) -> list[tuple[int, ...]]:
    """The cheapest paths from the first node to the last in 1, 2, ..., `steps` jumps; ties go to the earlier node.

    Arguments:
        costs: of a jump from row to column, read above the diagonal.
        steps: at most as many as there are nodes to reach.
        discount: what a later jump's cost counts against an earlier one's.

    Raises:
        ShapeError: not a square matrix.
        ArgumentError: more steps than nodes, a discount that is not positive, or NaN among the costs.
    """
    n = len(costs)
    if costs.ndim != 2 or costs.shape != (n, n) or n < 2:
        raise ShapeError("costs", tuple(costs.shape), "a square matrix over at least 2 nodes")
    if not 1 <= steps <= n - 1:
        raise ArgumentError("steps", steps, f"from 1 to {n - 1} steps")
    if not 0 < discount < math.inf or bool(torch.isnan(costs).any()):
        raise ArgumentError("discount, costs", discount, "a positive discount, and costs without NaN")
    jumps = torch.where(torch.ones(n, n, dtype=torch.bool, device=costs.device).triu(1), costs.to(torch.float64), math.inf)
    value, choices, paths = jumps[:, -1], list[Tensor](), list[tuple[int, ...]]([(0, n - 1)])
    for _ in range(steps - 1):
        value, choice = (jumps + discount * value).min(1)
        choices.append(choice)
        path = [0]
        for back in reversed(choices):
            path.append(int(back[path[-1]]))
        paths.append((*path, n - 1))
    return paths


def dynamic_schedule(
    denoise: Denoise, trajectory: Trajectory, steps: int, distance: Distance = "l2", discount: int | float = 1.0
) -> tuple[float, ...]:
    """The times of the cheapest path of `steps` jumps along a reference trajectory.

    Arguments:
        denoise: the denoiser, asked once a node on the trajectory's batch.
        trajectory: a fine trajectory of the flow of some tens of samples, e.g. `reference(...)` over 60 steps.
        steps, distance, discount: see `cheapest_paths` and `jump_costs`.
    """
    path = cheapest_paths(jump_costs(denoise, trajectory, distance), steps, discount)[-1]
    return tuple(trajectory.times[i] for i in path)


def with_free_node(denoise: Denoise, trajectory: Trajectory, times: Sequence[float], solver: Solver) -> tuple[float, ...]:
    """The schedule with one node more between its first two, which costs no evaluation: the place with the least end-point error.

    Arguments:
        denoise, trajectory: as for `dynamic_schedule`; places are the trajectory's times.
        times: the schedule, from the trajectory's first time to its last.
        solver: one whose first step asks no denoiser, such as `Exponential(Linearisation.data(), 1, teleport=True)`, for which the first
            answer is 0.

    Raises:
        ArgumentError: a schedule with other ends, one without a place left between its first two nodes, or a solver that evaluates at the
            first node.
    """
    ends = (times[0], times[-1])
    if ends != (trajectory.times[0], trajectory.times[-1]):
        raise ArgumentError("times", ends, f"the trajectory's ends {(trajectory.times[0], trajectory.times[-1])}")
    places = [t for t in trajectory.times if times[0] > t > times[1]]
    if not places:
        raise ArgumentError("times", tuple(times[:2]), "a place of the trajectory between the first two")
    programs = [solver.compile(trajectory.process, (times[0], t, *times[1:])) for t in places]
    if 0 in programs[0].evaluated:
        raise ArgumentError("solver", solver.name, "a solver whose first step asks no denoiser")
    with torch.no_grad():
        errors = [endpoint_error(run(p, denoise, trajectory.states[0]), trajectory.end).value for p in programs]
    return (times[0], places[min(range(len(errors)), key=errors.__getitem__)], *times[1:])
