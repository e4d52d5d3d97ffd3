"""Losses that are blind to what the data cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from numpyro_inverse._checks import check_callable, check_instance, describe
from numpyro_inverse.symmetry._global_phase import GlobalPhase
from numpyro_inverse.symmetry._group import Group, alike, as_real, inexact, stacked
from numpyro_inverse.symmetry._sign_flip import SignFlip
from numpyro_inverse.symmetry._symmetry import Symmetry

Batch = tuple[Any, Any]


def orbit_loss(group: Group | Symmetry) -> Callable[[Any, Batch, PRNGKeyArray], Float[Array, ""]]:
    r"""The mean of :math:`\min_g |u_i - g f(x_i)|^2` over a batch of pairs :math:`(x_i, u_i)`, as a loss for
    :func:`~numpyro_inverse.nn.fit_module`.

    With the plain mean square, a network f that sees data which are the same for all :math:`g u` learns their mean:
    zero, for a sign. With this loss it learns one of them.

    >>> loss = ni.symmetry.orbit_loss(ni.symmetry.SignFlip())
    >>> x, u = jnp.ones((4, 3)), jnp.ones((4, 3))
    >>> float(loss(lambda x: -x, (x, u), jax.random.key(0)))
    0.0

    Args:
        group: what the data cannot tell.

    Raises:
        TypeError: no group.
    """
    check_instance("orbit_loss", "group", group, Group | Symmetry, "a group")

    def loss(module: Any, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        x, u = _pairs("orbit_loss", module, batch)
        return jnp.mean(jax.vmap(group.squared_orbit_distance)(jax.vmap(module)(x), u))

    return loss


def outer_product_loss(module: Any, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
    r"""The mean of :math:`|u_i u_i^* - v_i v_i^*|_F^2`, :math:`v_i = f(x_i)`, over a batch of pairs, as a loss for
    :func:`~numpyro_inverse.nn.fit_module`: blind to a sign, or to the phase of a complex array.
    """
    x, u = _pairs("outer_product_loss", module, batch)
    return jnp.mean(jax.vmap(squared_outer_product_distance)(jax.vmap(module)(x), u))


def squared_outer_product_distance(u: Inexact[Array, "*shape"], v: Inexact[Array, "*shape"]) -> Float[Array, ""]:
    r""":math:`|u u^* - v v^*|_F^2`, without forming a matrix: with the sign or phase of u that is nearest to v,

    .. math:: 2 |u u^* - v v^*|_F^2 = |u + v|^2 |u - v|^2 + (|u|^2 - |v|^2)^2,

    so that the distance is between :math:`P / 2` and P, :math:`P = |u + v|^2 |u - v|^2`.

    Raises:
        TypeError: no numbers.
        ValueError: two shapes.
    """
    u, v = alike("squared_outer_product_distance", u=u, v=v)
    dtype = jnp.result_type(u, v)
    group: Group = GlobalPhase() if jnp.issubdtype(dtype, jnp.complexfloating) else SignFlip()
    u, v = as_real(group.nearest(u.astype(dtype), v.astype(dtype))), as_real(v.astype(dtype))
    product = jnp.sum((u + v) ** 2) * jnp.sum((u - v) ** 2)
    return (product + jnp.sum((u + v) * (u - v)) ** 2) / 2


def _pairs(where: str, module: Any, batch: Any) -> Batch:
    """A network's inputs and what it is to find of them."""
    check_callable(where, "module", module, "a network, a function of one input")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"{where}: `batch` must be a pair (x, u) of stacked arrays; got {describe(batch)}.")
    jax.tree.map(lambda leaf: inexact(where, leaf, "batch"), batch[1])
    counts = [stacked(where, "batch", part) for part in batch]
    if counts[0] != counts[1]:
        raise ValueError(f"{where}: `batch` must have as many x as u; got {counts[0]} and {counts[1]}.")
    return batch[0], batch[1]
