"""Starting points of chains around a Gaussian sketch of the posterior."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import biject_to

OVERDISPERSION = 1.5  # of starting points, in marginal posterior standard deviations


def init_near(
    location: Mapping[str, Array],
    covariance: Float[Array, "d d"],
    independent: Mapping[str, tuple[Array, Array]] | None = None,
) -> Any:
    """A NumPyro initialization strategy: overdispersed draws of a Gaussian.

    Args:
        location: by site, in unconstrained space.
        covariance: in the order of the names.
        independent: mean and variance of further sites, drawn without overdispersion.
    """
    return partial(_InitNear(dict(location), covariance, dict(independent or {})))


class _InitNear:
    def __init__(self, location: dict[str, Array], covariance: Array, independent: dict[str, tuple[Array, Array]]):
        self.location, self.covariance, self.independent = location, covariance, independent
        self.joint: dict[str, Array] = {}

    def __call__(self, site: dict[str, Any] | None = None) -> Any:
        if site is None:
            return init_near(self.location, self.covariance, self.independent)
        if site["type"] != "sample" or site["is_observed"]:
            return None
        name, key = site["name"], site["kwargs"]["rng_key"]
        if name in self.independent:
            mean, variance = self.independent[name]
            return mean + jnp.sqrt(variance) * jax.random.normal(key, jnp.shape(mean), jnp.result_type(mean))
        if name not in self.location:
            return None
        if name not in self.joint:  # the first site of a pass through the model
            self.joint = self._draw(key)
        return biject_to(site["fn"].support)(self.joint.pop(name))

    def _draw(self, key: Array) -> dict[str, Array]:
        center, unravel = ravel_pytree(self.location)
        root = jnp.linalg.cholesky(self.covariance)
        noise = jax.random.normal(key, center.shape, center.dtype)
        return dict(unravel(center + OVERDISPERSION * jnp.matmul(root, noise, precision="highest")))
