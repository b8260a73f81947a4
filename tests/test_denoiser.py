from __future__ import annotations

import inspect
from typing import get_args

import pytest
import torch
from scipy.integrate import solve_ivp

from sfumato import denoiser as module
from sfumato.denoiser import View, from_data, to_data
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import (
    EDM,
    BetaTable,
    Cosine,
    FlowMatching,
    SubVariancePreserving,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
)

PROCESSES = [
    VariancePreserving(),
    SubVariancePreserving(),
    Cosine(),
    VarianceExploding(),
    EDM(),
    FlowMatching(),
    FlowMatching(3.0),
    Trigonometric(),
    BetaTable.linear(100, 1e-3, 0.2),
]
VIEWS = get_args(View)
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_process
@pytest.mark.parametrize("view", VIEWS)
def test_views_go_there_and_back(process, view):
    data, noise = randn(5, 2, 3), randn(5, 2, 3, seed=1)
    t = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95], dtype=torch.float64)
    x = process.sample(data, t, noise)
    there = from_data(data, view, x, t, process)
    back = to_data(there, view, x, t, process)
    # D is read off with a factor of at most 1/alpha
    lost = 1 / process.alpha(t).reshape(-1, 1, 1) * (1 + x.abs())
    assert float(((back - data).abs() / lost).max()) < 1e-14
    # one time a sample is the same as each sample on its own
    for i in range(5):
        torch.testing.assert_close(there[i : i + 1], from_data(data[i : i + 1], view, x[i : i + 1], t[i], process), rtol=1e-14, atol=1e-14)


@every_process
def test_views_of_the_true_pair_are_what_their_names_say(process):
    """With `D = x_0` the noise is eps, the score is that of `N(alpha x_0, sigma^2)`, the velocity is `alpha' x_0 + sigma' eps`."""
    data, eps, t = randn(4, 3), randn(4, 3, seed=1), 0.3737  # not a node of the table, where its rates jump
    x = process.sample(data, t, eps).requires_grad_(True)
    alpha, sigma = process.alpha(t), process.sigma(t)
    log_prob = torch.distributions.Normal(alpha * data, sigma).log_prob(x).sum()
    (score,) = torch.autograd.grad(log_prob, x)
    time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    moving = process.sample(data, time, eps).flatten()
    path = torch.stack([torch.autograd.grad(v, time, retain_graph=True)[0] for v in moving]).reshape(data.shape)
    expected = {"data": data, "noise": eps, "score": score, "energy": -score, "velocity": path, "v": alpha * eps - sigma * data}
    for view in VIEWS:
        torch.testing.assert_close(from_data(data, view, x, t, process), expected[view], rtol=1e-11, atol=1e-11)


@every_process
@pytest.mark.parametrize("view", VIEWS)
def test_views_at_the_clean_end(process, view):
    """Every view but the data divides by sigma = 0; read backwards, data and v still determine the clean data, which is x."""
    x, some = randn(2, 3), randn(2, 3, seed=1)
    if view == "data":
        assert torch.equal(from_data(some, view, x, 0.0, process), some)
    else:
        with pytest.raises(ArgumentError, match="finite"):
            from_data(some, view, x, 0.0, process)
    if view in ("data", "v"):
        assert torch.equal(to_data(some, view, x, 0.0, process), some if view == "data" else x)
    else:
        with pytest.raises(ArgumentError, match="determines the clean data"):
            to_data(some, view, x, 0.0, process)


@pytest.mark.parametrize("process", [FlowMatching(), FlowMatching(3.0), Trigonometric(), Cosine()], ids=repr)
@pytest.mark.parametrize("view", VIEWS)
def test_views_at_an_end_without_signal(process, view):
    """At alpha = 0 all views exist; noise and score no longer know the data, velocity and v do."""
    data, x = randn(2, 3), randn(2, 3, seed=1)
    there = from_data(data, view, x, 1.0, process)
    known = {"noise": x, "score": -x, "energy": x, "v": -data}
    if view in known:
        torch.testing.assert_close(there, known[view], rtol=0, atol=1e-15)
    if view in ("noise", "score", "energy"):
        with pytest.raises(ArgumentError, match="determines the clean data"):
            to_data(there, view, x, 1.0, process)
    else:
        torch.testing.assert_close(to_data(there, view, x, 1.0, process), data, rtol=1e-14, atol=1e-14)


