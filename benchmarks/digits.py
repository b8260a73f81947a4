"""Figure 2: a small denoiser trained on the digits, tuned as `sfumato tune` does, beside the `diffusers` settings.

The error is the distance of a sample from the end of the network's own flow, relative to the samples' root mean square; quality is the
energy distance to held-out digits. Both are measured on noise that no choice saw, under several seeds of all noise; the worst counts.
"""

from __future__ import annotations

import math
from typing import Any

from benchmarks.figure import Figure, Row, at_most
from sfumato.data import digits
from sfumato.learn import default_denoiser, default_loss, default_settings, fit
from sfumato.tune import TuneSettings, tune

TARGETS = {5: 0.4, 10: 0.7}
_SEEDS = (0, 1, 2)


def measure(quick: bool = False) -> Figure:
    data = digits()
    model = default_denoiser(data)
    trained = fit(model, data, default_settings(data), default_loss(data))
    results = [tune(model, data, TuneSettings(seed=seed))[1] for seed in (_SEEDS[:1] if quick else _SEEDS)]
    rows = [Row("training: examples a second", trained.examples_per_second, "", None, f"{trained.seconds:.0f} s")]
    away = max(result.reference["self_error"] for result in results)
    rows.append(Row("the reference's distance to itself at half the evaluations", away, "< the errors below"))
    facts: dict[str, Any] = {}
    for budget in results[0].chosen:
        compared = []
        for result in results:
            ours, peer = result.ours(budget), result.best(budget, "diffusers")
            if peer is None:
                raise RuntimeError("diffusers is not installed, so there is nothing to compare with")
            compared.append((ours, peer))
        ratios = [ours.error.value / peer.error.value for ours, peer in compared]
        worst = max(range(len(ratios)), key=lambda i: ratios[i])
        ours, peer = compared[worst]
        details = f"ours {ours.error}, {peer.name} {peer.error}; all seeds: {', '.join(f'{r:.3g}' for r in ratios)}"
        name = f"{budget} evaluations: error over the best peer's"
        rows.append(
            at_most(name, ratios[worst], TARGETS[budget], details) if budget in TARGETS else Row(name, ratios[worst], details=details)
        )
        excess = [_excess(ours.quality, peer.quality) for ours, peer in compared]
        worst = max(range(len(excess)), key=lambda i: excess[i])
        told = f"ours {compared[worst][0].quality}, {compared[worst][1].name} {compared[worst][1].quality}"
        rows.append(at_most(f"{budget} evaluations: excess distance to held-out data, in standard errors", excess[worst], 2.0, told))
        facts[str(budget)] = {"ratios": ratios, "excess": excess}
    facts["reference"] = [result.reference for result in results]
    facts["floor"] = [{name: str(estimate) for name, estimate in result.floor.items()} for result in results]
    return Figure(rows, facts)


def _excess(ours: Any, peer: Any) -> float:
    """By how many standard errors our distance exceeds the peer's; the two come from the same noise, so this is on the safe side."""
    return (ours.value - peer.value) / math.hypot(ours.standard_error, peer.standard_error)
