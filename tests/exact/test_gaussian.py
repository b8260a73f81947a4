"""The Gaussian law: its flow against an ODE solver, its posterior mean against conditioning, its closure against the process."""

import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import AffineFlow, Gaussian, SpectralCovariance
from sfumato.exact.spectral.basis import IdentityBasis, MatrixBasis
from sfumato.noise import EDM, Cosine, FlowMatching, VariancePreserving

F64 = torch.float64
DIM = 6


def law(zeros=2, rank=None):
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(DIM, DIM, dtype=F64, generator=g))[0]
    values = torch.cat([torch.tensor([4.0, 1.5, 0.3, 0.02], dtype=F64)[: DIM - zeros], torch.zeros(zeros, dtype=F64)])
    if rank is not None:
        return Gaussian(torch.randn(DIM, dtype=F64, generator=g), SpectralCovariance.low_rank(q[:, :rank], values[:rank], 0.05))
    if not zeros:
        values = torch.linspace(0.1, 2, DIM, dtype=F64)
    return Gaussian(torch.randn(DIM, dtype=F64, generator=g), SpectralCovariance.low_rank(q, values, 0.0))


@pytest.mark.parametrize(
    ("process", "ends"), [(EDM(10.0), (0.9, 0.03)), (VariancePreserving(), (1.0, 0.03)), (FlowMatching(), (0.95, 0.05))]
)
def test_flow_agrees_with_dop853_on_the_denoisers_velocity(process, ends):
    """The flow is the solution of dx/dt = velocity(x, t), with the exact denoiser's velocity; both ways, at 1e-10; among the six modes two
    have variance 0 and two are the isotropic rest."""
    p = law(rank=4)
    p = Gaussian(p.mean, SpectralCovariance(p.covariance.basis, torch.tensor([4.0, 0.3, 0.0, 0.0], dtype=F64), 0.05))
    denoiser = p.denoiser(process)
    start, end = ends
    x = torch.randn(1, DIM, dtype=F64, generator=torch.Generator().manual_seed(3)) * 2

    def velocity(t, v):
        return denoiser.velocity(torch.tensor(v)[None], t)[0].numpy()

    solution = solve_ivp(velocity, (start, end), x[0].numpy(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    flow = p.flow(process, start, end)
    torch.testing.assert_close(flow(x)[0], torch.tensor(solution), rtol=0, atol=1e-10)
    torch.testing.assert_close(flow.inverse()(flow(x)), x, rtol=0, atol=1e-10)
    torch.testing.assert_close(p.flow(process, end, start)(flow(x)), x, rtol=0, atol=1e-10)


def test_flows_compose_and_their_logdet_is_that_of_their_matrix():
    p, process = law(rank=3), VariancePreserving()
    first, second = p.flow(process, 1.0, 0.4), p.flow(process, 0.4, 0.1)
    both = first.then(second)
    assert both.shift_out.shape == (DIM,)
    x = torch.randn(5, DIM, dtype=F64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(both(x), second(first(x)), rtol=0, atol=1e-13)
    torch.testing.assert_close(both(x), p.flow(process, 1.0, 0.1)(x), rtol=0, atol=1e-13)
    matrix = both(torch.eye(DIM, dtype=F64)) - both(torch.zeros(1, DIM, dtype=F64))
    torch.testing.assert_close(both.logdet, torch.linalg.slogdet(matrix).logabsdet, rtol=1e-12, atol=1e-12)
    with pytest.raises(ArgumentError, match="same basis"):
        first.then(law(rank=3).flow(process, 0.4, 0.1))


def test_flow_carries_densities():
    """log p_t(x) = log p_s(flow(x)) + logdet: the change of variables, from pure noise (alpha = 0) to data."""
    p, process = law(zeros=0), FlowMatching()
    x = torch.randn(4, DIM, dtype=F64, generator=torch.Generator().manual_seed(1))
    flow = p.flow(process, 1.0, 0.0)
    torch.testing.assert_close(p.through(process, 1.0).log_prob(x), p.log_prob(flow(x)) + flow.logdet, rtol=0, atol=1e-11)


def test_flow_at_the_ends_per_sample_and_where_it_is_no_map():
    p, process = law(zeros=2), EDM(10.0)
    clean = p.flow(process, 1.0, 0.0)
    assert int((clean.gains == 0).sum()) == 2
    assert float(clean.logdet) == -torch.inf
    with pytest.raises(ArgumentError, match="invertible"):
        clean.inverse()
    with pytest.raises(ArgumentError, match="noisy time"):
        p.flow(process, 0.0, 1.0)
    x = p.sample(3, 0)
    torch.testing.assert_close(p.flow(process, 0.0, 0.0)(x), x, rtol=0, atol=1e-14)
    times = torch.tensor([0.1, 0.5, 1.0], dtype=F64)
    many = p.flow(process, times, 0.05)(x)
    for i, t in enumerate(times):
        torch.testing.assert_close(many[i : i + 1], p.flow(process, t, 0.05)(x[i : i + 1]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [{"zeros": 0}, {"zeros": 2}, {"rank": 3}])
@pytest.mark.parametrize("t", [0.02, 0.5, 1.0])
def test_posterior_mean_is_the_conditional_mean_of_the_joint_gaussian(t, shape):
    p, process = law(**shape), FlowMatching()
    alpha, sigma = process.alpha(t), process.sigma(t)
    dense = p.covariance.dense()
    x = torch.randn(5, DIM, dtype=F64, generator=torch.Generator().manual_seed(1))
    gain = alpha * dense @ torch.linalg.inv(alpha**2 * dense + sigma**2 * torch.eye(DIM, dtype=F64))
    # the inverse has a condition number of up to 1e4
    torch.testing.assert_close(p.posterior_mean(x, process, t), p.mean + (x - alpha * p.mean) @ gain.T, rtol=0, atol=1e-11)


def test_posterior_mean_without_noise_is_the_limit_of_little_noise():
    p, process = law(zeros=2), EDM(1.0)
    x = torch.randn(5, DIM, dtype=F64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(p.posterior_mean(x, process, 0.0), p.posterior_mean(x, process, 1e-9), rtol=0, atol=1e-12)
    clean = p.sample(4, 1)
    torch.testing.assert_close(p.posterior_mean(clean, process, 0.0), clean, rtol=0, atol=1e-13)


def test_density_and_score_agree_with_scipy_and_autograd():
    p = law(rank=3)
    x = torch.randn(5, DIM, dtype=F64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    value = p.log_prob(x)
    theirs = multivariate_normal(p.mean.numpy(), p.covariance.dense().numpy()).logpdf(x.detach().numpy())
    torch.testing.assert_close(value.detach(), torch.tensor(theirs), rtol=0, atol=1e-11)
    torch.testing.assert_close(p.score(x.detach()), torch.autograd.grad(value.sum(), x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [VariancePreserving(), FlowMatching(), Cosine(), EDM(5.0)])
def test_through_two_legs_is_through_one(process):
    """through(s) followed by the transition from s to t has the moments of through(t)."""
    p, s, t = law(rank=3), 0.3, 0.8
    middle, end, step = p.through(process, s), p.through(process, t), process.transition(s, t)
    torch.testing.assert_close(step.phi * middle.mean, end.mean, rtol=0, atol=1e-13)
    spectrum = step.phi**2 * middle.covariance.spectrum + step.covariance
    torch.testing.assert_close(spectrum, end.covariance.spectrum, rtol=1e-12, atol=0)


def test_bad_input_is_refused_by_name():
    c = SpectralCovariance.isotropic(4, 1.0)
    with pytest.raises(ShapeError, match="mean"):
        Gaussian(torch.zeros(3), c)
    with pytest.raises(ArgumentError, match="mean"):
        Gaussian(torch.full((4,), torch.nan), c)
    with pytest.raises(ShapeError, match="event_shape"):
        Gaussian(torch.zeros(4), c, (2, 3))
    p = Gaussian(torch.zeros(4), c, (2, 2))
    with pytest.raises(ShapeError, match=r"\(batch, 2, 2\)"):
        p.score(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match="one time per sample"):
        p.posterior_mean(torch.zeros(3, 2, 2), EDM(), torch.rand(2))
    with pytest.raises(ShapeError, match="single time"):
        p.through(EDM(), torch.rand(2))
    with pytest.raises(ArgumentError, match="condition"):
        p.denoiser(EDM()).denoise(torch.zeros(3, 2, 2), 0.5, torch.zeros(3))


def test_a_map_that_mirrors_has_the_volume_of_its_matrix():
    """Gains of either sign, one map per sample, with a complement and without: `log |det|` by LU, `rest`, the inverse and its shifts."""
    columns = torch.linalg.qr(torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(2))).Q
    shift = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=F64)
    thin = torch.tensor([[-2.0, 0.5, -3.0], [1.5, -0.1, 0.7]], dtype=F64)
    full = torch.tensor([[-2.0, 0.5, -3.0, 0.2], [1.5, -0.1, -0.7, -4.0]], dtype=F64)
    for basis, spectrum, rest in ((MatrixBasis(columns), thin, thin[:, 2]), (IdentityBasis(4), full, torch.ones(2, dtype=F64))):
        flow = AffineFlow(basis, spectrum, shift, 2 * shift)
        eye, inverse = torch.eye(4, dtype=F64), flow.inverse()
        assert torch.equal(flow.rest, rest)
        assert torch.equal(flow.gains, spectrum[:, : basis.rank])
        for i in range(2):
            one = AffineFlow(basis, spectrum[i], shift, 2 * shift)
            matrix = one(eye) - one(torch.zeros(1, 4, dtype=F64))
            torch.testing.assert_close(flow.logdet[i], torch.linalg.slogdet(matrix).logabsdet, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(inverse.logdet[i], -flow.logdet[i], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(flow(shift.expand(2, 4)), 2 * shift.expand(2, 4), rtol=1e-14, atol=0)
        torch.testing.assert_close(inverse(flow(eye[:2])), eye[:2], rtol=0, atol=1e-13)
