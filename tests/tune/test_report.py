"""The report says what the records say, in a page that stands alone.

To look at it, and to see that a browser has nothing to complain about:

    python tests/tune/test_report.py report.html
    chromium --headless --no-sandbox --disable-gpu --enable-logging=stderr --user-data-dir="$(mktemp -d)" \
        --window-size=1400,5200 --screenshot=report.png file://$PWD/report.html 2>&1 | grep CONSOLE

which must print nothing; `--blink-settings=preferredColorScheme=0` shows it in dark.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from sfumato.errors import ArgumentError, OutputError
from sfumato.explain import ScoreProbe
from sfumato.explain.page import svg
from sfumato.metrics import Estimate
from sfumato.tune.findings import compare, headline, landing, on_quality
from sfumato.tune.plots import levels
from sfumato.tune.report import write_report
from sfumato.tune.result import Candidate, Teleport, TuneResult

RECIPE = {"format": 1, "model": "digits", "programs": {"5": {"times": [1.0, 0.5, 0.0], "weights": list(range(400))}}}
BUDGETS = (5, 8, 10, 15, 20)
PEERS = {"DPM-Solver++ 2M": 1.0, "DPM-Solver++ 2M Karras": 1.15, "UniPC": 1.3, "DEIS": 1.7, "DDIM": 3.0, "Heun": 4.0, "Euler <Karras>": 2.6}


def _ladder(n: int, top: float, bottom: float) -> list[float]:
    return [top * (bottom / top) ** (i / max(1, n - 1)) for i in range(n)]


def _candidates(budgets: tuple[int, ...]) -> list[Candidate]:
    out = []
    for n in budgets:
        floor = 0.31
        error = 1.05 * n**-2.0
        quality = Estimate(floor + error, 0.004)
        out.append(Candidate("fitted order 2", "ours", n, Estimate(error, error / 30), quality, 8e-4, _ladder(n, 4.1, 0.05)))
        out.append(Candidate("Gaussian exponential", "ours", n, Estimate(1.2 * error, error / 30)))
        for name, scale in {"DPM-Solver++(2M)": 3.2, "UniPC-3": 3.6, "Heun": 9.0}.items():
            out.append(Candidate(name, "classic", n, Estimate(scale * error, error / 10), seconds=7e-4))
        for name, scale in PEERS.items():
            worse = Estimate(3.9 * scale * error, error / 9)
            out.append(Candidate(name, "diffusers", n, worse, Estimate(floor + 4 * scale * error, 0.006), 14e-4, _ladder(n, 80.0, 0.02)))
    return out


def make_result(budgets: tuple[int, ...] = BUDGETS, event: tuple[int, ...] = (1, 8, 8)) -> TuneResult:
    """Records that look like those of the digits; with `event` one can see what other data would be shown like."""
    ratios = _ladder(40, 80.0, 0.02)
    left = {"isotropic": (1.3, 1.2), "gaussian": (0.8, 1.9), "mixture": (0.35, 2.2), "empirical": (0.6, 2.6)}
    explained = {}
    for name, (scale, power) in left.items():
        share = [min(0.97, scale / (1 + ratio**power)) for ratio in ratios]
        explained[name] = ([1 - s for s in share], [0.3 * s for s in share])
    generator = torch.Generator().manual_seed(3)
    clean = torch.nn.functional.interpolate(torch.randn(24, 1, 3, 3, generator=generator), (8, 8), mode="bilinear")
    clean = (2 * clean).tanh() if event == (1, 8, 8) else torch.randn(24, *event, generator=generator).tanh()
    names = ["data", "reference", *(f"{who}, {n} evaluations" for n in budgets[:3] for who in ("fitted order 2", "DPM-Solver++ 2M"))]
    pictures = {}
    for i, name in enumerate(names):
        pictures[name] = (clean.flip(0) if i == 0 else clean + 0.06 * max(0, i - 1) * torch.randn(clean.shape, generator=generator)).clamp(
            -1, 1
        )
    return TuneResult(
        model={"name": "digits-convolutional", "parameters": 1_204_113, "process": "variance preserving"},
        data={"name": "digits", "training": 1500, "held out": 297, "event": list(clean.shape[1:])},
        settings={"budgets": list(budgets), "seed": 0, "tolerance": 0.005, "diffusers": True},
        machine={"device": "cpu", "threads": 2, "torch": "2.13.0"},
        diagnosis=ScoreProbe(ratios, explained),
        teleport=Teleport(0.01, 4.1, [*ratios, 4.1], [0.16 / (1 + r**2) for r in ratios] + [0.16 / (1 + 4.1**2)]),
        reference={"evaluations": 400.0, "self_error": 2.3e-4, "samples": 256.0},
        candidates=_candidates(budgets),
        world=[replace(c, quality=None, seconds=None) for c in _candidates(budgets) if c.family == "ours"],
        chosen=dict.fromkeys(budgets, "fitted order 2"),
        floor={"reference": Estimate(0.312, 0.004), "training data": Estimate(0.287, 0.005)},
        timings=[("statistics", 1.2), ("diagnosis", 14.0), ("teleport", 3.4), ("search", 48.0), ("reference", 131.0), ("candidates", 77.0)],
        pictures=pictures,
    )


VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: the elements, their attributes, the text, and the main table's cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.rows: list[list[tuple[str, str | None]]] = []
        self.in_main = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.in_main = dict(attrs).get("id") == "main"
        if self.in_main and tag == "tr":
            self.rows.append([])
        if self.in_main and tag == "td":
            self.rows[-1].append(("", dict(attrs).get("data-value")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element, line {self.getpos()[0]}"

    def handle_data(self, data):
        self.text.append(data)
        if self.in_main and self.open[-1:] in (["td"], ["small"]):
            shown, value = self.rows[-1][-1]
            self.rows[-1][-1] = (shown + data, value)


def render(result: TuneResult, folder: Path, recipe: dict | None = None) -> str:
    write_report(result, folder / "report.html", RECIPE if recipe is None else recipe)
    return (folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return render(make_result(), tmp_path_factory.mktemp("report"))


def read(shown: str) -> tuple[float, float]:
    """The value that `0.12 ± 0.03` or `(2.6 ± 0.1)·10⁻³` shows, and half a unit of its last digit."""
    number, power = re.fullmatch(r"\(?(\S+) ± \S+?\)?(?:·10(\S+))?", shown).groups()
    scale = 10.0 ** int((power or "⁰").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    return float(number) * scale, 0.5 * scale * 10.0 ** -len(number.partition(".")[2])


def test_page_is_balanced_stands_alone_and_has_no_clashing_ids(html):
    page = Page(html)
    assert page.open == []
    loads = [v for _, attrs in page.elements for k, v in attrs.items() if k in ("src", "href", "xlink:href", "srcset", "data", "action")]
    assert loads
    assert all(v.startswith(("data:image/png;base64,", "#")) for v in loads)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    assert re.findall(r"url\((?!#)|@import|https?:", re.sub(r"base64,[^\"]*", "", html)) == []
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {v[1:] for v in loads if v.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert targets <= set(ids), "every glyph, marker and clip that a figure uses is in the page"


def test_every_figure_is_drawn_in_the_pages_colours_and_hence_legible_in_light_and_dark(html):
    figures = re.findall(r"<figure>.*?</figure>", html, flags=re.DOTALL)
    inks = {ink for figure in figures for ink in re.findall(r"(?:fill|stroke): ?([^;\"]+)", figure)}
    assert len(figures) == 4
    assert all(ink == "none" or re.fullmatch(r"var\(--[a-z-]+\)", ink) for ink in inks), inks
    light, dark = html.split("prefers-color-scheme: dark")
    for name in {ink[6:-1] for ink in inks if ink != "none"}:
        assert f"--{name}: #" in light.split("<body>")[0]
        assert f"--{name}: #" in dark.split("</style>")[0]


def test_main_table_holds_the_results_own_numbers(html):
    result = make_result()
    rows = [row for row in Page(html).rows if row and row[0][1]]
    assert [int(row[0][0]) for row in rows] == list(BUDGETS)
    for row, n in zip(rows, BUDGETS, strict=True):
        ours = next(c for c in result.candidates if c.name == "fitted order 2" and c.evaluations == n)
        peer = sorted((c for c in result.candidates if c.family == "diffusers" and c.evaluations <= n), key=lambda c: c.error.value)[0]
        assert row[1][0] == ours.name
        assert row[3][0].startswith(peer.name)
        estimates = {2: ours.error, 4: peer.error, 6: ours.quality, 7: peer.quality}
        for column, estimate in estimates.items():
            assert float(row[column][1]) == estimate.value, "the value behind the cell is exact"
            value, half = read(row[column][0])
            assert abs(value - estimate.value) <= half * 1.001, "and what it shows is that value, rounded"
        assert float(row[5][1]) == pytest.approx(peer.error.value / ours.error.value, rel=1e-12)
    floors = [row for row in Page(html).rows if row and not row[0][1]]
    assert [float(row[2][1]) for row in floors] == [0.312, 0.287]


def test_headline_is_computed_and_turns_with_the_figures():
    """Ours is 1.05 / n^2 and the best setting 3.9 times that: 5 reach what sqrt(3.9) * 5 = 9.9, hence the measured 10, are needed for."""
    result = make_result()
    assert headline(result)[0] == "Your model's fastest sampler: 5 evaluations reach what DPM-Solver++ 2M needs 10 for"

    def scaled(factor: float) -> TuneResult:
        return replace(
            result,
            candidates=[
                replace(c, error=Estimate(c.error.value * factor, c.error.standard_error * factor)) if c.family == "ours" else c
                for c in result.candidates
            ],
        )

    assert headline(scaled(0.95))[0].endswith("needs 15 for"), "now 10 is not enough, and 15 is the next that was measured"
    assert headline(scaled(0.05))[0] == "Your model's fastest sampler: 5 evaluations reach what no diffusers setting reached with up to 20"
    assert headline(scaled(3.9))[0].startswith("No sure gain"), "level within the errors is not ahead"
    assert headline(scaled(8.0))[0].startswith("No gain on this model")


def test_a_lead_within_two_standard_errors_is_no_lead():
    ours = Candidate("a", "ours", 5, Estimate(0.10, 0.01))
    for peer, ahead in ((0.13, False), (0.17, True)):
        # the ratio's standard error is 0.1 sqrt(ratio^2 + 1): 0.16 of 1.3, 0.2 of 1.7
        result = replace(make_result((5,)), chosen={5: "a"}, candidates=[ours, Candidate("b", "diffusers", 5, Estimate(peer, 0.01))])
        assert headline(result)[0].startswith("Your model's fastest sampler") is ahead
        assert compare(result)[0].ratio.standard_error == pytest.approx(math.hypot(0.1 * peer / 0.1, 0.1), rel=1e-12)


def test_quality_sentence_names_the_first_budget_from_which_all_reach_the_floor():
    """Ours lies 1.05 / n^2 above 0.31 and may lie 2 * 0.004 * sqrt(2) = 0.0113 above the floor of 0.312: so from n = 9 on."""
    assert "10 evaluations will do" in on_quality(make_result())
    assert "more evaluations still pay" in on_quality(make_result((5, 8)))
    assert "judge by the error" in on_quality(replace(make_result(), floor={}))


def test_levels_figure_places_every_node_where_its_ratio_belongs(html):
    """The dots' abscissae are affine in the logarithm of the ratios, with one map for all samplers, to the hundredth that is written."""
    result = make_result()
    figure = html[html.index('aria-label="With 5 evaluations our program') :].split("</svg>")[0]
    dots = re.findall(r'<use href="#[^"]*" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--(?:ours|peer)\)', figure)
    drawn = [sorted(float(x) for x, at in dots if at == y) for y in dict.fromkeys(y for _, y in dots)]
    told = [sorted(-math.log(k) for k in c.ratios) for pair in compare(result) for c in (pair.ours, pair.peer)]
    assert [len(row) for row in drawn] == [len(row) for row in told]
    x, y = (torch.tensor([v for row in rows for v in row], dtype=torch.float64) for rows in (told, drawn))
    basis = torch.stack([x, torch.ones_like(x)], 1)
    fit = torch.linalg.lstsq(basis, y[:, None]).solution
    assert float(fit[0]) > 0, "noise at the left, data at the right"
    assert float((basis @ fit - y[:, None]).abs().max()) < 0.011


