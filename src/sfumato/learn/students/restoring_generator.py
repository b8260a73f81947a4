r"""Generators that restore: data fidelity plus a term that matches laws, in place of the mean square error.

A minimiser of the mean square error says the posterior mean, a blur at high degradation, and so needs many small steps. Instead

    L = lambda E misfit(G(y_k, k, z), y_k)  +  prior(G(y_k, k, z), x),        misfit = |A_k x - y_k|^2 / 2 sigma_k^2,        z ~ N(0, I),

where the prior compares batches (`learn.sample_priors`), so that restored data has the law of data; what `y_k` leaves open is `z`'s affair.
Step by step, `y^_{k-1}` is drawn from what was restored, and `prior(y^_{k-1}, y_{k-1})` and the misfit of `y_k` given `y^_{k-1}` are taken.

Sampling: `x^ = G(y_k, k, z)`, `y_{k-1} ~ N(A_{k-1} x^, Sigma_{k-1})`, for `k = K ... 1`, and the last `x^`.

Source: Choi et al. 2023 (arXiv 2303.05456), equations 5 to 9 and algorithms 1 and 2.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise import Network
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn.students.sample_priors import SamplePrior
from sfumato.learn.training.descent import descend, normal, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.noise.general.noisy_levels import NoisyLevels
from sfumato.seeds import Seed, noise

Matches = Literal["clean", "step"]
"""What is compared: restored with clean data, or what is redrawn of it a level lower with true data there."""


class RestoringGenerator(nn.Module):
    """`G(y, k, z)`, a network over the flat event with the latent numbers behind it.

    Arguments:
        network: over events `(dim + latent,)`; of its answer the first `dim` numbers are read.
        levels: the chain whose data it restores.
        event_shape: of the data, `dim` numbers.
    """

    def __init__(self, network: Network, levels: NoisyLevels, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.levels, self.event_shape = network, levels, tuple(event_shape)
        self.dim = torch.Size(event_shape).numel()
        if len(network.event_shape) != 1 or network.event_size < self.dim:
            raise ShapeError("network", network.event_shape, f"flat events of at least {self.dim} numbers")
        self.latent = network.event_size - self.dim

    def forward(self, y: Float[Tensor, "batch *event"], level: int, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch *event"]:
        label = torch.full((len(y),), 5 * level / self.levels.levels - 2.5, dtype=y.dtype, device=y.device)
        said: Tensor = self.network(torch.cat([y.flatten(1), z], 1), label)
        return said[:, : self.dim].reshape(y.shape)

    @torch.no_grad()
    def sample(self, start: Float[Tensor, "batch *event"], seed: Seed) -> Float[Tensor, "batch *event"]:
        """Restore and degrade a level less, from `start`, data at the last level, on; one evaluation a level."""
        levels, x = self.levels, start
        kinds = [noise(seed, len(start), event, dtype=start.dtype, device=start.device) for event in ((self.latent,), self.event_shape)]
        for k in range(levels.levels, 0, -1):
            # the two kinds of noise share keys, so they take the even and the odd draws
            x = self(start, k, kinds[0].draw(2 * k))
            start = levels.apply(x, k - 1, kinds[1].draw(2 * k + 1))
        return x


def fit_restoring_generator(
    generator: RestoringGenerator,
    data: Float[Tensor, "n *event"],
    settings: FitSettings,
    prior: SamplePrior | None,
    fidelity: int | float,
    *,
    matches: Matches = "clean",
) -> Tensor:
    """Train in place; the losses `(steps,)`. Each batch has one level, drawn evenly.

    Arguments:
        generator: to be trained.
        data: clean.
        settings: of the run.
        prior: the term that matches laws, or None: then the loss is the mean square error of `G` against the clean data.
        fidelity: `lambda`, at least 0; of no effect without a prior.
        matches: see `Matches`; "step" needs noise added at every level.

    Raises:
        ArgumentError: a negative fidelity, another law to match, a level without noise, a loss that is not finite.
    """
    if matches not in get_args(Matches):
        raise ArgumentError("matches", repr(matches), f"one of {', '.join(get_args(Matches))}")
    if not fidelity >= 0:
        raise ArgumentError("fidelity", fidelity, "a weight of at least 0")
    levels = generator.levels

    def objective(source: torch.Generator) -> Tensor:
        clean, other = (data[pick_rows(len(data), settings.batch_size, source)] for _ in range(2))
        level = int(torch.randint(1, levels.levels + 1, (), generator=source))
        y = levels.apply(clean, level, normal(clean, source))
        made = generator(y, level, torch.randn(len(y), generator.latent, generator=source, dtype=y.dtype).to(y.device))
        if prior is None:
            return (made - clean).square().mean()
        if matches == "step":
            made, other = (levels.apply(x, level - 1, normal(x, source)) for x in (made, other))
        misfit = levels.misfit if matches == "clean" else levels.step_misfit
        fit = fidelity * misfit(made, y, level).mean() if fidelity else 0.0
        return fit + prior(made, other, source)

    return descend(generator, objective, settings)
