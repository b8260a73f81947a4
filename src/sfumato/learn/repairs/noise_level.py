r"""A classifier that tells how noisy data are: `log p(j | x)` over noise levels, for chains that move between levels.

Trained by cross-entropy on `x_{t_j}` with `j` drawn from the levels' prior, so that at the optimum it is the exact posterior. It sees the
data at unit root mean square and, beside them, the logarithm of what they were divided by. Source: Kim & Ye 2022 (arXiv 2209.14593),
section 3.2 and appendix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess


class NoiseLevelClassifier(nn.Module):
    """Logits of noise levels: four layers of convolution and pooling for images, a perceptron for all other events.

    Arguments:
        event_shape: of the data; three numbers are an image's channels, height and width.
        levels: how many.
        width: of the layers.
        seed: of the first weights.
    """

    def __init__(self, event_shape: Sequence[int], levels: int, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        if levels < 2 or width < 1:
            raise ArgumentError("levels, width", (levels, width), "at least 2 levels, and a positive width")
        self.event_shape, self.levels = tuple(event_shape), levels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            if len(self.event_shape) == 3:
                channels = self.event_shape[0]
                for _ in range(4):
                    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2, ceil_mode=True)]
                    channels = width
                layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            else:
                layers += [nn.Flatten(), nn.Linear(int(torch.tensor(self.event_shape).prod()), width), nn.SiLU()]
            self.body = nn.Sequential(*layers)
            self.head = nn.Sequential(nn.Linear(width + 1, width), nn.SiLU(), nn.Linear(width, levels))

    def forward(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, "batch levels"]:
        """`log p(j | x)` up to a constant of each row, float32."""
        if tuple(x.shape[1:]) != self.event_shape:
            raise ShapeError("x", tuple(x.shape), f"events of shape {self.event_shape}")
        x = x.to(torch.float32)
        size = x.flatten(1).square().mean(1).clamp(min=torch.finfo(torch.float32).tiny).sqrt()
        seen = self.body(x / size.reshape(-1, *[1] * (x.ndim - 1)))
        out: Tensor = self.head(torch.cat([seen, torch.log(size)[:, None]], 1))
        return out


def fit_noise_levels(
    classifier: NoiseLevelClassifier,
    data: Float[Tensor, " n *event"],
    process: ScalarProcess,
    times: Sequence[float],
    steps: int = 1000,
    batch: int = 256,
    rate: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """Train a classifier in place, with equally likely levels; the cross-entropy of every step, in nats.

    Arguments:
        data: clean.
        process, times: the levels.
        steps, batch, rate: of Adam.
        seed: of the batches and their noise.

    Raises:
        ArgumentError: another number of times than the classifier's levels, or nothing to do.
    """
    if len(times) != classifier.levels or steps < 1 or batch < 1:
        raise ArgumentError("times, steps, batch", (len(times), steps, batch), f"{classifier.levels} times, and positive counts")
    generator = torch.Generator().manual_seed(seed)
    clock, losses = torch.tensor(list(times), dtype=torch.float64), []
    optimiser = torch.optim.Adam(classifier.parameters(), rate)
    for step in range(steps):
        rows = torch.randint(len(data), (batch,), generator=generator)
        level = torch.randint(len(clock), (batch,), generator=generator)
        draw = torch.randn(batch, *data.shape[1:], generator=generator, dtype=data.dtype)
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        loss = cross_entropy(classifier(process.sample(data[rows], clock[level], draw)), level)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses
