"""What all tests share: one thread, examples that do not change between runs, shape checks that do not cost half of the time, small worlds.

sfumato is imported inside the fixtures, after the shape checks of the test run have been installed.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from checked_calls import CHECKED_CALLS, LEFT

# examples would also be made of constants found in whichever of our modules happen to be loaded: not the same in every run
if hasattr(providers, "_get_local_constants"):
    providers._get_local_constants = lambda: providers._local_constants
settings.register_profile("same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")
torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    LEFT.calls = CHECKED_CALLS
    return (yield)


@pytest.fixture
def unchecked():
    """No shapes and types are checked, as for users: what is refused is refused by our own errors."""
    LEFT.calls = 0


@pytest.fixture(autouse=True)
def same_layers():
    """PyTorch's own generator at one place before every test: layers that a test makes without a seed are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def g4():
    """A 2-D mixture of four isotropic Gaussians, far from one Gaussian: nothing is exact on it but its own denoiser."""
    from sfumato.exact import GaussianMixture, SpectralCovariance

    means = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-0.6, -1.4], [0.3, 0.2]], dtype=torch.float64)
    return GaussianMixture([0.3, 0.3, 0.25, 0.15], means, [SpectralCovariance.isotropic(2, v) for v in (0.25, 0.4, 0.3, 0.2)])


@pytest.fixture(scope="session")
def full_gaussian():
    """A Gaussian on (3, 4) events whose variances fall like those of small images: from 3 to 3e-3, every direction an eigenvector."""
    from sfumato.exact import Gaussian, SpectralCovariance

    generator = torch.Generator().manual_seed(4)
    columns, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))
    variances = torch.logspace(0.5, -2.5, 12, dtype=torch.float64)
    mean = torch.randn(12, generator=generator, dtype=torch.float64)
    return Gaussian(mean, SpectralCovariance.low_rank(columns, variances, 0.0), (3, 4))


@pytest.fixture(scope="session")
def thin_gaussian():
    """A Gaussian on (3, 4) events with four eigenvectors and a common variance of 0.05 in the eight other directions."""
    from sfumato.exact import Gaussian, SpectralCovariance

    generator = torch.Generator().manual_seed(5)
    columns, _ = torch.linalg.qr(torch.randn(12, 4, generator=generator, dtype=torch.float64))
    variances = torch.tensor([3.0, 1.0, 0.4, 0.2], dtype=torch.float64)
    mean = torch.randn(12, generator=generator, dtype=torch.float64)
    return Gaussian(mean, SpectralCovariance.low_rank(columns, variances, 0.05), (3, 4))


def _random_program(process, law, nodes, seed, consistent):
    """A random lower-triangular table, with gaps; a consistent one reproduces `alpha m` by itself."""
    from sfumato.sample import Program, Row

    generator = torch.Generator().manual_seed(seed)
    modes = 1 if law is None else len(law.covariance.spectrum)
    times = torch.linspace(0.95, 0.0, nodes, dtype=torch.float64)
    alpha = process.alpha(times)

    def some(candidates):
        kept = [j for j in candidates if torch.rand((), generator=generator) < 0.7]
        # some coefficients are the same in every mode, as those of a scalar solver are
        alike = torch.rand(len(kept), generator=generator) < 0.3
        values = torch.randn(len(kept), modes, generator=generator, dtype=torch.float64) / nodes**0.5
        return {j: v[:1].expand(modes).clone() if a else v for j, v, a in zip(kept, values, alike, strict=True)}

    rows = [Row()]
    for i in range(1, nodes):
        states, data, draws = some(range(i)), some(range(i)), some(range(1, i + 1))
        if consistent:
            short = alpha[i] - sum(c * alpha[j] for j, c in states.items()) - sum(data.values(), torch.zeros(modes, dtype=torch.float64))
            data[0] = data.get(0, torch.zeros(modes, dtype=torch.float64)) + short
        rows.append(Row(states, data, draws))
    return Program("random", process, tuple(times.tolist()), tuple(rows), law)


@pytest.fixture(scope="session")
def random_program():
    """`(process, law or None, nodes, seed, consistent) -> Program`, deterministic in its arguments."""
    return _random_program
