"""Makes the pictures of the theory chapters: `python docs/theory/pictures.py [FOLDER]`; a few minutes on two cores."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from sfumato.atlas.networks import digits_network
from sfumato.data import digits
from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.exact import Empirical, Ring, noise_bridge
from sfumato.explain import (
    Dynamics,
    LearningProbe,
    emergence,
    gaussian_twin,
    learning_report,
    linear_probe,
    most_likely_path,
    reverse_times,
    score_probe,
    teleport_forecast,
)
from sfumato.explain.generalising.proxy_map import proxy_map
from sfumato.explain.generalising.section import Section
from sfumato.explain.worlds import fit_worlds
from sfumato.learn import FitSettings, default_loss
from sfumato.noise import EDM
from sfumato.sample import reference, reference_times
from sfumato.seeds import noise

LEVELS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def main(folder: Path) -> None:
    """Make every picture in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data = digits()
    worlds, model = fit_worlds(data), digits_network()
    process = model.process
    approximants = {name: law.denoiser(process) for name, law in worlds.approximants().items()}
    start = process.prior_sample(noise(0, 256, data.event_shape).draw(0))
    paths = reference(model.denoise, start, process, worlds.gaussian, reference_times(process, 60))
    _draw(folder / "gaussian.png", score_probe(model, approximants, data.train[:512], (0.05, *LEVELS)).plot)
    _draw(folder / "teleport.png", teleport_forecast(model, worlds.gaussian, measure_at=(12.0, 6.0, 3.0, 1.5)).plot)
    _draw(folder / "linear.png", linear_probe(model, worlds.gaussian, data.train, LEVELS, jacobian=0).plot)
    _draw(folder / "painters.png", emergence(model, paths, worlds.gaussian).plot)
    _draw(folder / "variance.png", proxy_map(Empirical(data.train), process, [0.3, 1.0], Section.of(data.train), cells=61).plot)
    scale = math.sqrt(float(worlds.gaussian.covariance.trace()) / worlds.gaussian.dim)
    plain = Preconditioned(ResidualMLP(data.event_shape, 256, 3), EDM(), scale)
    settings, probe = FitSettings(1600, warmup=0), LearningProbe(worlds, data.train[:256], (0.3,), samples=0)
    own = learning_report(plain, data, settings, default_loss(data), probe=probe)
    twin = learning_report(plain, gaussian_twin(data, worlds.gaussian), settings, default_loss(data), probe=probe)
    _draw(folder / "learning.png", own.beside(twin).curve.plot)
    _draw(folder / "symmetry.png", _ring)


def _ring(ax: Any) -> None:
    process = EDM(2.0)
    reverse = Dynamics.reverse(Ring(2.0, 0.5).denoiser(process), (2,))
    start, end = torch.tensor([0.0, 3.0], dtype=torch.float64), torch.tensor([math.sqrt(2)] * 2, dtype=torch.float64)
    times = reverse_times(process, 2.0, 0.2, 120)
    mean, _ = noise_bridge(process, end, start, 0.1, 1.0, 1 - times)
    likely = most_likely_path(reverse, start, end, times).path
    small = most_likely_path(reverse, start, end, times, action="freidlin-wentzell").path
    turn = torch.linspace(0, 2 * math.pi, 200)
    ax.plot(2 * turn.cos(), 2 * turn.sin(), color="0.8", lw=6, label="ring of the data")
    ax.plot(*likely.T, color="C0", label="Onsager-Machlup")
    ax.plot(*mean.T, "--", color="C1", label="exact mean of all paths between the ends")
    ax.plot(*small.T, ":", color="C2", label="small noise (Freidlin-Wentzell)")
    ax.plot(*torch.stack([start, end]).T, "ko")
    ax.set(xlim=(-1, 2.6), ylim=(0.2, 3.3), aspect="equal")
    ax.legend(loc="lower left")


def _draw(path: Path, plot: Callable[[Any], None]) -> None:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained", dpi=110)
    plot(figure.subplots())
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
