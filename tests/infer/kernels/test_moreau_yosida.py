"""MYULA: its law for a Gaussian prior at a finite step and smoothing, and a Laplace prior by quadrature."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tests.infer._laws import assert_agree, linear_chain_z, run

from numpyro_inverse.infer import MoreauYosidaULA

DATA_PRECISION, PRIOR_VARIANCE = np.array([0.5, 4.0, 8.0]), np.array([2.0, 0.3, 1.0])
SMOOTHING, DELTA = 0.2, 0.1


def _misfit(x):
    return 0.5 * jnp.sum(DATA_PRECISION * x**2)


def _prox(x, smoothing):
    return PRIOR_VARIANCE / (PRIOR_VARIANCE + smoothing) * x


def _z(key, precision):
    kernel = MoreauYosidaULA(potential_fn=_misfit, prox=_prox, smoothing=SMOOTHING, step_size=DELTA)
    draws = run(kernel, key, 3, 500, 60_000, 1)
    return linear_chain_z(draws, 1 / (precision * (1 - DELTA * precision / 2)), 1 - DELTA * precision)


def test_gaussian_prior(key):
    # ULA on the precision H + (C + smoothing)^-1. False-alarm rate 1e-5.
    assert_agree(_z(key, DATA_PRECISION + 1 / (PRIOR_VARIANCE + SMOOTHING)))


def test_the_test_has_power(key):
    # The prior without smoothing is told apart.
    assert np.max(np.abs(_z(key, DATA_PRECISION + 1 / PRIOR_VARIANCE))) > 8


def test_laplace_prior(key):
    # exp(-x^2 / 2 - the Moreau envelope of 3 |x|), the Huber function, by quadrature; delta small. False-alarm
    # rate 1e-5, beyond a bias of delta * L / 4 in the second moment.
    weight, smoothing, delta = 3.0, 0.05, 0.002
    x = np.linspace(-6, 6, 20001)
    huber = np.where(
        np.abs(x) < weight * smoothing, x**2 / (2 * smoothing), weight * np.abs(x) - weight**2 * smoothing / 2
    )
    density = np.exp(-0.5 * (x - 1) ** 2 - huber)
    density /= density.sum()
    moments = np.array([density @ x, density @ x**2])

    def soft(x, smoothing):
        return jnp.sign(x) * jnp.maximum(jnp.abs(x) - weight * smoothing, 0)

    potential = lambda x: 0.5 * jnp.sum((x - 1) ** 2)  # noqa: E731
    kernel = MoreauYosidaULA(potential_fn=potential, prox=soft, smoothing=smoothing, step_size=delta)
    draws = np.asarray(run(kernel, key, 400, 4000, 4000, 1), float)
    means = np.stack([draws.mean(axis=0), (draws**2).mean(axis=0)])
    error = means.mean(axis=1) - moments
    noise = means.std(axis=1) / np.sqrt(400) * stats.norm.isf(1e-5 / 4)
    bias = moments[1] * delta * (1 + 1 / smoothing) / 4
    assert np.all(np.abs(error) < noise + bias), (error, noise, bias)


def test_bad_parameters():
    with pytest.raises(ValueError, match="`prox` must be a function"):
        MoreauYosidaULA(potential_fn=_misfit, prox=None, smoothing=1.0, step_size=1.0)
    with pytest.raises(ValueError, match="`smoothing` must be positive"):
        MoreauYosidaULA(potential_fn=_misfit, prox=_prox, smoothing=0.0, step_size=1.0)


def test_a_prox_of_another_shape(key):
    kernel = MoreauYosidaULA(potential_fn=_misfit, prox=lambda x, s: x[:1], smoothing=1.0, step_size=1.0)
    with pytest.raises(ValueError, match="turns 3 latent numbers into 1"):
        run(kernel, key, 3, 0, 1, 1)
