r"""Phase retrieval: a signal from the amplitudes of its linear measurements.

:What: :math:`y = |A u| + \sigma \xi`, with A random Gaussian rows, or coded diffraction patterns
    :math:`F (m_l \odot u)`: the object is seen through a few random phase masks in the far field.
:Dimension: any; the tests use 2 unknowns and 32 x 32 pixels.
:Prior: any of mean zero for ``image`` (real) or for real and imaginary part of ``wave`` (complex).
:Data: amplitudes, with noise that may make small ones negative.
:Likelihood: independent normal, standard deviation 0.1 in units of the prior's standard deviation.
:Symmetry: of a real image its sign, ``SignFlip()``; of a complex wave a global phase, ``GlobalPhase(axis=0)``.
:Reference posterior: for two unknowns by quadrature, :func:`exact_outer_product`, real and complex.
:Source: E. J. Candès, X. Li and M. Soltanolkotabi, Appl. Comput. Harmon. Anal. 39 (2015) 277-299 (coded diffraction);
    P. Netrapalli, P. Jain and S. Sanghavi, NeurIPS 2013, and E. J. Candès et al., IEEE Trans. Inf. Theory 61 (2015)
    1985-2007 (spectral initialization).
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.sparse.linalg import LinearOperator, eigsh

NOISE = 0.1


def gaussian(rows):
    """The forward map of rows of shape ``(m, n)``, real or complex."""
    return lambda image: jnp.asarray(rows) @ image


def coded_diffraction(key, shape, num_masks=4):
    """The orthonormal Fourier transform of the image behind masks of random phases 1, i, -1, -i."""
    masks = 1j ** jax.random.randint(key, (num_masks, *shape), 0, 4)
    axes = tuple(range(1, len(shape) + 1))
    return lambda image: jnp.fft.fftn(masks * image, axes=axes, norm="ortho")


def model(data=None, *, forward, prior, noise=NOISE):
    """The NumPyro model of a real signal: sites ``image`` and ``data``."""
    image = numpyro.sample("image", prior)
    mean = jnp.abs(forward(image))
    numpyro.sample("data", dist.Normal(mean, noise).to_event(mean.ndim), obs=data)


def complex_model(data=None, *, forward, prior, noise=NOISE):
    """The NumPyro model of a complex signal: ``wave`` holds real and imaginary part along its first axis."""
    wave = numpyro.sample("wave", prior.expand([2]).to_event(1))
    mean = jnp.abs(forward(wave[0] + 1j * wave[1]))
    numpyro.sample("data", dist.Normal(mean, noise).to_event(mean.ndim), obs=data)


def simulate(key, truth, *, forward, noise=NOISE):
    """The data of ``truth``, a real or complex array."""
    amplitude = jnp.abs(forward(truth))
    return amplitude + noise * jax.random.normal(key, amplitude.shape)


def spectral_estimate(data, forward, shape):
    r"""Where to begin: the first eigenvector of :math:`\sum_i y_i^2 a_i a_i^*`, without the largest data.

    Real arrays of the image's shape and of the norm that the data have in an orthonormal transform.
    """
    data = np.asarray(data, float)
    intensity = np.where(data < 3 * np.sqrt(np.mean(data**2)), data**2, 0)
    size = int(np.prod(shape))

    @jax.jit
    def normal(u):
        parts, pull = jax.vjp(lambda v: jnp.stack([f(forward(v)) for f in (jnp.real, jnp.imag)]), u.reshape(shape))
        return pull(parts * intensity)[0].ravel()

    operator = LinearOperator((size, size), matvec=lambda u: np.asarray(normal(jnp.asarray(u)), float), dtype=float)
    _, vectors = eigsh(operator, k=1, which="LA", v0=np.ones(size))
    image = jnp.asarray(vectors[:, 0].reshape(shape), jnp.result_type(float))
    ratio = np.sum(data**2) / float(jnp.sum(jnp.abs(forward(image)) ** 2))
    return image * np.sqrt(ratio)


def exact_outer_product(data, rows, *, noise=NOISE, side=4.0, cells=161):
    r"""E[u u*| data] of two standard normal unknowns by quadrature, shape ``(2, 2)``, float64.

    A complex signal is turned until its first entry is real and positive, where the density has the factor
    :math:`|u_1|`; three dimensions remain.
    """
    axis = np.linspace(-side, side, cells)
    if np.iscomplexobj(rows):
        radius = axis[axis > 0]
        r, a, b = np.meshgrid(radius, axis, axis, indexing="ij")
        u, volume = np.stack([r + 0j, a + 1j * b]), r
    else:
        u, volume = np.stack(np.meshgrid(axis, axis, indexing="ij")), 1.0
    log_density = -0.5 * np.sum(np.abs(u) ** 2, axis=0)
    for row, y in zip(np.asarray(rows), np.asarray(data), strict=True):
        log_density -= (y - np.abs(np.tensordot(row, u, 1))) ** 2 / (2 * noise**2)
    density = volume * np.exp(log_density - log_density.max())
    flat = u.reshape(2, -1)
    return (flat * density.ravel()) @ flat.conj().T / density.sum()