def test_one_bad_time_in_a_batch_is_refused():
    x = randn(2, 3)
    with pytest.raises(ArgumentError):
        from_data(x, "noise", x, torch.tensor([0.5, 0.0]), EDM())
    with pytest.raises(ArgumentError):
        to_data(x, "noise", x, torch.tensor([0.5, 1.0]), FlowMatching())
    with pytest.raises(ShapeError):
        from_data(x, "noise", x, torch.tensor([0.5, 0.2, 0.1]), EDM())


@pytest.mark.parametrize("view", VIEWS)
def test_states_keep_their_dtype(view):
    x = randn(2, 3).float()
    assert from_data(x, view, x, 0.5, Cosine()).dtype == torch.float32
    assert to_data(x, view, x, 0.5, Cosine()).dtype == torch.float32


def test_a_process_with_infinite_velocity_is_refused_and_not_made_nan():
    """A last beta of 1 switches the signal off at once: in that cell there is no velocity."""
    x = randn(2, 3)
    with pytest.raises(ArgumentError, match="velocity"):
        from_data(x, "velocity", x, 1.0, BetaTable((0.1, 0.2, 1.0)))


@every_process
def test_the_belief_of_a_law_gives_its_score_in_every_view(process, g4):
    """`score = -noise / sigma = -energy` is autograd's gradient of the log-density of `law.through(process, t)`."""
    denoiser = g4.denoiser(process)
    for t in (0.08, 0.5, 0.93):
        x = (float(process.alpha(t)) * randn(6, 2) + float(process.sigma(t)) * randn(6, 2, seed=1)).requires_grad_(True)
        (true,) = torch.autograd.grad(g4.through(process, t).log_prob(x).sum(), x)
        x = x.detach()
        size = float(true.abs().max())
        torch.testing.assert_close(denoiser.score(x, t), true, rtol=0, atol=1e-10 * size)
        assert torch.equal(denoiser.energy_gradient(x, t), -denoiser.score(x, t))
        torch.testing.assert_close(denoiser.noise(x, t), -float(process.sigma(t)) * true, rtol=0, atol=1e-10 * size)
        assert torch.equal(denoiser.view("data", x, t), denoiser.denoise(x, t))


@every_process
def test_the_velocity_is_that_of_the_exact_gaussian_flow(process, full_gaussian):
    """Central differences of the closed form, Richardson-extrapolated; inside a cell of the beta table."""
    x = randn(4, 3, 4)
    denoiser = full_gaussian.denoiser(process)
    for t in (0.155, 0.505, 0.905):

        def difference(h, t=t):
            return (full_gaussian.flow(process, t, t + h)(x) - full_gaussian.flow(process, t, t - h)(x)) / (2 * h)

        moved = (4 * difference(5e-4) - difference(1e-3)) / 3
        torch.testing.assert_close(denoiser.velocity(x, t), moved, rtol=2e-6, atol=2e-6 * float(moved.abs().max()))


