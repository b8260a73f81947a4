"""Dynamic programming over a trajectory: brute force, closed forms, invariances, and a world where it must not help."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, VariancePreserving
from sfumato.sample import Exponential, Linearisation, Trajectory, ddim, karras, reference, run
from sfumato.sample.times.dynamic_schedule import cheapest_paths, dynamic_schedule, jump_costs, with_free_node

PROCESS = EDM(40.0)
TIMES = karras(PROCESS, 31, ratio_min=0.02)[:-1]
LAW = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.25))


def flow(process=PROCESS, times=TIMES, law=LAW, n=32) -> Trajectory:
    x = law.through(process, times[0]).sample(n, 3)
    return Trajectory(process, times, tuple(law.flow(process, times[0], t)(x) for t in times))


@pytest.mark.parametrize("discount", [0.8, 1, 1.15])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_paths_are_the_best_of_all_subsets(steps, discount):
    costs = torch.rand(9, 9, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)

    def total(nodes):
        return sum(discount**m * float(costs[a, b]) for m, (a, b) in enumerate(itertools.pairwise(nodes)))

    found = cheapest_paths(costs, steps, discount)
    assert [len(path) for path in found] == list(range(2, steps + 2))
    best = min(total((0, *inner, 8)) for inner in itertools.combinations(range(1, 8), steps - 1))
    assert total(found[-1]) == pytest.approx(best, rel=1e-12)


def test_every_step_taken_is_the_whole_grid():
    assert cheapest_paths(torch.ones(6, 6, dtype=torch.float64), 5)[-1] == (0, 1, 2, 3, 4, 5)


def test_costs_of_a_gaussian_are_closed_forms():
    """One variance `c^2`: the flow scales every path by `S = sqrt(c^2 + k^2)`, and Euler by `1 + (k' - k) k / S^2`."""
    path = flow()
    costs = jump_costs(LAW.denoiser(PROCESS).denoise, path)
    k = torch.tensor([40 * t for t in TIMES], dtype=torch.float64)
    size = torch.sqrt(0.25 + k**2)
    norm = path.states[0].norm(dim=1).mean() / size[0]
    miss = size[:, None] * (1 + (k[None] - k[:, None]) * k[:, None] / size[:, None] ** 2) - size[None]
    upper = torch.ones_like(costs, dtype=torch.bool).triu(1)
    assert torch.allclose(costs[upper], (norm * miss.abs())[upper], rtol=1e-9, atol=1e-12)
    assert bool(torch.isinf(costs[~upper]).all())


def test_the_gaussian_schedule_is_the_tangent_law():
    """For one Gaussian the best Euler nodes are `c tan(theta)`, equal angles; on a grid of 200 points the costs' own optimum is that
    of a sum of misses, near it: the error is within 2 % of the tangent schedule's.
    """
    from sfumato.sample.times.aligned_schedule import tangent

    times = karras(PROCESS, 201, ratio_min=0.02)[:-1]
    path, belief = flow(times=times, n=4), LAW.denoiser(PROCESS).denoise

    def error(schedule):
        return float((run(ddim().compile(PROCESS, schedule), belief, path.states[0]) - path.end).norm())

    found = error(dynamic_schedule(belief, path, 6))
    assert found < 1.02 * error(tangent(PROCESS, 6, 0.5, ratio_min=0.02))
    assert found < 0.8 * error(karras(PROCESS, 7, ratio_min=0.02)[:-1])


@pytest.mark.parametrize("distance", ["l2", "l1", "deviation"])
def test_the_process_does_not_matter(distance, g4):
    """The same ratios under a variance-preserving process: the same costs, since all is measured in x / alpha."""
    vp = VariancePreserving()
    ratios = [40 * t for t in TIMES[::3]]
    here = reference(g4.denoiser(PROCESS).denoise, g4.through(PROCESS, TIMES[0]).sample(8, 0), PROCESS, g4.gaussian(), TIMES[::3])
    times = tuple(float(vp.time_of_ratio(k)) for k in ratios)
    states = tuple(float(vp.alpha(t)) * x for t, x in zip(times, here.states, strict=True))
    a = jump_costs(g4.denoiser(PROCESS).denoise, here, distance)
    b = jump_costs(g4.denoiser(vp).denoise, Trajectory(vp, times, states), distance)
    upper = torch.ones_like(a, dtype=torch.bool).triu(1)
    assert torch.allclose(a[upper], b[upper], rtol=1e-6, atol=1e-9)


def test_it_beats_handmade_schedules_on_a_mixture_and_a_foreign_world_does_not(g4):
    """Euler, 5 steps, other starts than it was found on; control: costs of the same mixture 10 times smaller."""
    belief = g4.denoiser(PROCESS)
    warm = reference(belief.denoise, g4.through(PROCESS, 1.0).sample(64, 0), PROCESS, g4.gaussian(), TIMES)
    test = reference(belief.denoise, g4.through(PROCESS, 1.0).sample(64, 1), PROCESS, g4.gaussian(), TIMES)

    def error(times):
        return float((run(ddim().compile(PROCESS, times), belief.denoise, test.states[0]) - test.end).square().mean().sqrt())

    plain = error(karras(PROCESS, 6, ratio_min=0.02)[:-1])
    assert error(dynamic_schedule(belief.denoise, warm, 5)) < 0.75 * plain
    shrunk = flow(law=Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.0025)))
    small = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.0025)).denoiser(PROCESS)
    assert error(dynamic_schedule(small.denoise, shrunk, 5)) > plain


def test_a_free_node_helps_and_costs_nothing(g4):
    belief = g4.denoiser(PROCESS).denoise
    warm = reference(belief, g4.through(PROCESS, 1.0).sample(64, 0), PROCESS, g4.gaussian(), TIMES)
    times, free = dynamic_schedule(belief, warm, 4), Exponential(Linearisation.data(), 1, teleport=True)
    more = with_free_node(belief, warm, times, free)
    assert free.compile(PROCESS, more).evaluations == ddim().compile(PROCESS, times).evaluations

    def error(solver, schedule):
        return float((run(solver.compile(PROCESS, schedule), belief, warm.states[0]) - warm.end).norm())

    assert error(free, more) < error(ddim(), times)
    with pytest.raises(ArgumentError, match="asks no denoiser"):
        with_free_node(belief, warm, times, ddim())
    with pytest.raises(ArgumentError, match="the trajectory's ends"):
        with_free_node(belief, warm, times[1:], free)
    with pytest.raises(ArgumentError, match="a place of the trajectory"):
        with_free_node(belief, warm, (TIMES[0], TIMES[1], TIMES[-1]), free)


def test_bad_input_is_refused():
    costs = torch.ones(4, 4, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="from 1 to 3 steps"):
        cheapest_paths(costs, 4)
    with pytest.raises(ArgumentError, match="positive discount"):
        cheapest_paths(costs, 2, 0.0)
    with pytest.raises(ArgumentError, match="NaN"):
        cheapest_paths(costs * math.nan, 2)
    with pytest.raises((ShapeError, TypeCheckError)):
        cheapest_paths(costs[:1], 1)
    with pytest.raises((ArgumentError, TypeCheckError), match=r"distance"):
        jump_costs(LAW.denoiser(PROCESS).denoise, flow(), "median")


def test_the_deviation_is_of_the_distance_from_the_chord():
    """Three nodes off the chord along the first axis, by hand: a point's offset is the length of its other coordinates. Of two samples on
    one path one is led further from the chord and the other back to it; the sizes of both changes count, and so do the other distances'.
    """
    points = [(4.0, 0.0, 0.0), (2.5, 0.3, -0.4), (0.0, 0.0, 0.0)]
    process = EDM(4.0)
    path = Trajectory(process, (1.0, 0.5, 0.25), tuple(torch.tensor([p, p], dtype=torch.float64) for p in points))
    answer = torch.tensor([[1.0, 2.0, -1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)

    def off(points):
        return torch.linalg.vector_norm(points[:, 1:], dim=1)

    miss = {
        "deviation": lambda a, b: (off(a) - off(b)).abs(),
        "l2": lambda a, b: torch.linalg.vector_norm(a - b, dim=1),
        "l1": lambda a, b: torch.linalg.vector_norm(a - b, 1, dim=1),
    }
    for distance, each in miss.items():
        costs = jump_costs(lambda x, t: answer.expand_as(x), path, distance)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            share = path.times[j] / path.times[i]
            jumped = share * path.states[i] + (1 - share) * answer
            assert float(costs[i, j]) == pytest.approx(float(each(jumped, path.states[j]).mean()), rel=1e-12)


def test_no_other_free_node_ends_nearer():
    """Every place between the first two nodes, tried by running: root mean squares of the distance to the path's ends."""
    path, free = flow(times=karras(PROCESS, 13, ratio_min=0.02)[:-1], n=6), Exponential(Linearisation.data(), 1, teleport=True)
    belief, times = LAW.denoiser(PROCESS).denoise, (path.times[0], path.times[9], path.times[-1])

    def error(place):
        program = free.compile(PROCESS, (times[0], place, *times[1:]))
        return float((run(program, belief, path.states[0]) - path.end).norm())

    errors = [error(t) for t in path.times[1:9]]
    best = errors.index(min(errors))
    assert 0 < best < 7
    assert with_free_node(belief, path, times, free) == (times[0], path.times[1 + best], *times[1:])
