"""Every distribution, one line each: a name and how to make it. The contract suite runs over them all.

A case is ``(make, parameters)``: ``make(**parameters)`` is the distribution with batch shape (), and each parameter may
be replaced by an array of a batch shape. Parameters are those that are differentiated.
"""

from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from numpyro_inverse.distributions import (
    AutoregressiveField,
    BarrierMatern,
    ComplexNormal,
    Coregionalized,
    Flow,
    FunctionSpaceGenerator,
    Matern,
    MaternKL,
    NonstationaryMatern,
    NormalSequence,
    SobolevSequence,
    SpectralField,
)
from numpyro_inverse.domains import Barrier, Eigenbasis, ElementMatrices, Grid
from numpyro_inverse.nn import AutoregressiveFlow, CouplingFlow
from tests.domains.meshes import interval

MATERN = {"range": 0.3, "scale": 1.2, "smoothness": 1.4, "mean": 0.5}
MIXED = ("neumann", "dirichlet", "periodic")


def _mean(mean, ndim):
    return jnp.asarray(mean)[(..., *(None,) * ndim)]


def matern(shape, boundary="neumann", padding=0.0):
    """A maker of Matérn fields whose ``mean`` is a number, or a batch of them."""
    return lambda mean, **p: Matern(Grid(shape, boundary=boundary), mean=_mean(mean, len(shape)), padding=padding, **p)


def _sobolev(order, mean):
    grid = Grid((4, 5), boundary=("periodic", "neumann"))
    return SpectralField(grid, (1 + grid.eigenvalues) ** -jnp.asarray(order)[..., None, None], mean=_mean(mean, 2))


def _gmrf(precision):
    grid = Grid(7, boundary="dirichlet")
    return SpectralField(grid, 1 / (jnp.asarray(precision)[..., None] * grid.difference_eigenvalues))


def _flow(make):
    """A maker of flows, with weights away from where training starts, whose base has a scale."""

    @cache
    def bijection(x64):
        """Made once for each precision, outside of the programs that make the flow."""
        rng = np.random.default_rng(2)
        with jax.ensure_compile_time_eval():
            start = make(key=jax.random.key(1))
            leaves, structure = jax.tree.flatten(start)
            away = [
                jax.device_put((np.asarray(leaf) + 0.1 * rng.normal(size=leaf.shape)).astype(leaf.dtype))
                if eqx.is_inexact_array(leaf)
                else leaf
                for leaf in leaves
            ]
        return jax.tree.unflatten(structure, away)

    def flow(scale):
        moved = bijection(jax.config.jax_enable_x64)
        scale = jnp.asarray(scale)
        shape = moved.shape
        base = dist.Normal(0.0, scale[(..., *(None,) * len(shape))]).expand(scale.shape + shape).to_event(len(shape))
        return Flow(moved, base)

    return flow


def _complex_normal(real, imag, scale):
    loc = jnp.asarray(real)[..., None] * jnp.arange(3) + 1j * jnp.asarray(imag)[..., None]
    return ComplexNormal(loc, jnp.asarray(scale)[..., None]).to_event(1)


def _smooth(scale):
    grid = Grid(3)
    return SpectralField(grid, jnp.asarray(scale)[..., None] ** 2 / (1 + grid.eigenvalues))


def _in_time(scale, correlation):
    return AutoregressiveField(_smooth(scale), correlation, 2)


def _correlated(scale, slope):
    slope = jnp.asarray(slope)
    mixing = jnp.stack([jnp.stack([1 + 0 * slope, 0 * slope], -1), jnp.stack([slope, 0.7 + 0 * slope], -1)], -2)
    return Coregionalized([_smooth(scale), _smooth(1.0)], mixing)


def _matern_mesh(mean, **parameters):
    mesh = _mesh(jax.config.jax_enable_x64)
    return Matern(mesh, smoothness=0.5, mean=_mean(mean, 1), boundary="robin", **parameters)


def _varying(range, scale, slope, mean):
    """Range and scale log-linear in the place, and a tensor of directions."""
    elements = ElementMatrices(_mesh(jax.config.jax_enable_x64))
    x = jnp.asarray(elements.mesh.points[:, 0], jnp.result_type(float))
    trend = jnp.exp(jnp.asarray(slope)[..., None] * x)
    range_, scale = (jnp.asarray(p)[..., None] * trend for p in (range, scale))
    return NonstationaryMatern(elements, range=range_, scale=scale, smoothness=1.5, mean=_mean(mean, 1))


