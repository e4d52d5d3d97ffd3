"""The held-out score of a density of integers."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, UInt8

from numpyro_inverse.nn import dequantize, flow_log_prob


def bits_per_dimension(
    flow: Any, examples: UInt8[np.ndarray, "n ..."], key: PRNGKeyArray, *, batch: int = 500
) -> float:
    """Mean negative log density of dequantized examples, in bits per number of 256 values."""
    log_prob = eqx.filter_jit(eqx.filter_vmap(flow_log_prob, in_axes=(None, 0)))
    parts = np.array_split(np.asarray(dequantize(examples, key)), max(len(examples) // batch, 1))
    total = sum(float(jnp.sum(log_prob(flow, part))) for part in parts)
    return 8 - total / examples.size / np.log(2)
