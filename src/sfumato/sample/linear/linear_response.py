r"""The exact law of what a program under a linear SDE puts out when the data are Gaussian: then the whole program is affine.

    X_N = M X_0 + m + sum_j C_j eps_j,      so      N(M mu_0 + m, M P_0 M^T + sum_j C_j C_j^T)

for a start `N(mu_0, P_0)`; unit vectors pushed through the program give `M`, `m` and `C_j`. The scalar case is `gaussian_error`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.exact import Gaussian, PushedDenoiser, push
from sfumato.sample.linear.linear_program import LinearProgram, run_linear


def output_law(
    program: LinearProgram, law: Gaussian, condition: Float[Tensor, " *event"] | None = None
) -> tuple[Float[Tensor, " numbers"], Float[Tensor, "numbers numbers"]]:
    """The mean and the covariance of the last node's states, flat and float64, from the exact marginal at the first node.

    Arguments:
        law: of the data, whose exact denoiser answers.
        condition: the process's, the same for all.

    Raises:
        ArgumentError: states of more than 256 numbers.
    """
    process = program.process
    begin = push(law, process, program.times[0], condition)
    shape = process.state_shape(torch.zeros(1, *law.event_shape))[1:]
    size, draws = math.prod(shape), program.draws
    rows = 1 + size * (1 + len(draws))
    x = torch.zeros(rows, size, dtype=torch.float64)
    x[1 : 1 + size] = torch.eye(size, dtype=torch.float64)
    units = _Units(rows, shape, {j: 1 + size * (1 + k) for k, j in enumerate(draws)})
    y = None if condition is None else condition[None].to(torch.float64)
    denoise = PushedDenoiser(law, process, condition).denoise
    out = run_linear(program, denoise, x.reshape(rows, *shape), units, y).flatten(1)
    offset, linear = out[0], out[1:] - out[0]
    spread = linear[:size].T @ begin.covariances[0].dense() @ linear[:size] + linear[size:].T @ linear[size:]
    return offset + begin.means[0] @ linear[:size], spread


@dataclass(frozen=True)
class _Units:
    """Draws of which each is the unit vectors in rows of its own, and 0 in the others."""

    rows: int
    shape: Sequence[int]
    first: Mapping[int, int]

    def draw(self, j: int) -> Tensor:
        size = math.prod(self.shape)
        out = torch.zeros(self.rows, size, dtype=torch.float64)
        out[self.first[j] : self.first[j] + size] = torch.eye(size, dtype=torch.float64)
        return out.reshape(self.rows, *self.shape)
