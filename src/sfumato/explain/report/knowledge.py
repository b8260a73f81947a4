"""Questions about what the model's score is made of, and where it came from (cards T1, T3, T4 and T6 of the atlas)."""

from __future__ import annotations

import math
from dataclasses import replace

from sfumato.denoise import Network, Preconditioned
from sfumato.explain.generalising.memorization import memorization
from sfumato.explain.generalising.proxy_map import proxy_map
from sfumato.explain.generalising.reference_tables import RATIOS, REFERENCES
from sfumato.explain.generalising.section import Section
from sfumato.explain.learning.learning import LearningProbe, learning_report
from sfumato.explain.learning.learning_twins import gaussian_twin, untrained_twin
from sfumato.explain.report.panel import Panel
from sfumato.explain.report.subject import Subject
from sfumato.explain.sampling.teleport import teleport_forecast
from sfumato.explain.score.linear_probe import linear_probe
from sfumato.explain.score.score_probe import NEARLY, score_probe
from sfumato.learn import default_loss, default_settings

_PROBES = 256
_JUMPS = (12.0, 6.0, 3.0, 1.5)
_TWIN_STEPS = 600
_LOOKS = 12
_COMPONENTS = 64
_SHOWN = 12


def gaussian(subject: Subject) -> Panel:
    """How much of the score the data's mean and covariance explain."""
    process = subject.denoiser.process
    approximants = {name: law.denoiser(process) for name, law in subject.worlds.approximants().items()}
    ratios = [k for k in RATIOS if k <= float(process.ratio(1.0))]
    x0 = subject.data.train[: subject.afford(_PROBES, len(ratios))]
    probe = score_probe(subject.denoiser, approximants, x0, ratios, seed=subject.seed)
    level = probe.crossing("gaussian")
    rows = [[f"this model, {name}", *means] for name, (means, _) in probe.explained.items()]
    for table in REFERENCES.values():
        rows += [[f"{table.model}, {name}", *shares[: len(ratios)]] for name, shares in table.score.items()]
    return Panel(
        "gaussian",
        "How much of what it learned is a Gaussian?",
        "Far from the data any distribution looks like a Gaussian with its mean and covariance. The picture shows what is left unexplained "
        "by that Gaussian, by a coarser one with a single variance (the twin without structure), by a small mixture, and by the training "
        "points themselves, which is what a model that memorises would be.",
        [(f"Share of the score that closed forms leave unexplained{_of(subject)}", probe)],
        f"Above noise level {level:.2g} the model adds less than {1 - NEARLY:.0%} to a matrix product of its data's covariance."
        if level is not None
        else "At no level looked at does the Gaussian explain nearly all: do not replace the model by a closed form.",
        tables=[("Explained share of the score, beside published models", ["", *(f"{k:g}" for k in ratios)], rows)],
    )


def _of(subject: Subject) -> str:
    """Which part of the training data stands for all of them in the empirical law, where not all do."""
    held, n = len(subject.worlds.empirical), len(subject.data.train)
    return "" if held == n else f" (training points: {held:,} of {n:,})"


