"""The patch factor: against a loop over patches, and a Gaussian case in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from numpyro_inverse.factors import expected_patch_log_likelihood

rng = np.random.default_rng(0)
IMAGE = rng.normal(size=(6, 8))
COVARIANCE = np.cov(rng.normal(size=(40, 4)), rowvar=False)


def log_prob(rows):
    return dist.MultivariateNormal(jnp.zeros(4), covariance_matrix=jnp.asarray(COVARIANCE)).log_prob(rows)


def test_the_shift_is_the_first_patch():
    """With patches side by side there are as many sums as pixels in a patch."""
    image = np.arange(36.0).reshape(6, 6) ** 2
    for i, j in ((1, 0), (0, 1), (2, 1)):
        turned = np.roll(image, (-i, -j), axis=(0, 1))
        blocks = turned.reshape(2, 3, 2, 3).transpose(0, 2, 1, 3).reshape(4, 9)
        found = expected_patch_log_likelihood(lambda p: jnp.max(p, axis=1), image, 3, stride=3, shift=(i, j))
        np.testing.assert_allclose(found, blocks.max(axis=1).sum(), rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shift", [(0, 0), (1, 3)])
def test_it_is_the_loop_over_patches(x64, stride, shift):
    total = 0.0
    for i in range(0, 6, stride):
        for j in range(0, 8, stride):
            at = np.ix_([(i + shift[0] + a) % 6 for a in range(2)], [(j + shift[1] + b) % 8 for b in range(2)])
            total += stats.multivariate_normal(np.zeros(4), COVARIANCE).logpdf(IMAGE[at].ravel())
    found = jax.jit(lambda u: expected_patch_log_likelihood(log_prob, u, 2, stride=stride, shift=shift))(IMAGE)
    assert found == pytest.approx(total * stride**2 / 4, rel=1e-12)


def test_every_pixel_has_the_same_weight(x64):
    """With a constant-slope density the gradient is one number everywhere, whatever the stride."""
    for stride in (1, 2):
        gradient = jax.grad(lambda u: expected_patch_log_likelihood(lambda p: p.sum(1), u, 2, stride=stride))
        np.testing.assert_allclose(gradient(jnp.asarray(IMAGE)), 1.0, rtol=1e-12)


def test_in_a_model():
    """Patches of one pixel with a Gaussian density: the posterior is that of independent Gaussian pixels."""

    def model(data=None):
        u = numpyro.sample("u", dist.ImproperUniform(dist.constraints.real_matrix, (), (1, 2)))
        numpyro.factor("patches", expected_patch_log_likelihood(lambda p: -0.5 * (p**2).sum(1) / 0.49, u, 1))
        numpyro.sample("data", dist.Normal(u, 0.5).to_event(2), obs=data)

    data = np.array([[1.0, -0.4]])
    slope = jax.grad(lambda u: log_density(model, (data,), {}, {"u": u})[0])
    precision = 1 / 0.49 + 4
    mean = jnp.asarray(4 * data / precision)
    np.testing.assert_allclose(slope(mean), 0, atol=1e-5)
    np.testing.assert_allclose(slope(mean + 1.0), -precision, rtol=1e-5)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros(8), {}, "must be a matrix whose sides"),
        (np.zeros((1, 8)), {}, "must be a matrix whose sides"),
        (np.zeros((6, 8)), {"stride": 3}, "stride"),
        (np.zeros((5, 8)), {"stride": 2}, "stride"),
    ],
)
def test_bad_input(image, options, message):
    with pytest.raises(ValueError, match=message):
        expected_patch_log_likelihood(log_prob, image, 2, **options)
    with pytest.raises(TypeError, match="`log_prob` must be a function"):
        expected_patch_log_likelihood(3, np.zeros((6, 8)), 2)
    with pytest.raises(ValueError, match="`side` must be a positive integer"):
        expected_patch_log_likelihood(log_prob, np.zeros((6, 8)), 0)
    with pytest.raises(ValueError, match="one number for each"):
        expected_patch_log_likelihood(lambda p: p, np.zeros((6, 8)), 2)
