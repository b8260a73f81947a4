r"""Published multistep solvers: presets of `Exponential`, one evaluation a step.

| preset | linearisation | nodes of predictor, corrector | order |
|---|---|---|---|
| `ddim` (Song et al. 2021, arXiv 2010.02502; Euler's method in `x / alpha` over `k`) | data | 1 | 1 |
| `dpm_solver(p)`, i.e. DPM-Solver++(pM) (Lu et al. 2022, arXiv 2211.01095), noise: DPM-Solver's multistep forms | data | p | p |
| `deis(p)` (Zhang & Chen 2023, arXiv 2204.13902): over t their tAB, over k their rhoAB, over log k as in `diffusers` | noise | p | p |
| `ipndm(p)` (Liu et al. 2022, arXiv 2202.09778, without its warm-up; Zhang & Chen's iPNDM) | noise | p | min(p, 2) |
| `unipc(p)` (Zhao et al. 2023, arXiv 2302.04867) | data | p, p + 1 | p + 1 |

Without a corrector the first step has order 1 and caps the order at 2 in the end; from high noise that step's error is tiny, and the stated
order is what shows. Lowered orders at the end cap it at 2 as well.
"""

from __future__ import annotations

from typing import Literal

from sfumato.errors import ArgumentError
from sfumato.sample.compilers.exponential import Evaluation, Exponential, Final, Start
from sfumato.sample.compilers.extrapolation import Extrapolation, Prediction
from sfumato.sample.compilers.stepping import Scale
from sfumato.sample.compilers.variables import NoisePolynomial


def ddim() -> Exponential:
    """DDIM: data prediction, held over the step; in `x / alpha` over `k` this is Euler's method."""
    return Exponential(Extrapolation.of("data"), 1, label="ddim")


def dpm_solver(
    order: int = 2,
    prediction: Prediction = "data",
    form: Literal["midpoint", "taylor"] = "midpoint",
    *,
    published: bool = False,
    final: Final = "full",
    start: Start = "ramp",
) -> Exponential:
    """DPM-Solver++ ("data") or DPM-Solver ("noise"), multistep.

    Arguments:
        order: 1, 2 or 3 past answers.
        form: how a step with two answers weighs them: at the step's middle, or by the exact integral.
        published: order 3 with half of the curvature, as in the authors' code and its copies: it converges with order 2 only, and
            can still be the better one at few steps.

    Raises:
        ArgumentError: another order or form, or `published` where there is no third order.
    """
    if order not in (1, 2, 3):
        raise ArgumentError("order", order, "an order of 1, 2 or 3")
    if form not in ("midpoint", "taylor"):
        raise ArgumentError("form", repr(form), "one of midpoint, taylor")
    if published and order != 3:
        raise ArgumentError("published", published, "order 3", "The lower orders have one form only.")
    rule: Literal["midpoint", "exact"] = "midpoint" if form == "midpoint" else "exact"
    label = f"dpm-solver{'++' if prediction == 'data' else ''}-{order}m"
    label += ("-taylor" if form == "taylor" and order > 1 else "") + ("-published" if published else "")
    return Exponential(Extrapolation.of(prediction, rule, published), order, label=label, final=final, start=start)


def deis(order: int = 2, final: Final = "full", *, variable: Scale = "log-ratio", start: Start = "ramp") -> Exponential:
    """DEIS: noise prediction with exact integrals of a polynomial of degree `order - 1` in `variable`: the authors' tAB for "time" (on a
    grid equal in `t` or `sqrt(t)`), their rhoAB for "ratio".

    Raises:
        ArgumentError: another variable.
    """
    label = f"deis-{order}" if variable == "log-ratio" else f"deis-{variable}-{order}"
    return Exponential(NoisePolynomial.of(variable), order, label=label, start=start, final=final)


def ipndm(order: int = 4, *, start: Start = "ramp", final: Final = "full") -> Exponential:
    """iPNDM: noise prediction in `k`, with Adams-Bashforth's constants for equal steps on whatever steps there are.

    Raises:
        ArgumentError: an order above 5.
    """
    if not 1 <= order <= 5:
        raise ArgumentError("order", order, "an order from 1 to 5")
    return Exponential(Extrapolation.of("noise", "adams"), order, label=f"ipndm-{order}", start=start, final=final)


def unipc(
    order: int = 2,
    variant: Literal["bh1", "bh2"] = "bh2",
    prediction: Prediction = "data",
    *,
    final: Final = "lower",
    start: Start = "ramp",
    evaluation: Evaluation = "pec",
) -> Exponential:
    """UniPC: a predictor of `order` answers, and a corrector with one more that reuses the answer at the predicted point.

    Its two-answer steps take `rho = 1/2`, which is where `variant`, the choice of `B(h)`, makes a difference; with more answers the moment
    conditions fix the weights and `B` drops out. No corrector on the last step, as published.

    Arguments:
        final: as published, "lower"; "full" keeps the order `order + 1` up to the end.

    Raises:
        ArgumentError: another variant.
    """
    if variant not in ("bh1", "bh2"):
        raise ArgumentError("variant", repr(variant), "one of bh1, bh2")
    split = Extrapolation.of(prediction, "slope" if variant == "bh1" else "midpoint")
    label = f"unipc-{order}-{variant}{'' if prediction == 'data' else '-noise'}"
    return Exponential(split, order, corrector=True, label=label, final=final, start=start, evaluation=evaluation)
