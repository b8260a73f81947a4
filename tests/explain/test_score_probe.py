from __future__ import annotations

import json

import pytest
import torch
from matplotlib.figure import Figure

from sfumato.errors import ArgumentError, DataError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.explain import ScoreProbe, gaussian_approximants, score_probe
from sfumato.explain.generalising.reference_tables import RATIOS, REFERENCES
from sfumato.noise import EDM, VariancePreserving
from sfumato.seeds import noise


@pytest.fixture(scope="module")
def world(g4):
    process = EDM()
    laws = {**gaussian_approximants(g4.gaussian()), "mixture": g4}
    return g4.denoiser(process), {name: law.denoiser(process) for name, law in laws.items()}, g4.sample(600, 0)


def test_the_shares_are_their_definitions(world):
    """Every measure from scores and answers written out, at one level, in one piece; the probe works in three."""
    model, approximants, x0 = world
    process, k = model.process, 0.7
    got = score_probe(model, approximants, x0, [k], seed=3)
    t = float(process.time_of_ratio(k))
    x = x0 + k * noise(3, 600, (2,), dtype=torch.float64).draw(2)
    own, score = model.denoise(x, t), model.score(x, t)
    for name, approximant in approximants.items():
        other, theirs = approximant.denoise(x, t), approximant.score(x, t)
        wanted = {
            "explained": 1 - (score - theirs).square().sum(1) / score.square().sum(1),
            "denoised": 1 - (own - other).square().sum(1) / own.square().sum(1),
            "reverse": 1 - (score - theirs).square().sum(1) / theirs.square().sum(1),
            "distance": (own - other).square().mean(1).sqrt(),
        }
        for field, value in wanted.items():
            mean, deviation = getattr(got, field)[name]
            assert mean[0] == pytest.approx(float(value.mean()), rel=1e-9)
            assert deviation[0] == pytest.approx(float(value.std()), rel=1e-9, abs=1e-12)


def test_the_model_explains_itself_and_less_knowledge_explains_less(world):
    model, approximants, x0 = world
    probe = score_probe(model, approximants, x0, [0.5, 1.0, 2.0, 30.0])
    assert probe.explained["mixture"][0] == pytest.approx([1.0] * 4)
    for i in range(3):
        coarse, middle, fine = (probe.explained[name][0][i] for name in ("mean", "gaussian", "mixture"))
        assert coarse < middle < fine
    # with g4's nearly round covariance one variance does as well as two
    assert probe.explained["isotropic"][0] == pytest.approx(probe.explained["gaussian"][0], abs=0.05)
    assert probe.crossing("gaussian") == 2.0
    assert probe.crossing("mixture") == 0.5
    assert probe.crossing("mean", 1.1) is None


def test_where_one_probes_matters(world):
    """At high noise pure noise probes a Gaussian's answer at other places than noisy data do."""
    model, approximants, x0 = world
    noisy, pure = (score_probe(model, approximants, x0 + 3, [2.0], at=at) for at in ("noisy data", "pure noise"))
    assert noisy.at != pure.at
    assert abs(noisy.denoised["gaussian"][0][0] - pure.denoised["gaussian"][0][0]) > 0.05
    shifted = score_probe(model, approximants, x0, [2.0], at="pure noise")
    assert shifted.explained == pure.explained, "pure noise knows nothing of the data"


def test_memorised_points_are_told_from_the_law_they_came_of(g4):
    """The denoiser of 20 points is explained by those points and not by the mixture; the mixture's own denoiser the other way round."""
    process = VariancePreserving()
    points = g4.sample(20, 1)
    approximants = {"empirical": Empirical(points).denoiser(process), "mixture": g4.denoiser(process)}
    overfit = score_probe(approximants["empirical"], approximants, points.repeat(10, 1), [0.1])
    honest = score_probe(approximants["mixture"], approximants, g4.sample(200, 2), [0.1])
    assert overfit.explained["empirical"][0][0] > overfit.explained["mixture"][0][0] + 0.2
    assert honest.explained["mixture"][0][0] > honest.explained["empirical"][0][0] + 0.2


def test_numbers_words_pictures_and_plain_data(world):
    model, approximants, x0 = world
    steps = []
    probe = score_probe(model, approximants, x0, [0.5, 30.0], reference=REFERENCES["cifar10"], progress=steps.append)
    assert steps == [1, 2]
    assert probe.numbers["gaussian: 99% from"] == 30.0
    assert "30" in probe.meaning
    assert "`mixture`" in probe.meaning
    axes = Figure().subplots()
    probe.plot(axes)
    labels = [line.get_label() for line in axes.lines]
    assert {"gaussian", "mixture", "gaussian, CIFAR-10, EDM (variance preserving)"} <= set(labels)
    assert axes.get_xlabel()
    data = json.loads(json.dumps(probe.to_dict()))
    assert data["ratios"] == [0.5, 30.0]
    assert data["explained"]["gaussian"][0] == pytest.approx(probe.explained["gaussian"][0])
    assert ScoreProbe([1.0], {"gaussian": ([0.995], [0.0])}).numbers["gaussian: 99% from"] == 1.0


def test_published_tables_are_complete_and_tell_the_papers_story():
    """One value a level, shares that rise with noise, and the Gaussian nearer to a trained image model than the points at low noise."""
    for table in REFERENCES.values():
        for rows in (table.score, table.denoised):
            assert all(len(row) == len(RATIOS) and max(row) <= 1 for row in rows.values())
        for row in table.score.values():
            assert list(row) == sorted(row)
    for name in ("cifar10", "ffhq64", "afhqv2-64"):
        assert REFERENCES[name].score["gaussian"][0] > REFERENCES[name].score["empirical"][0]
    assert REFERENCES["mnist"].score["gaussian"][0] < REFERENCES["mnist"].score["empirical"][0], "but not on MNIST"


def test_bad_input_is_named(world):
    model, approximants, x0 = world
    with pytest.raises(ArgumentError, match="ratios"):
        score_probe(model, approximants, x0, [])
    with pytest.raises(ArgumentError, match="approximants"):
        score_probe(model, {}, x0, [1.0])
    with pytest.raises(DataError, match="x0"):
        score_probe(model, approximants, x0[:1], [1.0])
    with pytest.raises(ArgumentError, match="ratio"):
        score_probe(model, approximants, x0, [1e6])


def test_the_gaussian_family_is_what_its_names_say():
    law = Gaussian(
        torch.tensor([1.0, -2.0], dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([3.0, 1.0], dtype=torch.float64))
    )
    family = gaussian_approximants(law, 0.5)
    spectra = {name: sorted(float(v) for v in member.covariance.dense().diagonal()) for name, member in family.items()}
    assert spectra == {"mean": [0, 0], "isotropic": [2, 2], "gaussian": [1, 3], "regularised": [1.5, 3.5]}
    assert all(torch.equal(member.mean, law.mean) for member in family.values())
