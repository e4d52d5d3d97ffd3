"""Refining a grid or a mesh changes nothing but resolution: posteriors of hyperparameters and of functionals stay."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from scipy.special import kv

import numpyro_inverse as ni
from tests.domains.meshes import square_arrays

pytestmark = pytest.mark.statistical

COARSE = 16
NAMES = ("range", "scale", "noise")
FIXED = np.array([[0.5, 0.5], [0.25, 0.75]])


def posterior(n, data):
    """Log hyperparameters and the average over a quarter of the square, by chain, of a field on n x n cells observed
    through its averages over 16 x 16 cells."""
    grid = ni.domains.Grid((n, n))
    average = grid.restriction(n // COARSE)

    def model(data=None):
        range_ = numpyro.sample("range", dist.LogNormal(jnp.log(0.3), 0.5))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
        noise = numpyro.sample("noise", dist.LogNormal(jnp.log(0.1), 0.5))
        field = numpyro.sample("field", ni.distributions.Matern(grid, range=range_, scale=scale, smoothness=1.5))
        numpyro.sample("data", dist.Normal(average(field), noise).to_event(2), obs=data)

    coordinates = ni.fit_coordinates(model, data)
    kernel = NUTS(ni.whiten(model, coordinates), **coordinates.nuts_settings())
    mcmc = MCMC(kernel, num_warmup=100, num_samples=1000, num_chains=2, progress_bar=False)
    mcmc.run(jax.random.key(1), data)
    samples = mcmc.get_samples(group_by_chain=True)
    found = {name: np.log(np.asarray(samples[name], float)) for name in NAMES}
    return found | {"quarter": np.asarray(samples["field"][..., : n // 2, : n // 2].mean(axis=(-2, -1)), float)}


def test_the_posterior_does_not_depend_on_the_grid():
    """Means and log standard deviations on 32, 64 and 128 cells a side, within Monte-Carlo error.

    Sixteen z-scores, each standard normal by the effective sample sizes: |z| < 4.3 has a false-alarm rate of 3e-4. With
    Monte-Carlo errors of about 0.03 posterior standard deviations the test sees shifts above 0.2. (A cell's average by
    2 x 2 points instead of 8 x 8 is part of the difference.)
    """
    truth = ni.distributions.Matern(ni.domains.Grid((256, 256)), range=0.3, scale=1.0, smoothness=1.5)
    field = truth.sample(jax.random.key(3))
    data = truth.domain.restriction(16)(field) + 0.1 * jax.random.normal(jax.random.key(4), (COARSE, COARSE))
    draws = {n: posterior(n, data) for n in (32, 64, 128)}
    for name in (*NAMES, "quarter"):
        x = {n: draws[n][name] for n in draws}
        ess = {n: min(effective_sample_size(x[n]), x[n].size) for n in draws}
        squared = {n: min(effective_sample_size((x[n] - x[n].mean()) ** 2), x[n].size) for n in draws}
        for n in (32, 64):
            sd = x[128].std()
            error = sd * np.sqrt(1 / ess[n] + 1 / ess[128])
            assert abs(x[n].mean() - x[128].mean()) < 4.3 * error, (name, n)
            error = np.sqrt(0.5 * (1 / squared[n] + 1 / squared[128]))
            assert abs(np.log(x[n].std() / sd)) < 4.3 * error, (name, n)


def on_a_mesh(cells, places, y):
    """Posterior mean and standard deviation of log range, log scale and the field at two places, without Monte Carlo:
    the field integrated out (exact for normal data), hyperparameters on a grid."""
    mesh = ni.domains.Mesh(*square_arrays(cells + 1))
    seen, fixed = mesh.interpolation(places), mesh.interpolation(FIXED)

    def model(seen, fixed, mesh, y):
        range_ = numpyro.sample("range", dist.LogNormal(jnp.log(0.4), 0.5))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
        field = numpyro.sample("field", ni.distributions.Matern(mesh, range=range_, scale=scale, smoothness=1.0))
        eta = numpyro.deterministic("eta", jnp.concatenate([seen(field), fixed(field)]))
        numpyro.sample("y", dist.Normal(eta[: len(y)], 0.2).to_event(1), obs=y)

    latent = ni.infer.LatentGaussian(model, "eta", model_args=(seen, fixed, mesh, y))
    points = latent.integrate_grid()
    logs = np.stack([np.log(np.asarray(points.values[name], float)) for name in ("range", "scale")])
    weights = np.asarray(points.weights, float)
    mean = logs @ weights
    sd = np.sqrt((logs - mean[:, None]) ** 2 @ weights)
    at_places = latent.marginals(points)["eta"]
    return np.concatenate([mean, at_places.mean[len(y) :]]), np.concatenate([sd, at_places.sd[len(y) :]])


def test_the_posterior_does_not_depend_on_the_mesh(x64):
    """On 32, 64 and 128 cells a side, data at 50 places with a noise of a fifth of the scale: from 64 to 128 means move
    by less than 0.1 posterior standard deviations (the Monte-Carlo error of 100 independent draws), standard deviations
    by less than 3 %. The first step is larger, for in the middle of an edge of 1/32 the field departs from its
    interpolation by 0.09, half of the noise; variances converge like h^2 log(1/h), of which the second step is .3 of
    the first."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0.05, 0.95, (50, 2))
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    z = distance * np.sqrt(8.0) / 0.4
    covariance = np.where(z > 0, z * kv(1, np.where(z > 0, z, 1)), 1.0)
    y = jnp.asarray(np.linalg.cholesky(covariance + 0.04 * np.eye(50)) @ rng.normal(size=50))
    found = {cells: on_a_mesh(cells, places, y) for cells in (32, 64, 128)}
    sd = found[128][1]
    steps = [
        (np.abs(found[a][0] - found[b][0]) / sd, np.abs(np.log(found[a][1] / found[b][1])))
        for a, b in ((32, 64), (64, 128))
    ]
    (moved, _), (least, scaled) = steps
    assert np.all(least < 0.1), steps
    assert np.all(scaled < 0.03), steps
    assert np.linalg.norm(least) < 0.4 * np.linalg.norm(moved), steps
