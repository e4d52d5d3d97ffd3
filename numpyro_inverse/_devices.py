"""Work on many rows, over devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def rows_over(where: str, sharding: Any) -> NamedSharding:
    """Where rows go: as ``sharding`` says, or over all local devices.

    Args:
        where: what an error begins with.
        sharding: the user's argument; None: all local devices.

    Raises:
        TypeError: ``sharding`` is no ``NamedSharding``.
        ValueError: it does not divide rows, divides other axes, or has devices of other processes.
    """
    if sharding is None:
        devices = jax.local_devices()
        mesh = jax.make_mesh((len(devices),), ("rows",), (AxisType.Auto,), devices=devices)
        return NamedSharding(mesh, PartitionSpec("rows"))
    if not isinstance(sharding, NamedSharding):
        raise TypeError(
            f"{where}: `sharding` must be a jax.sharding.NamedSharding of a mesh and PartitionSpec('rows'), or None; "
            f"got {type(sharding).__name__}."
        )
    if len(sharding.spec) != 1 or sharding.spec[0] is None:
        raise ValueError(
            f"{where}: `sharding` must divide rows and nothing else, as PartitionSpec('rows') does; "
            f"got {sharding.spec}."
        )
    if not sharding.is_fully_addressable:
        raise ValueError(
            f"{where}: `sharding` has devices of other processes. Each process works on its own, with a key or a part "
            "of its own (documentation, 'Many devices, many machines')."
        )
    return sharding


def num_shards(sharding: NamedSharding) -> int:
    """Among how many devices the rows are divided."""
    axes = sharding.spec[0]
    return int(np.prod([sharding.mesh.shape[name] for name in ((axes,) if isinstance(axes, str) else axes)]))


def over_devices(many: Callable[..., Any], sharding: NamedSharding) -> Callable[..., Any]:
    """A function of arrays with rows first, each device doing its share; any number of rows.

    Args:
        many: from arrays with rows first to arrays with rows first, each row of its own.
        sharding: of :func:`rows_over`.
    """
    shards = num_shards(sharding)
    if sharding.mesh.size == 1 and sharding.mesh.devices.item() == jax.local_devices()[0]:
        return many
    shared = jax.shard_map(many, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=sharding.spec, check_vma=False)

    def padded(*args: Any) -> Any:
        rows = len(jax.tree.leaves(args)[0])
        fill = -rows % shards
        args = jax.tree.map(lambda v: jnp.concatenate([v, jnp.broadcast_to(v[-1:], (fill, *v.shape[1:]))]), args)
        return jax.tree.map(lambda v: v[:rows], shared(*args))

    return padded