def _walled(mean, **parameters):
    barrier = Barrier(_mesh(jax.config.jax_enable_x64), np.arange(4) == 2)
    return BarrierMatern(barrier, mean=_mean(mean, 1), **parameters)


def _fractional(mean, **parameters):
    pytest.importorskip("baryrat")
    return Matern(_mesh(jax.config.jax_enable_x64), smoothness=0.8, mean=_mean(mean, 1), **parameters)


def _eigenfunctions(mean, **parameters):
    return MaternKL(_basis(jax.config.jax_enable_x64), mean=_mean(mean, 1), **parameters)


def _sequence(scale):
    return NormalSequence(jnp.asarray(scale)[..., None] * jnp.array([2.0, 1.0, 0.3]))


class _Bounded(eqx.Module):
    scale: Any

    def __call__(self, z):
        return self.scale * jnp.tanh(z)


def _functions(scale):
    """The generator holds the scale, so that there is no batch of them."""
    latent = dist.Normal(0.0, 1.0).expand([4]).to_event(1)
    return FunctionSpaceGenerator(_Bounded(scale), latent, Grid(4), Grid(6))


@cache
def _mesh(x64):
    """Made once for each precision."""
    return interval(5)


@cache
def _basis(x64):
    return Eigenbasis(_mesh(x64), 4)


SCALE = {"scale": 0.8}

DISTRIBUTIONS = {
    "Matern, line, neumann": (matern((9,)), MATERN),
    "Matern, rectangle, periodic": (matern((4, 6), "periodic"), MATERN),
    "Matern, box, mixed": (matern((3, 4, 2), MIXED), MATERN),
    "Matern, rectangle, padded": (matern((3, 4), padding=0.5), MATERN),
    "Matern, mesh": (_matern_mesh, {"range": 0.6, "scale": 1.2, "mean": 0.5}),
    "NonstationaryMatern": (_varying, {"range": 0.6, "scale": 1.2, "slope": -0.4, "mean": 0.5}),
    "BarrierMatern": (_walled, {"range": 0.6, "scale": 1.2, "mean": 0.5}),
    "MaternKL": (_eigenfunctions, {"range": 0.6, "scale": 1.2, "smoothness": 0.8, "mean": 0.5}),
    "FractionalMatern": (_fractional, {"range": 0.6, "scale": 1.2, "mean": 0.5}),
    "SpectralField, Sobolev": (_sobolev, {"order": 1.5, "mean": 0.3}),
    "SpectralField, first-order GMRF": (_gmrf, {"precision": 30.0}),
    "AutoregressiveField": (_in_time, {"scale": 1.2, "correlation": 0.6}),
    "Coregionalized": (_correlated, {"scale": 1.2, "slope": -0.4}),
    "FunctionSpaceGenerator": (_functions, SCALE),
    "Flow, affine couplings": (_flow(partial(CouplingFlow, 4, layers=2, width=4, bins=0)), SCALE),
    "Flow, autoregressive": (_flow(partial(AutoregressiveFlow, 3, layers=2, width=4)), SCALE),
    "ComplexNormal": (_complex_normal, {"real": 0.4, "imag": -1.1, "scale": 0.8}),
    "NormalSequence": (_sequence, SCALE),
    "SobolevSequence": (partial(SobolevSequence, 6), {"smoothness": 0.8, "scale": 1.3}),
}

FLOWS = ("Flow, affine couplings", "Flow, autoregressive")
WITHOUT_BATCH = ("FunctionSpaceGenerator",)
WITHOUT_DENSITY = ("MaternKL", "FractionalMatern", "FunctionSpaceGenerator")
WITHOUT_MOMENTS = (*FLOWS, "FunctionSpaceGenerator")  # in closed form


def batched(parameters, shape):
    """The same parameters, each an array of ``shape`` spread by 10 % about its value."""
    factors = 1 + 0.1 * np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    return {name: value * factors for name, value in parameters.items()}
