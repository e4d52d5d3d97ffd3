"""Work on many rows, over all local devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def over_devices(many: Callable[..., Any], axis: str) -> Callable[..., Any]:
    """A function of arrays with rows first, each device doing its share; any number of rows.

    Args:
        many: from arrays with rows first to arrays with rows first, each row of its own.
        axis: a name for the rows.
    """
    devices = jax.local_devices()
    if len(devices) == 1:
        return many
    mesh = jax.make_mesh((len(devices),), (axis,), (jax.sharding.AxisType.Auto,), devices=devices)
    spec = jax.sharding.PartitionSpec(axis)
    shared = jax.shard_map(many, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)

    def padded(*args: Any) -> Any:
        rows = len(jax.tree.leaves(args)[0])
        fill = -rows % len(devices)
        args = jax.tree.map(lambda v: jnp.concatenate([v, jnp.broadcast_to(v[-1:], (fill, *v.shape[1:]))]), args)
        return jax.tree.map(lambda v: v[:rows], shared(*args))

    return padded
