from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import ExpandedGaussian, TiltedPoints, fit_gaussian, ladder
from sfumato.metrics import fit_rate
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.seeds import noise


@pytest.fixture(scope="module")
def cloud():
    g = noise(7, 200, (2, 2), dtype=torch.float64).draw(0)
    return 0.5 + g + 0.3 * g**2


def test_rungs_are_their_formulas(cloud):
    """Each against the module's table, written out with plain tensors."""
    process, t = VariancePreserving(), 0.4
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    law = fit_gaussian([cloud])
    x = process.sample(cloud[:20], t, noise(1, 20, (2, 2), dtype=torch.float64).draw(0))
    rungs = {name: d.denoise(x, t).flatten(1) for name, d in ladder(cloud, law, process).items()}
    points, flat, m = cloud.flatten(1), x.flatten(1), cloud.flatten(1).mean(0)
    cov = (points - m).T @ (points - m) / len(points)
    distance = (flat[:, None] - alpha * points).square().sum(2)
    torch.testing.assert_close(rungs["nearest"], points[distance.argmin(1)])
    torch.testing.assert_close(rungs["points"], torch.softmax(-distance / (2 * sigma**2), 1) @ points)
    weights = torch.softmax(alpha * (flat - alpha * m) @ (points - m).T / sigma**2, 1)
    torch.testing.assert_close(rungs["tilted"], weights @ points)
    away, unit = flat - alpha * m, torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(rungs["gaussian"], m + away @ (alpha * cov @ torch.linalg.inv(alpha**2 * cov + sigma**2 * unit)))
    torch.testing.assert_close(rungs["first"], m + away @ cov * (alpha / sigma**2))
    torch.testing.assert_close(rungs["second"], m + away @ (cov * (alpha / sigma**2) - cov @ cov * (alpha**3 / sigma**4)))


def test_every_rung_is_left_at_its_own_rate(cloud):
    """Differences of neighbouring rungs as powers of the noise: `k^-2 sqrt(C)` a product, and one more for each order that is dropped."""
    process, law = EDM(4000.0), fit_gaussian([cloud])
    rungs = ladder(cloud, law, process)
    eps = noise(2, 500, (2, 2), dtype=torch.float64).draw(0)
    ratios = [50.0, 100.0, 200.0]

    def slope(a, b):
        gaps = []
        for k in ratios:
            t = process.time_of_ratio(k)
            x = process.sample(cloud[:1].expand(500, -1, -1) * 0, t, eps)
            gaps.append(float((rungs[a].denoise(x, t) - rungs[b].denoise(x, t)).norm()))
        return fit_rate(ratios, gaps).slope

    # |x~| ~ k: Sigma^2 x~ / k^4, Sigma^3 x~ / k^6, and kappa_3 x~ x~ / k^4
    assert slope("gaussian", "first") == pytest.approx(-3, abs=0.05)
    assert slope("gaussian", "second") == pytest.approx(-5, abs=0.05)
    assert slope("points", "gaussian") == pytest.approx(-2, abs=0.1)
    assert slope("points", "tilted") == pytest.approx(-2, abs=0.1)


def test_on_a_sphere_the_points_lengths_do_not_matter():
    """All `|x_i - m|` are equal, so the softmax without them is the exact one; scaled points of other lengths tell them apart."""
    cross = torch.cat([torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    process = FlowMatching()
    x = noise(0, 30, (3,), dtype=torch.float64).draw(0)
    for t in (0.2, 0.7):
        rungs = ladder(cross, fit_gaussian([cross]), process)
        torch.testing.assert_close(rungs["tilted"].denoise(x, t), rungs["points"].denoise(x, t))
    stretched = cross * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    rungs = ladder(stretched, fit_gaussian([stretched]), process)
    assert float((rungs["tilted"].denoise(x, 0.7) - rungs["points"].denoise(x, 0.7)).abs().max()) > 0.1


def test_the_ends_are_limits(cloud):
    """Where no signal is left every rung is the mean; towards no noise the points are the nearest point."""
    process, law = FlowMatching(), fit_gaussian([cloud])
    x = noise(0, 5, (2, 2), dtype=torch.float64).draw(0)
    rungs = ladder(cloud, law, process)
    for rung in rungs.values():
        torch.testing.assert_close(rung.denoise(x, 1.0), cloud.mean(0).expand(5, 2, 2))
    torch.testing.assert_close(rungs["points"].denoise(x, 1e-4), rungs["nearest"].denoise(x, 1e-4))


def test_times_may_differ_between_samples(cloud):
    process, law = VariancePreserving(), fit_gaussian([cloud])
    x, t = noise(0, 3, (2, 2), dtype=torch.float64).draw(0), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    for rung in ladder(cloud, law, process).values():
        each = torch.cat([rung.denoise(x[i : i + 1], float(t[i])) for i in range(3)])
        torch.testing.assert_close(rung.denoise(x, t), each)


def test_states_keep_their_dtype_and_orders_are_checked(cloud):
    process, law = EDM(), fit_gaussian([cloud])
    x = noise(0, 3, (2, 2)).draw(0)
    assert TiltedPoints(cloud, process).denoise(x, 0.1).dtype == torch.float32
    with pytest.raises(ArgumentError, match="order"):
        ExpandedGaussian(law, process, 3)
