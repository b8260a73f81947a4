"""Every preset on falling times of any spacing under processes with any parameters: what its table must do, and what it is exact for."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise

import pytest
import torch
from generated import F64, examples, gaussians, grids, numbers, processes, seeds, tensor
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sfumato.errors import ArgumentError, SfumatoError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import LINEAR_SDES, Cosine, FlowMatching, VariancePreserving
from sfumato.sample import (
    PRESETS,
    Exponential,
    LinearAncestral,
    LinearDDIM,
    LinearEuler,
    Linearisation,
    Program,
    Row,
    consistency,
    response,
    run,
)
from sfumato.seeds import noise

solvers = st.sampled_from(sorted(PRESETS))
points = st.lists(numbers(-3.0, 3.0), min_size=3, max_size=3).map(lambda v: torch.tensor([v], dtype=F64))


def compiled(name, process, times):
    """The program, or None where the solver says that it cannot start without signal, or stop above zero noise; nothing else is refused."""
    try:
        return PRESETS[name].compile(process, times)
    except ArgumentError as refusal:
        no_start = "signal" in str(refusal) and float(process.alpha(times[0])) == 0
        no_end = "zero noise" in str(refusal) and name.endswith("-renewed") and times[-1] > 0
        assert no_start or no_end
        return None


def rounding(program):
    """What a sum of as many terms of the table's size loses: where steps are huge or tiny, large coefficients cancel."""
    largest = max(float(table.abs().max()) for table in program.dense()) * max(float(level.max()) for level in program.levels)
    return max(1e-12, 1e-15 * len(program.times) ** 2 * largest)


def check_constant(program, c):
    """A belief that is one point everywhere: from its exact marginal all that is left is noise of the right size, and none at `t = 0`."""
    alpha, sigma = (level.tolist() for level in program.levels)
    eps = tensor((4, 3), 0)
    draws = noise(0, 4, (3,), dtype=F64)
    out = run(program, lambda x, t: c.expand_as(x), alpha[0] * c + sigma[0] * eps, draws)
    assert out.dtype == F64
    slack = 10 * rounding(program) * (1 + float(c.abs().max()) + 3)
    if program.draws:
        if sigma[-1] == 0:
            assert float((out - c).abs().max()) < slack
    else:
        assert float((out - alpha[-1] * c - sigma[-1] * eps).abs().max()) < slack


def check_table(name, process, times, c):
    """The ends are the times' ends (some solvers choose nodes of their own between), coefficients are finite, point masses are exact."""
    program = compiled(name, process, times)
    if program is None:
        return
    assert (program.times[0], program.times[-1]) == (times[0], times[-1])
    for table in program.dense():
        assert table.dtype == F64
        assert bool(torch.isfinite(table).all())
    assert bool(program.draws) <= (not PRESETS[name].deterministic)
    defects = consistency(program)
    assert max(defects.data, defects.noise) < rounding(program)
    check_constant(program, c)


@examples(60)
@given(solvers, processes, grids(30), points)
def test_tables_of_up_to_thirty_steps_take_a_known_point_home(name, process, times, c):
    check_table(name, process, times, c)


@examples(5)
@given(processes, grids(5), points)
def test_every_preset_takes_a_known_point_home(process, times, c):
    for name in PRESETS:
        check_table(name, process, times, c)


@examples(60)
@given(solvers, processes, grids(12))
def test_as_many_questions_as_the_table_says(name, process, times):
    """The runner asks once a node in use, at the node's time and in order; float64 coefficients keep the state's dtype."""
    program = compiled(name, process, times)
    if program is None:
        return
    asked = []

    def denoise(x, t):
        asked.append(t)
        assert x.dtype == torch.float32
        return 0.5 * x

    out = run(program, denoise, tensor((2, 3), 0, torch.float32), noise(0, 2, (3,)))
    assert out.dtype == torch.float32
    assert asked == [program.times[j] for j in program.evaluated]
    assert len(asked) == program.evaluations
    assert all(s <= t for t, s in pairwise(asked))


