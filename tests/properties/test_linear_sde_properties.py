"""Every named member of the linear SDE family at times that nobody chose, and operators against plain matrices."""

from __future__ import annotations

import json
import math
from typing import get_args

import pytest
import torch
from generated import F64, examples, numbers, processes, seeds, tensor
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import ArgumentError, SfumatoError
from sfumato.noise import LINEAR_SDES, LinearView, Operator, convert, linear, linear_sde_from_dict
from sfumato.noise.linear_family.basis import cosines, dense, eigenvectors, haar, pixels, waves

EVENTS = {"flexible": (2,), "function_space": (4,)}
MEMBERS = {name: make() for name, make in LINEAR_SDES.items()}

members = st.sampled_from(sorted(MEMBERS))
inside = numbers(0.02, 0.98)
ordered = st.lists(inside, min_size=3, max_size=3).map(sorted)
operators_of = {"pixels": pixels, "cosines": cosines, "waves": waves, "haar": haar, "dense": dense}


def gap(a, b):
    return 0.0 if a is None and b is None else float((a.coef - b.coef).abs().max() / (1 + b.coef.abs().max()))


def check_composition(process, s, u, t):
    """`s -> u -> t` is `s -> t`: means, shifts and covariances."""
    first, then, whole = process.transition(s, u), process.transition(u, t), process.transition(s, t)
    assert gap(then.phi @ first.phi, whole.phi) < 1e-9
    assert gap(then.phi @ first.covariance @ then.phi.T + then.covariance, whole.covariance) < 1e-9
    if whole.shift is not None:
        assert gap(then.phi @ first.shift + then.shift, whole.shift) < 1e-9


@examples(60)
@given(members, ordered)
def test_transitions_compose(name, three):
    check_composition(MEMBERS[name], *three)


@examples(30)
@given(processes, ordered)
def test_a_scalar_process_behind_its_adapter_has_its_own_transitions(process, three):
    adapted = linear(process)
    s, _, t = three
    ours, theirs = adapted.transition(s, t), process.transition(s, t)
    assert float(ours.phi.coef) == pytest.approx(float(theirs.phi), rel=1e-9, abs=1e-300)
    assert float(ours.covariance.coef) == pytest.approx(float(theirs.covariance), rel=1e-6, abs=1e-11)
    check_composition(adapted, *three)


@examples(60)
@given(members, numbers(0.0, 0.98), numbers(0.0, 0.98))
def test_covariances_are_symmetric_and_positive(name, a, b):
    process, (s, t) = MEMBERS[name], sorted((a, b))
    if name == "agm":
        # its path to known data is singular where it arrives
        s, t = max(s, 1e-3), max(t, 1e-3)
    laws = [process.transition(s, t), process.marginal(t), process.coefs(max(t, 1e-3))]
    if s > 1e-2:
        laws.append(process.posterior(s, t))
    for law in laws:
        coef = law.covariance.coef
        assert bool(torch.isfinite(coef).all())
        assert float((coef - coef.mT).abs().max()) <= 1e-10 * (1 + float(coef.abs().max()))
        assert float(torch.linalg.eigvalsh((coef + coef.mT) / 2).min()) >= -1e-12 * (1 + float(coef.abs().max()))


@examples(40)
@given(members, inside, inside)
def test_what_is_written_down_makes_the_same_member(name, a, b):
    s, t = sorted((a, b))
    again = linear_sde_from_dict(json.loads(json.dumps(MEMBERS[name].to_dict())))
    ours, theirs = again.transition(s, t), MEMBERS[name].transition(s, t)
    assert gap(ours.phi, theirs.phi) == gap(ours.shift, theirs.shift) == gap(ours.covariance, theirs.covariance) == 0


@examples(60)
@given(
    members.filter(lambda name: name != "agm"),
    st.sampled_from(get_args(LinearView)),
    st.sampled_from(get_args(LinearView)),
    numbers(0.1, 0.9),
    seeds,
)
def test_views_go_round(name, one, other, t, seed):
    """From the data to a view, to another and back to the data; a velocity that does not determine the score is refused.

    The steered member has its data as its condition, and no data to go round to.
    """
    process, event = MEMBERS[name], EVENTS.get(name, (2, 2))
    data, condition = tensor((3, *event), seed), tensor((3, *event), seed + 1) if MEMBERS[name].conditions else None
    x = tensor(process.state_shape(data), seed + 2)
    shown = convert(process, data, "data", one, x, t, condition)
    try:
        turned = convert(process, shown, one, other, x, t, condition)
        back = convert(process, turned, other, "data", x, t, condition)
    except ArgumentError:
        # where the noise reaches some channels only, only the velocity has no way back
        assert "velocity" in (one, other)
        assert float(torch.linalg.eigvalsh(process.coefs(t).covariance.coef).min()) < 1e-12
        return
    spread = process.marginal(t)
    size = float(torch.linalg.cond(spread.covariance.coef).max() * (1 + (1 / torch.linalg.svdvals(spread.phi.coef)).max()))
    assert float((back - data).abs().max()) < 1e-12 * size + 1e-9


