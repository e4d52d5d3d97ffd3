"""Hares and lynxes: the density against SciPy, the two models together, NUTS against the published posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import log_density
from scipy import stats

from models import hare_lynx

POINT = {
    "z_init": jnp.array([32.0, 6.0]),
    "theta": jnp.array([0.58, 0.03, 0.85, 0.025]),
    "sigma": jnp.array([0.25, 0.3]),
}


def test_data():
    assert hare_lynx.PELTS.shape == (21, 2)
    assert hare_lynx.PELTS[-1, 1] == 8.6
    assert np.argmax(hare_lynx.PELTS, axis=0).tolist() == [3, 4]


def test_density():
    """Against SciPy's solver of order 8 and its laws, in the equations' own variables."""
    (z_init, theta, sigma), y = (np.asarray(v, float) for v in POINT.values()), hare_lynx.PELTS
    flow = lambda t, z: [(theta[0] - theta[1] * z[1]) * z[0], (theta[3] * z[0] - theta[2]) * z[1]]  # noqa: E731
    path = scipy.integrate.solve_ivp(flow, (0, 20), z_init, "DOP853", np.arange(21), rtol=1e-11, atol=1e-9).y.T
    expected = stats.lognorm(sigma, scale=path).logpdf(y).sum()
    expected += stats.lognorm(1, scale=10).logpdf(z_init).sum() + stats.lognorm(1, scale=np.exp(-1)).logpdf(sigma).sum()
    mean, spread = np.array([1, 0.05, 1, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
    expected += stats.truncnorm(-mean / spread, np.inf, mean, spread).logpdf(theta).sum()
    found = jax.jit(lambda y: log_density(hare_lynx.model, (y,), {}, POINT)[0])(y)
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.slow
def test_simulator():
    """Draws of the simulator follow the exact law, whose residuals are normal."""
    trace = handlers.trace(handlers.seed(handlers.substitute(hare_lynx.simulator_model, POINT), 0)).get_trace()
    exact = handlers.trace(handlers.seed(handlers.substitute(hare_lynx.model, POINT), 0)).get_trace()["y"]["fn"]
    draws = np.asarray(trace["y"]["fn"].sample(jax.random.key(0), (100,)), float)
    assert draws.shape == (100, 21, 2)
    law = exact.base_dist
    residuals = (np.log(draws) - np.asarray(law.loc)) / np.asarray(law.scale)
    assert stats.kstest(residuals.ravel(), stats.norm.cdf).pvalue > 1e-5
    assert np.all(trace["y"]["fn"].support(draws))


@pytest.mark.statistical
def test_nuts():
    """Chains agree, and their 8 means with the published ones, to 4.9 joint standard errors: false alarm 1e-5."""
    kernel = NUTS(hare_lynx.model, init_strategy=init_to_value(values=hare_lynx.start()), dense_mass=True)
    mcmc = MCMC(kernel, num_warmup=400, num_samples=400, num_chains=4, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(0), y=hare_lynx.PELTS)
    draws = {name: np.asarray(v, float) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    for name, values in draws.items():
        between, within = values.mean(1).var(0, ddof=1), values.var(1, ddof=1).mean(0)
        assert np.all(np.sqrt(1 + between / within) < 1.05)
        mean, error = map(np.asarray, hare_lynx.PUBLISHED[name])
        own = values.std((0, 1)) / np.sqrt(effective_sample_size(values))
        assert np.all(np.abs(values.mean((0, 1)) - mean) < 4.9 * np.hypot(own, error))
