r"""The square of a number, observed with noise: the smallest problem with a symmetry.

:What: :math:`y = u^2 + \sigma \xi`.
:Dimension: 1 unknown, 1 datum.
:Prior: u standard normal; another ``mean`` breaks the symmetry.
:Data: ``y = 1`` in the tests: modes at 1 and -1, to which the noise leaves a width of 0.05.
:Likelihood: normal, standard deviation 0.1.
:Symmetry: ``SignFlip()``.
:Reference posterior: in closed form by parabolic cylinder functions,
    :class:`numpyro_inverse.calibration.exact.SignSymmetric`; by quadrature for any mean, :func:`exact_moments`.
:Source: DLMF 12.5.1 for the integrals.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

NOISE = 0.1


def model(data=None, mean=0.0, noise=NOISE):
    """The NumPyro model: sites ``u`` and ``data``, both scalars."""
    u = numpyro.sample("u", dist.Normal(mean, 1.0))
    numpyro.sample("data", dist.Normal(u**2, noise), obs=data)


def simulate(key, *, mean=0.0, noise=NOISE):
    """A draw of the prior and its datum."""
    key_u, key_noise = jax.random.split(key)
    u = mean + jax.random.normal(key_u)
    return u, u**2 + noise * jax.random.normal(key_noise)


def exact_moments(data, *, mean=0.0, noise=NOISE):
    """E u, E u^2, E |u| and P(u > 0) by quadrature, float64."""
    u = np.linspace(mean - 8, mean + 8, 160001)
    log_density = -((data - u**2) ** 2) / (2 * noise**2) - (u - mean) ** 2 / 2
    density = np.exp(log_density - log_density.max())
    return density @ np.stack([u, u**2, np.abs(u), u > 0], axis=-1) / density.sum()
