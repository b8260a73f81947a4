"""083: momentum in sampling. Left out: latent and pixel models, and the metric of artifacts on their images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_most, close, control, holds
from sfumato.atlas.solvers.worlds import FIRST, LAST, PROCESS, denoiser, g4, grid, order, starts
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.explain.sampling.stability import Stability, real_boundary, stability
from sfumato.sample import Momentum, RungeKutta, Solver, ddim, ipndm, run, uniform_time
from sfumato.seeds import noise

STEPS = 8


def limit() -> Iterable[Check]:
    """Without momentum, at beta 1, nothing is left of it."""
    plain = run(ipndm(4).compile(PROCESS, grid(8)), denoiser().denoise, starts())
    for beta in (1.0, 0.9):
        again = run(Momentum(4, beta).compile(PROCESS, grid(8)), denoiser().denoise, starts())
        check = at_most(f"GHVB4 on G4, beta {beta:g}: difference to PLMS4", float((plain - again).abs().max()), 1e-15)
        yield check if beta == 1 else control(check)


def boundaries() -> Iterable[Check]:
    """How far the regions of stability reach on the negative axis, run and in closed form."""
    plms = {2: 1.0, 4: 0.3}
    for steps, plain in plms.items():
        yield close(f"PLMS{steps}: boundary", real_boundary(ipndm(steps)), plain, relative=0.04)
        for beta in (0.8, 0.5, 0.2):
            measured = real_boundary(Momentum(steps, beta, "heavy-ball"))
            yield close(f"heavy-ball PLMS{steps}, beta {beta}: boundary", measured, plain * (2 - beta) / beta, relative=0.04)
            yield holds(
                f"heavy-ball PLMS{steps}, beta {beta}: boundary over the plain one", measured / plain, "above 1.4", measured > 1.4 * plain
            )
    # the card ran four velocities and has 0.368, 0.444, 0.515; the root -1 is exact
    for steps, expected in ((2, (1.2, 1.5, 1.8)), (4, (6 / 17, 3 / 7, 1 / 2))):
        for beta, value in zip((0.8, 0.5, 0.2), expected, strict=True):
            yield close(f"GHVB{steps}, beta {beta}: boundary", real_boundary(Momentum(steps, beta)), value, relative=0.01)
    off = real_boundary(Momentum(4, 1.0, "heavy-ball"))
    yield control(holds("heavy-ball PLMS4, beta 1: boundary over the plain one", off / 0.3, "above 1.4", off > 1.4 * 0.3))


def orders() -> Iterable[Check]:
    """Heavy-ball momentum has order 1 whatever it averages, GHVB order 2 from two velocities on."""
    for steps in (1, 2, 4):
        yield close(f"heavy-ball PLMS{steps}: order", order(Momentum(steps, 0.8, "heavy-ball")), 1, absolute=0.15)
        yield close(f"GHVB{steps}: order", order(Momentum(steps, 0.8)), min(steps, 2), absolute=0.15)
    yield control(close("heavy-ball PLMS2: order against 2", order(Momentum(2, 0.8, "heavy-ball")), 2, absolute=0.15))


@functools.cache
def _thin() -> tuple[GaussianMixture, Gaussian, Tensor]:
    """G4 with all variances at 0.02, its third component, and 64 starts of its marginal."""
    parts = [SpectralCovariance.isotropic(2, 0.02) for _ in range(4)]
    law = GaussianMixture(g4().weights, g4().means, parts)
    t = float(PROCESS.time(FIRST))
    x = PROCESS.sample(law.sample(64, 0), t, noise(0, 64, (2,), dtype=torch.float64).draw(2))
    return law, Gaussian(law.means[2], parts[2]), x


def _guided(scale: float) -> Callable[[Tensor, float], Tensor]:
    law, part, _ = _thin()
    free, bound = law.denoiser(PROCESS), part.denoiser(PROCESS)

    def denoise(x: Tensor, t: float) -> Tensor:
        plain = free.denoise(x, t)
        return plain + scale * (bound.denoise(x, t) - plain)

    return denoise


@functools.cache
def _end(solver: Solver, scale: float, steps: int) -> Tensor:
    times = uniform_time(steps, *(float(PROCESS.time(v)) for v in (FIRST, LAST)))
    return run(solver.compile(PROCESS, times), _guided(scale), _thin()[2])


def artifacts() -> Iterable[Check]:
    """Eight strongly guided steps: momentum ends where the flow does, and PLMS4 does not."""
    solvers = {"PLMS4": ipndm(4), "heavy-ball": Momentum(4, 0.8, "heavy-ball"), "GHVB4": Momentum(4, 0.1), "DDIM": ddim()}
    off: dict[tuple[str, float], float] = {}
    typical: dict[str, float] = {}
    for scale in (1.0, 7.5, 15.0):
        exact = _end(RungeKutta("rk4"), scale, 400)
        for name, solver in solvers.items():
            away = _end(solver, scale, STEPS) - exact
            off[name, scale], typical[name] = float(away.square().mean().sqrt()), float(away.norm(dim=1).median())
    places = [*((n, 7.5) for n in solvers), ("heavy-ball", 15.0), ("DDIM", 15.0)]
    for (name, scale), card in zip(places, (0.48, 0.12, 0.06, 0.04, 0.19, 0.05), strict=True):
        text = f"of the order of the card's {card:g}"
        yield holds(f"{name}, scale {scale:g}: distance to the flow", off[name, scale], text, card / 3 < off[name, scale] < card * 3)
    for name in ("heavy-ball", "GHVB4"):
        yield at_most(f"{name} over PLMS4, scale 7.5", off[name, 7.5] / off["PLMS4", 7.5], 0.35)
        yield at_most(f"{name}, scale 1: distance to the flow", off[name, 1.0], 0.03)
    # outside its region PLMS4 is off by any amount: its mean square is that of a few starts, 1.1 to 5.8 over three sets of 64
    yield at_most("GHVB4 over PLMS4, scale 15: median distance", typical["GHVB4"] / typical["PLMS4"], 0.35)
    for kind in ("heavy-ball", "ghvb"):
        one = _end(Momentum(4, 1.0, kind), 7.5, STEPS)
        same = torch.equal(one, _end(solvers["PLMS4"], 7.5, STEPS))
        yield holds(f"{kind}, beta 1: PLMS4 bit for bit", str(same), "True", same)
        gap = float((one - _end(RungeKutta("rk4"), 7.5, 400)).square().mean().sqrt())
        yield control(at_most(f"{kind}, beta 1, over PLMS4, scale 7.5", gap / off["PLMS4", 7.5], 0.35))


def lag() -> Iterable[Check]:
    """A small beta lags behind: more momentum is not better."""
    exact = _end(RungeKutta("rk4"), 7.5, 400)
    near, far = (float((_end(Momentum(4, b, "heavy-ball"), 7.5, STEPS) - exact).square().mean().sqrt()) for b in (0.8, 0.5))
    yield holds("heavy-ball PLMS4, scale 7.5: beta 0.5 over 0.8", far / near, "above 1", far > near)


@functools.cache
def _region() -> Stability:
    return stability(Momentum(4, 0.8, "heavy-ball"), 41)


def figure(ax: Any) -> None:
    """Steps that do not blow up lie inside the curve: averaging the directions of PLMS4 makes its region half as long again on the axis
    of strong contraction, which is where strong guidance puts a step.
    """
    _region().plot(ax)


ROW = Row(
    id="083",
    slug="momentum-sampling",
    title="Diffusion Sampling with Momentum for Mitigating Divergence Artifacts",
    authors="Suttisak Wizadwongsa, Worameth Chinchuthakun, Pramook Khungurn, Amit Raj, Supasorn Suwajanakorn",
    year=2023,
    arxiv="2307.11118",
    claim=(
        "Averaging the directions of a multistep solver with momentum widens its region of stability by (2 - beta)/beta at order 1, and"
        " inside the multistep formula (GHVB) less but at order 2, which removes the divergence of few, strongly guided steps."
    ),
    reproduced="yes",
    checks=(limit, boundaries, orders, artifacts, lag),
    figure=figure,
)
