"""The reverse chain against the forward one, and learned variances as a table and as a loop."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import BetaTable, Cosine, VariancePreserving
from sfumato.noise.scalars.cosine_table import cosine_table
from sfumato.sample import Ancestral, run
from sfumato.sample.steps.reverse_chain import LearnedVariance, ReverseChain, sample_chain
from sfumato.seeds import noise


@pytest.mark.parametrize("process", [VariancePreserving(), Cosine(), BetaTable.linear(50, 1e-3, 0.3)], ids=lambda p: p.kind)
def test_the_posterior_is_bayes(process):
    """`q(x_s | x_t, x_0)` times `q(x_t | x_0)` is `q(x_t | x_s) q(x_s | x_0)`: its mean and variance by conditioning a 2-D Gaussian."""
    chain = ReverseChain(process, (0.9, 0.5, 0.1, 0.0))
    for i in (0, 1):
        t, s = chain.times[i : i + 2]
        (alpha_t, sigma_t), (alpha_s, sigma_s) = process.levels(t), process.levels(s)
        cross = process.transition(s, t).phi * sigma_s**2
        gain = cross / sigma_t**2
        torch.testing.assert_close(chain.keep[i], gain)
        torch.testing.assert_close(chain.pull[i], alpha_s - gain * alpha_t)
        torch.testing.assert_close(chain.log_betatilde[i].exp(), sigma_s**2 - gain * cross)
    assert float(chain.keep[-1]) == 0
    assert float(chain.pull[-1]) == pytest.approx(1)
    assert float(chain.log_betatilde[-1]) == float(chain.log_betatilde[-2])


def test_the_divergence_is_torchs():
    from torch.distributions import Normal, kl_divergence

    chain = ReverseChain(VariancePreserving(), (0.9, 0.5, 0.1, 0.0))
    level = chain.log_variance(torch.tensor([0.3, 0.6, 0.5], dtype=torch.float64))
    error = torch.tensor([0.4, 0.05], dtype=torch.float64)
    q = Normal(torch.zeros(2, dtype=torch.float64), torch.exp(chain.log_betatilde[:2] / 2))
    p = Normal(chain.pull[:2] * error.sqrt(), torch.exp(level[:2] / 2))
    torch.testing.assert_close(chain.divergence(error, level[:2], slice(0, 2)), kl_divergence(q, p))


def test_a_table_of_learned_variances_is_the_loop_and_without_them_ancestral(g4):
    process, times = VariancePreserving(), (1.0, 0.6, 0.3, 0.05, 0.0)
    belief, start = g4.denoiser(process), noise(0, 5, (2,), dtype=torch.float64).draw(0)
    shares = torch.tensor([0.9, 0.5, 0.2, 0.7], dtype=torch.float64)
    program = LearnedVariance(tuple(shares.tolist())).compile(process, times)

    def answer(x, t):
        return belief.denoise(x, t), shares[times.index(float(t[0]))].reshape(1, 1)

    draws = noise(0, 5, (2,), dtype=torch.float64)
    torch.testing.assert_close(sample_chain(answer, ReverseChain(process, times), start, 0), run(program, belief.denoise, start, draws))
    plain, known = (s.compile(process, times) for s in (LearnedVariance((0.0,) * 4), Ancestral()))
    torch.testing.assert_close(run(plain, belief.denoise, start, draws), run(known, belief.denoise, start, draws))


def test_respaced_chains_and_the_cosine_table():
    """All nodes of the table, and few of them, have the same levels; the cosine table follows the cosine to where its betas are cut."""
    table = cosine_table(100)
    full, few = ReverseChain.respaced(table, 100), ReverseChain.respaced(table, 7)
    assert set(few.times) < set(full.times)
    torch.testing.assert_close(full.log_beta.exp().flip(0), torch.tensor(table.betas, dtype=torch.float64))
    nodes = torch.arange(1, 99) / 100.0
    torch.testing.assert_close(table.alpha(nodes), Cosine().alpha(nodes))
    assert max(table.betas) == 0.999
    assert float(table.alpha(1.0)) > 0


def test_bad_input():
    with pytest.raises(ArgumentError, match="that end at 0"):
        ReverseChain(VariancePreserving(), (1.0, 0.5, 0.1))
    with pytest.raises(ArgumentError, match="2 to 100 steps"):
        ReverseChain.respaced(BetaTable.linear(100), 101)
    with pytest.raises(ArgumentError, match="one for each"):
        LearnedVariance((0.5,)).compile(VariancePreserving(), (1.0, 0.5, 0.0))
    with pytest.raises(ArgumentError, match="largest"):
        cosine_table(10, largest=1.0)


def test_chains_are_equal_where_their_process_and_times_are():
    """The coefficients follow from these: they take no part in comparisons, and are not printed."""
    chain, again = (ReverseChain(VariancePreserving(), (0.9, 0.5, 0.0)) for _ in range(2))
    assert chain == again
    assert hash(chain) == hash(again)
    assert chain != ReverseChain(VariancePreserving(), (0.9, 0.4, 0.0))
    assert chain != ReverseChain(Cosine(), (0.9, 0.5, 0.0))
    assert "tensor" not in repr(chain)
    assert "times=(0.9, 0.5, 0.0)" in repr(chain)


def test_the_best_variance_leaves_the_divergence_no_slope():
    """Between a step's ends the divergence is least there, by its derivative; the last step has the error's own variance."""
    chain = ReverseChain(VariancePreserving(), (0.9, 0.5, 0.1, 0.0))
    error = torch.tensor([0.4, 0.05, 0.01], dtype=torch.float64)
    best = chain.best_log_variance(error)
    level = best[:2].clone().requires_grad_()
    (slope,) = torch.autograd.grad(chain.divergence(error[:2], level, slice(0, 2)).sum(), level)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-14)
    assert float(best[2]) == pytest.approx(float(torch.log(chain.pull[2] ** 2 * 0.01)), rel=1e-14)
    assert bool((best[:2] > chain.log_betatilde[:2]).all())
    with pytest.raises(ShapeError, match="one a step"):
        chain.best_log_variance(error[:2])