def test_the_velocity_carries_the_flow_from_noise_to_the_closed_form(full_gaussian):
    """SciPy integrates the view; the law's own map is the answer."""
    process, x = VariancePreserving(), randn(2, 3, 4)
    denoiser = full_gaussian.denoiser(process)

    def rate(t, y):
        return denoiser.velocity(torch.from_numpy(y).reshape(x.shape), t).reshape(-1).numpy()

    end = solve_ivp(rate, (0.9, 0.1), x.reshape(-1).numpy(), method="DOP853", rtol=1e-8, atol=1e-10).y[:, -1]
    torch.testing.assert_close(torch.from_numpy(end).reshape(x.shape), full_gaussian.flow(process, 0.9, 0.1)(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ours", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("theirs", [VariancePreserving(), EDM(), FlowMatching(3.0), PROCESSES[-1]], ids=lambda p: p.kind)
def test_a_belief_asked_under_another_process_is_the_laws_own_there(ours, theirs, g4):
    reach = min(float(ours.ratio(1.0)), float(theirs.ratio(1.0)), 200.0)
    t = ours.time_of_ratio(torch.tensor([1e-3, 0.05, 1.0, 7.0, reach * (1 - 1e-9)], dtype=torch.float64))
    x = ours.sample(g4.sample(5, 0), t, randn(5, 2))
    moved = g4.denoiser(theirs).under(ours)
    assert moved.process == ours
    torch.testing.assert_close(moved.denoise(x, t), g4.denoiser(ours).denoise(x, t), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moved.denoise(x[2:3], float(t[2])), moved.denoise(x, t)[2:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ours", [FlowMatching(), Trigonometric(), Cosine()], ids=lambda p: p.kind)
@pytest.mark.parametrize("theirs", [FlowMatching(3.0), Trigonometric(), Cosine()], ids=lambda p: p.kind)
def test_both_ends_carry_over_to_another_process(ours, theirs, g4):
    """At alpha = 0 the belief is the mean, at sigma = 0 the state itself."""
    x = randn(3, 2)
    moved = g4.denoiser(theirs).under(ours)
    torch.testing.assert_close(moved.denoise(x, 1.0), g4.mean.expand(3, 2), rtol=0, atol=1e-14)
    torch.testing.assert_close(moved.denoise(x, 0.0), x, rtol=0, atol=1e-14)


def test_views_of_a_moved_belief_are_those_of_the_new_process(g4):
    x, ours = randn(4, 2), FlowMatching()
    moved, own = g4.denoiser(EDM()).under(ours), g4.denoiser(ours)
    for view in VIEWS:
        torch.testing.assert_close(moved.view(view, x, 0.4), own.view(view, x, 0.4), rtol=1e-11, atol=1e-11)


def test_under_its_own_process_a_denoiser_is_itself(g4):
    denoiser = g4.denoiser(EDM(80.0))
    assert denoiser.under(EDM(80.0)) is denoiser


def test_the_condition_is_passed_through_other_coordinates(g4):
    class Labelled(type(g4.denoiser(EDM()))):
        def denoise(self, x, t, condition=None):
            return condition.to(x)[:, None].expand_as(x)

    labels = torch.tensor([3.0, 5.0])
    moved = Labelled(g4, EDM()).under(Cosine())
    assert moved.denoise(randn(2, 2), 0.5, labels)[:, 0].tolist() == [3, 5]


def test_noise_beyond_the_inner_process_is_answered_from_its_noisiest_end():
    """A unit Gaussian at k = inf, asked of a process that ends at k = 80: off the mean by x l k / (l + k^2) = x / 80, and no more."""
    from sfumato.exact import Gaussian, SpectralCovariance

    law = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 1.0))
    x = randn(3, 2)
    got = law.denoiser(EDM(80.0)).under(FlowMatching()).denoise(x, 1.0)
    torch.testing.assert_close(got, x * 80 / 6401, rtol=1e-12, atol=0)


def test_k_is_what_two_processes_must_share():
    """Negative control: the same time instead of the same ratio gives another belief."""
    from sfumato.exact import Gaussian, SpectralCovariance

    law = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 1.0))
    x, ours, theirs = randn(3, 2), FlowMatching(), EDM()
    naive = law.denoiser(theirs).denoise(x, 0.5)
    own = law.denoiser(ours).denoise(x, 0.5)
    assert float((naive - own).abs().max()) > 0.1
    torch.testing.assert_close(law.denoiser(theirs).under(ours).denoise(x, 0.5), own, rtol=1e-12, atol=1e-12)


def test_an_unknown_view_is_refused(monkeypatch):
    # the function's own error, without the test run's type checks
    monkeypatch.setattr(module, "_weights", inspect.unwrap(module._weights))
    x = randn(2, 2)
    for f in (from_data, to_data):
        with pytest.raises(ArgumentError, match="one of data, noise"):
            inspect.unwrap(f)(x, "epsilon", x, 0.5, EDM())
