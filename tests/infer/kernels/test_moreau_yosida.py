"""MYULA: a Laplace prior by quadrature, and what it refuses. Its law for a Gaussian prior: test_gaussian_law.py."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from numpyro_inverse.infer import MoreauYosidaULA
from tests.infer._laws import run


def _misfit(x):
    return 0.5 * jnp.sum(x**2)


def _prox(x, smoothing):
    return x / (1 + smoothing)


@pytest.mark.slow
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
    with pytest.raises(TypeError, match="`prox` must be a function"):
        MoreauYosidaULA(potential_fn=_misfit, prox=None, smoothing=1.0, step_size=1.0)
    with pytest.raises(ValueError, match="`smoothing` must be positive"):
        MoreauYosidaULA(potential_fn=_misfit, prox=_prox, smoothing=0.0, step_size=1.0)


def test_a_prox_of_another_shape(key):
    kernel = MoreauYosidaULA(potential_fn=_misfit, prox=lambda x, s: x[:1], smoothing=1.0, step_size=1.0)
    with pytest.raises(ValueError, match=r"turns shape \(3,\) of z into \(1,\)"):
        run(kernel, key, 3, 0, 1, 1)
