"""What tuning found, in sentences: every figure in them is computed from the records.

"Ahead" and "level" are meant statistically: two standard errors of the ratio of the errors. All samplers walk from the same noise, so
their errors rise and fall together, and a standard error that takes them for independent is on the safe side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sfumato.metrics import Estimate
from sfumato.tune.result import Candidate, Family, TuneResult

RIVALS: dict[Family, str] = {"diffusers": "diffusers setting", "classic": "published solver in our tables"}
EXPLAINED = 0.99


@dataclass(frozen=True)
class Comparison:
    """Our program at one budget and the best rival that needs no more evaluations; `ratio` is its error over ours."""

    budget: int
    ours: Candidate
    peer: Candidate | None
    ratio: Estimate | None


def is_finite(estimate: Estimate | None) -> bool:
    """Whether a value was measured and is a number."""
    return estimate is not None and math.isfinite(estimate.value)


def measured(result: TuneResult) -> TuneResult:
    """The result without the candidates whose error is not a number, which no comparison can use."""
    return replace(result, candidates=[c for c in result.candidates if is_finite(c.error)])


def rival(result: TuneResult) -> Family | None:
    """Whom we compare with: diffusers where it was run, else the published solvers."""
    present = {c.family for c in measured(result).candidates}
    return next((family for family in RIVALS if family in present), None)


def compare(result: TuneResult) -> list[Comparison]:
    """One comparison a budget, in rising order."""
    finite, family = measured(result), rival(result)
    out = []
    for budget in sorted(result.chosen):
        ours = result.ours(budget)
        peer = finite.best(budget, family) if family else None
        out.append(Comparison(budget, ours, peer, _ratio(peer.error, ours.error) if peer else None))
    return out


def headline(result: TuneResult) -> tuple[str, str]:
    """The first thing to know, and the figures behind it."""
    comparisons, family = compare(result), rival(result)
    if family is None:
        best = next((c for c in comparisons if is_finite(c.ours.error)), comparisons[0])
        told = f"{best.ours.name} with {_evaluations(best.budget)} has an error of {best.ours.error}"
        return f"Your model's sampler for {_evaluations(best.budget)}", f"{told}. No other sampler was measured beside it."
    ahead = next((c for c in comparisons if c.ratio and c.ratio.value - 2 * c.ratio.standard_error > 1), None)
    if ahead is not None and ahead.peer is not None:
        return _ahead(result, ahead, ahead.peer, family)
    ratios = [c.ratio for c in comparisons if c.ratio]
    if ratios and all(r.value + 2 * r.standard_error < 1 for r in ratios):
        title = f"No gain on this model: at every budget some {RIVALS[family]} is more accurate than our program"
    else:
        title = f"No sure gain on this model: at no budget is our program clearly more accurate than every {RIVALS[family]}"
    return title, "The table shows which sampler to use at each budget; “clearly” means by two standard errors."


def on_quality(result: TuneResult) -> str:
    """From which budget on our samples are as close to held-out data as the reference's."""
    floor, programs = result.floor.get("reference"), [c.ours for c in compare(result)]
    if floor is None or not is_finite(floor) or not any(is_finite(c.quality) for c in programs):
        return "Distances to held-out data were not measured for both our samples and the reference's: judge by the error."
    enough = None
    for c in reversed(programs):
        if c.quality is None or not c.quality.value <= floor.value + 2 * math.hypot(c.quality.standard_error, floor.standard_error):
            break
        enough = c.evaluations
    if enough is None:
        return "Even our largest budget leaves samples farther from held-out data than the reference's: more evaluations still pay."
    return (
        f"If samples are what counts, {_evaluations(enough)} will do: from there on ours are as close to held-out data as the reference's."
    )


def on_errors(result: TuneResult) -> str:
    """The range of the ratio over the budgets."""
    comparisons, family = compare(result), rival(result)
    ratios = [c.ratio.value for c in comparisons if c.ratio]
    if family is None or not ratios:
        return "Nothing else was measured, so the curve says only how the error falls as evaluations are added."
    low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
    factor = low if low == high else f"{low} to {high}"
    budgets = _span([c.budget for c in comparisons if c.ratio])
    if min(ratios) >= 1:
        return f"With {budgets} our error is {factor} times smaller than that of the best {RIVALS[family]} at the same cost."
    return f"With {budgets} the error of the best {RIVALS[family]} is {factor} times ours, so choose the sampler by your budget."


def on_explained(result: TuneResult) -> str:
    """Above which noise level mean and covariance explain nearly all of the score."""
    curve = result.diagnosis.explained.get("gaussian")
    if curve is None:
        return "Where closed forms explain the score, evaluations of the network buy little."
    level = None
    for ratio, share in sorted(zip(result.diagnosis.ratios, curve[0], strict=True), reverse=True):
        if not share >= EXPLAINED:
            break
        level = ratio
    if level is None:
        return f"Mean and covariance never explain {EXPLAINED:.0%} of this model's score, so there is little to save at high noise."
    return (
        f"Above a noise-to-signal ratio of {level:.2g} the data's mean and covariance alone explain at least {EXPLAINED:.0%} "
        "of what the network says, so evaluations spent there buy almost nothing."
    )


