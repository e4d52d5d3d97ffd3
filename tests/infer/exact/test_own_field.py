"""A field class of a user's own, known to the exact samplers by its members alone."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

from numpyro_inverse.distributions import ReparametrizedDistribution
from numpyro_inverse.infer import ExactGaussian, ExactGibbs

POINTS = np.random.default_rng(0).uniform(size=(9, 2))
SEEN = np.array([0, 2, 3, 7])


class Members:
    """A Karhunen-Loeve field of all modes on scattered points, with an exponential covariance."""

    support = constraints.real_vector
    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012
    pytree_data_fields = ("scale",)

    def __init__(self, domain, scale):
        self.domain, self.scale = domain, jnp.asarray(scale)
        super().__init__(jnp.shape(self.scale), (len(domain),))

    @property
    def base_dist(self):
        return dist.Normal(0.0, 1.0).expand(self.event_shape).to_event(1)

    def from_base(self, z):
        values, vectors = jnp.linalg.eigh(unit_covariance(self.domain))
        return self.scale * jnp.matmul(z * jnp.sqrt(values), vectors.T)


class Declared(Members, ReparametrizedDistribution):
    pass


class Plain(Members, dist.Distribution):
    def sample(self, key, sample_shape=()):
        return self.from_base(self.base_dist.sample(key, sample_shape))


def unit_covariance(points):
    return jnp.exp(-jnp.linalg.norm(points[:, None] - points, axis=-1) / 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("field", [Declared, Plain])
def test_a_field_of_one_s_own(field, x64):
    """Its posterior given the scale, and the density of the scale, against dense algebra."""
    y = np.random.default_rng(1).standard_normal(len(SEEN))

    def model(y, scale=None):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0)) if scale is None else scale
        u = numpyro.sample("u", field(POINTS, scale))
        numpyro.sample("y", dist.Normal(u[SEEN], 0.3).to_event(1), obs=y)

    c = np.asarray(unit_covariance(POINTS))

    def law(scale):
        return stats.multivariate_normal(np.zeros(len(SEEN)), scale**2 * c[np.ix_(SEEN, SEEN)] + 0.09 * np.eye(4))

    found = ExactGaussian(model).posterior_mean(jnp.asarray(y), scale=1.5)["u"]
    expected = 1.5**2 * c[:, SEEN] @ np.linalg.solve(law(1.5).cov, y)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    kernel = ExactGibbs(model)  # its sites: those with a domain
    state = kernel.init(jax.random.key(0), 10, None, (jnp.asarray(y),), {})
    assert state.z.keys() == {"scale", "u_latent"}
    potential = jax.jit(kernel._kernel._potential_fn_gen(jnp.asarray(y)))
    for log_scale in (-1.0, 0.5):
        expected = law(np.exp(log_scale)).logpdf(y) + stats.norm.logpdf(log_scale)
        np.testing.assert_allclose(potential({"scale": jnp.asarray(log_scale)}), -expected, rtol=1e-8)
