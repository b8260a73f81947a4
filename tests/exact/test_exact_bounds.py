"""Both sides of every bound that this room states: the last value that means something is taken, the first that does not is refused."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact import (
    Blend,
    CoupledGaussian,
    DriftDiffusion,
    Empirical,
    ExpandedGaussian,
    Gaussian,
    GaussianMixture,
    Line,
    LineDensity,
    LocalFilter,
    Moments,
    OneLayer,
    ReversibleLine,
    Ring,
    Separation,
    SpectralCovariance,
    TwoLayer,
    affine_weights,
    data_separation,
    far_field,
    fit_gaussian,
    fit_mixture,
    fokker_planck,
    gaussian_gap_1d,
    guided_flow,
    learning_times,
    linear_transition,
    noise_bridge,
    proxy_variance,
    reverse_kernel,
)
from sfumato.exact.spectral.basis import CosineBasis, MatrixBasis
from sfumato.noise import EDM, FlowMatching, VariancePreserving

F64 = torch.float64
ONE, EYE = torch.ones(1, dtype=F64), torch.eye(2, dtype=F64)
LINE = Line(0.0, 1.0, 4)
FLAT = LineDensity(LINE, torch.ones(4, dtype=F64))
DRIFT = DriftDiffusion(0.1, 1.0)
POINTS = torch.tensor([[0.0, 0.0], [2.0, 0.5], [-1.0, 3.0], [0.5, -2.0]], dtype=F64)
MIX1 = GaussianMixture([0.3, 0.7], torch.tensor([[-1.0], [2.0]], dtype=F64), [SpectralCovariance.isotropic(1, v) for v in (0.5, 1.5)])
NORMAL = Gaussian(torch.zeros(2, dtype=F64), SpectralCovariance.isotropic(2, 1.0))


def at(*values):
    return torch.tensor(values, dtype=F64)


def moved(u):
    return lambda x, t: torch.full_like(x, u)


def unit(mean_square):
    """A one-dimensional law of mean 0 and that mean square."""
    return GaussianMixture(None, torch.zeros(1, 1, dtype=F64), [SpectralCovariance.isotropic(1, mean_square)])


def shifted(mean):
    """Of mean square 1."""
    return GaussianMixture(None, at([mean]), [SpectralCovariance.isotropic(1, 1 - mean**2)])


def tilted(angle):
    """Two columns with a scalar product of `sin(angle)`."""
    return at([1.0, math.sin(angle)], [0.0, math.cos(angle)])


def records(n, first=0.0, step=1.0):
    return first + step * torch.arange(n, dtype=F64)


def line_of(span):
    return ReversibleLine(LINE, lambda x: torch.linspace(0, -span, 4, dtype=F64))


TAKEN = {
    "times just inside": lambda: DRIFT.conditioned_mean(at(0.5), 0.0, 1.0),
    "two cells": lambda: Line(0.0, 1.0, 2),
    "an empty cell": lambda: LineDensity(LINE, at(0.0, 0.0, 1.0, 0.0)),
    "falling times": lambda: fokker_planck(FLAT, [1.0, 0.0], moved(0.1), moved(0.1)),
    "no diffusion": lambda: fokker_planck(FLAT, [0.0, 1.0], moved(0.1), moved(0.0)),
    "a fall of 599": lambda: line_of(599.0),
    "time 0": lambda: line_of(1.0).density(FLAT, 0.0),
    "no duration": lambda: linear_transition(EYE, at(1.0, 1.0), EYE, 0),
    "bridge ends": lambda: noise_bridge(VariancePreserving(), at(1.0), at(0.0), 0.2, 0.6, at(0.2, 0.6)),
    "bridge ends, to rounding": lambda: noise_bridge(VariancePreserving(), at(1.0), at(0.0), 0.2, 0.6, at(0.2 - 9e-13, 0.6 + 9e-13)),
    "no correlation": lambda: CoupledGaussian.of_correlation(1.0, 0.0),
    "ring without width": lambda: Ring(1.0, 0.0),
    "observation without noise": lambda: NORMAL.given(at([1.0, 0.0]), at(1.0), 0.0),
    "one component, one iteration, no floor": lambda: fit_mixture(POINTS, 1, floor=0.0, iterations=1),
    "rank 0": lambda: fit_mixture(POINTS, 1, rank=0),
    "rank dim - 1": lambda: fit_mixture(POINTS, 1, rank=1),
    "all ranks": lambda: fit_gaussian(POINTS, rank=2, floor=0.99, passes=1),
    "no rank": lambda: fit_gaussian(POINTS, rank=0),
    "one dimension": lambda: Moments(1),
    "small ratio": lambda: far_field(POINTS, NORMAL, [1e-3]),
    "two points": lambda: far_field(POINTS[:2], NORMAL, [1.0]),
    "whole even window": lambda: LocalFilter(torch.zeros(2, 3, dtype=F64), (2, 3)).filter(1.0, 0.0),
    "order 1": lambda: ExpandedGaussian(NORMAL, EDM(), 1),
    "order 2": lambda: ExpandedGaussian(NORMAL, EDM(), 2),
    "two records from time 0": lambda: learning_times(records(2), torch.ones(2, 1), torch.ones(1), smooth=0.0),
    "equal noise levels": lambda: OneLayer(0.1).generated_variance(1.0, 1.0, 2.0, 2.0),
    "variance without noise": lambda: OneLayer(0.1).weight(1.0, 0.0, 0.0),
    "noise without variance": lambda: OneLayer(0.1).weight(0.0, 1.0, 0.0),
    "untrained, no noise": lambda: affine_weights(at(0.0, 1.0), EYE, 0.0, 0.0, EYE, at(0.0, 0.0)),
    "the whole way": lambda: reverse_kernel(MIX1, VariancePreserving(), at([0.1]), 1.0, 0.0),
    "101 points": lambda: gaussian_gap_1d(reverse_kernel(MIX1, VariancePreserving(), at([0.1]), 0.5, 0.4), 101),
    "blend at its source": lambda: Blend(MIX1, MIX1).sides(at([0.3]), 0.0),
    "blend at its target": lambda: Blend(MIX1, MIX1).sides(at([0.3]), 1.0),
    "no variance at all": lambda: SpectralCovariance.low_rank(EYE[:, :1], at(0.0), 0.0),
    "isotropic on a line": lambda: SpectralCovariance.isotropic(1, 0.0),
    "dense of rank 0": lambda: SpectralCovariance.from_dense(EYE, 0),
    "dense of all ranks": lambda: SpectralCovariance.from_dense(EYE, 2),
    "asymmetry of rounding": lambda: SpectralCovariance.from_dense(EYE + at([0.0, 1e-8], [0.0, 0.0])),
    "no variance in a dense matrix": lambda: SpectralCovariance.from_dense(torch.zeros(2, 2, dtype=F64)),
    "a least eigenvalue of rounding": lambda: SpectralCovariance.from_dense(torch.diag(at(1.0, -1.7e-15))),
    "one frequency": lambda: CosineBasis((1,)),
    "channels and one axis": lambda: CosineBasis((3, 1), channels=True),
    "nearly orthonormal": lambda: MatrixBasis(tilted(9e-6)),
    "a square system": lambda: MatrixBasis(EYE),
    "three angles": lambda: Separation(records(3), at(0.0, 0.5, 1.0)),
    "mean square nearly 1": lambda: data_separation(unit(1 + 9e-7), 5),
    "mean square nearly 1, from below": lambda: data_separation(unit(1 - 9e-7), 5),
    "a mean of nearly 0": lambda: data_separation(shifted(1e-6), 5),
    "a single point": lambda: Empirical(POINTS[:1]),
    "one level": lambda: FLAT.quantile(at(0.0, 1.0)),
    "regular laws to the clean end": lambda: guided_flow(NORMAL, NORMAL, 1.0, EDM(), 0.2, 0.0),
}

REFUSED = {
    "no noise": lambda: DriftDiffusion(0.0, 0.0),
    "infinite noise": lambda: DriftDiffusion(0.0, math.inf),
    "no interval": lambda: DriftDiffusion(0.0, 1.0, 1.0, 1.0),
    "start on the lower bound": lambda: DRIFT.density(at(0.0), 1.0, -1.0),
    "start on the upper bound": lambda: DRIFT.density(at(0.0), 1.0, 1.0),
    "passage at no time": lambda: DRIFT.first_passage(0.0, 0.0),
    "mean at no time": lambda: DRIFT.conditioned_mean(at(0.0, 0.5), 0.0, 1.0),
    "mean at the end": lambda: DRIFT.conditioned_mean(at(0.5, 1.0), 0.0, 1.0),
    "empty interval": lambda: Line(1.0, 1.0, 4),
    "one cell": lambda: Line(0.0, 1.0, 1),
    "a negative value": lambda: LineDensity(LINE, at(1.0, -1e-9, 1.0, 1.0)),
    "no mass": lambda: LineDensity(LINE, torch.zeros(4, dtype=F64)),
    "infinite mass": lambda: LineDensity(LINE, at(math.inf, 0.0, 1.0, 1.0)),
    "another number of cells": lambda: LineDensity(LINE, torch.ones(5, dtype=F64)),
    "a single time": lambda: fokker_planck(FLAT, [0.0], moved(0.1), moved(0.1)),
    "times that stand": lambda: fokker_planck(FLAT, [0.0, 0.0], moved(0.1), moved(0.1)),
    "times that turn": lambda: fokker_planck(FLAT, [0.0, 1.0, 0.5], moved(0.1), moved(0.1)),
    "falling times that stand": lambda: fokker_planck(FLAT, [1.0, 0.5, 0.5], moved(0.1), moved(0.1)),
    "negative diffusion": lambda: fokker_planck(FLAT, [0.0, 1.0], moved(0.1), moved(-1e-9)),
    "infinite drift": lambda: fokker_planck(FLAT, [0.0, 1.0], moved(math.inf), moved(0.1)),
    "infinite diffusion": lambda: fokker_planck(FLAT, [0.0, 1.0], moved(0.1), moved(math.inf)),
    "a fall of 600": lambda: line_of(600.0),
    "diffusion 0": lambda: ReversibleLine(LINE, lambda x: x, 0.0),
    "negative time": lambda: line_of(1.0).density(FLAT, -1e-9),
    "negative duration": lambda: linear_transition(EYE, at(1.0, 1.0), EYE, -1e-9),
    "no bridge": lambda: noise_bridge(VariancePreserving(), at(1.0), at(0.0), 0.2, 0.2, at(0.2)),
    "before the bridge": lambda: noise_bridge(VariancePreserving(), at(1.0), at(0.0), 0.2, 0.6, at(0.2 - 2e-12)),
    "behind the bridge": lambda: noise_bridge(VariancePreserving(), at(1.0), at(0.0), 0.2, 0.6, at(0.6 + 2e-12)),
    "data of no spread": lambda: CoupledGaussian(0.0, at(1.0)[0], at(1.0)[0]),
    "encoder of no spread": lambda: CoupledGaussian(1.0, at(1.0)[0], at(0.0)[0]),
    "correlation 1": lambda: CoupledGaussian.of_correlation(1.0, 1.0),
    "negative correlation": lambda: CoupledGaussian.of_correlation(1.0, -1e-9),
    "radius 0": lambda: Ring(0.0, 1.0),
    "infinite radius": lambda: Ring(math.inf, 1.0),
    "infinite width": lambda: Ring(1.0, math.inf),
    "negative width": lambda: Ring(1.0, -1e-9),
    "negative observation noise": lambda: NORMAL.given(at([1.0, 0.0]), at(1.0), -1e-9),
    "infinite observation noise": lambda: NORMAL.given(at([1.0, 0.0]), at(1.0), math.inf),
    "no component": lambda: fit_mixture(POINTS, 0),
    "no iteration": lambda: fit_mixture(POINTS, 1, iterations=0),
    "floor 1": lambda: fit_mixture(POINTS, 1, floor=1.0),
    "rank dim": lambda: fit_mixture(POINTS, 1, rank=2),
    "rank -1": lambda: fit_mixture(POINTS, 1, rank=-1),
    "Gaussian of floor 1": lambda: fit_gaussian(POINTS, floor=1.0),
    "Gaussian of floor -1e-9": lambda: fit_gaussian(POINTS, floor=-1e-9),
    "no pass": lambda: fit_gaussian(POINTS, passes=0),
    "Gaussian of rank 3": lambda: fit_gaussian(POINTS, rank=3),
    "Gaussian of rank -1": lambda: fit_gaussian(POINTS, rank=-1),
    "no dimension": lambda: Moments(0),
    "ratio 0": lambda: far_field(POINTS, NORMAL, [1.0, 0.0]),
    "infinite ratio": lambda: far_field(POINTS, NORMAL, [math.inf, 1.0]),
    "no ratio": lambda: far_field(POINTS, NORMAL, []),
    "one point": lambda: far_field(POINTS[:1], NORMAL, [1.0]),
    "window of 0": lambda: LocalFilter(torch.ones(2, 3), (0, 3)),
    "window beyond the grid": lambda: LocalFilter(torch.ones(2, 3), (2, 5)),
    "even window": lambda: LocalFilter(torch.ones(2, 3), (2, 2)),
    "window of another grid": lambda: LocalFilter(torch.ones(2, 3), (1,)),
    "filter rate 0": lambda: LocalFilter(torch.ones(2, 3), (1, 1), 0.0, 0.0),
    "infinite filter rate": lambda: LocalFilter(torch.ones(2, 3), (1, 1), 0.0, math.inf),
    "infinite spectrum": lambda: LocalFilter(torch.full((2, 3), math.inf), (1, 1)),
    "filter noise 0": lambda: LocalFilter(torch.ones(2, 3), (1, 1)).filter(0.0, 1.0),
    "infinite filter noise": lambda: LocalFilter(torch.ones(2, 3), (1, 1)).filter(math.inf, 1.0),
    "infinite training": lambda: LocalFilter(torch.ones(2, 3), (1, 1)).filter(1.0, math.inf),
    "order 0": lambda: ExpandedGaussian(NORMAL, EDM(), 0),
    "order 3": lambda: ExpandedGaussian(NORMAL, EDM(), 3),
    "one record": lambda: learning_times(records(1), torch.ones(1, 1), torch.ones(1)),
    "records before 0": lambda: learning_times(records(2, -1e-9), torch.ones(2, 1), torch.ones(1)),
    "records at one time": lambda: learning_times(records(2, 1.0, 0.0), torch.ones(2, 1), torch.ones(1)),
    "a target of 0": lambda: learning_times(records(2), torch.ones(2, 1), torch.zeros(1)),
    "infinite smoothing": lambda: learning_times(records(2), torch.ones(2, 1), torch.ones(1), smooth=math.inf),
    "infinite learning rate": lambda: OneLayer(0.1, math.inf),
    "two layers of which one starts at 0": lambda: TwoLayer(at(0.1, 0.0)),
    "generated at no noise": lambda: OneLayer(0.1).generated_variance(1.0, 1.0, 2.0, 0.0),
    "generated from infinite noise": lambda: OneLayer(0.1).generated_variance(1.0, 1.0, math.inf, 2.0),
    "infinite affine noise": lambda: affine_weights(at(0.0, 1.0), EYE, math.inf, 1.0, EYE, at(0.0, 0.0)),
    "negative affine training": lambda: affine_weights(at(0.0, 1.0), EYE, 1.0, -1e-9, EYE, at(0.0, 0.0)),
    "infinite affine training": lambda: affine_weights(at(0.0, 1.0), EYE, 1.0, math.inf, EYE, at(0.0, 0.0)),
    "affine rate 0": lambda: affine_weights(at(0.0, 1.0), EYE, 1.0, 1.0, EYE, at(0.0, 0.0), 0.0),
    "infinite affine rate": lambda: affine_weights(at(0.0, 1.0), EYE, 1.0, 1.0, EYE, at(0.0, 0.0), math.inf),
    "proxy without noise": lambda: proxy_variance(NORMAL, at([0.0, 0.0]), FlowMatching(), 0.0),
    "proxy without signal": lambda: proxy_variance(NORMAL, at([0.0, 0.0]), FlowMatching(), 1.0),
    "a kernel over no time": lambda: reverse_kernel(MIX1, VariancePreserving(), at([0.1]), 0.5, 0.5),
    "a kernel from before 0": lambda: reverse_kernel(MIX1, VariancePreserving(), at([0.1]), 0.5, -1e-9),
    "a kernel from behind 1": lambda: reverse_kernel(MIX1, VariancePreserving(), at([0.1]), 1 + 1e-9, 0.5),
    "100 points": lambda: gaussian_gap_1d(reverse_kernel(MIX1, VariancePreserving(), at([0.1]), 0.5, 0.4), 100),
    "blend before its source": lambda: Blend(MIX1, MIX1).sides(at([0.3]), -1e-9),
    "blend behind its target": lambda: Blend(MIX1, MIX1).sides(at([0.3]), 1 + 1e-9),
    "infinite rest": lambda: SpectralCovariance.low_rank(EYE[:, :1], at(1.0), math.inf),
    "negative rest": lambda: SpectralCovariance.low_rank(EYE[:, :1], at(1.0), -1e-9),
    "infinite variance": lambda: SpectralCovariance.diagonal(at(1.0, math.inf)),
    "a matrix of variances": lambda: SpectralCovariance.diagonal(EYE),
    "isotropic in no dimension": lambda: SpectralCovariance.isotropic(0, 1.0),
    "dense of rank -1": lambda: SpectralCovariance.from_dense(EYE, -1),
    "dense of rank 3": lambda: SpectralCovariance.from_dense(EYE, 3),
    "asymmetry beyond rounding": lambda: SpectralCovariance.from_dense(EYE + at([0.0, 2e-8], [0.0, 0.0])),
    "a negative eigenvalue beyond rounding": lambda: SpectralCovariance.from_dense(torch.diag(at(1.0, -1.9e-15))),
    "channels without an axis": lambda: CosineBasis((3,), channels=True),
    "an axis of length 0": lambda: CosineBasis((3, 0)),
    "not orthonormal": lambda: MatrixBasis(tilted(1.1e-5)),
    "more columns than rows": lambda: MatrixBasis(EYE[:1]),
    "two angles": lambda: Separation(records(2), at(0.0, 1.0)),
    "a separation beyond 1": lambda: Separation(records(3), at(0.0, 0.5, 1 + 1e-9)),
    "a negative separation": lambda: Separation(records(3), at(-1e-9, 0.5, 1.0)),
    "mean square not 1": lambda: data_separation(unit(1 + 1.1e-6), 5),
    "mean square below 1": lambda: data_separation(unit(1 - 1.1e-6), 5),
    "a mean that is hardly not 0": lambda: data_separation(shifted(1.001e-6), 5),
    "a mean below 0": lambda: data_separation(shifted(-1.001e-6), 5),
    "a mean that is not 0": lambda: data_separation(shifted(0.5), 5),
    "flat points": lambda: Empirical(POINTS[0]),
    "whole numbers for points": lambda: Empirical(torch.ones(2, 2, dtype=torch.float16)),
    "a clean start": lambda: guided_flow(NORMAL, NORMAL, 1.0, EDM(), 0.0, 0.2),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_still_meant_is_taken(case):
    TAKEN[case]()


@pytest.mark.parametrize("case", REFUSED)
def test_what_means_nothing_is_refused(case):
    """By a domain error that names it, not by whatever the arithmetic would have said."""
    with pytest.raises((ArgumentError, ShapeError, DataError)):
        REFUSED[case]()
