r"""Sampling without noise: a restorer `R(x, s)` of clean data and a degradation `D`, level by level down to 0.

    naive        x_{s-1} = D(R(x_s, s), s - 1)
    improved     x_{s-1} = x_s - D(R(x_s, s), s) + D(R(x_s, s), s - 1)

The improved step makes only the *difference* of two degradations, so what a restorer gets wrong enters as `d(D(x^) - D(x))/ds` and not as
`D(x^) - D(x)`: for `D(x, s) = x + s e` it returns `D(x_0, s)` whatever the restorer says, and for a smooth `D` to first order in a level.
With noise for the other image of a `Blend`: `estimated` solves for it anew at every level, which is DDIM, and `renoised` draws it anew,
which is the naive step with noise.

Source: Bansal et al. 2022 (arXiv 2208.09392), algorithms 1 and 2, section 3 and appendix (hot diffusion).
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.general.degradation import Blend, Degradation, check_level
from sfumato.seeds import Seed, noise

Restorer = Callable[[Tensor, int], Tensor]
"""`(x_s (batch, *event), s) ->` clean data, shaped as `x_s`."""

Update = Callable[[Degradation, Tensor, Tensor, int], Tensor]
"""`(D, x_s, restored, s) -> x_{s-1}`."""


def naive(degrade: Degradation, x: Tensor, restored: Tensor, level: int) -> Tensor:
    """Algorithm 1: degrade what was restored, a level less."""
    return degrade(restored, level - 1)


def improved(degrade: Degradation, x: Tensor, restored: Tensor, level: int) -> Tensor:
    """Algorithm 2: what the restorer gets wrong alike at both levels cancels."""
    return x - degrade(restored, level) + degrade(restored, level - 1)


def estimated(degrade: Degradation, x: Tensor, restored: Tensor, level: int) -> Tensor:
    """The blend whose other image is the one that `x` and the restored image imply: DDIM, and algorithms 1 and 2 agree on it.

    Raises:
        ArgumentError: a degradation that is no `Blend`.
    """
    return _blend(degrade).seen(x, restored, level)(restored, level - 1)


def renoised(seed: Seed) -> Update:
    """The naive step of a `Blend` with fresh normal noise for the other image at every level; `seed` as in `sfumato.seeds`."""

    def update(degrade: Degradation, x: Tensor, restored: Tensor, level: int) -> Tensor:
        blend = _blend(degrade)
        fresh = noise(seed, len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device).draw(level)
        return Blend(fresh, blend.weights, blend.other_weights)(restored, level - 1)

    return update


def cold_sample(
    restorer: Restorer,
    degrade: Degradation,
    x: Float[Tensor, "batch *event"],
    level: int | None = None,
    update: Update = improved,
) -> Float[Tensor, "batch *event"]:
    """Walk from degraded data to clean data; one evaluation a level.

    Arguments:
        restorer: see `Restorer`, e.g. `learn.RidgeRestorer` or a trained `learn.NetworkRestorer`.
        degrade: what was done to the data.
        x: data at `level`.
        level: from 1 to the hardest, which is the default.
        update: `naive`, `improved`, `estimated`, `renoised(seed)`, or one's own.

    Raises:
        ArgumentError: a level that the degradation does not have.
    """
    level = degrade.levels if level is None else level
    check_level(degrade, level, least=1)
    for s in range(level, 0, -1):
        x = update(degrade, x, restorer(x, s), s)
    return x


def _blend(degrade: Degradation) -> Blend:
    if not isinstance(degrade, Blend):
        raise ArgumentError("degrade", type(degrade).__name__, "a Blend", "Only a blend has another image to find or draw.")
    return degrade
