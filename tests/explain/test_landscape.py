"""Modes, their tree and commitment: closed forms of two modes, SciPy's optimiser, a tree known by construction, bad input."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.explain import TwoModes, commitment, mean_shift, mode_tree
from sfumato.noise import EDM, VariancePreserving
from sfumato.sample import reference, reference_times
from sfumato.seeds import noise

F64 = torch.float64
PAIR = TwoModes(3.0, 0.0625)


def mixture(points, variance, weights=None):
    points = torch.tensor(points, dtype=F64)
    one = SpectralCovariance.isotropic(points.shape[1], variance)
    return GaussianMixture(weights, points, [one] * len(points))


@pytest.fixture(scope="module")
def pair():
    return mixture([[3.0, 0.0], [-3.0, 0.0]], 0.0625)


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()], ids=lambda p: p.kind)
@pytest.mark.parametrize(("share", "count"), [(0.3, 2), (0.9, 2), (0.98, 2), (1.02, 1), (1.5, 1)])
def test_two_modes_are_found_where_the_closed_form_has_them(pair, process, share, count):
    ratio = share * PAIR.critical_ratio
    level = mode_tree(pair.denoiser(process), [ratio], pair.sample(32, 0), iterations=2000).levels[0]
    assert len(level.modes) == count
    assert level.restless == 0
    assert level.modes[:, 0].abs().tolist() == pytest.approx([PAIR.position(ratio)] * count, abs=5e-3)
    assert level.modes[:, 1].abs().max() < 1e-3


def test_mean_shift_stops_at_the_densitys_own_maxima(g4):
    """Against a quasi-Newton maximisation of log p from the same starts."""
    process, ratio = VariancePreserving(), 0.35
    t = float(process.time_of_ratio(ratio))
    noisy, alpha = g4.through(process, t), float(process.alpha(t))
    starts = torch.tensor([[1.5, 0.1], [-1.0, 1.0], [-0.5, -1.2]], dtype=F64)
    ends, still = mean_shift(g4.denoiser(process), starts, ratio)
    assert bool(still.all())
    for start, end in zip(starts, ends, strict=True):
        best = minimize(
            lambda y: -float(noisy.log_prob(torch.from_numpy(alpha * y)[None])),
            start.numpy(),
            jac=lambda y: -alpha * noisy.score(torch.from_numpy(alpha * y)[None])[0].numpy(),
            method="BFGS",
            options={"gtol": 1e-9},
        )
        assert end.tolist() == pytest.approx(best.x.tolist(), abs=1e-3)


def test_a_climb_that_runs_out_of_iterations_is_reported(pair):
    _, still = mean_shift(pair.denoiser(EDM()), torch.tensor([[2.0, 0.0]], dtype=F64), 0.999 * PAIR.critical_ratio, iterations=3)
    assert not bool(still.any())
    tree = mode_tree(pair.denoiser(EDM()), [0.999 * PAIR.critical_ratio], torch.tensor([[2.0, 0.0]], dtype=F64), iterations=3)
    assert tree.numbers["restless"] == 1
    assert "did not come to rest" in tree.meaning


def test_a_tree_of_pairs_merges_within_the_pairs_first():
    """Two close pairs far apart: 4, then 2, then 1 modes; each pair merges at about its own critical ratio, and basins add up."""
    close, far = TwoModes(1.0, 0.04), TwoModes(8.0, 1.04)
    law = mixture([[-9.0], [-7.0], [7.0], [9.0]], 0.04, [0.1, 0.2, 0.3, 0.4])
    starts = law.sample(200, 0)
    # unequal weights merge earlier than the equal ones of the closed form, and never later
    ratios = [0.3, 0.5 * close.critical_ratio, 1.05 * close.critical_ratio, 0.5 * far.critical_ratio, 1.05 * far.critical_ratio]
    tree = mode_tree(law.denoiser(EDM()), ratios, starts, iterations=3000)
    assert tree.counts == [4, 4, 2, 2, 1]
    assert tree.merges == [(pytest.approx(ratios[2]), 2), (pytest.approx(ratios[4]), 1)]
    assert tree.single_from == ratios[4]
    lowest = tree.levels[0]
    nearest = torch.cdist(starts, torch.tensor([[-9.0], [-7.0], [7.0], [9.0]], dtype=F64)).argmin(1).bincount(minlength=4).double() / 200
    assert lowest.basins == pytest.approx(nearest.sort(descending=True).values.tolist(), abs=1e-12)
    assert tree.levels[2].basins == pytest.approx([float(nearest[2:].sum()), float(nearest[:2].sum())], abs=1e-6)
    # modes of one pair have one parent
    signs = [float(m) > 0 for m in tree.levels[1].modes]
    parents = [float(tree.levels[2].modes[p]) > 0 for p in tree.levels[1].parents]
    assert parents == signs
    assert "a single one" in tree.meaning
    json.dumps(tree.to_dict(), allow_nan=False)


def test_a_gaussian_has_one_mode_at_its_mean_at_every_level(full_gaussian):
    """Eigenvalues over three decades: plain mean shift would need thousands of steps along the widest axis."""
    tree = mode_tree(full_gaussian.denoiser(EDM()), [0.05, 0.5, 5.0], full_gaussian.sample(3, 0), iterations=1000)
    assert tree.counts == [1, 1, 1]
    assert tree.numbers["restless"] == 0
    # a residual of 1e-4 k is a distance of at most 1e-4 k / (1 - g) = 1e-4 (l + k^2) / k
    assert float((tree.levels[0].modes[0].flatten() - full_gaussian.mean).norm()) < 1e-4 * 3.2 / 0.05 * 2


def test_position_solves_its_equation_and_ends_at_the_critical_ratio():
    for ratio in (0.0, 0.5, 2.0, 2.9, 2.9895):
        m = PAIR.position(ratio)
        assert m > 0
        assert m == pytest.approx(3 * math.tanh(3 * m / (0.0625 + ratio**2)), rel=1e-12)
    assert PAIR.position(PAIR.critical_ratio) == 0
    assert PAIR.position(0.9 * PAIR.critical_ratio) == pytest.approx(2.081, abs=5e-4)
    assert TwoModes(1.0, 2.0).critical_ratio == 0
    assert TwoModes(1.0, 0.0).position(0.0) == 1


@pytest.mark.parametrize("ratio", [50.0, 3.0, 1.5, 0.7])
def test_switching_is_the_share_of_sign_changes(ratio):
    """Against 400,000 draws, at four standard errors (a false alarm once in 16,000 seeds); arctan(eta)/pi where noise rules."""
    rng = np.random.default_rng(0)
    scale = math.hypot(0.25, ratio)
    x = 3.0 * rng.choice([-1, 1], 400_000) + scale * rng.standard_normal(400_000)
    p = PAIR.switch_probability(ratio, 0.3)
    measured = np.mean(np.sign(x + 0.3 * scale * rng.standard_normal(400_000)) != np.sign(x))
    assert abs(measured - p) < 4 * math.sqrt(p * (1 - p) / 400_000) + 1e-12
    assert PAIR.switch_probability(1e5, 0.3) == pytest.approx(math.atan(0.3) / math.pi, abs=1e-8)


def test_commitment_is_where_two_modes_entropy_falls(pair):
    """Exact flow of two modes on a line: the responsibility of the nearer one is known at every node."""
    process = EDM()
    times = reference_times(process, 60)
    x = process.prior_sample(noise(0, 50, (2,), dtype=F64).draw(0))
    path = reference(pair.denoiser(process).denoise, x, process, pair.gaussian(), times)
    out = commitment(path, pair)
    for i in (10, 30, 45):
        scale2 = 0.0625 + (80 * times[i]) ** 2
        share = torch.sigmoid(6 * path.states[i][:, 0].abs() / scale2)
        assert out.leading[i] == pytest.approx(float(share.mean()), abs=1e-9)
    # entropy log(2)/2 is a share of 0.89, i.e. |x| = S^2 log(0.89/0.11) / 6
    p = 0.8899721
    assert -(p * math.log(p) + (1 - p) * math.log(1 - p)) == pytest.approx(math.log(2) / 2, abs=1e-6)
    for j in (0, 7):
        undecided = [
            k for k, s in zip(out.ratios, path.states, strict=True) if abs(float(s[j, 0])) < (0.0625 + k * k) * math.log(p / (1 - p)) / 6
        ]
        assert out.committed[j] == min(undecided)
    assert out.modes == (path.end[:, 0] < 0).long().tolist()
    assert out.undecided[0] == 1
    assert out.undecided[-1] == 0
    assert out.numbers["modes_reached"] == 2
    assert "modes" in out.meaning
    json.dumps(out.to_dict(), allow_nan=False)


def test_pictures_have_legends(pair):
    from matplotlib.figure import Figure

    process = EDM()
    x = process.prior_sample(noise(0, 4, (2,), dtype=F64).draw(0))
    path = reference(pair.denoiser(process).denoise, x, process, pair.gaussian(), reference_times(process, 10))
    for explanation in (mode_tree(pair.denoiser(process), [1.0, 4.0], pair.sample(4, 0)), commitment(path, pair)):
        ax = Figure().subplots()
        explanation.plot(ax)
        assert len(ax.get_legend().get_texts()) == 3


def test_bad_input_is_refused_by_name(pair):
    denoiser = pair.denoiser(EDM())
    starts = pair.sample(4, 0)
    with pytest.raises(ArgumentError, match="ratios, starts"):
        mode_tree(denoiser, [], starts)
    with pytest.raises(ArgumentError, match="ratio"):
        mode_tree(denoiser, [100.0], starts)
    with pytest.raises(ArgumentError, match="ratio, iterations"):
        mean_shift(denoiser, starts, 0.0)
    for given in ((0.0, 1.0), (1.0, -1.0)):
        with pytest.raises(ArgumentError, match="distance, variance"):
            TwoModes(*given)
    with pytest.raises(ArgumentError, match="eta"):
        PAIR.switch_probability(1.0, 0.0)
    lone = Gaussian(torch.zeros(2, dtype=F64), SpectralCovariance.isotropic(2, 1.0))
    path = reference(denoiser.denoise, starts, EDM(), lone, reference_times(EDM(), 5))
    with pytest.raises(ArgumentError, match="mixture"):
        commitment(path, mixture([[0.0, 0.0]], 1.0))


def test_norm_is_the_one_that_the_switching_formula_assumes():
    """For a kick much smaller than the modes' width the share is the density at 0 times E|kick|: p(0) eta S sqrt(2/pi)."""
    ratio, eta = 2.0, 1e-3
    scale = math.hypot(0.25, ratio)
    assert PAIR.switch_probability(ratio, eta) == pytest.approx(norm.pdf(0, 3, scale) * eta * scale * math.sqrt(2 / math.pi), rel=1e-4)
