"""The acceptance tests that `diffusers` holds its own schedulers to, unmodified, on ours.

They are in no wheel. With a checkout of huggingface/diffusers at the installed version's tag:

    SFUMATO_DIFFUSERS=path/to/checkout python -m pytest -m full tests/integrations/test_diffusers_suite.py

What they ask (files there and back, equal outputs as tuple and object, any time in any order, tables of betas, attributes) is what
`test_program_scheduler.py` asks with numbers; they prove the interface, and no numerics.
"""

from __future__ import annotations

import os
import sys

import pytest

CHECKOUT = os.environ.get("SFUMATO_DIFFUSERS")
pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]

if CHECKOUT is None:
    pytest.skip("no checkout of diffusers (SFUMATO_DIFFUSERS)", allow_module_level=True)

sys.path.insert(0, CHECKOUT)
# the module and not its class, which would be collected as it is
from tests.schedulers import test_schedulers as suite  # noqa: E402

from sfumato.integrations.diffusers import ProgramScheduler  # noqa: E402
from sfumato.sample import PRESETS  # noqa: E402


class TestOneEvaluation(suite.SchedulerCommonTest):
    scheduler_classes = (ProgramScheduler,)
    forward_default_kwargs = (("num_inference_steps", 10),)

    def get_scheduler_config(self, **changes):
        return {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", **changes}

    def test_every_solver(self):
        for solver in PRESETS:
            self.check_over_configs(solver=solver)

    def test_every_prediction(self):
        for kind in ("epsilon", "v_prediction", "sample", "flow_prediction"):
            self.check_over_configs(prediction_type=kind)

    def test_times_and_tables(self):
        for n in (100, 500, 1000):
            self.check_over_configs(num_train_timesteps=n)
        for t in (1, 5, 10):
            self.check_over_forward(time_step=t)


class TestTwoEvaluations(TestOneEvaluation):
    def get_scheduler_config(self, **changes):
        return super().get_scheduler_config(**{"solver": "heun", **changes})
