"""Symmetries and charges: exact symmetries score 0, broken ones about 1, and the violation law predicts how a charge drifts."""

import json
import math

import pytest
import torch

from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, Ring, SpectralCovariance
from sfumato.explain import Dynamics, most_likely_path, noisy_states, reverse_times, symmetry_report
from sfumato.explain.noether import example_dynamics as examples
from sfumato.explain.noether.generators import Generator, affine, auto_generators, rotation, subspace_generators, translation
from sfumato.explain.noether.symmetry import asymmetry, charge_drift, commutator, drift_violation, metric_violation
from sfumato.noise import EDM, VariancePreserving

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
TURN = rotation(EYE[0], EYE[1])
STILL = torch.zeros(1, dtype=F64)


def states(n=200, dim=2):
    return torch.randn(1, n, dim, dtype=F64, generator=torch.Generator().manual_seed(0))


def grid(end, steps):
    return torch.linspace(0, end, steps + 1, dtype=F64)


def broken(action_noise=0.3):
    def drift(x, t):
        a, b = x.unbind(1)
        return x * (1 - x.square().sum(1, keepdim=True)) + torch.stack([0.8 * a * b, 0.3 * torch.sin(b) - 0.5 * a**2], 1)

    return Dynamics.constant(drift, 2, action_noise)


@pytest.mark.parametrize(
    ("system", "kept"),
    [
        (examples.monostable(), {"rotation 1-2"}),
        (examples.ring_attractor(), {"rotation 1-2"}),
        (examples.ring_attractor(growth=0.5), {"rotation 1-2"}),
        (examples.line_attractor(), {"translation 1"}),
        (examples.three_attractors(), set()),
        (Dynamics.constant(lambda x, t: torch.ones_like(x), 2, 1.0), {"translation 1", "translation 2"}),
    ],
)
def test_exact_symmetries_are_found_and_no_others(system, kept):
    """0 to rounding for the symmetries of each example, above 0.3 for all other translations and rotations."""
    report = symmetry_report(system, states(), STILL)
    found = {name for name in report.violation if report.violation[name][0] + report.noise_violation[name][0] < 1e-20}
    assert found == kept
    assert all(report.violation[name][0] > 0.3 for name in set(report.violation) - kept)


def test_noise_that_depends_on_the_state_breaks_translations_alone():
    """D = D(|x|) is turned into itself; the matrix noise diag(1, 4) is not, though the drift -x is."""
    system, t = examples.ring_attractor(growth=0.5), torch.zeros(200, dtype=F64)
    assert metric_violation(system, TURN, states()[0], t) == 0
    assert metric_violation(system, translation(EYE[0]), states()[0], t) == pytest.approx(1)
    uneven = Dynamics.constant(lambda x, t: -x, 2, torch.diag(torch.tensor([1.0, 4.0], dtype=F64)))
    assert drift_violation(uneven, TURN, states()[0], t) < 1e-20
    assert metric_violation(uneven, TURN, states()[0], t) > 0.1


def test_metric_violation_is_the_frobenius_norm_of_the_killing_form():
    """Random probes against K = D^-1 M + M^T D^-1 written out, 4000 probes, within 10 percent."""
    D, M = torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=F64), torch.tensor([[0.2, -1.0], [0.7, 0.1]], dtype=F64)
    system = Dynamics.constant(lambda x, t: -x, 2, D)
    left = torch.linalg.solve(D, M)
    expected = float((left + left.T).square().sum() / (2 * left.square().sum()))
    measured = metric_violation(system, affine("M", M), states(4000)[0], torch.zeros(4000, dtype=F64))
    assert measured == pytest.approx(expected, rel=0.1)


