r"""A noisy dynamical system: `dx = f(x, t) dt + G dW` with `G G^T = 2 D(x, t)`, on flat states.

The reverse process of a denoiser is one of them. With its own time `w = 1 - t` running forward,

    f = -F x + g^2 score,        D = g^2 / 2        (F, g of the scalar process).

Derivatives are autograd's, so a drift must be a differentiable function of `x` whose rows do not mix.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess, over_events
from sfumato.seeds import Seed, noise

Field = Callable[[Tensor, Tensor], Tensor]
"""`(x (n, dim), t (n,))` to one value, vector or matrix per row."""


@dataclass(frozen=True)
class Dynamics:
    """The system of the module's head; see the constructors below.

    Arguments:
        drift: `f`, `(n, dim)`.
        diffusion: `D`, `(n,)` for a multiple of the identity, or `(n, dim, dim)`.
        dim: the number of dimensions.
        additive: whether `D` is the same at all `x`.
        dtype, device: of the states.
    """

    drift: Field
    diffusion: Field
    dim: int
    additive: bool = True
    dtype: torch.dtype = torch.float64
    device: torch.device | str = "cpu"

    @classmethod
    def constant(cls, drift: Field, dim: int, diffusion: int | float | Tensor) -> Dynamics:
        """A constant `D`: a number, or a matrix `(dim, dim)`.

        Raises:
            ShapeError: neither.
        """
        D = torch.as_tensor(diffusion, dtype=torch.float64)
        if D.ndim and D.shape != (dim, dim):
            raise ShapeError("diffusion", tuple(D.shape), f"a number or a matrix ({dim}, {dim})")
        return cls(drift, lambda x, t: D.to(x).expand(len(x), *D.shape), dim)

    @classmethod
    def timed(cls, drift: Field, dim: int, diffusion: Callable[[Tensor], Tensor]) -> Dynamics:
        """A `D` that depends on time alone: times `(n,)` to `(n,)` or `(n, dim, dim)`."""
        return cls(drift, lambda x, t: diffusion(t), dim)

    @classmethod
    def stated(cls, drift: Field, dim: int, diffusion: Field) -> Dynamics:
        """A `D(x, t)` that depends on the state."""
        return cls(drift, diffusion, dim, additive=False)

    @classmethod
    def reverse(
        cls, denoiser: Denoiser, event_shape: Sequence[int], *, condition: Tensor | None = None, dtype: torch.dtype = torch.float64
    ) -> Dynamics:
        """The reverse process of a denoiser on flat events, in the time `w = 1 - t`.

        Arguments:
            denoiser: any; a module of another dtype is copied and cast.
            event_shape: the shape of one event.
            condition: `(1, ...)`, the same for all states.
            dtype: what is computed in. `most_likely_path` needs float64.
        """
        device: torch.device | str = "cpu"
        if isinstance(denoiser, nn.Module):
            parameters = list(denoiser.parameters())
            device = parameters[0].device if parameters else device
            if any(p.dtype != dtype for p in parameters):
                denoiser = copy.deepcopy(denoiser).to(dtype)
        asked, process, shape = denoiser, denoiser.process, tuple(event_shape)

        def drift(x: Tensor, w: Tensor) -> Tensor:
            t = (1 - w).clamp(0.0, 1.0)
            given = None if condition is None else condition.expand(len(x), *condition.shape[1:])
            score = asked.score(x.reshape(len(x), *shape), t, given).reshape(x.shape)
            return over_events(process.diffusion_squared(t), x) * score - over_events(process.drift(t), x) * x

        def diffusion(x: Tensor, w: Tensor) -> Tensor:
            return (process.diffusion_squared((1 - w).clamp(0.0, 1.0)) / 2).to(x)

        return cls(drift, diffusion, math.prod(shape), dtype=dtype, device=device)

    def f(self, x: Float[Tensor, "n dim"], t: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        """The drift, checked.

        Raises:
            ShapeError: the drift's answer is shaped otherwise than `x`, or `x` is of another dimension.
            ArgumentError: it is not finite.
        """
        if x.shape[1] != self.dim:
            raise ShapeError("x", tuple(x.shape), f"(n, {self.dim})")
        out = self.drift(x, t)
        if out.shape != x.shape:
            raise ShapeError("drift", tuple(out.shape), f"an answer of the shape of its states, {tuple(x.shape)}")
        if not bool(torch.isfinite(out).all()):
            raise ArgumentError("drift", "values that are not finite", "a finite drift", "A reverse process has none where t is 0 or 1.")
        return out

    def D(self, x: Float[Tensor, "n dim"], t: Float[Tensor, "n"]) -> Tensor:
        """The diffusion, checked: `(n,)` or `(n, dim, dim)`.

        Raises:
            ShapeError: another shape.
            ArgumentError: not positive: most likely paths need noise in every direction.
        """
        out = self.diffusion(x, t)
        if out.shape not in ((len(x),), (len(x), self.dim, self.dim)):
            raise ShapeError("diffusion", tuple(out.shape), f"({len(x)},) or ({len(x)}, {self.dim}, {self.dim})")
        positive = out > 0 if out.ndim == 1 else torch.linalg.cholesky_ex(out.detach()).info == 0
        if not bool((positive & torch.isfinite(out).reshape(len(x), -1).all(1)).all()):
            raise ArgumentError("diffusion", "a D that is not positive", "noise in every direction at all states and times")
        return out

    def spread(self, x: Float[Tensor, "n dim"], t: Float[Tensor, "n"], v: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """`D v`."""
        D = self.D(x, t)
        return D[:, None] * v if D.ndim == 1 else (D @ v[..., None])[..., 0]

    def precision(self, x: Float[Tensor, "n dim"], t: Float[Tensor, "n"], v: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """`D^-1 v`."""
        D = self.D(x, t)
        return v / D[:, None] if D.ndim == 1 else torch.linalg.solve(D, v[..., None])[..., 0]

    def simulate(
        self, start: Float[Tensor, "n dim"], times: Float[Tensor, "nodes"], seed: Seed, *, first: int = 0
    ) -> Float[Tensor, "nodes n dim"]:
        """Euler-Maruyama paths, one step between two times; path `i` is a function of the seed and `first + i`.

        Raises:
            ArgumentError: times that do not rise.
        """
        steps = rising(times).diff()
        draws = noise(seed, len(start), (len(steps), self.dim), first=first, dtype=self.dtype, device=self.device).draw(0)
        states = [start.to(dtype=self.dtype, device=self.device)]
        with torch.no_grad():
            for i, h in enumerate(steps.tolist()):
                x = states[-1]
                t = times[i].to(x.device).expand(len(x))
                D, z = self.D(x, t), draws[:, i]
                kick = torch.sqrt(2 * h * D)[:, None] * z if D.ndim == 1 else (torch.linalg.cholesky(2 * h * D) @ z[..., None])[..., 0]
                states.append(x + h * self.f(x, t) + kick)
        return torch.stack(states)


def rising(times: Float[Tensor, "nodes"]) -> Float[Tensor, "nodes"]:
    """The times in float64.

    Raises:
        ArgumentError: fewer than two, or times that do not rise strictly.
    """
    out = times.to(torch.float64)
    if len(out) < 2 or not bool((out.diff() > 0).all()):
        raise ArgumentError("times", out.tolist(), "at least two times that rise strictly", "A reverse process runs in w = 1 - t.")
    return out


def reverse_times(process: ScalarProcess, start: int | float, end: int | float, steps: int, *, log: bool = False) -> Float[Tensor, "nodes"]:
    """Times `w = 1 - t` of a reverse process, between the ratios `k = start > end`: equal steps in `k^2`, or in `log k`.

    Raises:
        ArgumentError: ratios that do not fall, no steps, or `end = 0` with `log`.
    """
    if not (math.inf > start > end >= 0 and steps >= 1 and (end > 0 or not log)):
        raise ArgumentError("start, end, steps", (start, end, steps), "finite ratios start > end > 0, and at least one step")
    if log:
        ratios = torch.linspace(math.log(start), math.log(end), steps + 1, dtype=torch.float64).exp()
    else:
        ratios = torch.linspace(start**2, end**2, steps + 1, dtype=torch.float64).clamp(min=0.0).sqrt()
    return 1 - process.time_of_ratio(ratios.clamp(max=float(process.ratio(1.0))))
