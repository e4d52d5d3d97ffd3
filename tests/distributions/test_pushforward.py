"""Generator priors: sampling, singularity, and posteriors against closed form and quadrature."""

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import numpyro_inverse as ni
from numpyro_inverse.calibration import exact
from numpyro_inverse.distributions import Pushforward

rng = np.random.default_rng(0)
DECODER, OFFSET = rng.normal(size=(6, 2)), rng.normal(size=6)
WHITE = dist.Normal(0, 1).expand([2]).to_event(1)
DATA = DECODER @ np.array([0.5, -1.0]) + OFFSET + 0.3 * rng.normal(size=6)


def affine(z):
    return DECODER @ z + OFFSET


def curved(z):
    return jnp.stack([z[0] + 0.3 * z[1] ** 2, jnp.sinh(z[1]), z[0] * z[1]])


def model(data=None, generator=affine, size=6):
    u = numpyro.sample("u", Pushforward(generator, WHITE))
    numpyro.sample("data", dist.Normal(u, 0.3).expand([size]).to_event(1), obs=data)


def nuts(model, data, draws=1500, **kwargs):
    options = {"num_chains": 2, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(NUTS(ni.whiten(model)), num_warmup=300, num_samples=draws, **options)
    mcmc.run(jax.random.key(0), data=data, **kwargs)
    return mcmc


@pytest.fixture(scope="module")
def run():
    return nuts(model, DATA)


def test_draws_are_the_generator_of_the_latent(key):
    prior = Pushforward(affine, WHITE)
    draws = prior.sample(key, (5, 4))
    assert draws.shape == (5, 4, 6)
    np.testing.assert_allclose(draws[2, 3], affine(WHITE.sample(key, (5, 4))[2, 3]), rtol=1e-6)


def test_there_is_no_density(key):
    prior = Pushforward(affine, WHITE)
    with pytest.raises(NotImplementedError, match=r"singular.*whiten"):
        prior.log_prob(prior.sample(key))
    with pytest.raises(NotImplementedError, match="singular"):
        MCMC(NUTS(model), num_warmup=1, num_samples=1, progress_bar=False).run(key, data=DATA)


@pytest.mark.slow
def test_affine_posterior_in_closed_form(run):
    """Means and covariance of u; |z| < 5 for 6 + 21 numbers is a false alarm of 2e-5."""
    precision = np.eye(2) + DECODER.T @ DECODER / 0.09
    latent = np.linalg.solve(precision, DECODER.T @ (DATA - OFFSET) / 0.09)
    mean, covariance = DECODER @ latent + OFFSET, DECODER @ np.linalg.inv(precision) @ DECODER.T
    u = np.asarray(run.get_samples(group_by_chain=True)["u"], float)
    ess = np.ravel(az.ess(az.from_dict({"posterior": {"u": u}}), method="mean")["u"])
    assert np.all(np.abs(u.mean((0, 1)) - mean) < 5 * np.sqrt(np.diag(covariance) / ess))
    products = (u - mean)[..., :, None] * (u - mean)[..., None, :]
    ess = np.asarray(az.ess(az.from_dict({"posterior": {"p": products}}), method="mean")["p"])
    error = products.std((0, 1)) / np.sqrt(ess)
    assert np.all(np.abs(products.mean((0, 1)) - covariance) < 5 * error)
    assert np.linalg.matrix_rank(np.cov(u.reshape(-1, 6).T), tol=1e-5) == 2


@pytest.mark.slow
def test_curved_posterior_against_quadrature():
    data = np.array([0.7, -0.4, 0.2])
    reference = exact.quadrature(ni.whiten(model), model_kwargs={"data": data, "generator": curved, "size": 3})
    grid = np.linspace(-6, 6, 801)
    z = np.stack(np.meshgrid(grid, grid, indexing="ij"))
    u = np.stack([z[0] + 0.3 * z[1] ** 2, np.sinh(z[1]), z[0] * z[1]])
    log_weight = -0.5 * (z**2).sum(0) - 0.5 * ((u - data[:, None, None]) ** 2).sum(0) / 0.09
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    np.testing.assert_allclose(reference.mean["u"], (u * weight).sum((1, 2)), rtol=1e-5, atol=1e-6)
    mcmc = nuts(model, data, generator=curved, size=3)
    found = {"u": mcmc.get_samples()["u"], "u_latent": mcmc.get_samples()["u_latent"]}
    assert exact.compare(found, reference, num_chains=2).p_value > 1e-4


@pytest.mark.slow
def test_the_rest_of_numpyro(run, key):
    tree = ni.to_arviz(run)
    assert tree.posterior["u"].shape[-1] == 6
    whitened = ni.whiten(model)
    assert Predictive(whitened, num_samples=3)(key)["u"].shape == (3, 6)
    svi = SVI(whitened, AutoNormal(whitened), numpyro.optim.Adam(0.02), Trace_ELBO())
    assert np.isfinite(svi.run(key, 50, progress_bar=False, data=DATA).losses[-1])


@pytest.mark.slow
def test_an_equinox_generator_crosses_jit(key):
    network = eqx.nn.MLP(2, 6, 8, 1, key=key)
    prior = Pushforward(network, WHITE)
    draws = jax.jit(lambda prior, key: prior.sample(key, (3,)))(prior, key)
    np.testing.assert_allclose(draws, prior.sample(key, (3,)), rtol=1e-5)
    gradient = jax.grad(lambda prior: prior.sample(key).sum(), allow_int=True)(prior)
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient._arrays))
    assert jax.vmap(lambda key: prior.sample(key))(jax.random.split(key, 4)).shape == (4, 6)


def test_bad_input():
    with pytest.raises(TypeError, match="`generator`"):
        Pushforward(3, WHITE)
    with pytest.raises(TypeError, match="`base`"):
        Pushforward(affine, 3)
    with pytest.raises(ValueError, match="batch shape"):
        Pushforward(affine, dist.Normal(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match=r"does not take a latent of `base`'s shape \(3,\)"):
        Pushforward(affine, dist.Normal(0, 1).expand([3]).to_event(1))
    with pytest.raises(ValueError, match=r"a latent must have shape \(2,\); got an array of shape \(4, 3\)"):
        Pushforward(affine, WHITE).from_base(jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"a latent must have shape \(2,\); got an array of shape \(\)"):
        Pushforward(affine, WHITE).parts(0.0)
    with pytest.raises(ValueError, match="one floating-point array"):
        Pushforward(lambda z: (z, z), WHITE)


def test_an_observed_site_has_no_likelihood():
    def observed():
        numpyro.sample("u", Pushforward(affine, WHITE), obs=jnp.zeros(6))

    with pytest.raises(NotImplementedError, match="singular"):
        numpyro.infer.util.log_density(observed, (), {}, {})
    with pytest.raises(ValueError, match="site 'u' is observed"):
        numpyro.infer.util.log_density(ni.whiten(observed), (), {}, {})


class Layer(eqx.Module):
    """A generator with weights as a file reader gives them."""

    weight: np.ndarray

    def __call__(self, z):
        return self.weight @ z


def test_numpy_weights_cross_jit(key):
    prior = Pushforward(Layer(DECODER), WHITE)
    draws = jax.jit(lambda prior, key: prior.sample(key, (3,)))(prior, key)
    np.testing.assert_allclose(draws, prior.sample(key, (3,)), rtol=1e-5)
