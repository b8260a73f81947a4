r"""Least squares with a ridge that does not ask for units."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def ridge_solve(gram: Float[Tensor, "*b f f"], moment: Float[Tensor, "*b f"], ridge: float) -> Float[Tensor, "*b f"]:
    """The coefficients `c` that minimise `|goal - features c|^2 + ridge |size c|^2`, `size` each feature's own length.

    Features that are absent take no part, and of collinear ones the shortest solution is taken.

    Arguments:
        gram: the features' inner products.
        moment: their inner products with the goal.
        ridge: strength, relative to each feature's length.
    """
    size = torch.sqrt(gram.diagonal(dim1=-2, dim2=-1).clamp(min=0))
    unit = torch.where(size > 0, 1 / size, 0.0)
    scaled = gram * unit[..., :, None] * unit[..., None, :] + ridge * torch.diag_embed((size > 0).to(gram.dtype))
    inverse = torch.linalg.pinv(scaled, hermitian=True, rtol=1e-13)
    return unit * torch.einsum("...fg,...g->...f", inverse, moment * unit)
