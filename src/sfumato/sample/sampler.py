"""A denoiser and a program: samples, each of which depends on its seed alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.sample.program import Program
from sfumato.sample.run import Event, Plan, run
from sfumato.seeds import Noise, Seed, noise


@dataclass(frozen=True)
class Sampler:
    """Draws samples of a denoiser by a program.

    Arguments:
        denoiser: the belief; asked under the program's process, whatever its own.
        program: the table.
        event_shape: the shape of one sample.
        dtype, device: of the state. Coefficients are float64 until they are applied.

    Raises:
        ArgumentError: an event shape that is no tuple of sizes.

    Example:
        >>> import torch
        >>> from sfumato.exact import Empirical
        >>> from sfumato.noise import VariancePreserving
        >>> from sfumato.sample import PRESETS, Sampler, uniform_log_snr
        >>> denoiser = Empirical(torch.tensor([[-1.0], [1.0]])).denoiser(VariancePreserving())
        >>> program = PRESETS["dpm-solver++-2m"].compile(denoiser.process, uniform_log_snr(denoiser.process, 10))
        >>> samples = Sampler(denoiser, program, (1,)).sample(6, seed=0)
        >>> [round(v) for v in samples.flatten().tolist()]
        [1, -1, 1, -1, 1, -1]
        >>> Sampler(denoiser, program, (1,)).sample(1, seed=0, first=4).round().item()  # number 4, alone
        1.0
    """

    denoiser: Denoiser
    program: Program
    event_shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        shape: object = self.event_shape
        if not isinstance(shape, tuple) or not all(isinstance(size, int) and size > 0 for size in shape):
            raise ArgumentError("event_shape", shape, "the sizes of one sample, such as (64,) or (3, 32, 32)")

    def start(self, draws: Noise) -> Tensor:
        """Where sampling starts, made of draw 0: the prior at `t = 1`, else `sigma_t` times noise (no signal is known yet)."""
        t = self.program.times[0]
        process = self.program.process
        return process.prior_sample(draws.draw(0)) if t == 1 else float(process.sigma(t)) * draws.draw(0)

    def sample(
        self,
        n: int,
        seed: Seed = 0,
        *,
        condition: Tensor | None = None,
        first: int = 0,
        chunk: int = 256,
        start: Tensor | None = None,
        on_node: Callable[[Event], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """`n` samples `(n, *event)`.

        Sample `i` is a function of `(seed, first + i)`: bit-identical in chunks of one size, and equal to rounding in any other split.

        Arguments:
            n: how many.
            seed: see `sfumato.seeds`.
            condition: `(n, ...)`, passed to the denoiser row by row.
            first: the number of the first sample.
            chunk: how many are computed together; the last chunk is filled up, so that all are of one size.
            start: states `(n, *event)` to start from, instead of draws of the prior.
            on_node: called after every node of every chunk.
            progress: called with the number of samples that are done.

        Raises:
            ArgumentError: no samples asked for, or a chunk of none; a start or condition that is no tensor.
            ShapeError: a start or condition that is not one row per sample.
        """
        if n < 1 or chunk < 1:
            raise ArgumentError("n, chunk", (n, chunk), "at least 1 sample")
        for name, value in (("start", start), ("condition", condition)):
            if value is not None and not isinstance(value, Tensor):
                raise ArgumentError(name, type(value).__name__, f"a tensor of {n} rows, one per sample")
            if value is not None and value.shape[:1] != (n,):
                raise ShapeError(name, tuple(value.shape), f"{n} rows, one per sample")
        if start is not None and tuple(start.shape[1:]) != self.event_shape:
            raise ShapeError("start", tuple(start.shape), f"events of shape {self.event_shape}")
        draws = noise(seed, n, self.event_shape, first=first, dtype=self.dtype, device=self.device)
        plan = Plan.of(self.program, self.dtype, torch.device(self.device))
        denoiser = self.denoiser.under(self.program.process)
        size, out = min(chunk, n), []
        for low in range(0, n, size):
            # a short last chunk is filled with its own last sample, so that rounding does not depend on n
            rows = [min(i, n - 1) for i in range(low, low + size)]
            part = Noise(tuple(draws.keys[i] for i in rows), draws.event, draws.dtype, draws.device)
            x = self.start(part) if start is None else start[rows].to(device=self.device, dtype=self.dtype)
            given = None if condition is None else condition[rows].to(self.device)
            with torch.no_grad():
                x = run(plan, lambda x, t, given=given: denoiser.denoise(x, t, given), x, part, on_node)  # type: ignore[misc]
            out.append(x[: n - low])
            if progress is not None:
                progress(min(low + size, n))
        return torch.cat(out)

    def trajectory(self, n: int, seed: Seed = 0, *, condition: Tensor | None = None, start: Tensor | None = None) -> Sequence[Event]:
        """The events at every node of one chunk of `n` samples."""
        events: list[Event] = []
        self.sample(n, seed, condition=condition, start=start, chunk=n, on_node=events.append)
        return events
