"""The report asks every question of any model, says what a known model's answers must be, and stands alone as a page."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from sfumato.cli import main
from sfumato.data import Dataset
from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.explain.report import QUESTIONS, ask, explain
from sfumato.learn import save_model
from sfumato.noise import EDM, VariancePreserving

EVENT = (1, 3, 3)


def law() -> Gaussian:
    basis = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    values = torch.logspace(0.3, -1.5, 9, dtype=torch.float64)
    return Gaussian(torch.linspace(-0.3, 0.3, 9, dtype=torch.float64), SpectralCovariance.low_rank(basis, values, 0.0), EVENT)


@pytest.fixture(scope="module")
def data() -> Dataset:
    x = law().to(torch.float32).sample(1500, seed=3)
    return Dataset("a Gaussian", x[:1300], x[1300:])


@pytest.fixture(scope="module")
def exact(data):
    """All answers for the exact denoiser of the data's own law."""
    denoiser = law().to(torch.float32).denoiser(VariancePreserving())
    return {panel.name: panel for panel in ask(denoiser, data)}


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href"):
                self.links.append(value)

    def handle_data(self, data):
        self.text.append(data)


def test_every_question_has_an_answer_in_the_report_order(exact):
    assert list(exact) == list(QUESTIONS)
    # an exact law cannot be trained again, and the report says so instead of leaving the question out
    assert exact["learning"].missing
    assert all(panel.answers and panel.advice for name, panel in exact.items() if name != "learning")


def test_of_a_gaussian_the_gaussian_explains_all_and_the_whole_way_can_be_skipped(exact):
    probe = exact["gaussian"].answers[0][1]
    # all but the error of a covariance fitted to 1,300 samples, of which shares go with the square
    assert min(probe.explained["gaussian"][0]) > 0.99 > min(probe.explained["isotropic"][0])
    teleport = exact["teleport"].answers[0][1]
    assert max(teleport.measured) < 0.05
    assert teleport.saved > 0.5


def test_of_a_gaussian_components_emerge_at_their_deviations_and_kicks_move_as_predicted(exact):
    emergence = exact["emergence"].answers[0][1]
    assert emergence.rank_correlation > 0.99
    assert emergence.slope == pytest.approx(1, abs=0.1)
    response = exact["response"].answers[0][1]
    for gain, predicted in zip(response.gains, response.gains_predicted, strict=True):
        assert gain == pytest.approx(predicted, rel=0.1)


def test_of_a_gaussian_there_is_one_mode_and_nothing_is_copied(exact):
    assert set(exact["landscape"].answers[0][1].counts) == {1}
    assert exact["memory"].answers[0][1].fraction < 0.05
    assert exact["memory"].advice.startswith("No")


def test_a_model_that_repeats_its_training_data_is_found_out(data):
    """The negative control: the exact denoiser of twenty points."""
    few = Dataset("twenty points", data.train[:20], data.test)
    panel = {p.name: p for p in ask(Empirical(few.train).denoiser(EDM()), few, ["memory"])}["memory"]
    assert panel.answers[0][1].fraction > 0.9
    assert panel.advice.startswith("Yes")


def test_the_page_stands_alone_and_says_what_the_json_says(data, tmp_path):
    model = Preconditioned(ResidualMLP(EVENT, 8, 1), EDM(), 0.5)
    evil = "</h1><script>alert(1)</script> $\\frac{"
    panels = explain(model, data, tmp_path, ["gaussian", "trajectory"], about={"name": evil})
    html = (tmp_path / "explain.html").read_text()
    page = Page()
    page.feed(html)
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    assert len(page.ids) == len(set(page.ids))
    assert "<script" not in html
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    assert "mathdefault" not in html
    told = json.loads((tmp_path / "explain.json").read_text())
    assert set(told) == {"facts", "gaussian", "trajectory"}
    for panel in panels:
        assert any(panel.advice in text for text in page.text)
        assert told[panel.name]["advice"] == panel.advice


def test_numbers_in_the_json_are_the_answers(exact):
    plain = exact["trajectory"].to_dict()["answers"]
    [answer] = plain.values()
    assert answer["numbers"]["planar"] == exact["trajectory"].answers[0][1].states.planar
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert not any(isinstance(v, float) and math.isnan(v) for v in answer["numbers"].values())


def test_bad_questions_and_models_of_other_shapes_are_clear_errors(data):
    denoiser = law().to(torch.float32).denoiser(VariancePreserving())
    with pytest.raises(ArgumentError, match="gaussian, linear"):
        ask(denoiser, data, ["gaussiann"])
    flat = Dataset("flat", data.train.flatten(1), data.test.flatten(1))
    with pytest.raises(ShapeError):
        ask(Preconditioned(ResidualMLP((4,), 8, 1), EDM(), 0.5), flat, ["gaussian"])


def test_the_command_line_explains_a_model_it_trains_and_refuses_unknown_questions(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["explain", "--out", str(tmp_path), "--steps", "20", "--only", "gaussian,teleport"])
    assert not stop.value.code
    assert {p.name for p in tmp_path.iterdir()} == {"model", "explain.html", "explain.json"}
    assert "How much of the sampling can be skipped?" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["explain", "--out", str(tmp_path / "other"), "--only", "everything"])
    assert stop.value.code == 2
    assert "gaussian, linear" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_model_that_does_not_know_its_data_asks_for_them(tmp_path, capsys):
    save_model(Preconditioned(ResidualMLP(EVENT, 8, 1), EDM(), 0.5), tmp_path / "model", {})
    with pytest.raises(SystemExit) as stop:
        main(["explain", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "--data" in capsys.readouterr().err
