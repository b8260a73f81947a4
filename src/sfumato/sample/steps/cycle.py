r"""Cycle encoding: the noise with which a stochastic sampler makes a given sample.

Draw the sample's states at the program's nodes from the forward process, noisier and noisier; then every row of the table, read backwards,
says which draw takes its past states to its state,

    eps_i = (X_i - sum_j A_ij X_j - sum_j B_ij D_j) / C_ii,

and running the program again with these draws returns the sample. Source: Wu & De la Torre 2023 (arXiv 2210.05559), as used by Blasingame &
Liu 2024 (arXiv 2405.15020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.sample.program import Program
from sfumato.sample.run import Denoise
from sfumato.seeds import Seed, noise


@dataclass(frozen=True)
class Encoding:
    """A start and the draws that take it to the encoded sample; it serves `run` as its `draws`."""

    start: Tensor
    noises: dict[int, Tensor]

    def draw(self, j: int) -> Tensor:
        """Draw number `j`.

        Raises:
            ArgumentError: a draw that the encoded program does not use.
        """
        if j not in self.noises:
            raise ArgumentError("j", j, f"one of the draws {sorted(self.noises)}")
        return self.noises[j]


def cycle_encode(program: Program, denoise: Denoise, x: Tensor, seed: Seed = 0) -> Encoding:
    """Encode samples `x` `(batch, *event)` at the program's last node.

    Arguments:
        program: a scalar one whose every row adds its own draw, such as `Ancestral(1.0)` with a last time above 0.
        denoise: the denoiser.
        seed: of the forward path.

    Raises:
        ArgumentError: a spectral program, or a row without its own draw or with another's.
    """
    rows, times = program.rows, program.times
    owns = all(set(row.noise) == {i} for i, row in enumerate(rows[1:], start=1))
    if program.space is not None or not owns:
        raise ArgumentError(
            "program", program.name, "a scalar program whose every row adds its own draw", "End above t = 0, where none is left."
        )
    source = noise(seed, len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
    states = [x]
    for i in range(len(times) - 1, 0, -1):
        step = program.process.transition(times[i], times[i - 1])
        states.insert(0, float(step.phi) * states[0] + math.sqrt(float(step.covariance)) * source.draw(i))
    noises, answers = dict[int, Tensor](), dict[int, Tensor]()
    with torch.no_grad():
        for i, row in enumerate(rows):
            if i:
                known = sum(float(c) * states[j] for j, c in row.states.items()) + sum(float(c) * answers[j] for j, c in row.data.items())
                noises[i] = (states[i] - known) / float(row.noise[i])
            if i in program.evaluated:
                answers[i] = denoise(states[i], times[i])
    return Encoding(states[0], noises)