def linear(subject: Subject) -> Panel:
    """Which part of the answer is linear, and whether that part is right."""
    levels = subject.levels(0.1, 10.0)
    components = max(1, min(subject.afford(50 * _COMPONENTS, len(levels)) // 50, subject.law.covariance.rank))
    probe = linear_probe(
        subject.denoiser,
        subject.law,
        subject.data.train,
        levels,
        components=components,
        probes=50 * components,
        jacobian=0,
        seed=subject.seed,
    )
    off = [level for level in probe.levels if level.verdict == "off"]
    rows = [[f"{v.ratio:g}", v.verdict, v.cosine, v.leading_error, v.nonlinear, v.antisymmetric] for v in probe.levels]
    return Panel(
        "linear",
        "Has it learned its data's covariance right?",
        "The best linear denoiser of any data is that of the Gaussian with their mean and covariance, so the linear part of a good model "
        "is known beforehand: mode by mode it shrinks by l / (l + k^2). What is left is what the model knows beyond second moments.",
        [("Shrinkage of three modes, and the share of the answer that is not linear", probe)],
        "Its linear part is what the covariance asks for at every level; train longer only for what lies beyond."
        if not off
        else f"Its linear part is off at noise level {', '.join(f'{v.ratio:.2g}' for v in off)}: more training there, or Gaussian "
        "preconditioning, which starts from the right answer.",
        tables=[
            ("By noise level", ["noise level", "verdict", "cosine to theory", "worst leading mode", "non-linear", "antisymmetric"], rows)
        ],
    )


def teleport(subject: Subject) -> Panel:
    """How much of the sampling the closed form can do."""
    top = float(subject.denoiser.process.ratio(1.0))
    tried = [k for k in _JUMPS if k < top]
    report = teleport_forecast(
        subject.denoiser, subject.law, measure_at=tried, batch=subject.afford(64, 40 + 60 * (1 + len(tried))), seed=subject.seed
    )
    return Panel(
        "teleport",
        "How much of the sampling can be skipped?",
        "The flow of the Gaussian is solved in closed form, so samples can be carried through the noisy part of the way at once. The cost "
        "is predicted from a few evaluations and measured; without the Gaussian's gain the prediction is wrong.",
        [("Error of the final sample by the level teleported to", report)],
        f"Start at noise level {report.ratio:.2g} instead of pure noise and save {report.saved:.0%} of the steps, as sfumato tune does."
        if report.within
        else "Start from pure noise: no jump keeps the error within tolerance.",
    )


def memory(subject: Subject) -> Panel:
    """Whether samples are copies of training data, and where the training target is noisy."""
    report = memorization(subject.paths.end, subject.data.train, subject.data.test)
    process = subject.denoiser.process
    section = Section.of(subject.data.train)
    target = proxy_map(subject.worlds.empirical, process, subject.levels(0.1, 2.0), section, seed=subject.seed)
    shown = subject.paths.end[:_SHOWN]
    return Panel(
        "memory",
        "Has it memorised its training data?",
        "A copy lies much nearer to one training event than to any other; held-out data, which nobody copied, say how often that happens "
        "by chance. The map shows where the training target itself is mostly noise: between training points, where models generalise, or "
        "fail to, each in its own way.",
        [
            ("Distance to the nearest training event over that to the second nearest", report),
            (f"Where the training target is noise{_of(subject)}", target),
        ],
        ("Yes: " if report.fraction > report.reference + 3 * max(report.standard_error, 1e-3) else "No: ")
        + f"{report.fraction:.1%} of its samples are copies by this measure, and {report.reference:.1%} of held-out data are.",
        {"samples": shown, "nearest training events": subject.data.train[report.nearest[: len(shown)]]},
    )


def learning(subject: Subject) -> Panel:
    """In which order its structure is learned."""
    title = "In which order is it learned?"
    idea = (
        "A network of the same architecture is trained from scratch on the same data, behind scalings that know nothing but the data's "
        "variance, and watched. Theory says that the Gaussian is learned first and then refined, and that directions are learned in the "
        "order of their variance. The twin learns samples of the Gaussian itself, where there is nothing to refine."
    )
    model = subject.denoiser
    if not isinstance(model, Preconditioned) or not isinstance(model.network, Network):
        return Panel("learning", title, idea, missing="the network is not one that can be built again from scratch here.")
    law, data = subject.law, subject.data
    settings = replace(default_settings(data, seed=subject.seed, steps=_TWIN_STEPS), schedule="constant", learning_rate=1e-3)
    if subject.afford(_TWIN_STEPS, 6 * settings.batch_size) < _TWIN_STEPS:
        size = " x ".join(map(str, data.event_shape))
        return Panel("learning", title, idea, missing=f"training twins on events of {size} takes long; `explain.learning_report` does it.")
    plain = Preconditioned(untrained_twin(model).network, model.process, math.sqrt(float(law.covariance.trace()) / law.dim))
    probe = LearningProbe(subject.worlds, data.train[: subject.afford(_PROBES, 5 * _LOOKS)], subject.levels(0.1, 2.0), seed=subject.seed)
    own = learning_report(plain, data, settings, default_loss(data), probe=probe, records=_LOOKS)
    twin = learning_report(plain, gaussian_twin(data, law), settings, default_loss(data), probe=replace(probe, samples=0), records=_LOOKS)
    report = own.beside(twin)
    answers = [("Share of the score that the Gaussian explains, by training step", report.curve)]
    modes = [] if report.modes is None else [("When each direction of the data is learned", report.modes)]
    level = report.curve.headline
    return Panel(
        "learning",
        title,
        idea,
        [*answers, *modes],
        f"The Gaussian part is learned by step {level.peak_step} of {_TWIN_STEPS} (explained: {level.peak:.0%} at noise level "
        f"{level.ratio:.2g}); what comes after is finer structure. With Gaussian preconditioning the first phase is not needed.",
    )
