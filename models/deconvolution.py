r"""Deblurring of a signal or a picture with a Gaussian point spread.

:What: :math:`y = k * u + \sigma \xi` on a regular grid with :math:`k` a Gaussian of standard deviation ``width`` and
    mirror boundaries, so that the cosine transform diagonalizes blur and prior.
:Dimension: 64 x 64 (any shape, one or two axes); the longest side has length 1.
:Prior: Matérn field with the grid's Neumann boundary: range 0.2, scale 1, smoothness 1.
:Data: a draw of the prior, or the classical ``square_phantom``, blurred, with noise.
:Likelihood: independent normal of standard deviation 0.05.
:Parameters: ``width`` of the blur and ``range`` in lengths of the domain; ``scale`` and ``noise`` in intensity.
:Reference posterior: Gaussian in closed form of any size, :func:`exact_posterior`; its log evidence as a function of
    range, scale and noise is the exact posterior of :func:`hierarchical_model`'s hyperparameters up to their prior.
:Source: P. C. Hansen, J. G. Nagy and D. P. O'Leary, Deblurring Images, SIAM 2006, chapters 3 and 4.

The benchmark *deconvolution-1d* of UM-Bridge (periodic, 128 cells, with its own data and published constants) is
:func:`umbridge_model` with :func:`umbridge_posterior`; see ``models/data/README.md``.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models._linear_gaussian import cosine_posterior, dense_posterior, matern_coefficient_variance
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.operators import Convolution

SHAPE = (64, 64)
WIDTH = 0.03
PRIOR = {"range": 0.2, "scale": 1.0, "smoothness": 1.0}
NOISE = 0.05


def blur(shape=SHAPE, width=WIDTH):
    """The forward map: a Gaussian of standard deviation ``width`` in lengths of the domain."""
    return Convolution.gaussian(Grid(shape), width)


def model(data=None, *, shape=SHAPE, width=WIDTH, range=0.2, scale=1.0, smoothness=1.0, noise=NOISE):
    """The NumPyro model: sites ``field`` and ``data``, both of shape ``shape``."""
    field = numpyro.sample("field", Matern(Grid(shape), range=range, scale=scale, smoothness=smoothness))
    numpyro.sample("data", dist.Normal(blur(shape, width) @ field, noise).to_event(len(shape)), obs=data)


def hierarchical_model(data=None, *, shape=SHAPE, width=WIDTH, smoothness=1.0):
    """Range, scale and noise unknown too: log-normal with medians 0.2, 1 and 0.05."""
    range_ = numpyro.sample("range", dist.LogNormal(np.log(0.2), 0.7))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.7))
    noise = numpyro.sample("noise", dist.LogNormal(np.log(0.05), 0.7))
    model(data, shape=shape, width=width, range=range_, scale=scale, smoothness=smoothness, noise=noise)


def square_phantom(shape=SHAPE):
    """One inside, zero outside: an interval of 0.15, or a square and a smaller, fainter one."""
    grid = Grid(shape)
    inside = [np.abs(x - length * 0.5) < 0.075 * length for x, length in zip(grid.axes, grid.extent, strict=True)]
    if len(shape) == 1:
        return inside[0].astype(float)
    second = [np.abs(x - length * 0.75) < 0.05 * length for x, length in zip(grid.axes, grid.extent, strict=True)]
    return np.multiply.outer(*inside).astype(float) + 0.5 * np.multiply.outer(*second)


def simulate(key, *, shape=SHAPE, width=WIDTH, noise=NOISE, truth=None):
    """A field and its data: a draw of the prior, or ``truth`` (such as :func:`square_phantom`)."""
    key_field, key_noise = jax.random.split(key)
    field = (
        Matern(Grid(shape), **PRIOR).sample(key_field) if truth is None else jnp.asarray(truth, jnp.result_type(float))
    )
    return field, blur(shape, width) @ field + noise * jax.random.normal(key_noise, shape)


def transfer(shape=SHAPE, width=WIDTH):
    """Eigenvalues of :func:`blur` in the cosine basis, float64: sum_j k_j cos(pi m j / n), axis by axis."""
    cells = width / Grid(shape).spacing[0]
    radius = int(np.ceil(5 * cells))
    j = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (j / cells) ** 2)
    kernel /= kernel.sum()
    axes = [np.cos(np.pi * np.multiply.outer(np.arange(n) / n, j)) @ kernel for n in shape]
    return axes[0] if len(shape) == 1 else np.multiply.outer(*axes)


def exact_posterior(data, *, width=WIDTH, noise=NOISE, **prior):
    """The posterior of ``field``, mode by mode; ``prior`` overrides ``range``, ``scale``, ``smoothness``."""
    shape = np.shape(data)
    variance = matern_coefficient_variance(Grid(shape), **(PRIOR | prior))
    return cosine_posterior(transfer(shape, width), data, noise, variance)


UMBRIDGE_NOISE = 0.01
UMBRIDGE_CELLS = 128


def umbridge_data():
    """The benchmark's arrays by name: ``truth``, ``data`` and stored posteriors (``models/data/README.md``)."""
    with np.load(Path(__file__).parent / "data" / "deconvolution_1d.npz") as arrays:
        return dict(arrays)


def umbridge_blur():
    """The benchmark's forward map: periodic, standard deviation 5 cells of 128."""
    return Convolution.gaussian(Grid(UMBRIDGE_CELLS, extent=UMBRIDGE_CELLS, boundary="periodic"), width=5.0)


def umbridge_precision(prior="gmrf"):
    """Prior precision: ``"gaussian"``, 100 I; ``"gmrf"``, 100 second differences with zeros beyond the ends."""
    identity = np.eye(UMBRIDGE_CELLS)
    if prior == "gaussian":
        return 100 * identity
    if prior == "gmrf":
        return 100 * (2 * identity - np.eye(UMBRIDGE_CELLS, k=1) - np.eye(UMBRIDGE_CELLS, k=-1))
    raise ValueError(f"`prior` must be 'gaussian' or 'gmrf'; got {prior!r}.")


def umbridge_model(data=None, *, prior="gmrf"):
    """The benchmark as a NumPyro model: sites ``field`` and ``data``, 128 cells."""
    precision = jnp.asarray(umbridge_precision(prior), jnp.result_type(float))
    field = numpyro.sample("field", dist.MultivariateNormal(jnp.zeros(UMBRIDGE_CELLS), precision_matrix=precision))
    numpyro.sample("data", dist.Normal(umbridge_blur() @ field, UMBRIDGE_NOISE).to_event(1), obs=data)


def umbridge_posterior(data=None, *, prior="gmrf"):
    """Its exact posterior, by default for the benchmark's own data."""
    j = np.arange(UMBRIDGE_CELLS)
    distance = (j[:, None] - j + UMBRIDGE_CELLS // 2) % UMBRIDGE_CELLS - UMBRIDGE_CELLS // 2
    matrix = np.exp(-0.5 * (distance / 5.0) ** 2)
    matrix /= matrix.sum(axis=1, keepdims=True)
    data = umbridge_data()["data"] if data is None else data
    return dense_posterior(matrix, data, UMBRIDGE_NOISE, np.linalg.inv(umbridge_precision(prior)), (UMBRIDGE_CELLS,))
