"""The forecast of a teleport, by hand: a belief that misses the Gaussian one by the same everywhere has its integrals in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from asymmetric import FULL, THIN, VP, wave

from sfumato.denoiser import Denoiser
from sfumato.noise import EDM
from sfumato.sample import Heun, forecast_skip, hybrid_sample, karras, teleport
from sfumato.sample.judges.skip import FAR, SkipForecast, missed
from sfumato.seeds import noise

OFF = wave(2, 3, size=0.04, shift=0.03)
RATIOS = (30.0, 12.0, 5.0, 2.0, 0.7)
FORECAST = SkipForecast(THIN, 0.02, 2.0, (4.0, 2.0, 1.0), (0.01, 0.02, 0.08), (0.1, 0.2, 0.3), 4, 2)


class Off(Denoiser):
    """The Gaussian's answer and always the same residual; it writes down where it is asked."""

    def __init__(self, law, process=VP):
        self.law, self.process, self.asked = law, process, []

    def denoise(self, x, t, condition=None):
        self.asked.append((t, x))
        return self.law.posterior_mean(x, self.process, t) + OFF


def variances(law):
    """`(6,)`, of a law whose eigenvectors are the axes."""
    return (
        torch.stack([law.covariance.apply(lambda v: v, row) for row in torch.eye(6, dtype=torch.float64)[:, None]])[:, 0].diagonal().numpy()
    )


@pytest.mark.parametrize("law", [FULL, THIN], ids=["full", "thin"])
def test_the_forecast_of_a_constant_residual(law):
    """`sqrt(l) int R / S d lambda` by NumPy's trapezium rule, and `sqrt(l) / S_s int R d lambda`, where it is exact: `R log(k_1 / k_s)`;
    both as a root mean square over that of the data, `tr Sigma + |m|^2`."""
    found = forecast_skip(Off(law), law, 0.02, ratios=RATIOS, batch=3)
    own, k, off = variances(law), np.array(RATIOS), OFF.flatten().numpy()
    size = own.sum() + float((law.mean**2).sum())
    slopes = 1 / np.sqrt(own[:, None] + k**2)
    for i in range(1, len(k)):
        integral = np.trapezoid(slopes[:, : i + 1], -np.log(k[: i + 1]), axis=1)
        assert found.predicted[i - 1] == pytest.approx(math.sqrt((own * (off * integral) ** 2).sum() / size), rel=1e-12)
        straight = own / (own + k[i] ** 2) * (off * math.log(k[0] / k[i])) ** 2
        assert found.ungained[i - 1] == pytest.approx(math.sqrt(straight.sum() / size), rel=1e-12)
    assert (found.ratios, found.evaluations, found.batch) == (RATIOS[1:], 5, 3)


def test_the_rule_tends_to_the_integral():
    """`sqrt(l) int d lambda / S = asinh(sqrt(l) / k) - asinh(sqrt(l) / k_1)`: an error of a quarter as the levels are twice as dense."""
    errors, own = [], torch.tensor(variances(FULL)).sqrt()
    exact = OFF.flatten() / own * (torch.asinh(own / 0.5) - torch.asinh(own / 20))
    for n in (12, 24):
        levels = [20 * (0.5 / 20) ** (i / n) for i in range(n + 1)]
        gained, plain = missed(Off(FULL), FULL, wave(2, 2, 3), levels)
        errors.append(float((gained[-1] - exact).abs().max()))
        torch.testing.assert_close(plain[-1], OFF.flatten().expand(2, 6) * math.log(40), rtol=1e-12, atol=0)
        assert float(gained[0].abs().max() + plain[0].abs().max()) == 0
    assert errors[0] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.2)


def test_a_forecast_asks_along_the_gaussian_flow_from_draws_of_its_own():
    """One evaluation a level, from the prior's draw 0 of the seed."""
    belief, levels = Off(FULL), (float(VP.ratio(1.0)), 8.0, 3.0, 1.0)
    forecast_skip(belief, FULL, ratios=levels, batch=2, seed=5)
    start = VP.prior_sample(noise(5, 2, (2, 3)).draw(0))
    assert [float(VP.ratio(t)) for t, _ in belief.asked] == pytest.approx(levels, rel=1e-9)
    for t, x in belief.asked:
        torch.testing.assert_close(x, FULL.flow(VP, 1.0, t)(start), rtol=1e-6, atol=1e-6)


