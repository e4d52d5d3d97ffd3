"""A generator plus a residual: the law, the latent pair's density, and posteriors against closed form."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, Predictive

import numpyro_inverse as ni
from numpyro_inverse.distributions import Matern, Pushforward

rng = np.random.default_rng(0)
DECODER, OFFSET = rng.normal(size=(6, 2)), rng.normal(size=6)
WHITE = dist.Normal(0, 1).expand([2]).to_event(1)
GRID = ni.domains.Grid((6,))
DATA = OFFSET + np.linspace(-1, 1, 6) + 0.3 * rng.normal(size=6)


def affine(z):
    return jnp.asarray(DECODER) @ z + jnp.asarray(OFFSET)


def normal(scale):
    return dist.Normal(0.1, scale).expand([6]).to_event(1)


def matern(scale):
    return Matern(GRID, range=0.5, scale=scale, smoothness=1.5)


def model(data=None, residual=None):
    u = numpyro.sample("u", Pushforward(affine, WHITE, residual=residual))
    numpyro.sample("data", dist.Normal(u, 0.3).to_event(1), obs=data)


@pytest.fixture(scope="module", params=[normal, matern])
def run(request):
    """A residual, and draws given the data."""
    residual = request.param(0.5)
    options = {"num_chains": 2, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(NUTS(ni.whiten(model)), num_warmup=300, num_samples=1500, **options)
    mcmc.run(jax.random.key(1), data=DATA, residual=residual)
    return residual, mcmc


def moments(residual):
    """Of the prior."""
    covariance = getattr(residual, "covariance_matrix", None)
    covariance = np.diag(residual.variance) if covariance is None else covariance
    return OFFSET + np.asarray(residual.mean), DECODER @ DECODER.T + np.asarray(covariance)


def closed_form(residual):
    mean, covariance = moments(residual)
    gain = covariance @ np.linalg.inv(covariance + 0.09 * np.eye(6))
    return mean + gain @ (DATA - mean), covariance - gain @ covariance


@pytest.mark.slow
def test_posterior_in_closed_form(run):
    """Means and covariance of u; |z| < 5 for 6 + 21 numbers is a false alarm of 2e-5 a residual."""
    residual, mcmc = run
    mean, covariance = closed_form(residual)
    u = np.asarray(mcmc.get_samples(group_by_chain=True)["u"], float)
    ess = np.ravel(az.ess(az.from_dict({"posterior": {"u": u}}), method="mean")["u"])
    z = np.abs(u.mean((0, 1)) - mean) / np.sqrt(np.diag(covariance) / ess)
    assert np.all(z < 5)
    products = (u - mean)[..., :, None] * (u - mean)[..., None, :]
    ess = np.asarray(az.ess(az.from_dict({"posterior": {"p": products}}), method="mean")["p"])
    z = np.abs(products.mean((0, 1)) - covariance) / (products.std((0, 1)) / np.sqrt(ess))
    assert np.all(z < 5)
    assert np.linalg.matrix_rank(np.cov(u.reshape(-1, 6).T), tol=1e-3) == 6


@pytest.mark.slow
def test_one_site_holds_both(run):
    residual, mcmc = run
    draws = mcmc.get_samples()
    assert set(draws) == {"u", "u_latent"}
    assert draws["u_latent"].shape == (3000, 8)
    image, rest = Pushforward(affine, WHITE, residual=residual).parts(draws["u_latent"])
    np.testing.assert_allclose(image[7], affine(draws["u_latent"][7, :2]), rtol=1e-5)
    np.testing.assert_allclose(image + rest, draws["u"], rtol=1e-5, atol=1e-5)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(ni.whiten(model), 0)).get_trace(residual=residual)
    assert isinstance(trace["u_latent"]["fn"].base_dist, dist.Normal)  # as kernels in function space want it


@pytest.mark.parametrize("residual", [normal(0.5), matern(0.5)], ids=["normal", "matern"])
def test_prior_moments(residual, key):
    """|z| < 5 for 6 + 21 numbers: a false alarm of 2e-5."""
    mean, covariance = moments(residual)
    u = np.asarray(Pushforward(affine, WHITE, residual=residual).sample(key, (4000,)), float)
    assert np.all(np.abs(u.mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / 4000))
    spread = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / 4000)
    assert np.all(np.abs((u - mean).T @ (u - mean) / 4000 - covariance) < 5 * spread)


@pytest.mark.slow
def test_a_base_that_is_not_standard(key):
    """A Normal base and a Normal residual, each with its own location and scale: |z| < 5 for 6 + 6 numbers."""
    base = dist.Normal(jnp.array([1.0, -2.0]), jnp.array([2.0, 0.5])).to_event(1)
    prior = Pushforward(affine, base, residual=normal(0.5))
    latent = prior.base_dist.sample(key, (4000,))
    u = np.asarray(prior.from_base(latent), float)
    mean = DECODER @ np.array([1.0, -2.0]) + OFFSET + 0.1
    variance = (DECODER**2) @ np.array([4.0, 0.25]) + 0.25
    assert np.all(np.abs(u.mean(0) - mean) < 5 * np.sqrt(variance / 4000))
    assert np.all(np.abs(((u - mean) ** 2).mean(0) / variance - 1) < 5 * np.sqrt(2 / 4000))
    z, w = latent[:3, :2], latent[:3, 2:]
    expected = base.log_prob(z) + dist.Normal(0, 1).log_prob(w).sum(1)
    np.testing.assert_allclose(prior.base_dist.log_prob(latent[:3]), expected, rtol=1e-5)


@pytest.mark.slow
def test_traced_scale(key):
    """Posterior mean and standard deviation of the residual's scale against quadrature of its marginal posterior.

    |z| < 5 for 2 numbers: a false alarm of 1e-6.
    """

    def scaled(data=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        model(data, normal(scale))

    grid = np.linspace(1e-4, 6, 4000)
    marginal = dist.MultivariateNormal(
        OFFSET + 0.1, DECODER @ DECODER.T + (grid[:, None, None] ** 2 + 0.09) * np.eye(6)
    ).log_prob(np.tile(DATA, (4000, 1)))
    weight = np.exp(np.asarray(marginal, float) - 0.5 * grid**2)
    weight /= weight.sum()
    mean = weight @ grid
    mcmc = MCMC(
        NUTS(ni.whiten(scaled)), num_warmup=300, num_samples=1000, num_chains=2, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(key, data=DATA)
    scale = np.asarray(mcmc.get_samples(group_by_chain=True)["scale"], float)
    for found, expected in ((scale, mean), ((scale - mean) ** 2, weight @ (grid - mean) ** 2)):
        ess = float(az.ess(az.from_dict({"posterior": {"x": found}}), method="mean")["x"])
        assert abs(found.mean() - expected) < 5 * found.std() / np.sqrt(ess)


@pytest.mark.slow
@pytest.mark.parametrize("residual", [normal, matern])
def test_gradient_in_the_scale(residual, key, x64):
    """u = G(z) + s w, so the derivative of log p(data | u) in s is (data - u - offset) . w / sigma^2."""
    latent, data = jax.random.normal(key, (8,)), jnp.asarray(DATA)

    def log_prob(s):
        u = Pushforward(affine, WHITE, residual=residual(s)).from_base(latent)
        return dist.Normal(u, 0.3).to_event(1).log_prob(data)

    prior = Pushforward(affine, WHITE, residual=residual(1.0))
    rest = prior.parts(latent)[1] - prior.parts(jnp.zeros(8))[1]
    expected = jnp.sum((data - Pushforward(affine, WHITE, residual=residual(0.7)).from_base(latent)) * rest) / 0.09
    np.testing.assert_allclose(jax.grad(log_prob)(0.7), expected, rtol=1e-9)


@pytest.mark.slow
def test_latents_with_constraints(key):
    """The pair's density, in unconstrained coordinates, integrates to one, and its draws follow it.

    The mean of 20,000 draws of z ~ U(0, 1) and r ~ Gamma(3, 2): |z| < 5, a false alarm of 1e-6.
    """
    residual = dist.Gamma(3.0, 2.0).expand([1]).to_event(1)
    prior = Pushforward(lambda z: z[None] ** 2, dist.Uniform(0.0, 1.0), residual=residual)
    pair = prior.base_dist
    assert pair.event_shape == (2,)
    axes = np.linspace(-14, 14, 561), np.linspace(-10, 4, 561)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    density = np.exp(np.asarray(pair.log_prob(points), float))
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert abs(density.sum() * cell - 1) < 1e-4
    image, rest = prior.parts(points)
    assert abs((density * np.asarray(image[..., 0] + rest[..., 0], float)).sum() * cell - (1 / 3 + 1.5)) < 1e-3
    draws = np.asarray(prior.sample(key, (20_000,)), float)[:, 0]
    assert abs(draws.mean() - (1 / 3 + 1.5)) < 5 * draws.std() / np.sqrt(20_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "residual",
    [
        lambda: dist.TransformedDistribution(normal(1.0), dist.transforms.AffineTransform(0.0, 0.2)),
        lambda: dist.StudentT(4.0, 0.0, 0.3).expand([6]).to_event(1),
        lambda: dist.MultivariateNormal(jnp.zeros(6), 0.1 * jnp.eye(6)),
    ],
    ids=["transformed", "heavy tails", "multivariate"],
)
def test_other_residuals(residual, key):
    """Means and variances of the residual part of 4000 draws, |z| < 5; what it is made of in shape."""
    residual = residual()
    many = Pushforward(affine, WHITE, residual=residual)
    rest = np.asarray(many.parts(many.base_dist.sample(key, (4000,)))[1], float)
    own = np.asarray(residual.sample(jax.random.fold_in(key, 1), (4000,)), float)
    for found, expected in ((rest, own), (rest**2, own**2)):
        error = np.sqrt((found.var(0) + expected.var(0)) / 4000)
        assert np.all(np.abs(found.mean(0) - expected.mean(0)) < 5 * error)
    prior = Pushforward(affine, WHITE, residual=residual)
    latent = prior.base_dist.sample(key, (3,))
    assert latent.shape == (3, 8)
    assert np.all(np.isfinite(prior.base_dist.log_prob(latent)))
    assert prior.sample(key, (3, 2)).shape == (3, 2, 6)
    assert Predictive(ni.whiten(model), num_samples=3)(key, residual=residual)["u"].shape == (3, 6)


@pytest.mark.slow
def test_shapes(key):
    scale = jnp.array([0.1, 0.2, 0.3])
    batched = Pushforward(affine, WHITE, residual=matern(scale))
    assert batched.batch_shape == (3,)
    assert batched.base_dist.batch_shape == (3,)
    assert batched.sample(key, (4,)).shape == (4, 3, 6)
    prior = Pushforward(affine, WHITE, residual=normal(0.2))
    assert prior.expand([5]).sample(key, (4,)).shape == (4, 5, 6)
    assert prior.expand([5]).to_event(1).event_shape == (5, 6)

    def plated():
        with numpyro.plate("things", 3):
            u = numpyro.sample("u", Pushforward(affine, WHITE, residual=matern(scale)))
            numpyro.sample("v", prior)
            numpyro.sample("data", dist.Normal(u, 0.3).to_event(1), obs=jnp.zeros((3, 6)))

    draws = Predictive(ni.whiten(plated), num_samples=2)(key)
    assert draws["u_latent"].shape == draws["v_latent"].shape == (2, 3, 8)
    assert draws["u"].shape == draws["v"].shape == (2, 3, 6)


@pytest.mark.slow
def test_crossing_jit_and_vmap(key):
    prior = Pushforward(affine, WHITE, residual=matern(0.5))
    again = jax.tree.unflatten(jax.tree.structure(prior), jax.tree.leaves(prior))
    draws = jax.jit(lambda prior, key: prior.sample(key, (3,)))(again, key)
    np.testing.assert_allclose(draws, prior.sample(key, (3,)), rtol=1e-4, atol=1e-5)
    scales = jnp.array([0.1, 0.2])
    many = jax.vmap(lambda s: Pushforward(affine, WHITE, residual=matern(s)).sample(key))(scales)
    each = [Pushforward(affine, WHITE, residual=matern(s)).sample(key) for s in scales]
    np.testing.assert_allclose(many, np.stack(each), rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda r: Pushforward(affine, WHITE, residual=r).sample(key).sum())(normal(0.5))
    assert float(gradient.base_dist.base_dist.scale) != 0


def test_there_is_no_density(key):
    prior = Pushforward(affine, WHITE, residual=normal(0.5))
    with pytest.raises(NotImplementedError, match=r"integral over its latent.*whiten.*BaseReparam"):
        prior.log_prob(prior.sample(key))


def test_one_site_by_its_reparam():
    one = numpyro.handlers.reparam(model, config={"u": ni.infer.BaseReparam()})
    whole = ni.whiten(model)
    draws = [numpyro.handlers.trace(numpyro.handlers.seed(m, 3)).get_trace(residual=normal(0.5)) for m in (one, whole)]
    assert draws[0].keys() == draws[1].keys()
    np.testing.assert_array_equal(draws[0]["u"]["value"], draws[1]["u"]["value"])


def test_bad_input():
    with pytest.raises(TypeError, match="`residual` must be a NumPyro distribution; got float"):
        Pushforward(affine, WHITE, residual=0.1)
    with pytest.raises(ValueError, match=r"output shape \(6,\) as event shape; got event shape \(5,\)"):
        Pushforward(affine, WHITE, residual=dist.Normal(0, 1).expand([5]).to_event(1))
    with pytest.raises(ValueError, match=r"batch shape \(6,\).*to_event\(1\)"):
        Pushforward(affine, WHITE, residual=dist.Normal(0, 1).expand([6]))
    with pytest.raises(ValueError, match="continuous"):
        Pushforward(affine, WHITE, residual=dist.Poisson(1.0).expand([6]).to_event(1))
