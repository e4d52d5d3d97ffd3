"""The Laplace approximation as a Gaussian reference: a mode, and the directions that the data inform there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from numpyro_inverse.infer.laplace._fisher_information import fisher_information
from numpyro_inverse.infer.laplace._informed_directions import InformedDirections, informed_directions
from numpyro_inverse.infer.laplace._lbfgs import minimize
from numpyro_inverse.infer.laplace._prior_reference import Reference, prior_reference

ROUNDS = 2  # of: optimization, then eigenpairs


class LaplaceReference(NamedTuple):
    r"""The normal with mean ``centre`` and covariance :math:`I - V V^T + V R R^T V^T` in the units of ``prior``.

    ``root`` is :math:`R`, lower triangular; :math:`(I + \Lambda)^{-1/2}` at first. Coordinates u of a point are those
    in which it is standard normal.
    """

    prior: Reference
    centre: Float[Array, "n"]
    directions: InformedDirections
    root: Float[Array, "r r"]

    def noise(self, x: Float[Array, "n"]) -> Float[Array, "n"]:
        """x in units of the reference."""
        return self.directions.change(self.prior.noise(x) - self.centre, lambda v: self._divide(v, False))

    def value(self, u: Float[Array, "n"]) -> Float[Array, "n"]:
        """Back again."""
        return self.prior.value(self.centre + self.directions.change(u, lambda v: _dot(self.root, v)))

    def pull(self, grad: Float[Array, "n"]) -> Float[Array, "n"]:
        """A gradient in x as one in u."""
        return self.directions.change(self.prior.pull(grad), lambda v: _dot(self.root.T, v))

    def push(self, grad: Float[Array, "n"]) -> Float[Array, "n"]:
        """And back."""
        return self.directions.change(grad, lambda v: self._divide(v, True)) / self.prior.scale

    def _divide(self, v: Float[Array, "r"], transpose: bool) -> Float[Array, "r"]:
        return jax.scipy.linalg.solve_triangular(self.root, v, lower=True, trans=int(transpose))


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def informed_reference(
    model: Callable | None,
    potential: Callable,
    trace: dict[str, Any],
    z: PyTree,
    args: tuple,
    kwargs: dict[str, Any],
    rank: int,
) -> LaplaceReference:
    """The Laplace reference of a kernel's model, or of its ``potential`` of a pytree if ``model`` is None.

    A model's Hessian is :func:`fisher_information`; a potential's is its own, less the identity.
    """
    prior = prior_reference(trace, z)
    x, unravel = ravel_pytree(z)
    key_information, key = jax.random.split(jax.random.key(0))

    def of_vector(x: Array) -> Array:
        return potential(unravel(x))

    def fisher(x: Array) -> Callable:
        return fisher_information(model, args, kwargs, unravel(x), key_information)  # type: ignore[arg-type]

    def curvature(x: Array) -> Callable:
        product = jax.vjp(jax.grad(of_vector), x)[1]
        return lambda v: product(v)[0] - v

    with numpyro.validation_enabled(False):
        return laplace_reference(of_vector, curvature if model is None else fisher, prior, x, rank, key)


def laplace_reference(
    potential: Callable, information: Callable, prior: Reference, x: Float[Array, "n"], rank: int, key: Array
) -> LaplaceReference:
    r"""A Gaussian at a mode of :math:`e^{-U}`, in the prior's units: precision :math:`I + V \Lambda V^T`.

    From ``x``, L-BFGS (in the prior's units), then eigenpairs there; once more in the units of what was found.

    Args:
        potential: U of flat vectors.
        information: ``information(x)`` is the function :math:`v \mapsto H v`, H the Hessian of the misfit in the
            units of ``x``, or Gauss-Newton's.
        prior: the reference that the misfit is relative to.
        x: first point.
        rank: number of eigenpairs, at most.
        key: a key.
    """

    def round_(here: LaplaceReference, key: Array) -> tuple[LaplaceReference, None]:
        w = minimize(lambda w: potential(here.value(w)), jnp.zeros_like(here.centre))
        x = here.value(w)
        product = information(x)
        found = informed_directions(lambda v: prior.scale * product(prior.scale * v), x, rank, key)
        return LaplaceReference(prior, prior.noise(x), found, jnp.diag(1 / jnp.sqrt(1 + found.values))), None

    rank = min(rank, x.size)
    nothing = InformedDirections(jnp.zeros(rank, x.dtype), jnp.zeros((x.size, rank), x.dtype))
    start = LaplaceReference(prior, prior.noise(x), nothing, jnp.eye(rank, dtype=x.dtype))
    return jax.lax.scan(round_, start, jax.random.split(key, ROUNDS))[0]