@st.composite
def bad_grids(draw):
    """Falling times, spoilt: two equal, one that rises, one outside, one that is none, or a single one."""
    times = list(draw(grids(6)))
    i = draw(st.integers(0, len(times) - 1))
    kind = draw(st.sampled_from(["equal", "rising", "outside", "nan", "single"]))
    if kind == "equal":
        times.insert(i, times[i])
    elif kind == "rising":
        times = times[::-1]
    elif kind == "single":
        times = times[:1]
    else:
        times[i] = math.nan if kind == "nan" else draw(st.sampled_from([-1e-9, 1 + 1e-9, math.inf, -math.inf]))
    return tuple(times)


@examples(50)
@given(solvers, bad_grids())
def test_times_that_do_not_fall_are_refused(name, times):
    with pytest.raises(ArgumentError, match="times"):
        PRESETS[name].compile(VariancePreserving(), times)
    for solver in (LinearDDIM(), LinearAncestral(), LinearEuler()):
        with pytest.raises(ArgumentError, match="times"):
            solver.compile(LINEAR_SDES["cld"](), times)


HELD = {"data": Linearisation.data(), "noise": Linearisation.noise()}


def antiderivative(lam, degree, sign):
    """`exp(-sign lam) int exp(sign lam) lam^degree d lam`, without a constant."""
    return sum(sign ** (k + 1) * (-1) ** k * math.perm(degree, k) * lam ** (degree - k) for k in range(degree + 1))


def polynomial_defect(program, split, degree, steps):
    """The largest defect of rows with a full history where what is held is `lambda^degree`, on exact states at all other nodes."""
    t = torch.tensor(program.times, dtype=F64)
    lam = program.process.half_log_snr(t)
    alpha, sigma = program.levels
    if split == "data":
        # d(x / sigma) / d lambda = exp(lambda) D
        answers, states = lam**degree, alpha * antiderivative(lam, degree, 1)
    else:
        # d(x / alpha) / d lambda = -exp(-lambda) eps, D = (x - sigma eps) / alpha
        states = -sigma * antiderivative(lam, degree, -1)
        answers = (states - sigma * lam**degree) / alpha
    worst, size = 0.0, 1.0
    for i, row in enumerate(program.rows):
        if len(row.data) >= steps:
            terms = [float(c) * float(states[j]) for j, c in row.states.items()] + [
                float(c) * float(answers[j]) for j, c in row.data.items()
            ]
            worst = max(worst, abs(sum(terms) - float(states[i])))
            size = max(size, *map(abs, terms))
    return worst, size


@examples(60)
@given(
    st.sampled_from(["data", "noise"]),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([VariancePreserving(), Cosine(), FlowMatching()]),
    grids(10, start=0.9, end=0.1, spread=0.1),
)
def test_multistep_solvers_are_exact_for_polynomials(split, steps, corrector, degree, process, times):
    """What is held over a step may be any polynomial in `lambda` of a degree below the order, on times of any spacing."""
    assume(degree < steps)
    program = Exponential(HELD[split], steps, corrector).compile(process, times)
    worst, size = polynomial_defect(program, split, degree, steps)
    assert worst < 1e-11 * size


def test_a_polynomial_of_the_order_itself_is_seen():
    """Negative control: the same defect one degree further."""
    program = Exponential(Linearisation.data(), 2).compile(VariancePreserving(), (0.9, 0.6, 0.35, 0.1))
    assert polynomial_defect(program, "data", 1, 2)[0] < 1e-12
    assert polynomial_defect(program, "data", 2, 2)[0] > 1e-3


worlds = st.lists(numbers(0.0, 4.0), min_size=3, max_size=3).flatmap(
    lambda v: seeds.map(lambda s: Gaussian(tensor((3,), s), SpectralCovariance.diagonal(torch.tensor(v, dtype=F64))))
)
mild = st.sampled_from([VariancePreserving(), Cosine(), FlowMatching(), FlowMatching(3.0)])


def check_response(program, law, x):
    """`X_N = a X_0 + b m + sum c_j eps_j`, by running the sampler in the law's world."""
    draws = noise(1, len(x), law.event_shape, dtype=F64)
    out = run(program, law.denoiser(program.process).denoise, x, draws)
    said = response(program, law)
    expected = said.start * x + said.mean * law.mean
    for j, c in zip(program.draws, said.noise, strict=True):
        expected = expected + c * draws.draw(j)
    size = max(float(t.abs().max()) for t in program.dense()) * (1 + float(out.abs().max()))
    assert float((out - expected).abs().max()) < 1e-12 * (1 + len(program.times) * size)
    return said


