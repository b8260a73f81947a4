from __future__ import annotations

import copy
import inspect
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import RecipeError, SfumatoError
from sfumato.noise import EDM, BetaTable, FlowMatching, VariancePreserving
from sfumato.sample import Exponential, Linearisation, Program, Row, uniform_log_snr

PROCESS = VariancePreserving()
TIMES = (1.0, 0.5, 0.0)


def one(*values):
    return torch.tensor(values, dtype=torch.float64)


def rows(**changes):
    """Three valid rows; `states`, `data` and `noise` replace parts of the last one."""
    last = {"states": {1: one(0.5)}, "data": {0: one(0.1), 1: one(0.7)}, "noise": {1: one(0.3), 2: one(0.2)}} | changes
    return (Row(), Row({0: one(0.6)}, {0: one(0.4)}, {1: one(0.2)}), Row(**last))


def equal(a, b):
    """The same table, bit by bit."""
    same = (a.name, a.process, a.times, a.space) == (b.name, b.process, b.times, b.space)
    parts = [(p, q) for r, s in zip(a.rows, b.rows, strict=True) for (_, p), (_, q) in zip(r.parts(), s.parts(), strict=True)]
    return same and all(p.keys() == q.keys() and all(torch.equal(p[j], q[j]) for j in p) for p, q in parts)


def test_a_program_knows_what_it_asks_and_draws():
    program = Program("three", PROCESS, TIMES, rows())
    assert program.evaluated == (0, 1)
    assert program.evaluations == 2
    assert program.draws == (1, 2)
    assert program.modes == 1
    quiet = Program("quiet", PROCESS, TIMES, (Row(), Row({0: one(1.0)}), Row({0: one(0.2)}, {1: one(0.3)})))
    assert (quiet.evaluated, quiet.evaluations, quiet.draws) == ((1,), 1, ())


def test_the_dense_tables_hold_every_coefficient_and_nothing_else():
    A, B, C = Program("three", PROCESS, TIMES, rows()).dense()
    assert A[:, :, 0].tolist() == [[0, 0, 0], [0.6, 0, 0], [0, 0.5, 0]]
    assert B[:, :, 0].tolist() == [[0, 0, 0], [0.4, 0, 0], [0.1, 0.7, 0]]
    assert C[:, :, 0].tolist() == [[0, 0, 0], [0, 0.2, 0], [0, 0.3, 0.2]]


def test_levels_are_those_of_the_process():
    alpha, sigma = Program("three", PROCESS, TIMES, rows()).levels
    t = torch.tensor(TIMES, dtype=torch.float64)
    assert torch.equal(alpha, PROCESS.alpha(t))
    assert torch.equal(sigma, PROCESS.sigma(t))


def test_equal_times_are_allowed_since_a_corrected_state_stands_where_the_predicted_one_does():
    Program("pair", PROCESS, (1.0, 0.5, 0.5), rows())


@pytest.mark.parametrize(
    ("times", "table", "what"),
    [
        ((1.0,), (Row(),), "at least 2"),
        (TIMES, rows()[:2], "same number of nodes and rows"),
        ((0.5, 1.0, 0.0), rows(), "never rise"),
        ((1.0, 0.5, 0.5000001), rows(), "never rise"),
        ((1.1, 0.5, 0.0), rows(), "times in"),
        ((1.0, 0.5, -0.1), rows(), "times in"),
        ((1.0, math.nan, 0.0), rows(), "times in"),
        (TIMES, (Row({0: one(1.0)}), *rows()[1:]), "an empty row"),
        (TIMES, rows(states={2: one(1.0)}), "nodes from 0 to 1"),
        (TIMES, rows(states={-1: one(1.0)}), "nodes from 0 to 1"),
        (TIMES, rows(data={2: one(1.0)}), "nodes from 0 to 1"),
        (TIMES, rows(noise={0: one(1.0)}), "nodes from 1 to 2"),
        (TIMES, rows(noise={3: one(1.0)}), "nodes from 1 to 2"),
        (TIMES, rows(data={0: one(math.nan)}), "finite numbers"),
        (TIMES, rows(states={0: one(math.inf)}), "finite numbers"),
        (TIMES, rows(data={0: one(1.0, 2.0)}), "1 finite numbers"),
        (TIMES, rows(data={0: torch.tensor(1.0)}), "1 finite numbers"),
    ],
)
def test_tables_that_are_none_are_refused_when_they_are_made(times, table, what):
    with pytest.raises(RecipeError, match=what):
        Program("bad", PROCESS, times, table)


def test_a_spectral_program_has_one_coefficient_a_mode(full_gaussian, thin_gaussian):
    for law, modes in ((full_gaussian, 12), (thin_gaussian, 5)):
        right = torch.linspace(0.1, 1, modes, dtype=torch.float64)
        program = Program("spectral", PROCESS, (1.0, 0.0), (Row(), Row({0: right}, {0: right})), law)
        assert program.modes == modes
        with pytest.raises(RecipeError, match=f"{modes} finite numbers"):
            Program("spectral", PROCESS, (1.0, 0.0), (Row(), Row({0: right[1:]})), law)
        with pytest.raises(RecipeError, match=f"{modes} finite numbers"):
            Program("spectral", PROCESS, (1.0, 0.0), (Row(), Row({0: one(1.0)})), law)


