from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ArgumentError
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.sample import Event, Exponential, Linearisation, Plan, Program, Row, run, uniform_log_snr
from sfumato.seeds import noise

PROCESS = VariancePreserving()


def dense_walk(program, denoise, x, draws):
    """The definition, mode by mode with dense matrices, on centred variables if the table is spectral."""
    law, alpha = program.space, program.levels[0]
    dim = x[0].numel()
    if law is None:
        mean, projectors = torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)[None]
    else:
        mean, U = law.mean, law.covariance.basis.columns()
        projectors = torch.einsum("ir,jr->rij", U, U)
        if law.covariance.rank < dim:
            projectors = torch.cat([projectors, torch.eye(dim, dtype=torch.float64)[None] - projectors.sum(0)[None]])

    def times(c, v):
        return v @ torch.einsum("m,mij->ij", c, projectors)

    A, B, C = program.dense()
    states, data = [x.reshape(len(x), -1)], []
    for i in range(len(program.rows)):
        if i:
            new = alpha[i] * mean.expand(len(x), dim)
            for j in range(i):
                new = new + times(A[i, j], states[j] - alpha[j] * mean) + times(B[i, j], data[j] - mean)
            for j in range(1, i + 1):
                new = new + times(C[i, j], draws.draw(j).reshape(len(x), -1))
            states.append(new)
        data.append(denoise(states[i].reshape(x.shape), program.times[i]).reshape(len(x), -1))
    return states[-1].reshape(x.shape)


def bent(x, t):
    """No law's belief: neither affine nor the same in every direction."""
    return torch.tanh(x) + 0.3 * x.flip(-1) + t


LAWS = ["none", "full_gaussian", "thin_gaussian"]


@pytest.fixture(params=LAWS)
def law(request):
    return None if request.param == "none" else request.getfixturevalue(request.param)


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_every_table_runs_as_its_definition_says(random_program, law, seed, consistent):
    program = random_program(PROCESS, law, 6, seed, consistent)
    draws = noise(seed, 3, (3, 4), dtype=torch.float64)
    x = draws.draw(0)
    expected = dense_walk(program, bent, x, draws)
    got = run(program, bent, x, draws)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_a_law_of_rest_alone_has_one_mode_and_needs_no_projection(random_program):
    from sfumato.exact import Gaussian, SpectralCovariance

    law = Gaussian(torch.arange(12.0, dtype=torch.float64), SpectralCovariance.isotropic(12, 0.3), (3, 4))
    program = random_program(PROCESS, law, 5, 3, consistent=False)
    draws = noise(3, 3, (3, 4), dtype=torch.float64)
    expected = dense_walk(program, bent, draws.draw(0), draws)
    torch.testing.assert_close(run(program, bent, draws.draw(0), draws), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20)
@given(nodes=st.integers(2, 9), seed=st.integers(0, 10**6), consistent=st.booleans())
def test_random_scalar_tables_run_as_their_definition_says(random_program, nodes, seed, consistent):
    program = random_program(PROCESS, None, nodes, seed, consistent)
    draws = noise(seed, 2, (3,), dtype=torch.float64)
    expected = dense_walk(program, bent, draws.draw(0), draws)
    torch.testing.assert_close(run(program, bent, draws.draw(0), draws), expected, rtol=1e-12, atol=1e-12)


def test_the_comparison_above_can_fail(random_program, thin_gaussian):
    """Negative control: one coefficient of one mode changed by 1e-6 is seen."""
    program = random_program(PROCESS, thin_gaussian, 6, 0, False)
    draws = noise(0, 3, (3, 4), dtype=torch.float64)
    expected = dense_walk(program, bent, draws.draw(0), draws)
    next(iter(program.rows[-1].states.values()))[2] += 1e-6
    assert float((run(program, bent, draws.draw(0), draws) - expected).abs().max()) > 1e-8


def test_states_keep_their_dtype_and_single_precision_is_the_rounded_walk(random_program, law):
    program = random_program(PROCESS, law, 6, 1, consistent=True)
    draws = noise(1, 3, (3, 4), dtype=torch.float64)
    wide = run(program, bent, draws.draw(0), draws)
    narrow_draws = noise(1, 3, (3, 4), dtype=torch.float32)
    narrow = run(program, bent, narrow_draws.draw(0), narrow_draws)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=2e-5, atol=2e-5)


def test_a_plan_is_the_program_made_ready(random_program, law):
    program = random_program(PROCESS, law, 6, 2, consistent=False)
    draws = noise(2, 3, (3, 4), dtype=torch.float64)
    plan = Plan.of(program, torch.float64, torch.device("cpu"))
    first = run(plan, bent, draws.draw(0), draws)
    assert torch.equal(first, run(program, bent, draws.draw(0), draws))
    assert torch.equal(first, run(plan, bent, draws.draw(0), draws)), "a plan can be run again"


def test_the_start_is_not_written_to(random_program, law):
    program = random_program(PROCESS, law, 6, 2, consistent=False)
    draws = noise(2, 3, (3, 4), dtype=torch.float64)
    x = draws.draw(0)
    kept = x.clone()
    answers = []

    def keep(state, t):
        answers.append((bent(state, t), bent(state, t)))
        return answers[-1][0]

    run(program, keep, x, draws)
    assert torch.equal(x, kept)
    assert all(torch.equal(given, copy) for given, copy in answers)


