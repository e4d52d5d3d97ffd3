"""A field class of a user's own, on a domain of a user's own, in every room that takes fields."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS
from scipy import stats

import numpyro_inverse as ni

SEEN = np.arange(0, 20, 2)
NOISE = 0.4


class Points:
    """Scattered points, compared by identity."""

    def __init__(self, places):
        self.places = np.asarray(places)
        self.shape, (self.size, self.ndim) = self.places.shape[:1], self.places.shape
        self.coordinates = {name: (("point",), column) for name, column in zip("xy", self.places.T, strict=True)}


class KarhunenLoeve(dist.Distribution):
    """Twelve modes of an exponential covariance on scattered points."""

    support = constraints.real_vector
    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012
    pytree_data_fields = ("scale",)
    pytree_aux_fields = ("domain",)

    def __init__(self, domain, scale):
        self.domain, self.scale = domain, jnp.asarray(scale)
        super().__init__(jnp.shape(self.scale), domain.shape)

    @property
    def basis(self):
        values, vectors = np.linalg.eigh(np.exp(-np.linalg.norm(PLACES[:, None] - PLACES, axis=-1) / 0.4))
        return values[-12:], vectors[:, -12:]

    @property
    def amplitudes(self):
        return self.scale * jnp.sqrt(jnp.asarray(self.basis[0], self.scale.dtype))

    @property
    def base_dist(self):
        return dist.Normal(jnp.zeros(12), 1.0).to_event(1)

    def from_coefficients(self, w):
        return jnp.matmul(w, jnp.asarray(self.basis[1].T, w.dtype))

    def from_base(self, z):
        return self.from_coefficients(self.amplitudes * z)

    def sample(self, key, sample_shape=()):
        return self.from_base(self.base_dist.sample(key, sample_shape))


PLACES = np.random.default_rng(0).uniform(size=(20, 2))
DOMAIN = Points(PLACES)
Y = np.sin(5 * PLACES[SEEN, 0]) + NOISE * np.random.default_rng(1).normal(size=len(SEEN))


def model(y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    u = numpyro.sample("u", KarhunenLoeve(DOMAIN, scale))
    numpyro.sample("y", dist.Normal(u[SEEN], NOISE).to_event(1), obs=y)


@pytest.fixture(scope="module")
def exact():
    """Means and standard deviations of log scale and u, by quadrature over 400 values of log scale."""
    values, vectors = KarhunenLoeve(DOMAIN, 1.0).basis
    unit = (vectors * values) @ vectors.T
    grid = np.linspace(-2.5, 2.5, 400)
    log_weights, means, variances = [], [], []
    for s in grid:
        covariance = np.exp(2 * s) * unit
        data = covariance[np.ix_(SEEN, SEEN)] + NOISE**2 * np.eye(len(SEEN))
        gain = np.linalg.solve(data, covariance[SEEN]).T
        log_weights.append(stats.multivariate_normal.logpdf(Y, cov=data) + stats.norm.logpdf(s, 0.0, 0.5))
        means.append(gain @ Y)
        variances.append(np.diag(covariance - gain @ covariance[SEEN]))
    weights = np.exp(np.asarray(log_weights) - np.max(log_weights))
    weights /= weights.sum()
    mean = weights @ np.asarray(means)
    variance = weights @ (np.asarray(variances) + np.asarray(means) ** 2) - mean**2
    center = weights @ grid
    return {"u": (mean, np.sqrt(variance)), "scale": (center, np.sqrt(weights @ (grid - center) ** 2))}


def fitted_nuts():
    coordinates = ni.fit_coordinates(model, jnp.asarray(Y))
    return NUTS(ni.whiten(model, coordinates), **coordinates.nuts_settings())


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel", [fitted_nuts, lambda: ni.infer.LowRankNUTS(ni.whiten(model))], ids=["whiten", "LowRankNUTS"]
)
def test_a_field_of_one_s_own(exact, kernel, key):
    """Means within five Monte-Carlo standard errors of quadrature, by the effective sample size (false alarms 1e-5);
    the export and the picture know its places."""
    az = pytest.importorskip("arviz")
    mcmc = MCMC(kernel(), num_warmup=200, num_samples=600, num_chains=2, chain_method="vectorized", progress_bar=False)
    mcmc.run(key, jnp.asarray(Y))
    tree = ni.to_arviz(mcmc, model_args=(jnp.asarray(Y),))
    posterior = tree["posterior"].to_dataset()
    assert posterior["u"].dims[-1] == "point"
    for name, column in (("x", PLACES[:, 0]), ("y_u", PLACES[:, 1])):  # the data are called y
        np.testing.assert_allclose(posterior.coords[name], column)
    assert "u_latent" not in posterior
    for name, values in (("u", posterior["u"]), ("scale", np.log(posterior["scale"]))):
        mean, sd = exact[name]
        ess = np.asarray(az.ess(values.to_dataset(name="it"))["it"])
        assert ess.min() > 100
        assert np.max(np.abs(np.asarray(values).mean(axis=(0, 1)) - mean) / sd * np.sqrt(ess)) < 5
    assert len(ni.plots.field(tree, "u").axes) >= 2  # a mean and a standard deviation


def test_it_needs_no_base_class():
    assert KarhunenLoeve.__mro__[1] is dist.Distribution
    draw = KarhunenLoeve(DOMAIN, 1.0).sample(jax.random.key(0), (3,))
    assert draw.shape == (3, 20)
