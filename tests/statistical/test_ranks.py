"""Simulation-based ranks of the adjusted kernels on a small nonlinear inverse problem.

For parameters from the prior and data simulated from them, the rank of a parameter among independent posterior draws is
uniform if and only if the draws follow the posterior (Cook, Gelman & Rubin 2006; Talts et al. 2018). All fits are one
compiled program, vectorised over data sets.
"""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import block, scale, seed, trace
from numpyro.infer import MCMC
from scipy import stats

from numpyro_inverse.infer import (
    MALA,
    PCN,
    BlackJAX,
    DelayedAcceptance,
    InfMALA,
    InformedMALA,
    InformedPCN,
    LowRankNUTS,
)

FITS, DRAWS, THINNING, BINS = 1024, 31, 15, 8
ALARM = 1e-5
MAP = 0.3 * np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def model(y=None, noise=0.5):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    white = numpyro.sample("white", dist.Normal().expand([3]).to_event(1))
    field = numpyro.deterministic("field", scale * white)
    numpyro.sample("y", dist.Normal(jnp.exp(MAP @ field), noise).to_event(1), obs=y)


def quantities(draw):
    """Whose ranks are taken: every latent number and a nonlinear function of them."""
    return jnp.concatenate([draw["scale"][..., None], draw["white"], jnp.sum(draw["field"] ** 2, -1)[..., None]], -1)


def ranks(make, key, noise=0.5):
    """Ranks of the truth among ``DRAWS`` thinned draws, shape (data sets, quantities)."""

    def fit(key):
        key_truth, key_fit = jax.random.split(key)
        with block():
            truth = {k: s["value"] for k, s in trace(seed(model, key_truth)).get_trace().items()}
        mcmc = MCMC(
            make(partial(model, noise=noise)),
            num_warmup=300,
            num_samples=DRAWS * THINNING,
            thinning=THINNING,
            progress_bar=False,
        )
        mcmc.run(key_fit, y=truth["y"])
        return jnp.sum(quantities(mcmc.get_samples()) < quantities(truth), axis=0)

    return np.asarray(jax.jit(jax.vmap(fit))(jax.random.split(key, FITS)))


def smallest_p(found):
    """Of chi-squared tests of uniformity, one for each quantity."""
    counts = [np.bincount(column * BINS // (DRAWS + 1), minlength=BINS) for column in found.T]
    return min(stats.chisquare(count).pvalue for count in counts)


KERNELS = {
    "MALA": MALA,
    "InfMALA": InfMALA,
    "PCN": PCN,
    "InformedPCN": partial(InformedPCN, rank=3),
    "InformedMALA": partial(InformedMALA, rank=3),
    "LowRankNUTS": partial(LowRankNUTS, rank=3),
    "DelayedAcceptance": lambda model: DelayedAcceptance(model, approximation=scale(model, scale=0.8)),
    "BlackJAX nuts": partial(BlackJAX, algorithm=blackjax.nuts),
    "BlackJAX barker": partial(BlackJAX, algorithm=blackjax.barker),
    "BlackJAX elliptical_slice": partial(BlackJAX, algorithm=blackjax.elliptical_slice),
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", KERNELS)
def test_ranks_are_uniform(name, key):
    # False-alarm rate 1e-5 a kernel, shared among the 5 quantities.
    assert smallest_p(ranks(KERNELS[name], key)) > ALARM / 5


@pytest.mark.statistical
def test_the_test_of_ranks_has_power(key):
    # A likelihood whose noise is a third too small: p = 1e-20 (a quarter: 2e-6, at the limit itself).
    assert smallest_p(ranks(PCN, key, noise=0.33)) < ALARM / 5