def test_commutator_is_the_lie_bracket():
    """For linear f = A x and xi = M x, c = (M A - A M) x; a generator that grows in time adds its rate."""
    A, M = torch.randn(2, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    x, t = states(5, 3)[0], torch.full((5,), 0.4, dtype=F64)
    system = Dynamics.constant(lambda x, t: x @ A.T, 3, 1.0)
    later, turned, carried = commutator(system, affine("M", M), x, t)
    torch.testing.assert_close(turned - carried, x @ (M @ A - A @ M).T, rtol=0, atol=1e-12)
    assert float(later.abs().max()) == 0
    later, _, _ = commutator(system, Generator("growing", lambda x, t: x * t[:, None] ** 2), x, t)
    torch.testing.assert_close(later, 0.8 * x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("action", ["freidlin-wentzell", "onsager-machlup", "cross-dropped"])
def test_violation_law_predicts_the_drift_of_a_broken_charge(action):
    """A charge of an affine generator, exactly on the discrete path; the charge does drift, so 'no drift' (the control) is wrong."""
    a, b = torch.tensor([1.2, 0.0], dtype=F64), torch.tensor([-0.9, -0.8], dtype=F64)
    path = most_likely_path(broken(), a, b, grid(2.0, 100), action=action)
    drift = charge_drift(broken(), TURN, path)
    assert drift.error < 1e-7
    assert abs(drift.total) > 0.2
    report = symmetry_report(broken(), states(), STILL, [TURN], path)
    assert report.charges["rotation"] == drift
    assert f"{drift.total:.2g}" in report.meaning


def test_freidlin_wentzell_law_is_the_momentum_on_the_commutator():
    """dQ/dt = p.c where the noise part holds: the general law against the card's short one, on the same path."""
    a, b = torch.tensor([1.2, 0.0], dtype=F64), torch.tensor([-0.9, -0.8], dtype=F64)
    system = broken()
    path = most_likely_path(system, a, b, grid(2.0, 400), action="freidlin-wentzell")
    t = path.times
    _, turned, carried = commutator(system, TURN, path.path, t)
    rate = (path.momenta * (turned - carried)).sum(1)
    # trapezoid
    integral = float(((rate[1:] + rate[:-1]) / 2 * t.diff()).sum())
    drift = charge_drift(system, TURN, path)
    assert integral == pytest.approx(drift.total, abs=2e-3)
    assert abs(drift.total) > 0.3


def test_time_dependent_generator_has_a_charge():
    """Free diffusion has Galilean boosts: xi = t e breaks drift invariance by d_t xi = e, so its charge grows as the integral of p.e."""
    system = Dynamics.constant(lambda x, t: torch.zeros_like(x), 2, 0.5)
    boost = Generator("boost", lambda x, t: t[:, None] * EYE[0])
    path = most_likely_path(system, EYE[0], EYE[1], grid(1.0, 20), generators=[boost])
    drift = charge_drift(system, boost, path)
    assert drift.total == pytest.approx(float(path.momenta[0, 0]), abs=1e-12)
    assert drift.error < 1e-12


def test_ring_network_converges_to_its_symmetry():
    """Moving the bump is a symmetry in the limit of many neurons: its violation falls by far from 8 to 16; uneven weights break it."""

    def violation(n, weights=None):
        x = torch.stack([0.5 * examples.ring_bump(n, 0.1) + a * examples.ring_bump(n, 0.4 * a) ** 2 for a in (0.1, 0.5, 1.3)])
        return drift_violation(examples.ring_rnn(n, weights=weights), examples.ring_rotation(n), x, torch.zeros(3, dtype=F64))

    assert violation(16) < 1e-2 * violation(8)
    uneven = 1 + 0.1 * torch.randn(16, 16, dtype=F64, generator=torch.Generator().manual_seed(1))
    assert violation(16, uneven * examples.ring_weights(16)) > 100 * violation(16)


def test_ring_rotation_is_the_spectral_derivative_and_bumps_are_at_rest():
    n = 11
    theta = 2 * math.pi / n * torch.arange(n, dtype=F64)
    wave = torch.cos(3 * theta) + 0.5 * torch.sin(5 * theta)
    slope = -3 * torch.sin(3 * theta) + 2.5 * torch.cos(5 * theta)
    torch.testing.assert_close(examples.ring_rotation(n).field(wave[None], STILL)[0], slope, rtol=0, atol=1e-12)
    bump = examples.ring_bump(n, 0.0)[None]
    assert float(bump.abs().max()) > 1
    assert float(examples.ring_rnn(n).f(bump, STILL).abs().max()) < 1e-12


def test_denoisers_have_the_symmetries_of_their_data():
    """An exact ring's score turns with the data at all noise levels; a ring off the centre turns about its own centre only; asymmetry by
    finite turns agrees."""
    process = VariancePreserving()
    ring = Dynamics.reverse(Ring(2.0, 0.3).denoiser(process), (2,))
    x, times = noisy_states(Ring(2.0, 0.3).denoiser(process), Ring(2.0, 0.3).sample(100, 0), (0.3, 1.0, 3.0))
    off = rotation(EYE[0], EYE[1], centre=torch.tensor([0.5, 0.0], dtype=F64), name="off centre")
    report = symmetry_report(ring, x, times, [TURN, off])
    assert max(report.violation["rotation"]) < 1e-20
    assert min(report.violation["off centre"]) > 1e-3
    t = times[0].expand(100)
    assert asymmetry(ring, TURN, x[0], t) < 1e-20
    assert asymmetry(ring, off, x[0], t) > 1e-2


def test_trained_networks_in_single_precision_are_taken_as_they_are():
    """A network of images, 16 pixels, float32: the report takes its leading directions, and a path through it converges in float64; the
    user's network is left in its own dtype."""
    network = ResidualMLP((1, 4, 4), 16, 2, seed=0)
    torch.nn.init.normal_(network.last.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    model = Preconditioned(network, EDM(), 1.0)
    data = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    x, times = noisy_states(model, data, (0.5, 2.0))
    single = symmetry_report(Dynamics.reverse(model, (1, 4, 4), dtype=torch.float32), x, times)
    double = symmetry_report(Dynamics.reverse(model, (1, 4, 4)), x, times)
    assert next(model.parameters()).dtype == torch.float32
    assert len(single.violation) == 6
    for name in single.violation:
        assert single.violation[name] == pytest.approx(double.violation[name], rel=1e-3)
    start, end = x[1, 0].double(), x[0, 1].double()
    path = most_likely_path(Dynamics.reverse(model, (1, 4, 4)), start, end, reverse_times(EDM(), 2.0, 0.5, 12), action="freidlin-wentzell")
    assert path.converged


def test_isotropic_gaussian_denoiser_turns_in_every_plane_and_a_stretched_one_does_not():
    mean = torch.zeros(4, dtype=F64)
    basis = torch.eye(4, dtype=F64)
    for variances, symmetric in (((1.0, 1.0, 1.0, 1.0), True), ((1.0, 1.0, 0.1, 0.02), False)):
        law = Gaussian(mean, SpectralCovariance.low_rank(basis, torch.tensor(variances, dtype=F64), 0.0), (4,))
        denoiser = law.denoiser(EDM())
        x, times = noisy_states(denoiser, law.sample(100, 0), (0.3,))
        report = symmetry_report(Dynamics.reverse(denoiser, (4,)), x, times)
        turns = {name: values[0] for name, values in report.violation.items() if name.startswith("rotation")}
        assert len(turns) == 6
        # planes of equal variances turn in either law
        assert turns["rotation 1-2"] < 1e-15
        assert (max(turns.values()) < 1e-15) == symmetric


def test_auto_generators_take_the_leading_directions():
    """20 dimensions with three large ones: the translations span these."""
    scale = torch.cat([torch.tensor([5.0, 4.0, 3.0]), 0.01 * torch.ones(17)]).to(F64)
    chosen = auto_generators(states(300, 20)[0] * scale)
    assert [g.name for g in chosen] == [f"translation {i}" for i in (1, 2, 3)] + ["rotation 1-2", "rotation 1-3", "rotation 2-3"]
    for g in chosen[:3]:
        assert float(g.shift[:3].norm()) > 0.999


def test_affine_generators_integrate_to_their_finite_maps():
    """A quarter turn about a centre, and a unit shift."""
    centre = torch.tensor([1.0, 0.0], dtype=F64)
    turned, linear = rotation(EYE[0], EYE[1], centre).transform(torch.tensor([[2.0, 0.0]], dtype=F64), math.pi / 2)
    torch.testing.assert_close(turned, torch.tensor([[1.0, 1.0]], dtype=F64), rtol=0, atol=1e-14)
    torch.testing.assert_close(linear, torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64), rtol=0, atol=1e-14)
    moved, _ = translation(EYE[0]).transform(turned, 2.0)
    torch.testing.assert_close(moved, turned + 2 * EYE[0], rtol=0, atol=1e-14)


def test_report_is_plain_data_and_draws():
    from matplotlib.figure import Figure

    a, b = torch.tensor([1.2, 0.0], dtype=F64), torch.tensor([-0.9, -0.8], dtype=F64)
    path = most_likely_path(broken(), a, b, grid(1.0, 20))
    axes = Figure().subplots(1, 2)
    for ax, report in zip(
        axes, (symmetry_report(broken(), states(), STILL), symmetry_report(broken(), states(), STILL, "auto", path)), strict=True
    ):
        assert json.loads(json.dumps(report.to_dict()))["numbers"] == pytest.approx(report.numbers)
        assert report.ranked[0] == "rotation 1-2"
        report.plot(ax)
        assert ax.get_legend() is not None
        assert "Rotation 1-2" in report.meaning


def test_bad_input():
    system = examples.monostable()
    with pytest.raises(ShapeError, match="states"):
        symmetry_report(system, states(5, 3), STILL)
    with pytest.raises(ShapeError, match="states"):
        symmetry_report(system, states(), torch.zeros(2, dtype=F64))
    with pytest.raises(ArgumentError, match="generators"):
        symmetry_report(system, states(), STILL, [])
    with pytest.raises(ArgumentError, match="generators"):
        symmetry_report(system, states(), STILL, [TURN, TURN])
    with pytest.raises(ArgumentError, match="without gradient"):
        symmetry_report(Dynamics.constant(lambda x, t: -x.detach(), 2, 0.5), states(), STILL)
    with pytest.raises(ArgumentError, match="orthonormal"):
        rotation(EYE[0], EYE[0])
    with pytest.raises(ArgumentError, match="affine"):
        Generator("bent", lambda x, t: x**2).transform(states()[0], 1.0)
    with pytest.raises(ShapeError, match="leading"):
        auto_generators(states(3, 8)[0])
    with pytest.raises(ArgumentError, match="neurons"):
        examples.ring_rnn(2)
    assert len(subspace_generators(EYE)) == 3
