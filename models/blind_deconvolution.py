r"""Blind deconvolution: a signal and the kernel that blurred it, from their circular convolution.

:What: :math:`y = k * u + \sigma \xi` on a circle of n cells, with signal u and kernel k both unknown.
:Dimension: 4 + 4 unknowns, 4 data.
:Prior: u standard normal; k near one of the n shifts of a peak, with probabilities ``places`` and standard deviation
    0.05 per entry.
:Data: any; the sum of a simulated convolution and noise.
:Likelihood: independent normal, standard deviation 0.2.
:Symmetry: a shift of k against one of u, and the signs of both, leave likelihood and prior of u alone
    (``Symmetry(CyclicShift((n,)), {"image": 1, "kernel": -1})``); scalings (c u, k / c) leave the likelihood alone.
    The prior of k breaks all of them but the shifts, and those as far as ``places`` differ.
:Reference posterior: the copies' probabilities are ``places``, exactly, whatever the data.
:Source: D. Kundur and D. Hatzinakos, IEEE Signal Process. Mag. 13 (1996) 43-64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SIZE = 4
PLACES = np.array([0.55, 0.25, 0.15, 0.05], np.float32)
PEAK = np.array([1.0, 0.1, 0.0, 0.1], np.float32)
SPREAD = 0.05
NOISE = 0.2


def shifted_peaks():
    """The kernels that the prior knows, one a row."""
    return np.stack([np.roll(PEAK, s) for s in range(SIZE)])


def convolve(kernel, image):
    """Their circular convolution."""
    return jnp.fft.irfft(jnp.fft.rfft(image) * jnp.fft.rfft(kernel), SIZE)


def model(data=None, *, places=PLACES, noise=NOISE):
    """The NumPyro model: sites ``image``, ``kernel`` and ``data``, all of shape ``(4,)``."""
    image = numpyro.sample("image", dist.Normal().expand([SIZE]).to_event(1))
    peaks = dist.Normal(shifted_peaks(), SPREAD).to_event(1)
    kernel = numpyro.sample("kernel", dist.MixtureSameFamily(dist.Categorical(jnp.asarray(places)), peaks))
    numpyro.sample("data", dist.Normal(convolve(kernel, image), noise).to_event(1), obs=data)


def simulate(key, *, places=PLACES, noise=NOISE):
    """Image, kernel and data."""
    keys = jax.random.split(key, 4)
    image = jax.random.normal(keys[0], (SIZE,))
    kernel = jnp.asarray(shifted_peaks())[jax.random.categorical(keys[1], jnp.log(jnp.asarray(places)))]
    kernel = kernel + SPREAD * jax.random.normal(keys[2], (SIZE,))
    return (image, kernel), convolve(kernel, image) + noise * jax.random.normal(keys[3], (SIZE,))


def place(kernel):
    """Which copy a kernel is in."""
    return jnp.argmax(kernel, axis=-1)