def test_the_denoiser_is_asked_once_at_each_node_in_use_and_in_order():
    one = torch.ones(1, dtype=torch.float64)
    rows = (Row(), Row({0: one}), Row({0: one}, {1: one}), Row({2: one}), Row({3: one}, {1: one, 3: one}))
    program = Program("gaps", PROCESS, (1.0, 0.8, 0.5, 0.2, 0.0), rows)
    asked = []
    run(program, lambda x, t: asked.append(t) or x, torch.zeros(1, 2, dtype=torch.float64))
    assert asked == [0.8, 0.2]
    assert program.evaluations == 2


def test_a_row_of_nothing_is_zero():
    program = Program("zero", PROCESS, (1.0, 0.0), (Row(), Row()))
    assert torch.equal(run(program, bent, torch.ones(2, 3)), torch.zeros(2, 3))


def test_events_come_in_order_with_the_state_and_the_newest_belief(random_program):
    program = random_program(PROCESS, None, 6, 5, consistent=True)
    draws = noise(5, 2, (3,), dtype=torch.float64)
    events: list[Event] = []
    answers = {}

    def ask(x, t):
        answers[t] = bent(x, t)
        return answers[t]

    end = run(program, ask, draws.draw(0), draws, events.append)
    assert [e.node for e in events] == list(range(6))
    assert tuple(e.time for e in events) == program.times
    assert torch.equal(events[0].state, draws.draw(0))
    assert events[-1].state is end
    newest = None
    for event in events:
        newest = answers.get(event.time, newest)
        assert event.denoised is newest


@pytest.mark.parametrize(
    "solver",
    [
        Exponential(steps=1),
        Exponential(steps=2),
        Exponential(steps=2, corrector=True),
        Exponential(Linearisation.isotropic(0.5), steps=2, corrector=True),
    ],
    ids=["1", "2", "2c", "isotropic 2c"],
)
def test_what_no_later_row_reads_is_forgotten(solver):
    """Memory does not grow with the number of steps: states and answers die with their last reader."""
    program = solver.compile(PROCESS, uniform_log_snr(PROCESS, 12))
    reads = {}
    for i, row in enumerate(program.rows):
        reads |= {("state", j): i for j in row.states} | {("answer", j): i for j in row.data}
    alive = {}

    def ask(x, t):
        answer = 0.9 * x
        alive["answer", program.evaluated[sum(kind == "answer" for kind, _ in alive)]] = weakref.ref(answer)
        return answer

    def check(event):
        alive["state", event.node] = weakref.ref(event.state)
        newest = max((j for kind, j in alive if kind == "answer"), default=0)
        for (kind, j), ref in alive.items():
            # the start is the caller's; the newest answer is what the event shows
            kept = j in (0, event.node) if kind == "state" else j == newest
            if not kept and reads.get((kind, j), j) < event.node:
                assert ref() is None, f"{kind} {j} still lives at node {event.node}"

    run(program, ask, torch.ones(2, 3, dtype=torch.float64), None, check)


def test_gradients_flow_through_the_walk(random_program, law):
    """Against central differences of the whole walk."""
    program = random_program(PROCESS, law, 5, 7, consistent=False)
    draws = noise(7, 2, (3, 4), dtype=torch.float64)
    x = draws.draw(0).requires_grad_(True)
    way = noise(8, 2, (3, 4), dtype=torch.float64).draw(0)
    out = run(program, bent, x, draws)
    (gradient,) = torch.autograd.grad((out**2).sum(), x)
    h = 1e-6
    ends = [(run(program, bent, x.detach() + s * h * way, draws) ** 2).sum() for s in (1, -1)]
    assert float((gradient * way).sum()) == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-7)


def test_gradients_reach_the_denoiser():
    program = Exponential(steps=2, corrector=True).compile(PROCESS, uniform_log_snr(PROCESS, 6))
    x = torch.ones(1, 2, dtype=torch.float64)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: run(program, lambda y, t: torch.tanh(s * y), x), scale)


def test_a_stochastic_program_without_noise_is_refused():
    one = torch.ones(1, dtype=torch.float64)
    program = Program("noisy", PROCESS, (1.0, 0.0), (Row(), Row({0: one}, {}, {1: one})))
    with pytest.raises(ArgumentError, match="draws"):
        run(program, bent, torch.zeros(1, 2))


def test_every_draw_in_use_is_made_once_and_no_other(random_program, law):
    """In order, whatever else a row reads; none for a deterministic program, whose draws may be given all the same."""
    made = []

    class Counted:
        def draw(self, j):
            made.append(j)
            return noise(0, 2, (3, 4), dtype=torch.float64).draw(j)

    x = torch.ones(2, 3, 4, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    quiet = Program("quiet", PROCESS, (1.0, 0.5, 0.0), (Row(), Row({0: one}, {0: one}), Row({0: one, 1: one}, {1: one})))
    run(quiet, bent, x, Counted())
    assert made == []
    noisy = random_program(PROCESS, law, 5, 2, consistent=True)
    run(noisy, bent, x, Counted())
    assert sorted(made) == sorted(j for row in noisy.rows for j in row.noise)


def test_a_spectral_program_on_other_events_is_refused(thin_gaussian):
    program = Exponential(Linearisation.gaussian(thin_gaussian), 1).compile(PROCESS, (1.0, 0.5, 0.0))
    with pytest.raises(ArgumentError, match="12 numbers"):
        run(program, bent, torch.zeros(2, 11))


def test_a_spectral_program_takes_its_events_in_any_shape_of_the_right_size(thin_gaussian):
    program = Exponential(Linearisation.gaussian(thin_gaussian), 2).compile(FlowMatching(), (1.0, 0.5, 0.0))
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    folded = run(program, lambda y, t: torch.tanh(y), x)
    flat = run(program, lambda y, t: torch.tanh(y), x.reshape(2, 12))
    assert torch.equal(folded.reshape(2, 12), flat)
