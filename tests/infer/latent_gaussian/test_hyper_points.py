"""Weighted hyperparameters against quadrature and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.integrate import quad

from numpyro_inverse.distributions import SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import LatentGaussian

Y = jnp.array([0.3, -0.2, 1.0, 0.4])
DATA = np.random.default_rng(2).normal(size=15) + 0.5


def normal_cell(y):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    u = numpyro.sample("u", dist.Normal(jnp.zeros(8), scale).to_event(1))
    numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", u), 0.5).to_event(1), obs=y)


@pytest.mark.statistical
def test_weighted_hyperparameters_against_quadrature(x64):
    """A grid has the moments of one standard deviation by quadrature to 1 %."""
    y = jnp.asarray(DATA[:8])
    latent = LatentGaussian(normal_cell, "eta", sites=["u"], model_args=(y,))

    def density(s):
        v = s**2 + 0.25
        return np.exp(-0.5 * (np.sum(DATA[:8] ** 2) / v + 8 * np.log(v)) - 0.5 * (np.log(s) / 0.5) ** 2) / s

    zero, one, two = (quad(lambda s, k=k: s**k * density(s), 0, 30, limit=200)[0] for k in (0, 1, 2))
    mean, sd = one / zero, np.sqrt(two / zero - (one / zero) ** 2)
    grid = latent.integrate_grid(step=0.5)
    np.testing.assert_allclose([grid.mean()["scale"], grid.sd()["scale"]], [mean, sd], rtol=0.01)
    assert set(np.asarray(grid.resample(jax.random.key(0), 5)["scale"])) <= set(np.asarray(grid.values["scale"]))
    found = latent.marginals(grid)["u"]
    share = grid.values["scale"][:, None] ** 2 / (grid.values["scale"][:, None] ** 2 + 0.25)
    np.testing.assert_allclose(found.mean, grid.weights @ (share * y), rtol=1e-7)
    with pytest.warns(UserWarning, match="at the edge of the grid"):
        latent.integrate_grid(span=1.0)


def shifted_cell(y):
    level = numpyro.sample("level", dist.Normal(0.3, 1.5))
    u = numpyro.sample("u", dist.Normal(level * jnp.ones(8), 0.7).to_event(1))
    numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", u), 0.5).to_event(1), obs=y)


@pytest.mark.slow
def test_a_design_is_exact_for_a_normal_law(x64):
    """For others it is not: of the skewed one above its standard deviation is 10 % too small. 1e-4 is the Hessian's."""
    points = LatentGaussian(shifted_cell, "eta", sites=["u"], model_args=(jnp.asarray(DATA[:8]),)).integrate_ccd()
    precision = 1.5**-2 + 8 / (0.7**2 + 0.5**2)
    mean = (0.3 / 1.5**2 + np.sum(DATA[:8]) / (0.7**2 + 0.5**2)) / precision
    np.testing.assert_allclose([points.mean()["level"], points.sd()["level"]], [mean, precision**-0.5], rtol=1e-4)


def test_a_support_that_moves():
    """A grid is one in unconstrained numbers, which are not those of a support that depends on another site."""

    def model(y):
        a = numpyro.sample("a", dist.Uniform(0.5, 2.0))
        s = numpyro.sample("s", dist.Uniform(0.0, a))
        eta = numpyro.deterministic("eta", numpyro.sample("u", SpectralField(Grid(4), jnp.full(4, 2.0))))
        numpyro.sample("y", dist.Normal(eta, s).to_event(1), obs=y)

    latent = LatentGaussian(model, "eta", model_args=(Y,))
    with pytest.raises(ValueError, match="a grid needs hyperparameters with fixed supports; that of 's' depends"):
        latent.integrate_grid()
