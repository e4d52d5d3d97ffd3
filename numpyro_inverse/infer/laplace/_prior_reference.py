"""The Gaussian reference of a model's prior: white noise for whitened fields, moments elsewhere."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import Normal, biject_to

from numpyro_inverse.distributions._reparametrized import unwrapped

NUM_DRAWS = 1024  # of a prior that is not normal, for its mean and standard deviation


class Reference(NamedTuple):
    """Means and standard deviations of independent normals, flat."""

    loc: Float[Array, "n"]
    scale: Float[Array, "n"]

    def noise(self, x: Float[Array, "n"]) -> Float[Array, "n"]:
        """x in units of the reference."""
        return (x - self.loc) / self.scale

    def value(self, u: Float[Array, "n"]) -> Float[Array, "n"]:
        """Back again."""
        return self.loc + self.scale * u

    def pull(self, grad: Float[Array, "n"]) -> Float[Array, "n"]:
        """A gradient in x as one in u."""
        return self.scale * grad


def prior_reference(trace: dict[str, Any], z: PyTree) -> Reference:
    """The reference of a model's latents at its first point; standard normal without a model.

    A site with a normal prior has the mean and standard deviation of that prior, any other those of 1024 draws of its
    prior in unconstrained space, the same in every run; one whose prior cannot be drawn from has a standard normal.
    """
    loc = jax.tree.map(jnp.zeros_like, z)
    scale = jax.tree.map(jnp.ones_like, z)
    for name in trace.keys() & z.keys() if isinstance(z, dict) else ():
        fn, shape, dtype = trace[name]["fn"], z[name].shape, z[name].dtype
        if isinstance(unwrapped(fn), Normal):
            mean, spread = fn.mean, jnp.sqrt(fn.variance)
        else:
            try:
                draws = fn(rng_key=jax.random.key(0), sample_shape=(NUM_DRAWS,))
            except NotImplementedError:
                continue
            draws = biject_to(fn.support).inv(draws)
            mean, spread = draws.mean(axis=0), draws.std(axis=0)
        good = jnp.isfinite(mean) & jnp.isfinite(spread) & (spread > 0)
        loc[name] = jnp.broadcast_to(jnp.where(good, mean, 0), shape).astype(dtype)
        scale[name] = jnp.broadcast_to(jnp.where(good, spread, 1), shape).astype(dtype)
    return Reference(ravel_pytree(loc)[0], ravel_pytree(scale)[0])
