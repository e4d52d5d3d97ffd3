"""Reference posteriors against each other, quadrature and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
from numpyro.infer import MCMC, NUTS

from numpyro_inverse.calibration import exact
from tests.calibration import linear


def square(data=None, sigma=0.3):
    u = numpyro.sample("u", dist.Normal(0, 1))
    numpyro.deterministic("size", jnp.abs(u))
    numpyro.sample("data", dist.Normal(u**2, sigma), obs=data)


def test_published_values():
    posterior = exact.SignSymmetric(1.0, 0.3)
    assert posterior.evidence == pytest.approx(0.2632552075, abs=1e-10)
    assert posterior.absolute_moment(2) == pytest.approx(0.8956514427, abs=1e-10)
    assert posterior.absolute_moment(1) == pytest.approx(0.9288710070, abs=1e-10)


@pytest.mark.parametrize(("y", "sigma"), [(1.0, 0.3), (-0.7, 0.5), (0.05, 0.3), (6.0, 0.2), (0.02, 0.2)])
def test_sign_symmetric_against_quadrature(key, y, sigma):
    posterior = exact.SignSymmetric(y, sigma)
    mass, _ = scipy.integrate.quad(posterior.density, 0, 5, points=[np.sqrt(abs(y))], epsabs=1e-12)
    assert 2 * mass == pytest.approx(1, abs=1e-9)
    reference = exact.quadrature(square, model_kwargs={"data": y, "sigma": sigma})
    assert np.exp(reference.log_evidence) == pytest.approx(posterior.evidence, rel=1e-6)
    assert reference.mean["size"] == pytest.approx(posterior.absolute_moment(1), rel=1e-6)
    draws = np.asarray(posterior.draw(key, 4000))
    assert abs(np.mean(draws)) < 4.5 * np.std(draws) / np.sqrt(4000)
    assert abs(np.mean(np.abs(draws)) - posterior.absolute_moment(1)) < 4.5 * np.std(np.abs(draws)) / np.sqrt(4000)


@pytest.mark.slow
def test_quadrature_of_a_gaussian(key):
    reference = exact.quadrature(linear.model, model_kwargs={"data": np.arange(6.0) / 3})
    mean = linear.COVARIANCE @ linear.MATRIX.T @ (np.arange(6.0) / 3)
    np.testing.assert_allclose(reference.mean["x"], mean, atol=1e-6)
    np.testing.assert_allclose(reference.covariance["x"], linear.COVARIANCE, rtol=1e-5)
    evidence = scipy.stats.multivariate_normal.logpdf(
        np.arange(6.0) / 3, np.zeros(6), linear.MATRIX @ linear.MATRIX.T + np.eye(6)
    )
    assert reference.log_evidence == pytest.approx(evidence, abs=1e-6)
    assert exact.compare(reference.draw(key, 4000), reference).p_value > 1e-3
    dense = exact.linear_gaussian(linear.model, model_kwargs={"data": np.arange(6.0) / 3})
    np.testing.assert_allclose(dense.mean["x"], mean, atol=1e-5)
    np.testing.assert_allclose(dense.covariance["x"], linear.COVARIANCE, rtol=1e-4)
    assert dense.log_evidence == pytest.approx(evidence, abs=1e-4)


def test_quadrature_runs_the_model_inside_jit_only():
    traced = []

    def model(data=None):
        x = numpyro.sample("x", dist.Normal(0, 1))
        traced.append(isinstance(x, jax.core.Tracer))
        numpyro.sample("data", dist.Normal(x, 1), obs=data)

    exact.quadrature(model, model_kwargs={"data": 0.5}).draw(jax.random.key(0), 10)
    assert all(traced)


def test_quadrature_of_constrained_sites():
    """A Beta posterior, far in a corner."""

    def model(data=None):
        p = numpyro.sample("p", dist.Beta(2.0, 3.0))
        numpyro.sample("data", dist.Binomial(200, p), obs=data)

    reference = exact.quadrature(model, model_kwargs={"data": 197})
    posterior = exact.beta_binomial(197, 200, 2.0, 3.0)
    assert reference.mean["p"] == pytest.approx(float(posterior.mean), rel=1e-6)
    assert reference.sd["p"] == pytest.approx(float(jnp.sqrt(posterior.variance)), rel=1e-5)


@pytest.mark.slow
def test_conjugate_families_against_quadrature():
    def gamma_model(data=None):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 0.5))
        numpyro.sample("data", dist.Poisson(rate).expand([5]).to_event(1), obs=data)

    counts = np.array([3, 5, 1, 4, 2])
    found = exact.quadrature(gamma_model, model_kwargs={"data": counts})
    assert found.mean["rate"] == pytest.approx(float(exact.gamma_poisson(counts, 2.0, 0.5).mean), rel=1e-6)

    def normal_model(data=None):
        mean = numpyro.sample("mean", dist.Normal(1.0, 2.0))
        numpyro.sample("data", dist.Normal(mean, 0.7).expand([4]).to_event(1), obs=data)

    values = np.array([0.1, 0.9, -0.4, 2.0])
    found, closed = (
        exact.quadrature(normal_model, model_kwargs={"data": values}),
        exact.normal_normal(values, 0.7, 1.0, 2.0),
    )
    assert found.mean["mean"] == pytest.approx(float(closed.loc), rel=1e-5)
    assert found.sd["mean"] == pytest.approx(float(closed.scale), rel=1e-5)

    def variance_model(data=None):
        variance = numpyro.sample("variance", dist.InverseGamma(5.0, 2.0))
        numpyro.sample("data", dist.Normal(0.0, jnp.sqrt(variance)).expand([4]).to_event(1), obs=data)

    found, closed = (
        exact.quadrature(variance_model, model_kwargs={"data": values}),
        exact.inverse_gamma_normal(values, 5.0, 2.0),
    )
    assert found.mean["variance"] == pytest.approx(float(closed.mean), rel=1e-5)


@pytest.mark.slow
def test_gaussian_mixture_against_quadrature(key):
    weights, means, covariances = [0.3, 0.7], [[-1.0, 0.0], [1.0, 0.5]], [np.eye(2) * 0.2, np.eye(2) * 0.5]
    matrix, noise = np.array([[1.0, 0.5]]), np.array([[0.1]])

    def model(data=None):
        parts = dist.MultivariateNormal(jnp.asarray(means), jnp.asarray(covariances))
        x = numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.asarray(weights)), parts))
        numpyro.sample("data", dist.Normal(matrix @ x, np.sqrt(0.1)).to_event(1), obs=data)

    closed = exact.gaussian_mixture(matrix, noise, weights, means, covariances, [0.4])
    found = exact.quadrature(model, model_kwargs={"data": np.array([0.4])})
    np.testing.assert_allclose(found.mean["x"], closed.mean["x"], rtol=1e-5)
    np.testing.assert_allclose(found.covariance["x"], closed.covariance["x"], rtol=1e-4)
    assert found.log_evidence == pytest.approx(closed.log_evidence, abs=1e-5)
    assert exact.compare(closed.draw(key, 4000), closed).p_value > 1e-3
    with pytest.raises(ValueError, match="sum to 1"):
        exact.gaussian_mixture(matrix, noise, [0.3, 0.3], means, covariances, [0.4])
    with pytest.raises(ValueError, match="shapes do not fit"):
        exact.gaussian_mixture(matrix, noise, weights, means, covariances, [0.4, 0.1])


@pytest.mark.slow
def test_compare_catches_the_published_narrow_posterior(key):
    """11 % too narrow, as a peer's default sampler leaves a deconvolution of 16 x 16 pixels."""
    lag = np.abs(np.subtract.outer(np.arange(16), np.arange(16)))
    blur, prior = (np.kron(one, one) for one in (np.exp(-0.5 * lag**2) / np.sqrt(2 * np.pi), np.exp(-lag / 4)))
    r = np.random.default_rng(0)
    data = blur @ np.linalg.cholesky(prior) @ r.normal(size=256) + 0.1 * r.normal(size=256)
    reference = exact.gaussian_mixture(blur, 0.01 * np.eye(256), [1.0], [np.zeros(256)], [prior], data)
    draws = reference.draw(key, 500)["x"]
    right = exact.compare({"x": draws}, reference)
    assert right.p_value > 1e-3
    narrow = draws.mean(0) + 0.89 * (draws - draws.mean(0))
    wrong = exact.compare({"x": narrow}, reference)
    assert wrong.p_value < 1e-3
    assert "differs" in wrong.verdict()
    assert wrong.table.loc["x", "sd ratio"] == pytest.approx(0.89, abs=0.01)
    wrong.plot()


