r"""Matching the law of what a student generates: by the difference of two scores, and by patches.

*Two scores* (distribution matching distillation). A student's samples `y` are noised to a random time; with the teacher's belief `D_real`
and that of a second denoiser `D_fake`, which is trained on the student's samples beside it,

    g = (D_fake(y_t) - D_real(y_t)) / mean |y - D_real(y_t)|,        L = 1/2 |y - stop(y - g)|^2 / size,

whose gradient is that of the divergence of the two noisy laws: it vanishes where they agree.

*Patches*. The tokens of one event are a sample of their own, of its real twin another; with pseudo-Huber differences of their means, or
any kernel's unbiased `MMD^2`, averaged over events:

    mean_d( sqrt((mean_tok f_real - mean_tok f_fake)^2 + c^2) - c ).

Source: Yin et al. 2024 (arXiv 2311.18828), eqs. 7-8; patches: Starodubcev et al. 2025 (arXiv 2503.16397), section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import unfold

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.learn.students.kernels import Kernel, kernel_loss
from sfumato.learn.training.descent import normal
from sfumato.noise import over_events


class DistributionMatching:
    """The loss of two scores; each call first trains the second one on the student's samples.

    Arguments:
        teacher: the belief about the data, e.g. guided.
        fake: a `Denoiser` that is a module, best a copy of the teacher.
        times: between which the samples are noised.
        updates: training steps of `fake` a call.
        rate: its learning rate.
        seed: of the times and the noise.

    Raises:
        ArgumentError: a `fake` that is no denoiser with parameters, or times outside `0 < low < high <= 1`.
    """

    def __init__(
        self,
        teacher: Denoiser,
        fake: nn.Module,
        times: tuple[float, float] = (0.02, 0.98),
        *,
        updates: int = 1,
        rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if not isinstance(fake, Denoiser) or not any(True for _ in fake.parameters()):
            raise ArgumentError("fake", type(fake).__name__, "a Denoiser that is a module with parameters")
        if not 0 < times[0] < times[1] <= 1:
            raise ArgumentError("times", times, "0 < low < high <= 1")
        self.teacher, self.fake, self.times, self.updates = teacher, fake, times, updates
        self._optimiser = torch.optim.Adam(fake.parameters(), rate)
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        """The student's loss on its samples `fake`; `real` is not looked at."""
        for _ in range(self.updates):
            noisy, t = self._noised(fake.detach())
            off = self.fake.denoise(noisy, t) - fake.detach()
            alpha, sigma = self.teacher.process.levels(t)
            # the errors of all times on one scale
            loss = (over_events(1 + alpha / sigma, off) * off).square().mean()
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
        with torch.no_grad():
            noisy, t = self._noised(fake)
            truth, mine = self.teacher.denoise(noisy, t), self.fake.denoise(noisy, t)
            size = (fake - truth).flatten(1).abs().mean(1).to(torch.float64)
            pull = over_events(1 / size, fake) * (mine - truth)
        return 0.5 * (fake - (fake - pull).detach()).square().mean()

    def _noised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.times
        t = low + (high - low) * torch.rand(len(clean), generator=self._generator, dtype=torch.float64)
        return self.teacher.process.sample(clean, t, normal(clean, self._generator)), t


def patches(x: Float[Tensor, "n c h w"], side: int = 2) -> Float[Tensor, "n tokens size"]:
    """All overlapping patches of `side` by `side` pixels, as tokens."""
    return unfold(x, side).transpose(1, 2)


def token_loss(
    fake: Float[Tensor, "n tokens d"], real: Float[Tensor, "n tokens d"], kernel: Kernel | None = None, *, huber: float = 1e-3
) -> Float[Tensor, ""]:
    """The loss of patches of the module's head, event by event; without a kernel that of the means.

    Raises:
        ArgumentError: a `c` that is not positive.
    """
    if not huber > 0:
        raise ArgumentError("huber", huber, "a positive number")
    if kernel is None:
        away = fake.mean(1) - real.mean(1)
        return ((away.square() + huber**2).sqrt() - huber).mean()
    return torch.stack([kernel_loss(a, b, kernel) for a, b in zip(fake, real, strict=True)]).mean()
