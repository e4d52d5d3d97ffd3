"""Contraction, dropout and tempering against their closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from scipy.stats import norm
from skimage.data import camera

from numpyro_inverse import calibration
from numpyro_inverse.calibration import GeneratorFamily, LinearProblem, SobolevFamily, contraction
from numpyro_inverse.distributions import SobolevSequence
from numpyro_inverse.infer import ExactGaussian


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "ill_posedness", "beta", "n"),
    [(1, 1, 1, (1e2, 1e6)), (2, 1, 2, (1e3, 1e7)), (1, 1, 0.5, (1e8, 1e12))],
)
def test_sobolev_rates_and_constants(key, alpha, ill_posedness, beta, n):
    family = SobolevFamily(alpha, ill_posedness, beta)
    study = contraction(family, np.geomspace(*n, 7) ** -0.5, key)
    assert study.slope == pytest.approx(-study.rate, rel=0.05)
    assert abs(study.measured_slope - study.slope) < 4.5 * study.slope_error
    assert np.all(np.abs(study.measured - study.exact) < 4.5 * study.standard_error)
    for found, expected in zip(family.risk(n[1]), family.asymptotic(n[1]), strict=True):
        assert found == pytest.approx(expected, rel=0.01)


def test_norms_are_not_squared():
    family = SobolevFamily(1, 1, 1)
    study = contraction(family, [1e-2, 1e-3], jax.random.key(0))
    assert study.exact[0] == pytest.approx(np.sqrt(family.risk(1e4).total))
    assert study.rate == pytest.approx(1 / 5)


def test_too_few_modes_fake_the_parametric_rate(key):
    few = SobolevFamily(1, 1, 1, num_modes=30)
    with pytest.raises(ValueError, match=r"5 n\^\(1/q\) = 80"):
        contraction(few, [1e-2, 1e-3], key)
    slope = np.log(few.risk(1e9).total / few.risk(1e8).total) / np.log(10) / 2
    assert slope < -0.4


@pytest.mark.slow
def test_the_sobolev_posterior_is_that_of_the_model(key):
    """Posterior mean and spread per mode against the prior's own NumPyro model."""
    n, j = 400.0, np.arange(1, 31)

    def model(data=None):
        theta = numpyro.sample("theta", SobolevSequence(30, smoothness=1.0))
        numpyro.sample("data", dist.Normal(theta / j, n**-0.5).to_event(1), obs=data)

    kernel = ExactGaussian(model)
    found = np.diagonal(kernel.posterior_covariance(data=jnp.zeros(30))["theta"])
    np.testing.assert_allclose(found.sum(), SobolevFamily(1, 1, 1, num_modes=30).risk(n).spread, rtol=1e-5)
    mcmc = MCMC(kernel, num_warmup=0, num_samples=200, progress_bar=False)
    mcmc.run(key, data=jnp.ones(30))
    assert mcmc.get_samples()["theta"].shape == (200, 30)


def test_generators_contract_to_their_floor(key):
    rng = np.random.default_rng(1)
    generator, forward = rng.normal(size=(30, 5)), rng.normal(size=(20, 30))
    inside = GeneratorFamily(generator, forward, generator @ rng.normal(size=5))
    study = contraction(inside, np.geomspace(1e-3, 0.3, 7), key)
    assert study.slope == pytest.approx(-0.5, rel=0.05)
    assert abs(study.measured_slope - study.slope) < 4.5 * study.slope_error
    assert inside.floor < 1e-9
    outside = GeneratorFamily(generator, forward, rng.normal(size=30))
    assert contraction(outside, [1e-3, 1e-4], key).measured[-1] == pytest.approx(outside.floor, rel=1e-3)


def test_contraction_bad_input(key):
    with pytest.raises(ValueError, match="noise_levels"):
        contraction(SobolevFamily(1, 1, 1), [0.1, 0.1], key)
    with pytest.raises(ValueError, match="alpha"):
        SobolevFamily(-1, 1, 1)
    with pytest.raises(ValueError, match="beta < q"):
        SobolevFamily(1, 0, 4).asymptotic(1e3)
    with pytest.raises(ValueError, match="full column rank"):
        GeneratorFamily(np.ones((4, 2)), np.eye(4), np.ones(4))
    with pytest.raises(ValueError, match="must be"):
        GeneratorFamily(np.ones((4, 2)), np.eye(3), np.ones(4))