HEAVY = {
    "StudentT": dist.StudentT(5.0, 1.0, 2.0),
    "Gamma": dist.Gamma(1.5, 2.0),
    "InverseGamma": dist.InverseGamma(2.5, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["StudentT", *(pytest.param(name, marks=pytest.mark.statistical) for name in ("Gamma", "InverseGamma"))]
)
def test_compare_knows_the_tails_of_the_reference(key, name):
    """Right draws are rejected at the nominal rate: at 5 %, 14 or fewer of 100 but once in ten thousand times."""
    fn = HEAVY[name]
    reference = exact.Reference.of(x=fn)
    draws = np.asarray(fn.sample(key, (100, 2000)))
    rejected = [exact.compare({"x": x}, reference).p_value <= 0.05 for x in draws]
    assert sum(rejected) <= 14
    center = np.median(draws)
    assert all(exact.compare({"x": center + 0.8 * (x - center)}, reference).p_value < 0.05 for x in draws[:10])


@pytest.mark.slow
def test_compare_sees_correlations(key):
    """Within a site and between sites: marginals are exact, dependence is not there."""
    law = dist.MultivariateNormal(jnp.zeros(3), 0.5 * jnp.eye(3) + 0.5)

    def draw(key, number):
        x = law.sample(key, (number,))
        return {"a": x[:, :2], "b": x[:, 2]}

    moments = {"a": np.zeros(2), "b": np.zeros(())}, {"a": np.ones(2), "b": np.ones(())}
    reference = exact.Reference(*moments, draw)
    right = draw(key, 500)
    assert exact.compare(right, reference).p_value > 1e-3
    other = draw(jax.random.fold_in(key, 1), 500)
    assert exact.compare({"a": right["a"], "b": other["b"]}, reference).p_value < 0.01
    inside = jnp.stack([right["a"][:, 0], other["a"][:, 1]], axis=1)
    assert exact.compare({"a": inside}, reference).p_value < 0.01


@pytest.mark.slow
def test_compare_takes_a_chain():
    reference = exact.quadrature(square, model_kwargs={"data": -0.3})
    mcmc = MCMC(
        NUTS(square), num_warmup=300, num_samples=500, num_chains=2, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.key(0), data=-0.3)
    found = exact.compare(mcmc, reference)
    assert found.p_value > 1e-3
    assert set(found.table.index) == {"u", "size"}


def test_reference_of_distributions(key):
    reference = exact.Reference.of(p=dist.Beta(3.0, 4.0), x=dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    assert exact.compare(reference.draw(key, 2000), reference).p_value > 1e-3
    with pytest.raises(ValueError, match="at least one"):
        exact.Reference.of()


def test_bad_input():
    def discrete(data=None):
        numpyro.sample("k", dist.Poisson(3.0))
        numpyro.sample("data", dist.Normal(0, 1), obs=data)

    def large(data=None):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([4]).to_event(1))
        numpyro.sample("data", dist.Normal(x.sum(), 1), obs=data)

    def rough(data=None):
        x = numpyro.sample("x", dist.Uniform(-1e4, 1e4))
        numpyro.factor("comb", jnp.where(jnp.sin(40 * x) > 0.99, 0.0, -30.0))

    with pytest.raises(ValueError, match="'k' is discrete"):
        exact.quadrature(discrete, model_kwargs={"data": 0.0})
    with pytest.raises(ValueError, match="4 latent numbers"):
        exact.quadrature(large, model_kwargs={"data": 0.0})
    with pytest.raises(ValueError, match="tolerance"):
        exact.quadrature(rough)
    with pytest.raises(ValueError, match="sigma"):
        exact.SignSymmetric(1.0, -0.1)
    with pytest.raises(ValueError, match="37"):
        exact.SignSymmetric(100.0, 0.1)
    reference = exact.Reference.of(p=dist.Beta(3.0, 4.0))
    with pytest.raises(ValueError, match="identical"):
        exact.compare({"p": np.zeros(100)}, reference)
    with pytest.raises(ValueError, match="not finite"):
        exact.compare({"p": np.full(100, np.nan)}, reference)
    with pytest.raises(ValueError, match="reference has p"):
        exact.compare({"q": np.zeros(100)}, reference)
    with pytest.raises(ValueError, match="not 3 chains"):
        exact.compare({"p": np.zeros(100)}, reference, num_chains=3)