def on_levels(result: TuneResult) -> str:
    """Where evaluations go, ours and the best rival's, at the smallest budget that shows both."""
    for c in compare(result):
        jump = landing(c.ours, start_level(result))
        if jump is None or c.peer is None or not c.peer.ratios:
            continue
        above = sum(ratio > jump * 1.001 for ratio in c.peer.ratios)
        share = f"spends {above} of its {len(c.peer.ratios)} above it, where the closed form is as good"
        spent = share if above else "starts no higher either"
        return f"With {_evaluations(c.budget)} our program first asks the network at a ratio of {jump:.2g}; {c.peer.name} {spent}."
    return "Close stops mark the noise levels at which the picture is decided: that is where evaluations are worth their cost."


def on_teleport(result: TuneResult) -> str:
    """What the jump is predicted to cost."""
    teleport = result.teleport
    cost = min(
        zip(teleport.ratios, teleport.predicted, strict=True), key=lambda pair: abs(pair[0] - teleport.ratio), default=(0.0, math.inf)
    )[1]
    if not cost <= teleport.tolerance:
        return f"No level keeps the predicted error within {teleport.tolerance:.2g}, so there is no free jump on this model."
    return (
        f"Starting at a ratio of {teleport.ratio:.2g} is predicted to move the final sample by {cost:.2g} of its size, "
        f"within the tolerance of {teleport.tolerance:.2g}: all evaluations above that level are saved."
    )


def on_timings(result: TuneResult) -> str:
    """How long tuning took, and on what."""
    total = sum(seconds for _, seconds in result.timings)
    if not total > 0:
        return "Tuning is paid once; the recipe is used ever after."
    step, longest = max(result.timings, key=lambda pair: pair[1])
    return f"Tuning took {duration(total)}, {longest / total:.0%} of it on “{step}”; it is paid once, and every sample after it is cheaper."


def on_candidates(result: TuneResult) -> str:
    """How many samplers were measured, and how many broke."""
    counts = {name: sum(c.family == name for c in result.candidates) for name in ("ours", "classic", "diffusers")}
    broken = sum(not is_finite(c.error) for c in result.candidates)
    failed = f"; {broken} gave no finite error" if broken else ""
    missing = "" if counts["diffusers"] else " diffusers is not among them: it was not installed or not asked for."
    told = f"{len(result.candidates)} measurements: {counts['ours']} of ours, {counts['classic']} of published solvers in our tables"
    return f"{told}, {counts['diffusers']} of diffusers, on noise that no choice saw{failed}.{missing}"


def on_contest(result: TuneResult) -> str:
    """How much fitting buys over the best of the closed forms."""
    ratios = [ratio.value for _, _, _, ratio in contests(result) if ratio]
    if not ratios:
        return "Nothing unfitted was measured beside what was fitted, or the other way round."
    low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
    factor = low if low == high else f"{low} to {high}"
    tried = {name: reason for told in result.skipped.values() for name, reason in told.items()}
    left = f" {len(tried)} candidates were left out, each with its reason in tune.json." if tried else ""
    return f"On noise that no choice saw, the error of the best unfitted sampler is {factor} times that of the best fitted one.{left}"


def contests(result: TuneResult) -> list[tuple[int, Candidate | None, Candidate | None, Estimate | None]]:
    """For each budget the best fitted and the best unfitted program, and the second's error over the first's."""
    out = []
    for n in sorted(result.contest):
        fitted, unfitted = result.contestant(n, "fitted"), result.contestant(n, "unfitted")
        out.append((n, fitted, unfitted, _ratio(unfitted.error, fitted.error) if fitted and unfitted else None))
    return out


def start_level(result: TuneResult) -> float:
    """The highest noise level that any sampler asks the network at; infinite if none was recorded."""
    return max((ratio for c in result.candidates for ratio in c.ratios or []), default=math.inf)


def landing(candidate: Candidate, start: float) -> float | None:
    """Where a program's teleport lands, i.e. the level it first asks the network at, or None if that is where sampling starts."""
    first = candidate.ratios[0] if candidate.ratios else start
    return first if first < 0.99 * start else None


def duration(seconds: float) -> str:
    """`0.31 ms`, `0.42 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _ahead(result: TuneResult, c: Comparison, peer: Candidate, family: Family) -> tuple[str, str]:
    rivals = [r for r in measured(result).candidates if r.family == family]
    equal = min((r for r in rivals if r.error.value <= c.ours.error.value), key=lambda r: (r.evaluations, r.error.value), default=None)
    lead = f"Your model's fastest sampler: {_evaluations(c.budget)} reach what"
    facts = f"Error {c.ours.error} with {_evaluations(c.budget)}, where the best {RIVALS[family]} has {peer.error}"
    if equal is None:
        most = max(r.evaluations for r in rivals)
        cost = f"up to {most}" if most > c.budget else "as many"
        return f"{lead} no {RIVALS[family]} reached with {cost}", f"{facts}."
    facts += f"; of the budgets measured, {equal.evaluations} is the first at which one does as well ({equal.error})."
    return f"{lead} {equal.name} needs {equal.evaluations} for", facts


def _ratio(peer: Estimate, ours: Estimate) -> Estimate | None:
    if not is_finite(ours) or ours.value <= 0 or peer.value <= 0:
        return None
    value = peer.value / ours.value
    return Estimate(value, value * math.hypot(peer.standard_error / peer.value, ours.standard_error / ours.value))


def _evaluations(n: int) -> str:
    return f"{n} evaluation" if n == 1 else f"{n} evaluations"


def _span(budgets: list[int]) -> str:
    return _evaluations(budgets[0]) if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]} evaluations"
