from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance, guided_flow
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.seeds import noise

PROCESSES = [EDM(), VariancePreserving(), FlowMatching()]


def thin(seed, dim=7, rank=2, rest=0.05):
    generator = torch.Generator().manual_seed(seed)
    columns, _ = torch.linalg.qr(torch.randn(dim, rank, generator=generator, dtype=torch.float64))
    return Gaussian(
        torch.randn(dim, generator=generator, dtype=torch.float64),
        SpectralCovariance.low_rank(columns, torch.tensor([2.0, 0.7][:rank], dtype=torch.float64), rest),
    )


def by_steps(laws, weight, process, x, t, s):
    """The flow of the guided belief by an ODE in half log-SNR, sample by sample: `dy/dlambda = D - y`, `y = x / alpha`."""
    unconditional, conditional = laws

    def rate(lam, flat):
        u = process.time(torch.tensor(lam, dtype=torch.float64)).clamp(0, 1)
        alpha = process.alpha(u)
        y = torch.from_numpy(flat.reshape(x.shape).copy())
        belief = (1 - weight) * unconditional.posterior_mean(alpha * y, process, u) + weight * conditional.posterior_mean(
            alpha * y, process, u
        )
        return (belief - y).numpy().reshape(-1)

    ends = [float(process.half_log_snr(u)) for u in (t, s)]
    start = (x / process.alpha(t)).numpy().reshape(-1)
    found = solve_ivp(rate, ends, start, method="DOP853", rtol=1e-11, atol=1e-12)
    return process.alpha(s) * torch.from_numpy(found.y[:, -1].reshape(x.shape))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_one_law_alone_has_its_closed_form(process, weight):
    """Down to the clean end, and from where no signal is left."""
    laws = thin(0), thin(1)
    law = laws[1] if weight else laws[0]
    x = float(process.prior_std) * noise(0, 5, (7,), dtype=torch.float64).draw(0)
    for s in (0.3, 0.0):
        flow = guided_flow(laws[1], laws[0], weight, process, 1.0, s)
        expected = law.flow(process, 1.0, s)
        torch.testing.assert_close(flow(x), expected(x), rtol=1e-9, atol=1e-9)
        assert float(flow.logdet) == pytest.approx(float(expected.logdet), abs=1e-8)


@pytest.mark.parametrize(("process", "weight"), [(EDM(), 3.0), (VariancePreserving(), -1.0)], ids=["edm", "variance-preserving"])
def test_guided_flows_agree_with_numerical_integration(process, weight):
    """Covariances that do not commute, a weight beyond 1 and a negative one; another clock and another form of the equation."""
    laws = thin(0), thin(1, rest=0.2)
    x = float(process.sigma(0.6)) * noise(0, 3, (7,), dtype=torch.float64).draw(0)
    flow = guided_flow(laws[1], laws[0], weight, process, 0.6, 0.05)
    torch.testing.assert_close(flow(x), by_steps(laws, weight, process, x, 0.6, 0.05), rtol=1e-8, atol=1e-8)


def test_commuting_laws_have_a_product_of_powers():
    """`y ~ (l_u + k^2)^((1-w)/2) (l_c + k^2)^(w/2)`; exponentiating the commuting formula for laws that do not commute misses."""
    process, w, (t, s) = EDM(), 2.5, (0.5, 0.01)
    a, b = torch.tensor([2.0, 0.5, 0.1], dtype=torch.float64), torch.tensor([0.3, 1.5, 0.1], dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    flow = guided_flow(Gaussian(zero, SpectralCovariance.diagonal(b)), Gaussian(zero, SpectralCovariance.diagonal(a)), w, process, t, s)
    k, e = (float(process.sigma(u)) for u in (t, s))
    gains = ((a + e**2) / (a + k**2)) ** ((1 - w) / 2) * ((b + e**2) / (b + k**2)) ** (w / 2)
    torch.testing.assert_close(flow.matrix, torch.diag(gains), rtol=1e-9, atol=1e-11)
    angle = torch.tensor(0.6)
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    turned = Gaussian(zero, SpectralCovariance.low_rank(turn, b, 0.0))
    mixed = guided_flow(turned, Gaussian(zero, SpectralCovariance.diagonal(a)), w, process, t, s)

    def power(values, columns, exponent):
        return columns @ torch.diag(((values + e**2) / (values + k**2)) ** exponent) @ columns.T

    naive = power(a, torch.eye(3, dtype=torch.float64), (1 - w) / 2) @ power(b, turn, w / 2)
    assert float((mixed.matrix - naive).abs().max()) > 0.01 * float(naive.abs().max())


def test_it_is_a_flow(full_gaussian):
    """Two legs make the whole way, and the inverse goes back; full rank and low rank together."""
    other = thin(4, dim=12)
    other = Gaussian(other.mean, other.covariance, (3, 4))
    process = VariancePreserving()
    x = noise(0, 4, (3, 4), dtype=torch.float64).draw(0)
    whole = guided_flow(full_gaussian, other, 2.0, process, 0.9, 0.1)
    legs = guided_flow(full_gaussian, other, 2.0, process, 0.9, 0.5), guided_flow(full_gaussian, other, 2.0, process, 0.5, 0.1)
    torch.testing.assert_close(legs[1](legs[0](x)), whole(x), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(whole.inverse()(whole(x)), x, rtol=1e-7, atol=1e-8)
    assert float(legs[0].logdet + legs[1].logdet) == pytest.approx(float(whole.logdet), abs=1e-7)


def test_bad_input_is_named():
    process = EDM()
    singular = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([1.0, 0.0], dtype=torch.float64)))
    with pytest.raises(ArgumentError, match="t, s"):
        guided_flow(singular, singular, 2.0, process, 1.0, 0.0)
    with pytest.raises(ShapeError, match="conditional"):
        guided_flow(singular, thin(0), 2.0, process, 1.0, 0.5)
    with pytest.raises(ShapeError, match="x"):
        guided_flow(thin(1), thin(0), 2.0, process, 1.0, 0.5)(torch.zeros(2, 3))
    wide = Gaussian(torch.zeros(4096), SpectralCovariance.diagonal(torch.ones(4096)))
    with pytest.raises(ArgumentError, match="rank"):
        guided_flow(wide, wide, 2.0, process, 1.0, 0.5)
    assert np.isfinite(guided_flow(singular, singular, 2.0, process, 1.0, 0.01).matrix.numpy()).all()