def test_the_lowest_level_whose_error_and_that_of_all_above_are_within():
    """An error that is the tolerance itself is within; none within leaves the first level."""
    levels = RATIOS[1:]
    errors = forecast_skip(Off(FULL), FULL, ratios=levels, batch=1).predicted
    assert list(errors) == sorted(errors)
    for i, level in enumerate(levels[1:]):
        at, below = (forecast_skip(Off(FULL), FULL, e, ratios=levels, batch=1) for e in (errors[i], errors[i] * (1 - 1e-6)))
        assert (at.within, at.ratio) == (True, level)
        assert (below.within, below.ratio) == (i > 0, levels[max(i, 1)])


@pytest.mark.parametrize(("process", "top"), [(EDM(20.0), 20.0), (EDM(1e4), FAR * math.sqrt(1.5))], ids=["near", "far"])
def test_levels_by_default(process, top):
    """Forty, equal in log-ratio, from the last level or 300 leading deviations to the mean one; the first is where the integral starts."""
    found = forecast_skip(Off(FULL, process), FULL, batch=1)
    mean = math.sqrt((1.5 + 0.4 + 0.9 + 0.2 + 0.6 + 0.1) / 6)
    assert found.ratios == pytest.approx(np.geomspace(top, mean, 40)[1:].tolist(), rel=1e-12)
    assert FAR == 300


def test_a_level_between_two_is_read_by_a_power_law():
    assert [FORECAST.at(k) for k in FORECAST.ratios] == list(FORECAST.predicted)
    assert FORECAST.at(math.sqrt(8)) == pytest.approx(math.sqrt(0.01 * 0.02), rel=1e-12)
    # log2(4 / 3) of the way, on which the error doubles; and twice as steep below
    assert FORECAST.at(3.0) == pytest.approx(0.01 * 4 / 3, rel=1e-12)
    assert FORECAST.at(1.6) == pytest.approx(0.02 * (2 / 1.6) ** 2, rel=1e-12)
    # beyond rounding, the nearest level
    assert FORECAST.at(4 * (1 + 5e-10)) == pytest.approx(0.01, rel=1e-8)
    assert FORECAST.at(1 - 5e-10) == pytest.approx(0.08, rel=1e-8)


def test_where_nothing_is_missed_no_power_law_holds():
    """A level with no error has none, and one beside it has at most the larger of the two."""
    found = replace(FORECAST, predicted=(0.0, 0.0, 0.03))
    assert [found.at(k) for k in (4.0, 3.0, 2.0, 1.5, 1.0)] == [0.0, 0.0, 0.0, 0.03, 0.03]
    assert replace(FORECAST, predicted=(0.01, 0.0, 0.0)).at(3.0) == 0.01


def test_hybrid_samples_say_where_they_landed_and_what_was_saved():
    """Heun asks twice a step, once on the last; it lands at the last time whose level is at least the forecast's."""
    process = EDM(20.0)
    belief, times = Off(FULL, process), karras(process, 9)
    forecast = forecast_skip(Off(FULL, process), FULL, 0.999, ratios=(20.0, 9.0, 4.0, 1.0), batch=2)
    got = hybrid_sample(belief, Heun(), forecast, times, 3, seed=2)
    skipped = sum(20 * t >= forecast.ratio for t in times) - 1
    assert forecast.ratio == 1
    assert (got.saved, got.evaluations) == (2 * skipped, 17 - 2 * skipped)
    assert got.ratio == pytest.approx(20 * times[skipped], rel=1e-12)
    assert got.predicted == forecast.at(got.ratio)
    program = teleport(Heun().compile(process, times), FULL, times[skipped])
    assert len(belief.asked) == program.evaluations
    start = process.prior_sample(noise(2, 3, (2, 3)).draw(0))
    torch.testing.assert_close(belief.asked[0][1], FULL.flow(process, 1.0, times[skipped])(start), rtol=1e-5, atol=1e-5)
