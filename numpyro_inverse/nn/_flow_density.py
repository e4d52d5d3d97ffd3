"""The density and the draws of a bijection of standard normal noise."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key, describe


class FlowDensity(eqx.Module):
    """What the flows share: from a bijection to a law.

    A flow has a ``shape``, and the methods ``inverse_and_log_det`` and ``forward_and_log_det``.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]

    def log_prob(self, x: Float[Array, "*shape"], context: Float[Array, "*context"] | None = None) -> Float[Array, ""]:
        """Log density of one example, given a context if the flow is conditional."""
        return flow_log_prob(self, x, context)

    def sample(self, key: PRNGKeyArray, context: Float[Array, "*context"] | None = None) -> Float[Array, "*shape"]:
        """One draw, given a context if the flow is conditional."""
        check_key(type(self).__name__, "key", key)
        z = jax.random.normal(key, self.shape, jnp.result_type(float))
        flow: Any = self
        return (flow.forward_and_log_det(z) if context is None else flow.forward_and_log_det(z, context))[0]


def flow_log_prob(flow: Any, x: Float[Array, "..."], context: Any = None) -> Float[Array, ""]:
    """Log density of one example under a bijection of standard normal noise, given a context if it is conditional.

    Raises:
        TypeError: ``flow`` has no ``inverse_and_log_det``; what the flow raises.
        ValueError: what the flow raises.
    """
    if isinstance(flow, type) or not hasattr(flow, "inverse_and_log_det"):
        raise TypeError(
            "flow_log_prob: `flow` must be a module with the method `inverse_and_log_det`, such as `nn.CouplingFlow`; "
            f"got {describe(flow)}."
        )
    z, log_det = flow.inverse_and_log_det(x) if context is None else flow.inverse_and_log_det(x, context)
    return log_det - 0.5 * jnp.sum(z**2) - 0.5 * z.size * jnp.log(2 * jnp.pi)