def problem():
    rng = np.random.default_rng(2)
    return LinearProblem(rng.normal(size=(6, 9)), np.eye(9), 0.1 * np.eye(6)), rng.normal(size=6)


def test_dropout_covariances_are_the_closed_forms(key):
    """Each entry within its Monte-Carlo error; false-alarm rate 1e-4 for all of them together.

    A draw is linear in independent masks of excess kurtosis k = (1 - 6 q (1 - q)) / (q (1 - q)) = 0.25, so the product
    of two of its elements has variance C_ii C_jj + C_ij^2 + k (at most C_ii C_jj).
    """
    linear, y = problem()
    study = calibration.dropout_vs_posterior(linear, y, key, keep=0.8, num_draws=100_000)
    for kind, exact in study.covariances.items():
        sizes = np.diagonal(exact)
        error = np.sqrt((1.25 * np.outer(sizes, sizes) + exact**2) / 100_000)
        z = np.abs(study.monte_carlo[kind] - exact) / error
        assert z.max() < norm.isf(1e-4 / (2 * 4 * exact.size)), kind
        assert study.doubled[kind] == pytest.approx(4)
    assert np.all(study.null_ratios["input"] < 1e-9)
    assert np.all(study.null_ratios["hidden"] < 1e-9)
    assert study.off_diagonal["output"] < 1e-12
    assert study.off_diagonal["DropConnect"] < 1e-12
    assert study.off_diagonal["input"] > 0.3
    assert study.off_diagonal["hidden"] > 0.3
    assert "MC dropout" in study.verdict()
    study.plot()


@pytest.mark.slow
def test_two_layers_of_dropout(key):
    rng = np.random.default_rng(3)
    first, last, y = rng.normal(size=(5, 4)), rng.normal(size=(3, 5)), rng.normal(size=4)

    def network(y, key):
        one, two = jax.random.split(key)
        hidden = first @ (eqx.nn.Dropout(0.3)(y, key=one))
        return last @ eqx.nn.Dropout(0.2)(hidden, key=two)

    found = calibration.mc_dropout(network, jnp.asarray(y), key, num_draws=200_000)
    closed = calibration.two_layer_dropout_covariance(last, first, y, 0.7, 0.8)
    # The errors by the products of other draws; false-alarm rate 1e-4 for all nine and three together.
    draws = np.asarray(jax.vmap(network, (None, 0))(jnp.asarray(y), jax.random.split(jax.random.key(0), 20_000)))
    off = draws - draws.mean(0)
    error = np.std(off[:, :, None] * off[:, None, :], axis=0) / np.sqrt(200_000)
    bound = norm.isf(1e-4 / (2 * 12))
    assert np.all(np.abs(found.covariance - closed) < bound * error)
    assert np.all(np.abs(found.mean - last @ first @ y) < bound * np.sqrt(np.diag(closed) / 200_000))


def test_rows_that_stay_orthogonal_make_input_dropout_diagonal():
    weight = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0][:3]
    found = calibration.input_dropout_covariance(weight, np.array([1.0, -1, 1, 1, -1]), 0.5)
    np.testing.assert_allclose(found, np.eye(3), atol=1e-12)


def test_training_with_dropout_shrinks():
    """The least-squares solution over random masks, by its normal equations, is not the posterior mean."""
    linear, _ = problem()
    keep, rng = 0.8, np.random.default_rng(4)
    x = rng.normal(size=(200_000, 9))
    y = x @ linear.forward.T + np.sqrt(0.1) * rng.normal(size=(200_000, 6))
    masked = y * (rng.uniform(size=y.shape) < keep) / keep
    trained = np.linalg.lstsq(masked, x, rcond=None)[0].T
    residual = x - masked @ trained.T  # standard errors of least squares; false-alarm rate 1e-4 for all 54
    error = np.sqrt(np.outer(residual.var(0), np.diag(np.linalg.inv(masked.T @ masked))))
    assert np.all(np.abs(trained - linear.trained_map(keep)) < 1.2 * norm.isf(1e-4 / (2 * 54)) * error)
    assert np.linalg.norm(trained - linear.mean_map) > 0.1 * np.linalg.norm(linear.mean_map)


