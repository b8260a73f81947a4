"""Most likely paths: closed forms of linear systems, four solvers that agree, conservation laws, and the theorem on reverse diffusion."""

import math
from functools import partial

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Ring, bridge, linear_transition, noise_bridge
from sfumato.explain import Dynamics, most_likely_path, reverse_times
from sfumato.explain.differentiate import along, check_differentiable, divergence
from sfumato.explain.noether import example_dynamics as examples
from sfumato.explain.noether.boundary import SOLVERS, Boundary, newton, shooting
from sfumato.explain.noether.generators import rotation
from sfumato.explain.noether.lagrangian import hamilton_field, hamiltonian, lagrangian, momentum
from sfumato.explain.noether.paths import spread
from sfumato.noise import EDM, VariancePreserving

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
TURN = rotation(EYE[0], EYE[1])


def state(*values):
    return torch.tensor(values, dtype=F64)


def grid(end, steps):
    return torch.linspace(0, end, steps + 1, dtype=F64)


def linear():
    """A linear system that is no gradient, with a noise matrix that is no multiple of the identity."""
    A, c, D = state(-1, 0.8, -0.5, -0.7).reshape(2, 2), state(0.3, -0.2), state(0.5, 0.2, 0.2, 0.4).reshape(2, 2)
    return A, c, D, Dynamics.constant(lambda x, t: x @ A.T + c, 2, D)


def bent():
    """A non-linear field with curl, and noise that depends on time."""

    def drift(x, t):
        a, b = x.unbind(1)
        return torch.stack([a - a**3 + 0.5 * b, torch.sin(a) - b * (1 + 0.3 * t)], 1)

    return Dynamics.timed(drift, 2, lambda t: 0.2 + 0.1 * t)


@pytest.mark.parametrize("action", ["freidlin-wentzell", "onsager-machlup"])
def test_path_of_a_linear_system_is_the_mean_of_its_bridge(action):
    """For both actions, in second order: 9e-5 at 100 steps, and 4 times less at twice as many."""
    A, c, D, system = linear()
    a, b, errors = state(-2, 1), state(1, 2), []
    for steps in (100, 200):
        path = most_likely_path(system, a, b, grid(1.5, steps), action=action)
        assert path.converged
        here = [bridge(a, b, linear_transition(A, c, D, t), linear_transition(A, c, D, 1.5 - t))[0] for t in path.times.tolist()]
        errors.append(float((path.path - torch.stack(here)).abs().max()))
    assert errors[0] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.1)


def test_action_gives_the_transition_density_up_to_a_constant():
    """log p(x_T | x_0) + S_FW is the same for all pairs of ends."""
    A, c, D, system = linear()
    step = linear_transition(A, c, D, 1.0)
    law = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=F64), step.covariance)
    sums = []
    for a, b in ((state(-2, 1), state(1, 2)), (state(0, 0), state(0, 3)), (state(3, 1), state(-1, -1))):
        S = most_likely_path(system, a, b, grid(1.0, 400), action="freidlin-wentzell").action
        sums.append(float(law.log_prob(b - step.phi @ a - step.shift)) + S)
    assert max(sums) - min(sums) < 1e-3