@examples(50)
@given(solvers, mild, grids(8, spread=0.02), worlds, seeds)
def test_the_exact_error_is_that_of_running_the_sampler(name, process, times, law, seed):
    """The response by running; the endpoint error of a deterministic table by points whose mean square is the expectation."""
    program = compiled(name, process, times)
    if program is None:
        return
    said = check_response(program, law, tensor((4, 3), seed))
    if program.draws or (times[-1] == 0 and bool((law.covariance.spectrum == 0).any())):
        return
    spread = 3**0.5 * process.prior_std * torch.eye(3, dtype=F64)
    corners = torch.cat([spread, -spread])
    ends = law.flow(process, times[0], times[-1])(corners)
    off = run(program, law.denoiser(process).denoise, corners) - ends
    measured = math.sqrt(float(off.square().sum() / ends.square().sum()))
    assert said.endpoint_error(process.prior_std**2) == pytest.approx(measured, rel=1e-6, abs=1e-9 * (1 + measured))


@examples(40)
@given(st.data(), mild, grids(8, spread=0.02), st.integers(1, 3), st.booleans(), st.sampled_from([0.5, 1.0]), seeds)
def test_a_spectral_table_is_exact_in_its_own_world(data, process, times, steps, corrector, power, seed):
    """Exponential integrators of a Gaussian law follow its flow in any number of steps, dense or low rank; a saved table is the same."""
    law = data.draw(gaussians((2, 2)))
    program = Exponential(Linearisation.gaussian(law, power), steps, corrector).compile(process, times)
    x = tensor((3, 2, 2), seed)
    out = run(program, law.denoiser(process).denoise, x)
    torch.testing.assert_close(out, law.flow(process, times[0], times[-1])(x), rtol=0, atol=1e-8 * (1 + 1e-3 * rounding(program) / 1e-12))
    again = Program.from_dict(json.loads(json.dumps(program.to_dict())), law)
    assert torch.equal(run(again, law.denoiser(process).denoise, x), out)


@examples(40)
@given(solvers, processes, grids(10))
def test_a_saved_table_is_the_same_table(name, process, times):
    program = compiled(name, process, times)
    if program is None:
        return
    again = Program.from_dict(json.loads(json.dumps(program.to_dict())))
    assert (again.name, again.times, again.process) == (program.name, program.times, program.process)
    for ours, theirs in zip(again.rows, program.rows, strict=True):
        for (_, a), (_, b) in zip(ours.parts(), theirs.parts(), strict=True):
            assert list(a) == list(b)
            assert all(torch.equal(a[j], b[j]) for j in b)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.sampled_from(["0", "states"]), inner, max_size=3),
    max_leaves=6,
)


@examples(80)
@given(st.sampled_from(["format", "name", "process", "times", "modes", "rows"]), json_values)
@example("rows", [{}, {"data": {"0": []}}, {}])
def test_other_tables_are_refused_by_name(key, value):
    """A saved table with one entry replaced by any JSON: a table, or a refusal of ours."""
    data = PRESETS["ddim"].compile(VariancePreserving(), (1.0, 0.5, 0.0)).to_dict()
    data[key] = value
    try:
        Program.from_dict(data)
    except SfumatoError:
        return


def test_a_broken_table_is_seen():
    """Negative control: one coefficient off by 1e-7."""
    law = Gaussian(torch.ones(3, dtype=F64), SpectralCovariance.isotropic(3, 0.5))
    program = PRESETS["dpm-solver++-3m"].compile(VariancePreserving(), (1.0, 0.7, 0.4, 0.2, 0.0))
    row = program.rows[3]
    other = Row(row.states, {j: c + 1e-7 for j, c in row.data.items()})
    broken = dataclasses.replace(program, rows=(*program.rows[:3], other, *program.rows[4:]))
    c, x = torch.ones(1, 3, dtype=F64), tensor((2, 3), 0)
    right = law.denoiser(program.process)
    check_constant(program, c)
    check_response(program, law, x)
    assert consistency(broken).data > 1e-8
    assert not torch.equal(run(broken, right.denoise, x), run(program, right.denoise, x))
    end = dataclasses.replace(program, rows=(*program.rows[:-1], Row({}, {j: 1.0001 * v for j, v in program.rows[-1].data.items()})))
    with pytest.raises(AssertionError):
        check_constant(end, c)
