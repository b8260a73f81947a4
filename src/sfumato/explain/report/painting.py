"""Questions about how samples come about: outline first, details later (card T5 of the atlas)."""

from __future__ import annotations

import torch

from sfumato.errors import ArgumentError
from sfumato.explain.generalising.manifold import manifold_dimension
from sfumato.explain.report.panel import Panel
from sfumato.explain.report.subject import STEPS, Subject
from sfumato.explain.sampling.emergence import emergence
from sfumato.explain.sampling.response import perturbation_response
from sfumato.explain.sampling.trajectory import trajectory_report
from sfumato.explain.sampling.variation_sheet import variation_sheet
from sfumato.explain.score.landscape import mode_tree

_CLIMBS = 64
_KICKED = 96
_POINTS = 24
_DIRECTIONS = 48
_SHEET = 2
_AMPLITUDES = (-1.5, -1.0, -0.5, 0.5, 1.0, 1.5)


def trajectory(subject: Subject) -> Panel:
    """How planar the way from noise to a sample is."""
    report = trajectory_report(subject.paths, denoiser=subject.denoiser, law=subject.law, seed=subject.seed)
    plane, twin = report.states.planar, report.forward.planar
    return Panel(
        "trajectory",
        "How complicated is the way from noise to a sample?",
        "In variance-preserving coordinates the flow of a Gaussian is a rotation from the noise to the sample, in the plane that the two "
        "span, but for the few directions in which the data vary most. Noising paths that end in the same samples have no such plane.",
        [("The motion that leading components of a path leave out", report)],
        f"One plane holds {plane:.1%} of a path's motion (noising paths: {twin:.0%}), so a solver has little to follow: "
        + ("large steps are safe." if plane > 0.98 else "expect to need more steps than for data nearer to a Gaussian."),
    )


def features(subject: Subject) -> Panel:
    """Which features appear when."""
    report = emergence(subject.denoiser, subject.paths, subject.law)
    first, last = report.numbers["first_emerges_at"], report.numbers["last_emerges_at"]
    follows = report.rank_correlation > 0.8
    return Panel(
        "emergence",
        "Which features appear first?",
        "For a Gaussian, the component of variance l is decided when the noise-to-signal ratio falls through sqrt(l): outlines, which have "
        "the most variance, come first. A model that has memorised its data decides everything at once.",
        [("When each component of the data is decided", report)],
        ("Large features come first, as theory says: " if follows else "The order of features does not follow their variance: ")
        + f"components are decided between noise levels {first:.2g} and {last:.2g}; spend the evaluations there.",
    )


def response(subject: Subject) -> Panel:
    """What early and late disturbances change."""
    labeller = subject.label if subject.data.train_labels is not None else None
    ratios = [k for k in (40.0, 12.0, 3.8, 1.26, 0.68, 0.34, 0.16) if k <= float(subject.denoiser.process.ratio(1.0))]
    report = perturbation_response(
        subject.denoiser,
        subject.paths[: subject.afford(_KICKED, 3 * STEPS * len(ratios))],
        subject.law,
        ratios,
        labeller=labeller,
        seed=subject.seed,
    )
    return Panel(
        "response",
        "When can a sample still be changed?",
        "A disturbance of the same size relative to the noise is made early and late, and sampling is finished. For a Gaussian the shift "
        "of the sample has a closed form; run backwards in time it is wrong.",
        [("How far a kick along the leading component moves the sample", report)],
        f"A disturbance at noise level {report.ratios[0]:.2g} changes a sample by {report.changes[0]:.2f}, one at "
        f"{report.ratios[-1]:.2g} by {report.changes[-1]:.2f}: guidance and edits that change what is shown belong to the early levels, "
        "touch-ups to the late ones.",
    )


def landscape(subject: Subject) -> Panel:
    """How many modes there are at each noise level."""
    report = mode_tree(subject.denoiser, subject.levels(0.1, 5.0), subject.data.train[: subject.afford(_CLIMBS, 500)], iterations=300)
    single = report.single_from
    return Panel(
        "landscape",
        "When is it decided what a sample becomes?",
        "Points climb the model's density at falling noise levels. A Gaussian has one mode at every level; a model that holds every "
        "training point as a mode of its own has as many as there are points.",
        [("Modes found from training points", report)],
        f"Above noise level {single:.2g} there is one mode, so nothing is decided there; "
        f"at {report.levels[0].ratio:.2g} the {report.starts} points climb to {report.counts[0]} modes."
        if single < float("inf")
        else f"Several modes remain at every level looked at: {report.counts[-1]} at {report.levels[-1].ratio:.2g}.",
    )


def manifold(subject: Subject) -> Panel:
    """In how many directions the model varies, and which they are."""
    levels = subject.levels(0.1, 5.0)
    dimension = manifold_dimension(
        subject.denoiser,
        subject.data.test[: subject.afford(_POINTS, 4 * _DIRECTIONS * len(levels))],
        levels,
        subject.law,
        k=min(subject.dim, subject.afford(_DIRECTIONS, 200)),
        seed=subject.seed,
    )
    sheet = variation_sheet(
        subject.denoiser, subject.paths[:_SHEET], subject.law, (2.0, 1.0, 0.3), k=3, amplitudes=_AMPLITUDES, seed=subject.seed
    )
    half, sheets = len(_AMPLITUDES) // 2, {}
    for row in sheet.rows:
        for j in range(row.samples.shape[1]):
            varied = torch.cat([row.samples[:, j, :half], row.base[:, None], row.samples[:, j, half:]], 1).flatten(0, 1)
            sheets[f"direction {j + 1} from noise level {row.ratio:.2g}, predicted shift {row.predicted[j]:.2g}"] = varied
    return Panel(
        "manifold",
        "In how many directions does it vary, and which?",
        "Where the denoiser's Jacobian has a gain above one half, the data vary around the point by more than the noise. Kicks along its "
        "leading directions move the finished sample by a predicted amount; random directions of the same size do not.",
        [("Directions that vary more than the noise", dimension), ("Kicks along leading directions", sheet)],
        f"At noise level {dimension.ratios[0]:.2g} samples vary in about {dimension.dimensions[0]:.0f} of {dimension.dim} directions. "
        "The strips show two samples varied along their leading directions, from early (layout) to late (detail).",
        sheets,
    )


def symmetry(subject: Subject) -> Panel:
    """Which symmetries the model's field has."""
    from sfumato.explain.noether.dynamics import Dynamics
    from sfumato.explain.noether.symmetry import noisy_states, symmetry_report

    levels = subject.levels(0.2, 5.0)
    if not levels:
        raise ArgumentError("process", subject.denoiser.process.kind, "one with noise-to-signal ratios above 0.2")
    dynamics = Dynamics.reverse(subject.denoiser, subject.data.event_shape, dtype=subject.data.train.dtype)
    report = symmetry_report(
        dynamics, *noisy_states(subject.denoiser, subject.data.train[: subject.afford(128, 20 * len(levels))], levels, seed=subject.seed)
    )
    best = report.ranked[0]
    return Panel(
        "symmetry",
        "Which symmetries does it have?",
        "A symmetry of drift and noise gives a quantity that most likely paths conserve. The violation is 0 for a symmetry and about 1 for "
        "a direction that has nothing to do with one.",
        [("Violation of translations and rotations among the leading directions", report)],
        f"The nearest to a symmetry is {best}. Rely on conserved quantities along most likely paths only where its violation is small.",
    )
