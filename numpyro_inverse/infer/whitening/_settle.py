"""A short chain in fitted coordinates: the step size that it accepts, the covariance of the other sites it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.infer.util import potential_energy

from numpyro_inverse.infer.whitening._coordinates import Coordinates
from numpyro_inverse.infer.whitening._reparam import LATENT
from numpyro_inverse.infer.whitening._trial_chain import trial_draws, trial_step_size
from numpyro_inverse.infer.whitening._whiten import whiten

ROUNDS = 3  # times that the covariance is corrected
NEAR = 2.0  # ratio of variances that is near enough
SHARE, STUCK = 0.1, 0.3  # of trajectories, and the acceptance below which a step is too large where they are


Standardized = Callable[[np.ndarray], Callable[[np.ndarray], tuple[float, np.ndarray]]]


def potential_in(model: Callable, args: tuple, kwargs: dict[str, Any], coordinates: Coordinates) -> Standardized:
    """The potential of the whitened model and its gradient, in units of the modes' spreads and of a root of the other
    sites' covariance, as a function of that root."""
    modes = {f"{name}{LATENT}": value for name, value in coordinates.mode_location.items()}
    center, unravel = ravel_pytree((coordinates.hyper_location, modes))
    spread = np.sqrt(np.asarray(ravel_pytree(coordinates.mode_variance)[0], float))
    p, dtype, start = center.size - spread.size, center.dtype, np.asarray(center, float)

    @jax.jit
    def value_and_grad(flat: Any, coordinates: Coordinates) -> tuple:
        def potential(flat: Any) -> Any:
            eta, modes = unravel(flat)
            return potential_energy(whiten(model, coordinates), args, kwargs, eta | modes)

        return jax.value_and_grad(potential)(flat)

    def standardized(root: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        def function(u: np.ndarray) -> tuple[float, np.ndarray]:
            here = start + np.concatenate([root @ u[:p], spread * u[p:]])
            value, gradient = value_and_grad(np.asarray(here, dtype), coordinates)
            gradient = np.asarray(gradient, float)
            return float(value), np.concatenate([root.T @ gradient[:p], spread * gradient[p:]])

        return function

    return standardized


def settled(coordinates: Coordinates, standardized: Standardized) -> Coordinates:
    r"""The coordinates with a step size, and with the covariance of :math:`\eta` that a short chain sees.

    A potential that is averaged over fixed spreads leaves out that the fields' spreads change with :math:`\eta`: its
    precision is too large by :math:`\tfrac12 \operatorname{tr}(S\, \partial H\, S\, \partial H)`, most of it if the
    data hardly tell noise from field. Where the chain's covariance is not within a factor of two of the sketch's in
    every direction, it takes its place.

    Args:
        coordinates: without a step size.
        standardized: from a root of :math:`\eta`'s covariance to potential and gradient in units of root and modes.
    """
    values, vectors = np.linalg.eigh(np.asarray(coordinates.hyper_covariance, float))
    root, p = vectors * np.sqrt(values), len(values)
    size = p + sum(np.size(variance) for variance in coordinates.mode_variance.values())
    dtype = coordinates.hyper_covariance.dtype

    below = np.inf
    for remaining in reversed(range(ROUNDS + 1)):
        step_size = trial_step_size(standardized(root), size, below)
        if step_size is None or remaining == 0:
            break
        draws, accepted = trial_draws(standardized(root), size, step_size, p)
        stuck = np.quantile(accepted, SHARE) < STUCK
        below = step_size if stuck else below
        values, vectors = np.linalg.eigh(_shrunk_covariance(draws)) if p else (np.ones(1), np.eye(0))
        near = values[0] > 1 / NEAR and values[-1] < NEAR
        if near and not stuck:
            break
        if not near:
            root = root @ (vectors * np.sqrt(values))

    return eqx.tree_at(
        lambda c: (c.hyper_covariance, c.hyper_spread, c.step_size),
        coordinates,
        (
            jnp.asarray(root @ root.T, dtype),
            ravel_pytree(coordinates.hyper_location)[1](jnp.asarray(np.sqrt(np.sum(root**2, axis=1)), dtype)),
            jnp.asarray(np.nan if step_size is None else step_size, dtype),
        ),
    )


def _shrunk_covariance(u: Float[np.ndarray, "draws p"]) -> Float[np.ndarray, "p p"]:
    """The covariance of draws; its off-diagonal elements weigh less where the draws are few for their number."""
    n, p = u.shape
    covariance = np.cov(u, rowvar=False).reshape(p, p)
    return (n * covariance + p * np.diag(np.diag(covariance))) / (n + p)
