"""What solvers and small functions say of themselves, where no table shows it: orders, names, and arguments that are not theirs."""

from __future__ import annotations

import pytest
from asymmetric import THIN, VP, f64, wave

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.sample import Heun, ImprovedEuler, Renoising, Restoration, ReverseSDE, ddim, dpm_solver, strong_error
from sfumato.sample.steps.scale_wise import enlarge


def test_orders_that_are_claimed():
    solvers = (ReverseSDE(), ImprovedEuler(), Renoising(), Restoration("whole"), Restoration(2.0))
    assert [s.order for s in solvers] == [1, 1, 0, 1, 0]


def test_a_form_that_makes_no_difference_is_not_named():
    assert dpm_solver(1, form="taylor").name == "dpm-solver++-1m"
    assert dpm_solver(2, "noise", "taylor").name == "dpm-solver-2m-taylor"


def test_heun_has_no_method_or_variable_to_choose():
    for option in ({"over": "time"}, {"method": "rk4"}):
        with pytest.raises(TypeError):
            Heun(**option)
    assert Heun().name == "heun"


def test_a_size_is_that_of_the_last_axis_whatever_the_channels():
    assert enlarge(wave(1, 4, 2, 2), 4).shape == (1, 4, 4, 4)
    x = wave(1, 2, 4, 4)
    assert enlarge(x, 4) is x


@pytest.mark.parametrize(
    "law",
    [
        Gaussian(f64(0.0, 0.1), SpectralCovariance.isotropic(2, 0.3)),
        Gaussian(0 * THIN.mean, THIN.covariance),
    ],
)
def test_strong_errors_are_of_isotropic_laws_of_mean_zero(law):
    program = ddim().compile(VP, (0.9, 0.5))
    with pytest.raises(ArgumentError, match="isotropic"):
        strong_error(program, program, law, 1.0)
