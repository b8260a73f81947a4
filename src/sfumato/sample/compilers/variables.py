r"""In which variable the residual is taken to be a polynomial.

`Linearisation` interpolates in `log k`; DEIS interpolates the noise in time `t` (its tAB) or in the ratio `k` itself (its rhoAB), under the
same integral. With `y = x / alpha` the flow is `dy/dk = eps`, so over the noise's nodes

    X_i = (alpha_i / alpha_b) X_b + alpha_i sum_n eps_n int_{k_b}^{k_i} l_n dk,       l_n Lagrange in log k, k or t.

In `k` these are the Adams-Bashforth methods of uneven steps (`sample_lms` of k-diffusion). A polynomial in `t` depends on how a process
tells time. Source: Zhang & Chen 2023 (arXiv 2204.13902), section 3 and appendix B; they take left rectangles on 1e4 points, which limits
the weights to 1e-5; here Gauss's quadrature gives them to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.linearisation import Linearisation, lagrange
from sfumato.sample.compilers.stepping import Scale


@dataclass(frozen=True)
class NoisePolynomial(Linearisation):
    """Noise prediction, with polynomials in `variable`; made by `of`.

    Arguments:
        variable: "log-ratio", "ratio" or "time".
        process: whose time it is; a solver fills it in.
    """

    variable: Scale = "log-ratio"
    process: ScalarProcess | None = None

    @classmethod
    def of(cls, variable: Scale) -> NoisePolynomial:
        """Polynomials in a variable.

        Raises:
            ArgumentError: an unknown one.
        """
        if variable not in get_args(Scale):
            raise ArgumentError("variable", repr(variable), f"one of {', '.join(get_args(Scale))}")
        noise = Linearisation.noise()
        return cls(noise.variance, noise.power, None, variable)

    def under(self, process: ScalarProcess) -> Linearisation:
        return replace(self, process=process)

    def polynomials(self, lam: Tensor, nodes: Sequence[float]) -> list[Tensor]:
        return lagrange(self._place(lam), self._place(torch.tensor(nodes, dtype=torch.float64)).tolist())

    def _place(self, lam: Tensor) -> Tensor:
        if self.variable == "log-ratio":
            return lam
        if self.variable == "ratio":
            return torch.exp(-lam)
        if self.process is None:
            raise ArgumentError("process", None, "the process whose time it is", "Call under(process) first.")
        return self.process.time(lam)
