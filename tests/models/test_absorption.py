"""Diffusing light on nested meshes: the equation, its levels, and a two-level chain on the exact law."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, Predictive
from numpyro.infer.util import log_density

from models import absorption
from numpyro_inverse.distributions import Matern, restrict_noise
from numpyro_inverse.infer import DelayedAcceptance
from tests.domains.meshes import interval
from tests.infer._laws import Target, assert_agree, chain_z


@pytest.mark.slow
def test_solution_that_is_known(x64):
    r""":math:`p = 2 + \cos \pi x \cos \pi y` has no flux through the boundary, and
    :math:`f = 2 e^u + (2 \pi^2 + e^u) \cos \pi x \cos \pi y`; the error falls with the square of the edges."""
    errors = []
    for level in absorption.levels(8, 3):
        x, y = np.pi * level.mesh.points.T
        u, shape = 1.0 + 0.5 * np.cos(x), np.cos(x) * np.cos(y)
        source = 2 * np.exp(u) + (2 * np.pi**2 + np.exp(u)) * shape
        known = level._replace(source=jnp.asarray(source))
        exact = np.log(np.asarray(level.observe(2 + shape)))
        errors.append(np.max(np.abs(jax.jit(absorption.forward)(known, u) - exact)))
    np.testing.assert_allclose(np.log2(np.divide(errors[1:], errors[:-1])), 2.0, atol=0.2)


@pytest.mark.slow
def test_levels_see_one_noise():
    """Log densities of the same latents approach each other from level to level."""
    levels = absorption.levels(4, 3)
    draws = Predictive(absorption.model, num_samples=20)(jax.random.key(0), levels)

    @partial(jax.jit, static_argnums=2)
    def logs(latents, y, level):
        return log_density(absorption.model, (levels, level, y), {}, latents)[0]

    latents = {name: draws[name] for name in ("range", "scale", "noise")}
    fine, middle, coarse = (jax.vmap(partial(logs, level=i))(latents, draws["data"]) for i in range(3))
    assert np.median(np.abs(middle - fine)) < 0.5 * np.median(np.abs(coarse - fine))


@pytest.mark.slow
@pytest.mark.parametrize("corrected", [True, False])
def test_two_levels_have_the_law_of_the_fine_one(corrected, key):
    """A Gaussian posterior, known by dense algebra, of values at three places between the nodes of the coarse mesh,
    with the coarse field as the approximation: means and second moments of the field there. False-alarm rate 1e-5;
    the coarse model alone is told."""
    fine, coarse, noise = interval(9), interval(5), 0.4
    laws = [Matern(mesh, range=0.5, scale=1.0, smoothness=1.5) for mesh in (fine, coarse)]
    places, y = np.array([[0.12], [0.37], [0.62]]), jnp.array([1.5, -1.0, 0.5])
    see = [law.domain.interpolation(places) for law in laws]

    def model(level):
        z = numpyro.sample("z", laws[0].base_dist)
        u = laws[0].from_base(z) if level == 0 else laws[1].from_base(restrict_noise(*laws, z))
        numpyro.sample("y", dist.Normal(see[level](u), noise).to_event(1), obs=y)

    A = np.asarray(jax.vmap(lambda z: see[0](laws[0].from_base(z)))(jnp.eye(9)), np.float64).T
    covariance = np.linalg.inv(np.eye(9) + A.T @ A / noise**2)
    root = np.linalg.inv(np.linalg.cholesky(A @ covariance @ A.T))
    mean = A @ covariance @ A.T @ np.asarray(y) / noise**2

    def statistics(z):
        v = root @ (A @ z - mean)
        return jnp.concatenate([v, v**2])

    target = Target(9, None, statistics, np.repeat([0.0, 1.0], 3))
    approximation = partial(model, 1)
    kernel = DelayedAcceptance(partial(model, 0) if corrected else approximation, approximation=approximation)
    mcmc = MCMC(kernel, num_warmup=300, num_samples=1000, num_chains=32, chain_method="vectorized", progress_bar=False)
    mcmc.run(key, extra_fields=("accept_prob",))
    z = chain_z(mcmc.get_samples(group_by_chain=True)["z"], target)
    if corrected:
        assert 0.2 < mcmc.get_extra_fields()["accept_prob"].mean() < 0.95
        assert_agree(z)
    else:
        assert np.max(np.abs(z)) > 8