@pytest.mark.parametrize("action", ["freidlin-wentzell", "onsager-machlup", "cross-dropped"])
def test_newton_agrees_with_collocation(action):
    """The minimum of the discrete action and SciPy's solution of Hamilton's equations: one path, in second order of the step."""
    system, a, b, errors = bent(), state(-1, 0.2), state(1.1, -0.4), []
    exact = most_likely_path(system, a, b, grid(1.5, 40), action=action, method="collocation")
    assert exact.converged
    for steps in (20, 40):
        path = most_likely_path(system, a, b, grid(1.5, steps), action=action).path
        errors.append(float((path - exact.path[:: 40 // steps]).abs().max()))
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.5)


def test_shooting_and_descent_agree_with_the_others():
    """Shooting with collocation (the continuous path), gradient descent with Newton (the discrete one)."""
    system, a, b = bent(), state(-1, 0.2), state(1.1, -0.4)
    shot, collocated = (
        most_likely_path(system, a, b, grid(0.7, 20), action="freidlin-wentzell", method=m) for m in ("shooting", "collocation")
    )
    assert shot.converged
    torch.testing.assert_close(shot.path, collocated.path, rtol=0, atol=1e-6)
    walked, jumped = (most_likely_path(system, a, b, grid(1.0, 4), method=m, tolerance=1e-4) for m in ("descent", "newton"))
    assert walked.converged
    assert walked.iterations > 5 * jumped.iterations
    torch.testing.assert_close(walked.path, jumped.path, rtol=0, atol=1e-4)


@pytest.mark.parametrize("action", ["freidlin-wentzell", "onsager-machlup", "cross-dropped"])
def test_hamiltonian_is_the_legendre_transform_and_generates_the_flow(action):
    """H = p.v - L at v = dH/dp, for random states and momenta of a system with matrix noise; and dH/dp is f + 2 D p."""
    g = torch.Generator().manual_seed(1)
    D = state(0.5, 0.2, 0.2, 0.4).reshape(2, 2)
    system = Dynamics.constant(bent().drift, 2, D)
    x, p, t = torch.randn(5, 2, dtype=F64, generator=g), torch.randn(5, 2, dtype=F64, generator=g), torch.rand(5, dtype=F64, generator=g)
    v, _ = hamilton_field(system, action, x, p, t)
    torch.testing.assert_close(momentum(system, action, x, v, t), p, rtol=0, atol=1e-13)
    legendre = (p * v).sum(1) - lagrangian(system, action, x, v, t)
    torch.testing.assert_close(hamiltonian(system, action, x, p, t), legendre, rtol=0, atol=1e-12)
    expected = 2 * p @ D + (0 if action == "cross-dropped" else system.f(x, t))
    torch.testing.assert_close(v, expected, rtol=0, atol=1e-13)


def test_cross_term_is_a_boundary_term_for_gradients_only():
    """f = -x, D const: dropping it moves S by -(U(b) - U(a))/2D and not the path; a field with curl moves the path (the control)."""
    a, b, t = state(-1, 0.5), state(1, 1), grid(1.0, 100)
    full, dropped = (most_likely_path(examples.monostable(), a, b, t, action=k) for k in ("freidlin-wentzell", "cross-dropped"))
    torch.testing.assert_close(full.path, dropped.path, rtol=0, atol=1e-9)
    # -1/2 int x'.D^-1 f = +1/2 [|x|^2] for D = 1/2
    assert full.action - dropped.action == pytest.approx(0.5 * float(b @ b - a @ a), abs=1e-9)
    curled = linear()[3]
    full, dropped = (most_likely_path(curled, a, b, t, action=k) for k in ("freidlin-wentzell", "cross-dropped"))
    assert float((full.path - dropped.path).abs().max()) > 0.02


def test_relaxation_costs_nothing():
    """Along the drift's own flow p = 0 and S_FW = 0 (to second order in the step)."""
    path = most_likely_path(examples.monostable(), state(2, 1), state(2, 1) * math.exp(-1), grid(1.0, 100), action="freidlin-wentzell")
    assert path.action < 1e-9
    assert float(path.momenta.abs().max()) < 1e-4


def test_charge_of_a_linear_symmetry_is_exact_at_any_step():
    """Discrete Noether: 10 or 200 steps, angular momentum is constant to the solver's tolerance, energy to second order; a field without
    the symmetry keeps neither (the control)."""
    energies = []
    for steps in (10, 20):
        path = most_likely_path(examples.ring_attractor(), state(1.2, 0), state(0, 0.7), grid(1.0, steps), generators=[TURN])
        assert spread(path.charges["rotation"]) < 1e-9
        energies.append(spread(path.energy))
    assert 3 < energies[0] / energies[1] < 5
    broken = most_likely_path(examples.three_attractors(), state(1.2, 0), state(0, 0.7), grid(1.0, 20), generators=[TURN])
    assert spread(broken.charges["rotation"]) > 0.5


def test_energy_is_minus_the_slope_of_the_action():
    """dS/dT = -E by central differences."""
    actions = [most_likely_path(examples.ring_attractor(), state(1.2, 0), state(0, 0.7), grid(T, 400)).action for T in (0.999, 1.001)]
    path = most_likely_path(examples.ring_attractor(), state(1.2, 0), state(0, 0.7), grid(1.0, 400))
    assert -(actions[1] - actions[0]) / 0.002 == pytest.approx(float(path.energy.mean()), rel=1e-4)


@pytest.mark.parametrize("process", [EDM(2.0), VariancePreserving()])
def test_reverse_diffusion_is_most_likely_straight_in_the_squared_ratio(process):
    """Whatever the data (a ring), under any scalar process, the Onsager-Machlup path is the noise's own bridge; second order in the step.
    Freidlin-Wentzell paths are not (the control)."""
    system = Dynamics.reverse(Ring(2.0, 0.5).denoiser(process), (2,))
    start, end, errors = state(0, 2.2), state(1, 1), []
    for steps in (40, 80):
        times = reverse_times(process, 2.0, 0.3, steps)
        straight, _ = noise_bridge(process, end, start, 1 - float(times[-1]), 1 - float(times[0]), 1 - times)
        path = most_likely_path(system, start, end, times)
        errors.append(float((path.path - straight).abs().max()))
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.5)
    small_noise = most_likely_path(system, start, end, times, action="freidlin-wentzell")
    assert float((small_noise.path - straight).abs().max()) > 0.05


def test_several_minima_are_found_and_ranked():
    """Around a hill: two mirror-image ways over the saddles, of one action, and a guess through each."""

    def drift(x, t):
        hill = torch.exp(-2 * x.square().sum(1, keepdim=True))
        return 12 * x * hill

    system = Dynamics.constant(drift, 2, 0.2)
    path = most_likely_path(
        system, state(-1, 0), state(1, 0), grid(2.0, 60), action="freidlin-wentzell", through=[state(0, 1), state(0, -1)]
    )
    assert path.converged
    assert len(path.minima) >= 2
    assert path.minima[0] == pytest.approx(path.minima[1], rel=1e-6)
    torch.testing.assert_close(path.path[:, 1], -path.others[0][:, 1], rtol=0, atol=1e-5)
    assert "different paths" in path.meaning


def test_what_does_not_converge_says_so(monkeypatch):
    """Newton cut short after one step: the flag is down, the best path is returned, and the sentence says it."""
    monkeypatch.setitem(SOLVERS, "newton", partial(newton, iterations=1))
    times, a, b = grid(6.0, 30), state(3.2, 0.4), state(0.4, 3.2)
    cut = most_likely_path(examples.three_attractors(), a, b, times, action="freidlin-wentzell")
    assert not cut.converged
    assert cut.numbers["converged"] == 0
    assert cut.residual > 1e-6
    assert "did not converge" in cut.meaning
    assert cut.action < Boundary(examples.three_attractors(), "freidlin-wentzell", times).value(cut.driftless)


def test_a_shot_that_misses_says_so():
    """One evaluation is no search: the path found does not come to the end, and is flagged."""
    problem = Boundary(bent(), "freidlin-wentzell", grid(0.3, 5))
    guess = state(-1, 0.2) + state(2.1, -0.6) * grid(1.0, 5)[:, None]
    missed = shooting(problem, guess, 1e-9, iterations=1)
    assert not missed.converged
    assert missed.residual == pytest.approx(float((missed.path[-1] - guess[-1]).abs().max()))


def test_simulated_paths_have_the_linear_law():
    """2000 Euler paths of the monostable system: mean and variance at the end within 4 standard errors plus the step's bias; path 5 does
    not depend on the batch."""
    system, start = examples.monostable(), state(1.0, -1.0).expand(2000, 2)
    walks = system.simulate(start, grid(1.0, 100), 0)
    step = linear_transition(-EYE, torch.zeros(2, dtype=F64), EYE / 2, 1.0)
    assert float((walks[-1].mean(0) - step.phi @ start[0]).abs().max()) < 4 * math.sqrt(float(step.covariance[0, 0]) / 2000) + 0.005
    assert float((walks[-1].var(0) / step.covariance.diagonal() - 1).abs().max()) < 4 * math.sqrt(2 / 2000) + 0.01
    torch.testing.assert_close(walks[:, 5:6], system.simulate(start[:1], grid(1.0, 100), 0, first=5), rtol=0, atol=1e-14)


def test_divergence_and_products_are_those_of_the_jacobian():
    system, x, t = bent(), torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.3, dtype=F64)
    J = torch.stack([torch.autograd.functional.jacobian(lambda y: system.f(y[None], t[:1])[0], row) for row in x])
    torch.testing.assert_close(divergence(lambda y: system.f(y, t), x), J.diagonal(dim1=1, dim2=2).sum(1), rtol=0, atol=1e-13)
    torch.testing.assert_close(along(lambda y: system.f(y, t), x, x), (J @ x[..., None])[..., 0], rtol=0, atol=1e-13)


def test_to_dict_and_plot():
    import json

    from matplotlib.figure import Figure

    path = most_likely_path(examples.decision(), state(0.5), state(-1.0), grid(1.0, 20))
    assert json.loads(json.dumps(path.to_dict()))["converged"] is True
    axes = Figure().subplots(1, 2)
    path.plot(axes[0])
    # the decision's path is straight, drift or not
    measured, driftless = (line.get_ydata() for line in axes[0].lines[:2])
    assert max(abs(a - b) for a, b in zip(measured, driftless, strict=True)) < 1e-12
    most_likely_path(examples.monostable(), state(-1, 1), state(1, 1), grid(1.0, 20)).plot(axes[1])
    assert axes[1].get_legend() is not None


def test_bad_input():
    system, a, b, t = examples.monostable(), state(-1, 1), state(1, 1), grid(1.0, 10)
    detached = Dynamics.constant(lambda x, t: -(x.detach() ** 3), 2, 0.5)
    with pytest.raises(ArgumentError, match="without gradient"):
        most_likely_path(detached, a, b, t)
    with pytest.raises(ArgumentError, match="without gradient"):
        check_differentiable(lambda x: torch.round(x), torch.randn(50, 2, dtype=F64, generator=torch.Generator().manual_seed(0)))
    check_differentiable(lambda x: grid(1.0, 49)[:, None].expand(50, 2), torch.zeros(50, 2, dtype=F64))
    with pytest.raises(ArgumentError, match="further terms"):
        most_likely_path(examples.ring_attractor(growth=0.5), a, b, t)
    assert most_likely_path(examples.ring_attractor(growth=0.5), a, b, t, action="freidlin-wentzell", generators=[TURN]).converged
    for wrong in ({"action": "least"}, {"method": "guessing"}):
        # the shape checks of the test run may be the first to refuse
        with pytest.raises((ArgumentError, TypeCheckError)):
            most_likely_path(system, a, b, t, **wrong)
    with pytest.raises(ArgumentError, match="rise"):
        most_likely_path(system, a, b, t.flip(0))
    with pytest.raises(ShapeError, match="start"):
        most_likely_path(system, state(1, 2, 3), state(1, 2, 3), t)
    with pytest.raises(ArgumentError, match="float64"):
        most_likely_path(Dynamics(system.drift, system.diffusion, 2, dtype=torch.float32), a, b, t)
    with pytest.raises(ArgumentError, match="not positive"):
        most_likely_path(Dynamics.constant(system.drift, 2, 0.0), a, b, t)
    with pytest.raises(ArgumentError, match="not finite"):
        most_likely_path(Dynamics.constant(lambda x, t: x / (0 * x), 2, 0.5), a, b, t)
    with pytest.raises(ShapeError, match="drift"):
        most_likely_path(Dynamics.constant(lambda x, t: x[:, :1], 2, 0.5), a, b, t)
    with pytest.raises(ShapeError, match="diffusion"):
        Dynamics.constant(system.drift, 2, torch.ones(3))
    with pytest.raises(ArgumentError, match="ratios"):
        reverse_times(EDM(), 1.0, 2.0, 10)
