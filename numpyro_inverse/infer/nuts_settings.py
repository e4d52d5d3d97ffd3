"""Mass matrix, step size and starting points for NUTS in automatically whitened coordinates."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy

from numpyro_inverse.infer.coordinates import Coordinates
from numpyro_inverse.infer.whiten import Whitened

TREE_DEPTHS = (4, 5, 6, 7)  # NUTS trajectories of 2^depth - 1 steps
ANGLE = 1.5 * np.pi  # of a trajectory in a standard normal; draws half-way round it are antithetic
MIN_ACCEPTANCE = 0.6
TRIALS = 8


def nuts_settings(whitened: Whitened, *args: Any, **kwargs: Any) -> dict[str, Any]:
    r"""Keyword arguments for NumPyro's ``NUTS`` on a model whitened with ``centering="auto"``.

    The mass matrix is diagonal in the modes, from prior plus the data's expected information, and dense in the other
    sites, from the curvature of the log density averaged over the modes' spread. In these coordinates the posterior is
    close to a standard normal, on which a NUTS trajectory doubles until it has turned by more than :math:`\pi`; the
    step size is the largest :math:`\tfrac32 \pi / (2^j - 1)`, j = 4, ..., 7, whose acceptance in a short trial chain is
    0.6 or more. Both are then kept: warm-up needs only to forget the starting points, which are independent draws of a
    Gaussian with these variances, and 50 iterations do. If no such step is good enough, warm-up adapts it.

    >>> whitened = whiten(model, centering="auto")  # doctest: +SKIP
    >>> kernel = NUTS(whitened, **nuts_settings(whitened, data=photo))  # doctest: +SKIP

    Args:
        whitened: ``whiten(model, centering="auto")``.
        *args: the model's arguments, with the data.
        **kwargs: the model's keyword arguments, with the data.

    Raises:
        ValueError: as :func:`~numpyro_inverse.infer.coordinates.fit_coordinates`.
    """
    fitted = whitened.coordinates(*args, **kwargs)
    others = tuple(sorted(fitted.hyper_location))
    modes = tuple(sorted(fitted.mode_location))
    mass = {modes: jnp.concatenate([jnp.ravel(fitted.mode_variance[name]) for name in modes])}
    if others:
        mass[others] = fitted.hyper_covariance
    settings = {
        "inverse_mass_matrix": mass,
        "dense_mass": [others] if others else [],
        "adapt_mass_matrix": False,
        "init_strategy": partial(_init_near, fitted=fitted),
    }
    step_size = _step_size(whitened, fitted, args, kwargs)
    return settings if step_size is None else settings | {"step_size": step_size, "adapt_step_size": False}


def _init_near(site: dict[str, Any] | None = None, *, fitted: Coordinates) -> Any:
    """A NumPyro initialisation strategy: independent draws around the fitted location."""
    if site is None:
        return partial(_init_near, fitted=fitted)
    if site["type"] != "sample" or site["is_observed"]:
        return None
    name = site["name"]
    if name in fitted.mode_location:
        location, spread = fitted.mode_location[name], jnp.sqrt(fitted.mode_variance[name])
    else:
        location, spread = fitted.hyper_location[name], fitted.hyper_spread[name]
    noise = jax.random.normal(site["kwargs"]["rng_key"], jnp.shape(location), jnp.result_type(location))
    return biject_to(site["fn"].support)(location + spread * noise)


def _step_size(whitened: Whitened, fitted: Coordinates, args: tuple, kwargs: dict[str, Any]) -> float | None:
    """The largest step on offer that is accepted often enough along trajectories from draws of the Gaussian sketch."""
    eta, unravel_eta = ravel_pytree(fitted.hyper_location)
    mean, unravel_modes = ravel_pytree(fitted.mode_location)
    spread = jnp.sqrt(ravel_pytree(fitted.mode_variance)[0])
    root = jnp.linalg.cholesky(fitted.hyper_covariance) if eta.size else fitted.hyper_covariance

    def potential(u: Float[Array, " n"]) -> Float[Array, ""]:
        latents = unravel_eta(eta + root @ u[: eta.size]) | unravel_modes(mean + spread * u[eta.size :])
        return potential_energy(whitened, args, kwargs, latents)

    value_and_grad = jax.value_and_grad(potential)

    def trajectory(u: Array, key: Array, step: Array, count: Array) -> tuple[Array, Array]:
        """One iteration of Hamiltonian Monte Carlo: the next state, and the mean acceptance along its trajectory."""
        key_momentum, key_accept = jax.random.split(key)
        p = jax.random.normal(key_momentum, u.shape, u.dtype)
        energy, force = value_and_grad(u)
        start = energy + p @ p / 2

        def leapfrog(_, state):
            u, p, force, _, total = state
            p = p - step / 2 * force
            u = u + step * p
            energy, force = value_and_grad(u)
            p = p - step / 2 * force
            accepted = jnp.minimum(1.0, jnp.exp(start - energy - p @ p / 2))
            accepted = jnp.where(jnp.isnan(accepted), 0.0, accepted)
            return u, p, force, accepted, total + accepted

        zero = jnp.zeros_like(start)
        end, _, _, last, total = jax.lax.fori_loop(0, count, leapfrog, (u, p, force, zero, zero))
        return jnp.where(jax.random.uniform(key_accept) < last, end, u), total / count

    @jax.jit
    def acceptance(step: Array, count: Array) -> Array:
        """Over the second half of a short chain that starts from a draw of the sketch."""
        key_start, *keys = jax.random.split(jax.random.key(0), 1 + TRIALS)
        u = jax.random.normal(key_start, (eta.size + mean.size,), mean.dtype)
        _, accepted = jax.lax.scan(lambda u, key: trajectory(u, key, step, count), u, jnp.stack(keys))
        return jnp.mean(accepted[TRIALS // 2 :])

    for depth in TREE_DEPTHS:
        count = 2**depth - 1
        step = ANGLE / count
        if acceptance(jnp.asarray(step, mean.dtype), jnp.asarray(count)) >= MIN_ACCEPTANCE:
            return step
    return None