@examples(40)
@given(members, st.lists(inside, min_size=1, max_size=4))
def test_times_of_a_batch_are_each_samples_own(name, times):
    process = MEMBERS[name]
    together = process.marginal(torch.tensor(times, dtype=F64))
    for i, t in enumerate(times):
        alone = process.marginal(t)
        for a, b in ((together.phi, alone.phi), (together.covariance, alone.covariance)):
            torch.testing.assert_close(a.coef[i], b.coef, rtol=1e-10, atol=1e-12)


@examples(30)
@given(members, inside, inside)
def test_a_transition_runs_from_clean_to_noisy(name, a, b):
    if a != b:
        with pytest.raises(ArgumentError, match="s <= t"):
            MEMBERS[name].transition(max(a, b), min(a, b))


@st.composite
def operators(draw, event, channels):
    """Operators of any structure on states `(channels, *event)`, positive definite."""
    kind = draw(st.sampled_from(["everywhere", "eigenvectors", *operators_of]))
    d, seed = math.prod(event), draw(seeds)
    if kind == "everywhere":
        basis, n, k = None, 1, channels
    elif kind == "eigenvectors":
        basis, n, k = eigenvectors(torch.linalg.qr(tensor((d, d), seed + 1))[0], event), d, channels
    else:
        basis = operators_of[kind](event)
        n, k = basis.modes, channels * (d if kind == "dense" else 1)
    root = tensor((n, k, k), seed) / k**0.5
    return Operator(root @ root.mT + 0.3 * torch.eye(k, dtype=F64), basis)


@st.composite
def pairs(draw):
    event, channels = draw(st.sampled_from([(2,), (4,), (2, 2), (1, 4)])), draw(st.integers(1, 2))
    return event, draw(operators(event, channels)), draw(operators(event, channels)), draw(seeds), channels


@examples(80)
@given(pairs())
def test_operators_of_any_structure_are_their_matrices(pair):
    """Sum, product, inverse, transpose, roots, log-determinant, trace and application, against dense linear algebra."""
    event, one, other, seed, channels = pair
    a, b = one.matrix(event), other.matrix(event)
    near = {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close((one @ other).matrix(event), a @ b, **near)
    torch.testing.assert_close((one + other).matrix(event), a + b, **near)
    torch.testing.assert_close((one @ other).T.matrix(event), (a @ b).T, **near)
    torch.testing.assert_close(one.inverse().matrix(event), torch.linalg.inv(a), **near)
    root, factor = one.sqrt().matrix(event), one.cholesky().matrix(event)
    torch.testing.assert_close(root @ root, a, **near)
    torch.testing.assert_close(root, root.T, **near)
    torch.testing.assert_close(factor @ factor.T, a, **near)
    d = math.prod(event)
    torch.testing.assert_close(one.logdet(d), torch.linalg.slogdet(a).logabsdet, **near)
    torch.testing.assert_close(one.trace(d), a.trace(), **near)
    x = tensor((3, *event) if channels == 1 else (3, channels, *event), seed)
    torch.testing.assert_close(one.apply(x).flatten(1), x.flatten(1) @ a.T, **near)
    torch.testing.assert_close(one.solve(one.apply(x)), x, **near)


@examples(60)
@given(
    members,
    st.dictionaries(
        st.sampled_from(["beta", "shape", "mass", "rates", "kind", "friction"]),
        st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.lists(st.floats(), max_size=3),
        max_size=3,
    ),
)
def test_other_data_are_refused_by_name(name, changes):
    """The data of a member with some values replaced by other JSON: a process, or a refusal of ours."""
    plain = MEMBERS[name].to_dict()
    keys = sorted(plain)
    data = dict(plain)
    for place, value in enumerate(changes.values()):
        data[keys[place % len(keys)]] = value
    try:
        linear_sde_from_dict(data)
    except SfumatoError:
        return


def test_a_broken_member_is_seen():
    """Negative control: the covariance of the wrong elapsed time."""
    right = MEMBERS["cld"]

    class Broken(type(right)):
        def _transition(self, s, t):
            phi, gain, spread = super()._transition(s, t)
            return phi, gain, spread * (1 + 1e-3 * s[..., None, None, None])

    broken = Broken.__new__(Broken)
    broken.__dict__.update(right.__dict__)
    check_composition(right, 0.1, 0.4, 0.8)
    with pytest.raises(AssertionError):
        check_composition(broken, 0.1, 0.4, 0.8)