def test_dropout_bad_input(key):
    linear, y = problem()
    with pytest.raises(ValueError, match="keep"):
        calibration.dropout_vs_posterior(linear, y, key, keep=1.0)
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        calibration.dropout_vs_posterior(linear, y[:3], key)
    with pytest.raises(ValueError, match="`prior` must be"):
        LinearProblem(linear.forward, np.eye(3), linear.noise)
    with pytest.raises(ValueError, match="do not depend on the key"):
        calibration.mc_dropout(lambda y, key: y, jnp.ones(3), key)
    with pytest.raises(ValueError, match="stays"):
        calibration.input_dropout_covariance(np.eye(2), np.ones(2), 0.0)


@pytest.mark.slow
def test_tempering_of_a_quadratic(key):
    hessian = np.diag([1.0, 3.0, 10.0])

    def potential(x):
        return 0.5 * x @ (hessian @ x)

    study = calibration.measure_temperature(potential, jnp.zeros(3), key, step_size=0.1, noise_scale=0.5)
    assert study.declared == pytest.approx(1.25)
    assert study.predicted == pytest.approx(np.mean(1.25 / (1 - 0.05 * np.array([1, 3, 10]))), rel=1e-5)
    assert abs(study.z_score) < 4.5  # false alarm 7e-6
    assert abs(study.measured - study.declared) > 10 * study.standard_error
    study.plot()


@pytest.mark.slow
def test_tempering_of_a_mixture(key):
    """A posterior under a mixture prior, no quadratic: at a small step the temperature is the declared one."""
    centres = np.array([[-1.0, 0.0], [1.0, 0.5]])

    def potential(x):
        prior = jax.scipy.special.logsumexp(-0.5 * jnp.sum((x - centres) ** 2, axis=1) / 0.5)
        return -prior + 0.5 * (x[0] - 0.3) ** 2

    study = calibration.measure_temperature(
        potential, jnp.zeros(2), key, step_size=0.02, noise_scale=np.sqrt(2 * 0.02 * 0.5)
    )
    assert study.declared == pytest.approx(0.5)
    assert abs(study.measured / study.declared - 1) < 0.03 + 4.5 * study.standard_error / study.declared


@pytest.mark.slow
def test_tempering_of_a_learned_prior(key):
    """A posterior under a generator learned from image patches: the leading components of a photograph's, squashed.

    The posterior is no quadratic, so the finite-step formula is approximate; at this step its error is below the
    Monte-Carlo error, of which 4.5 are allowed.
    """
    photo = camera()[:256, :256] / 255.0
    patches = np.clip(photo.reshape(32, 8, 32, 8).swapaxes(1, 2).reshape(-1, 64), 0.02, 0.98)
    logits = np.log(patches / (1 - patches))
    centre = logits.mean(axis=0)
    _, scales, components = np.linalg.svd(logits - centre, full_matrices=False)
    decoder = (components[:6] * scales[:6, None] / np.sqrt(len(logits))).T
    seen = np.arange(64) % 3 == 0
    data = patches[100] + 0.2 * np.random.default_rng(0).normal(size=64)

    def potential(z):
        patch = jax.nn.sigmoid(decoder @ z + centre)
        return 0.5 * jnp.sum(z**2) + 0.5 * jnp.sum(jnp.where(seen, patch - data, 0.0) ** 2) / 0.04

    study = calibration.measure_temperature(
        potential, jnp.zeros(6), key, step_size=0.01, noise_scale=np.sqrt(2 * 0.01 * 0.5)
    )
    assert study.declared == pytest.approx(0.5)
    assert abs(study.measured - study.predicted) < 4.5 * study.standard_error


def test_tempering_bad_input(key):
    with pytest.raises(ValueError, match="step_size"):
        calibration.measure_temperature(lambda x: x @ x, jnp.zeros(2), key, step_size=-1.0, noise_scale=1.0)
    with pytest.raises(ValueError, match="1024"):
        calibration.measure_temperature(lambda x: x @ x, jnp.zeros(2000), key, step_size=0.1, noise_scale=1.0)
