r"""What a sampler's table says: of which answers each step is made, and how strongly it leans on them.

Tables are written in many ways (data or noise prediction, momentum, correctors), but states are sums of the start, the answers and the
noise, `X_i = s_i X_0 + sum_j W_ij D_j + sum_j V_ij eps_j` with `(I - A) W = B` and `(I - A) V = C`, and that sum is unique. So a step from
the last state `b` at an earlier time is, in whatever form it was written,

    X_i - keep X_b = sum_j S_ij D_j + fresh noise + ...,      S_ij = W_ij - keep W_bj,      share_ij = S_ij / (alpha_i - keep alpha_b),

where `keep = sqrt(sigma_i^2 - fresh^2) / sigma_b` is what stays of the noise. In a consistent table without a law the shares of a step add
up to 1 (`sample.consistency`); what is missing in a spectral one is supplied by its closed form. DDIM has the share 1 on the newest answer.
More answers extrapolate, some shares are negative, and `sum_j |share_ij|`, the *amplification*, says how much more than in DDIM an error
can count that differs from answer to answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation
from sfumato.sample import Program

_READ = 1e-9
"""A share below this is rounding."""
_WRITTEN = 16
"""With more rows than this the numbers are not written into the picture."""
_STRONG = 2.5
"""A share of this size has the full colour, in all pictures alike."""


@dataclass(frozen=True)
class ProgramTable(Explanation):
    """A program's steps as shares of its answers.

    Arguments:
        name: the program's.
        nodes: the noise-to-signal ratio of every state after the start.
        asked: the ratios at which the denoiser is asked.
        shares: `(states after the start, answers)`; the mean over directions for a spectral program.
        newest: the place of the newest answer that a step could read, -1 where there is none.
        amplification: of every step; the largest of any mode.
    """

    name: str
    nodes: list[float]
    asked: list[float]
    shares: list[list[float]]
    newest: list[int]
    amplification: list[float]

    @property
    def reads(self) -> list[list[int]]:
        """The places of the answers that each step reads."""
        return [[j for j, share in enumerate(row) if abs(share) > _READ] for row in self.shares]

    @property
    def numbers(self) -> dict[str, float]:
        """Evaluations, the most answers in a step, the largest amplification, and the most negative share."""
        return {
            "evaluations": float(len(self.asked)),
            "most_answers": float(max(map(len, self.reads))),
            "amplification": max(self.amplification),
            "least_share": min(min(row) for row in self.shares),
        }

    @property
    def meaning(self) -> str:
        found = self.numbers
        text = f"{self.name} asks {len(self.asked)} times, from k = {self.asked[0]:.3g} down to {self.asked[-1]:.3g}; "
        text += f"a step is made of up to {found['most_answers']:.0f} of the answers. "
        if found["amplification"] <= 1 + _READ:
            return text + "No step amplifies the errors of answers."
        return text + f"In a step, errors that differ among answers count up to {found['amplification']:.3g} times as much as in DDIM."

    def plot(self, ax: Any) -> None:
        """The shares, and where DDIM's only one would stand."""
        from matplotlib.patches import Patch, Rectangle

        ax.imshow(self.shares, cmap="RdBu_r", vmin=-_STRONG, vmax=_STRONG, aspect="auto")
        for i, (row, place) in enumerate(zip(self.shares, self.newest, strict=True)):
            if place >= 0:
                ax.add_patch(Rectangle((place - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="C1", linewidth=1.5))
            for j, share in enumerate(row if len(self.shares) <= _WRITTEN else []):
                if abs(share) > _READ:
                    dark = abs(share) > 0.6 * _STRONG
                    ax.text(j, i, f"{share:.2f}", ha="center", va="center", fontsize="small", color="white" if dark else "black")
        _ticks(ax.set_xticks, self.asked)
        _ticks(ax.set_yticks, self.nodes)
        ax.set_xlabel("answer, by the k where it was given")
        ax.set_ylabel("step, by the k where it ends")
        ax.legend(
            handles=[Patch(fill=False, edgecolor="C1", label="DDIM: this answer alone, share 1")], loc="upper right", fontsize="small"
        )


def _ticks(put: Any, ratios: list[float]) -> None:
    every = 1 + len(ratios) // 16
    put(list(range(0, len(ratios), every)), [f"{k:.3g}" for k in ratios[::every]])


def program_table(program: Program) -> ProgramTable:
    """Read a program's table.

    Arguments:
        program: scalar or spectral.

    Raises:
        ArgumentError: a program that never asks the denoiser.
    """
    if not program.evaluations:
        raise ArgumentError("program", program.name, "a program that asks the denoiser")
    alpha, sigma = program.levels
    times, asked = program.times, list(program.evaluated)
    a, b, c = program.dense()
    eye = torch.eye(len(times), dtype=torch.float64)[..., None].expand_as(a)
    # (modes, nodes, answers and draws)
    parts = torch.cat([b[:, asked], c], 1)
    sums = torch.linalg.solve_triangular((eye - a).movedim(-1, 0), parts.movedim(-1, 0), upper=False, unitriangular=True)
    answers, noise = sums[:, :, : len(asked)], sums[:, :, len(asked) :]
    steps, newest = [], []
    for i in range(1, len(times)):
        base = max((j for j in range(i) if times[j] > times[i]), default=0)
        fresh = torch.where(noise[:, base] == 0, noise[:, i] ** 2, 0.0).sum(1)
        keep = torch.sqrt((sigma[i] ** 2 - fresh).clamp(min=0))[:, None] / sigma[base]
        steps.append((answers[:, i] - keep * answers[:, base]) / (alpha[i] - alpha[base] * keep))
        newest.append(sum(j < i for j in asked) - 1)
    shares = torch.stack(steps, 1)
    return ProgramTable(
        program.name,
        program.process.ratio(torch.tensor(times[1:], dtype=torch.float64)).tolist(),
        program.process.ratio(torch.tensor([times[j] for j in asked], dtype=torch.float64)).tolist(),
        torch.einsum("mij,m->ij", shares, _weights(program)).tolist(),
        newest,
        shares.abs().sum(2).amax(0).tolist(),
    )


def _weights(program: Program) -> Tensor:
    """Which part of all directions each mode stands for."""
    size = torch.ones(program.modes, dtype=torch.float64)
    if program.space is not None and program.modes > program.space.covariance.rank:
        size[-1] = program.space.dim - program.space.covariance.rank
    return size / size.sum()