@pytest.mark.parametrize("process", [PROCESS, EDM(3.0), FlowMatching(3.0), BetaTable((0.1, 0.2, 0.3))], ids=lambda p: p.kind)
def test_programs_survive_json_bit_by_bit(process):
    program = Program("three", process, TIMES, rows(noise={2: one(0.1 + 0.2)}, data={0: one(1 / 3), 1: one(-1e-300)}))
    assert equal(Program.from_dict(json.loads(json.dumps(program.to_dict()))), program)


def test_spectral_programs_survive_json_beside_their_law(full_gaussian, thin_gaussian):
    for law in (full_gaussian, thin_gaussian):
        program = Exponential(Linearisation.gaussian(law), 2, True).compile(PROCESS, uniform_log_snr(PROCESS, 4))
        written = json.loads(json.dumps(program.to_dict()))
        assert equal(Program.from_dict(written, law), program)
        with pytest.raises(RecipeError, match="another law"):
            Program.from_dict(written)
    with pytest.raises(RecipeError, match="another law"):
        Program.from_dict(written, full_gaussian)


def valid():
    return json.loads(json.dumps(Program("three", PROCESS, TIMES, rows()).to_dict()))


def test_an_unknown_format_says_so():
    with pytest.raises(RecipeError, match="another version"):
        Program.from_dict(valid() | {"format": 2})


def test_every_key_is_needed_and_no_other_is_known():
    for key in valid():
        with pytest.raises(RecipeError, match="exactly the keys"):
            Program.from_dict({k: v for k, v in valid().items() if k != key})
    with pytest.raises(RecipeError, match="exactly the keys"):
        Program.from_dict(valid() | {"comment": ""})
    with pytest.raises(RecipeError, match=r"rows\[1\]"):
        Program.from_dict(valid() | {"rows": [{}, {"state": {"0": [1.0]}}, {}]})


HUGE = 10**400  # JSON has no largest integer; float64 has


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), None),
        ((), [1, 2]),
        (("name",), 3),
        (("times",), "1.0"),
        (("times",), [1.0, "0.5", 0.0]),
        (("times",), [1.0, True, 0.0]),
        (("times",), [HUGE, 0.5, 0.0]),
        (("modes",), 2),
        (("rows",), {}),
        (("rows", 1), []),
        (("rows", 1, "states"), [[0, 1.0]]),
        (("rows", 1, "states"), {"x": [1.0]}),
        (("rows", 1, "states"), {"-0": [1.0]}),
        (("rows", 1, "states"), {"1" * 5000: [1.0]}),
        (("rows", 1, "states"), {"0": [1.0], "00": [2.0]}),
        (("rows", 1, "states"), {"٠": [1.0]}),
        (("rows", 1, "states", "0"), 1.0),
        (("rows", 1, "states", "0"), []),
        (("rows", 1, "states", "0"), [None]),
        (("rows", 1, "states", "0"), [[1.0]]),
        (("rows", 1, "states", "0"), [HUGE]),
        (("process",), None),
        (("process",), []),
        (("process", "kind"), []),
        (("process", "kind"), "no such process"),
        (("process", "beta_max"), "20"),
        (("process", "beta_max"), HUGE),
        (("process", "beta_max"), -1.0),
        (("process", "gamma"), 1.0),
    ],
    ids=lambda v: str(v)[:30],
)
def test_broken_files_are_refused_by_name(path, value):
    with pytest.raises(SfumatoError):
        Program.from_dict(_with(valid(), path, value))


def test_whole_numbers_are_numbers():
    """Other writers of JSON drop the point of 1.0."""
    written = _with(_with(valid(), ("times",), [1, 0.5, 0]), ("process", "beta_max"), 20)
    assert equal(Program.from_dict(written), Program("three", PROCESS, TIMES, rows()))


def _with(data, path, value):
    if not path:
        return value
    data = copy.deepcopy(data)
    spot = data
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = value
    return data


def _paths(data, here=()):
    yield here
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _paths(value, (*here, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.just(HUGE) | st.floats() | st.sampled_from(["", "0", "edm", "noise"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["0", "1", "states", "kind", "betas"]), inner, max_size=3),
    max_leaves=4,
)
# the fuzz meets the library as a user does, without the test run's type checks
from_dict = inspect.unwrap(Program.from_dict.__func__)


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.sampled_from(sorted(_paths(valid()), key=str)), JSON), min_size=1, max_size=2))
def test_a_mutated_file_loads_to_what_it_says_or_is_refused(changes):
    """Never another exception; and what loads, loads again from what it writes."""
    data = valid()
    for path, value in changes:
        try:
            data = _with(data, path, value)
        except (TypeError, KeyError, IndexError):  # the first change took away where the second would have been made
            continue
    try:
        program = from_dict(Program, data)
    except SfumatoError:
        return
    assert equal(Program.from_dict(json.loads(json.dumps(program.to_dict()))), program)
    assert list(program.times) == data["times"]
    program.levels  # noqa: B018
