r"""Light through an absorbing medium, on nested triangulations: a nonlinear inverse problem for samplers on two levels.

:What: :math:`-\Delta p + e^u p = f` on the unit square, no flux through its boundary: a diffusing density p, absorbed
    at the rate :math:`e^u`, of two sources of width 0.1; piecewise linear finite elements with a lumped mass matrix,
    so that p stays positive.
:Dimension: the white noise of u, one number a node of the finest level, and its range and scale; 25 data.
:Prior: u a Matérn field of smoothness 1 around :math:`\log 20`; range log-normal around 0.4 (0.3), scale around 1
    (0.3).
:Likelihood: :math:`\log p` at 5 x 5 points, independent normal of standard deviation 0.2.
:Reference posterior: none in closed form. All levels see one white noise (``restrict_noise``), so their posteriors
    tend to each other with the square of the edges; NUTS on the finest is the reference.
:Source: the equation of diffuse optical tomography without its phase; S. R. Arridge, Inverse Problems 15 (1999)
    R41-R93, section 3.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse.distributions import Matern, restrict_noise
from numpyro_inverse.domains import Mesh

NOISE = 0.2
SOURCES, WIDTH = np.array([[0.25, 0.3], [0.75, 0.6]]), 0.1
LOG_ABSORPTION = np.log(20.0)


class Level(NamedTuple):
    """A mesh and what the equation needs of it: areas and source by nodes, and the interpolation to the 25 points."""

    mesh: Mesh
    areas: jax.Array
    source: jax.Array
    observe: Callable


def levels(cells=8, count=3):
    """The unit square in nested triangulations, the finest first; the coarsest has ``cells`` squares a side."""
    axis = np.linspace(0.0, 1.0, cells + 1)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    across, along = corner + cells + 1, corner + 1
    lower, upper = np.stack([corner, across, across + 1], axis=1), np.stack([corner, across + 1, along], axis=1)
    mesh, found = Mesh(points, np.concatenate([lower, upper])), []
    for _ in range(count):
        found.append(_level(mesh))
        mesh = mesh.refined()
    return found[::-1]


def _level(mesh):
    distances = np.linalg.norm(mesh.points[:, None] - SOURCES, axis=-1)
    sources = np.exp(-0.5 * (distances / WIDTH) ** 2).sum(axis=1)
    axis = np.linspace(0.1, 0.9, 5)
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    areas = np.asarray(mesh.mass_matrix.sum(axis=1)).ravel()
    return Level(mesh, jnp.asarray(areas), jnp.asarray(sources), mesh.interpolation(places))


def forward(level, u):
    """Log density at the 25 points, of log absorption at the nodes."""
    pattern, areas = level.mesh.pattern, level.areas.astype(u.dtype)
    matrix = level.mesh.stiffness.astype(u.dtype).at[pattern.diagonal].add(areas * jnp.exp(u))
    return jnp.log(level.observe(pattern.factor(matrix).solve(areas * level.source)))


def model(levels, level=0, data=None):
    """The NumPyro model, with the equation and the field on one of the levels and the noise of the first: sites
    ``range``, ``scale``, ``noise`` and ``data``."""
    range_ = numpyro.sample("range", dist.LogNormal(np.log(0.4), 0.3))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.3))
    finest, here = (
        Matern(levels[i].mesh, range=range_, scale=scale, smoothness=1.0, mean=LOG_ABSORPTION) for i in (0, level)
    )
    noise = numpyro.sample("noise", finest.base_dist)
    u = here.from_base(noise if level == 0 else restrict_noise(finest, here, noise))
    numpyro.sample("data", dist.Normal(forward(levels[level], u), NOISE).to_event(1), obs=data)


def simulate(key, levels):
    """Log absorption on the finest level, from the prior with range 0.4 and scale 1, and its data."""
    key_field, key_noise = jax.random.split(key)
    law = Matern(levels[0].mesh, range=0.4, scale=1.0, smoothness=1.0, mean=LOG_ABSORPTION)
    u = jax.jit(law.sample)(key_field)
    clean = forward(levels[0], u)
    return u, clean + NOISE * jax.random.normal(key_noise, clean.shape)