def test_landing_is_where_a_program_first_looks_if_that_is_below_the_start():
    at = Candidate("a", "ours", 2, Estimate(0.1, 0.01), ratios=[4.0, 1.0])
    assert landing(at, 80.0) == 4.0
    assert landing(at, math.inf) == 4.0
    assert landing(at, 4.0) is None
    assert landing(replace(at, ratios=None), 80.0) is None


def test_hostile_names_and_broken_numbers_are_shown_as_text(tmp_path):
    """Mark-up and formulas are shown as they are; what is no number is called so and wins nothing; levels off the scale are marked."""
    evil = "</td></svg><script>alert(1)</script> --> $\\frac{$"
    result = make_result((5, 8))
    worst = [
        Candidate(evil, "diffusers", 5, Estimate(math.nan, math.nan)),
        Candidate("exploded", "diffusers", 5, Estimate(math.inf, math.nan)),
        Candidate("single", "classic", 5, Estimate(0.2, math.nan)),
    ]
    renamed = [
        replace(c, name=evil, ratios=[math.inf, *c.ratios[1:-1], 0.0]) if c.name == "DPM-Solver++ 2M" else replace(c, quality=None)
        for c in result.candidates
    ]
    broken = replace(
        result,
        model={"name": evil, "loss": math.nan, "note": None},
        candidates=worst + renamed,
        pictures={evil: result.pictures["data"]},
        floor={},
    )
    html = render(broken, tmp_path, {"name": evil, "weights": list(range(1000))})
    page = Page(html)
    assert page.open == []
    assert sum(tag == "script" for tag, _ in page.elements) == 1, "ours, and nobody else's"
    assert "alert(1)" not in html.split("<script>")[1], "whatever was named so stands outside of it"
    text = "".join(page.text)
    assert text.count(evil) >= 5
    assert "1000 in all" in text
    assert text.count("not finite") == 2
    assert "2 gave no finite error" in text
    assert "An open dot lies off the scale." in text
    row = next(row for row in page.rows if row and row[0][1] == "5")
    assert float(row[4][1]) == pytest.approx(3.9 * 1.05 / 25)


def test_without_diffusers_the_page_says_so_and_compares_with_the_tables(tmp_path):
    result = make_result((5,), (2,))
    alone = replace(result, candidates=[c for c in result.candidates if c.family != "diffusers"])
    text = "".join(Page(render(alone, tmp_path)).text)
    assert "No diffusers scheduler was measured" in text
    assert "Best published solver in our tables" in text
    assert "No other sampler was measured" in headline(replace(alone, candidates=[c for c in alone.candidates if c.family == "ours"]))[1]


def test_figures_leave_the_users_plot_settings_alone_and_do_not_change_from_run_to_run():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    first, second = (svg(levels(make_result((5,)), 350), "levels", "said") for _ in range(2))
    assert first == second
    assert dict(mpl.rcParams) == before


def test_no_budget_and_no_place_to_write_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="chosen"):
        write_report(replace(make_result((5,)), chosen={}), tmp_path / "report.html", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(make_result((5,)), tmp_path / "file" / "report.html", {})


if __name__ == "__main__":
    write_report(make_result(), Path(sys.argv[1]), RECIPE)
