r"""Step 3: how far down the closed form may carry a sample.

Where a reference trajectory stands at level `k`, the Gaussian flow would have carried its start elsewhere. What that costs at the end is
predicted by letting the Gaussian flow take both on to clean data:

    error(k) = mean |G_{k -> 0}(x_k) - G_{1 -> 0}(x_1)| / rms |x_0|

at no evaluation beyond the reference's own. Source: Wang & Vastola 2024 (arXiv 2412.09726) for teleportation; the prediction is ours.
"""

from __future__ import annotations

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian
from sfumato.metrics import endpoint_error
from sfumato.sample import Trajectory
from sfumato.tune.result import Teleport


def predict_teleport(trajectory: Trajectory, law: Gaussian, tolerance: float) -> Teleport:
    """Predict the cost of teleporting to each level of a reference trajectory, and choose the lowest level within tolerance.

    Raises:
        ArgumentError: a tolerance that is not in (0, 1).
    """
    if not 0 < tolerance < 1:
        raise ArgumentError("tolerance", tolerance, "a relative error in (0, 1)")
    process, start = trajectory.process, trajectory.times[0]
    carried = law.flow(process, start, 0.0)(trajectory.states[0])
    ratios, predicted = [], []
    for t, x in zip(trajectory.times[1:-1], trajectory.states[1:-1], strict=True):
        here = law.flow(process, t, 0.0)(x)
        ratios.append(float(process.ratio(t)))
        predicted.append(endpoint_error(trajectory.end + (here - carried), trajectory.end).value)
    within = [k for k, e in zip(ratios, predicted, strict=True) if e <= tolerance]
    return Teleport(tolerance, min(within, default=ratios[0]), ratios, predicted)
