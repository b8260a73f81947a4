r"""The exact error of a program in a Gaussian world, without a sample.

There the denoiser is affine, so the whole program is: mode by mode of the law,

    X_N = a X_0 + b m + sum_j c_j eps_j,

and pushing unit vectors through the table gives `a`, `b` and `c`. The exact flow is affine too, with `a* = s_N / s_0`,
`s = sqrt(alpha^2 l + sigma^2)`, and `b* = alpha_N - a* alpha_0`. Source of the idea: the linear world of the solver literature; the sums
are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.sample.program import Coefficients, Program


@dataclass(frozen=True)
class Response:
    """What a program makes of its start, the law's mean and its noise, per mode of the law, beside what the flow makes of them.

    Arguments:
        start, mean: `a` and `b`, `(modes,)`.
        noise: `c`, `(draws, modes)`.
        flow_start, flow_mean: `a*` and `b*`.
        target: the law's variances at the program's last node, `(modes,)`.
        size: how many directions each mode stands for.
        squared_mean: the law's mean, squared and summed over each mode's directions.
        alpha: `alpha` at the last node.
    """

    start: Tensor
    mean: Tensor
    noise: Tensor
    flow_start: Tensor
    flow_mean: Tensor
    target: Tensor
    size: Tensor
    squared_mean: Tensor
    alpha: float

    def variance(self, start_variance: float | Tensor) -> Tensor:
        """The output's variance per mode, for a centred start of the given variance."""
        return self.start**2 * start_variance + (self.noise**2).sum(0)

    def w2(self, start_variance: float | Tensor) -> float:
        """The 2-Wasserstein distance between the output's law and the true one, for a start `N(0, start_variance)`."""
        spread = (torch.sqrt(self.variance(start_variance)) - torch.sqrt(self.target)) ** 2 * self.size
        shift = (self.mean - self.alpha) ** 2 * self.squared_mean
        return math.sqrt(float((spread + shift).sum()))

    def endpoint_error(self, start_variance: float | Tensor) -> float:
        """Root mean square distance to the exact flow's end point from the same start `N(0, start_variance)`, relative to that point's
        size.
        """
        error = ((self.start - self.flow_start) ** 2 * start_variance + (self.noise**2).sum(0)) * self.size
        error = error + (self.mean - self.flow_mean) ** 2 * self.squared_mean
        truth = self.flow_start**2 * start_variance * self.size + self.flow_mean**2 * self.squared_mean
        return math.sqrt(float(error.sum() / truth.sum()))


def response(program: Program, law: Gaussian) -> Response:
    """Push unit vectors through a program in the world of a Gaussian law.

    Arguments:
        program: scalar, or spectral over this very law.
        law: whose denoiser answers.

    Raises:
        ArgumentError: a spectral program over another law: its modes are not the law's.

    Example:
        >>> import torch
        >>> from sfumato.exact import Gaussian, SpectralCovariance
        >>> from sfumato.noise import VariancePreserving
        >>> from sfumato.sample import PRESETS, response, uniform_log_snr
        >>> covariance = SpectralCovariance.from_dense(torch.diag(torch.tensor([1.0, 0.1]).double()))
        >>> law = Gaussian(torch.zeros(2, dtype=torch.float64), covariance)
        >>> process = VariancePreserving()
        >>> for n in (10, 20, 40):
        ...     program = PRESETS["dpm-solver++-2m"].compile(process, uniform_log_snr(process, n))
        ...     print(n, f"{response(program, law).endpoint_error(1.0):.4f}")
        10 0.0361
        20 0.0142
        40 0.0036
    """
    if program.space is not None and program.space is not law:
        raise ArgumentError(
            "law", "another law than the program's", "the program's own law", "A spectral table is diagonal only in its own law."
        )
    spectrum = law.covariance.spectrum.to("cpu")
    alpha, sigma = program.levels
    draws = {j: 2 + n for n, j in enumerate(program.draws)}
    unit = torch.zeros(2 + len(draws), len(spectrum), dtype=torch.float64)
    mean = unit.clone()
    mean[1] = 1.0
    begin = unit.clone()
    begin[0] = 1.0
    states, answers = [begin], list[Tensor]()

    def centred(part: Coefficients, values: list[Tensor], weight: list[float]) -> Tensor:
        out = torch.zeros_like(unit)
        for j, c in part.items():
            out = out + c * (values[j] - weight[j] * mean if program.space is not None else values[j])
        return out

    ones, alphas = [1.0] * len(alpha), alpha.tolist()
    for i, row in enumerate(program.rows):
        if i:
            x = centred(row.states, states, alphas) + centred(row.data, answers, ones)
            if program.space is not None:
                x = x + alphas[i] * mean
            for j, c in row.noise.items():
                x[draws[j]] = x[draws[j]] + c
            states.append(x)
        top = alpha[i] * spectrum
        # a direction without variance stays at the mean, also as the noise vanishes
        gain = torch.where(top == 0, 0.0, top / (alpha[i] * top + sigma[i] ** 2))
        answers.append(mean + gain * (states[i] - alpha[i] * mean))
    out = states[-1]
    source, target = [alpha[i] ** 2 * spectrum + sigma[i] ** 2 for i in (0, -1)]
    flow = torch.sqrt(target / source)
    size, squared = _directions(law)
    return Response(out[0], out[1], out[2:], flow, alpha[-1] - flow * alpha[0], target, size, squared, float(alpha[-1]))


def _directions(law: Gaussian) -> tuple[Tensor, Tensor]:
    """The number of directions of each mode, and the mean's square in them."""
    m = law.mean.reshape(1, -1)
    modes = law.covariance.project(m)[0].to(device="cpu", dtype=torch.float64) ** 2
    size = torch.ones_like(modes)
    if len(law.covariance.spectrum) == law.covariance.rank:
        return size, modes
    rest = float((m.to(torch.float64) ** 2).sum()) - float(modes.sum())
    return torch.cat([size, size.new_tensor([law.dim - law.covariance.rank])]), torch.cat([modes, modes.new_tensor([max(rest, 0.0)])])
