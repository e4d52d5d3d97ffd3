"""Is this a group that acts?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key, PyTree

from numpyro_inverse._checks import check_count, check_instance, check_key, check_positive_number
from numpyro_inverse.symmetry._group import Element, Group, as_real, finite
from numpyro_inverse.symmetry._symmetry import Symmetry

MOST_COORDINATES = 64  # of which a determinant is formed


def check_action(
    group: Group | Symmetry,
    example: PyTree,
    *,
    rng_key: Key[Array, ""] | None = None,
    num_elements: int = 8,
    tolerance: float = 1e-3,
) -> None:
    r"""Raise unless a group acts as it says, on an array or on a dictionary of sites.

    For ``num_elements`` pairs g, h of random elements: :math:`e x = x`, :math:`(g h) x = g (h x)`,
    :math:`g^{-1} (g x) = x`; ``invariants`` and ``canonical`` are the same at x and :math:`g x`; and, with no more than
    64 coordinates, ``log_abs_det`` is that of the Jacobian.

    Args:
        group: a group, or a symmetry of several sites.
        example: an array without symmetry, or a dictionary of them, as the group acts on.
        rng_key: of the elements; default: ``jax.random.key(0)``.
        num_elements: pairs of elements.
        tolerance: relative to the largest entry.

    Raises:
        TypeError: no group, no numbers, or no random key.
        ValueError: numbers that are not finite; one of these does not hold; which, and by how much.
    """
    where = "check_action"
    check_instance(where, "group", group, Group | Symmetry, "a group")
    num = check_count(where, "num_elements", num_elements)
    tolerance = check_positive_number(where, "tolerance", tolerance)
    rng_key = jax.random.key(0) if rng_key is None else check_key(where, "rng_key", rng_key)
    check_laws(where, group, example, rng_key, num, tolerance)
    _raise(where, group, _further(group, _floating(where, group, example), jax.random.split(rng_key, num)), tolerance)


def check_laws(
    where: str, group: Group | Symmetry, example: PyTree, rng_key: Any = None, num: int = 4, tolerance: float = 1e-3
) -> None:
    """The laws of a group alone: identity, products, inverses."""
    keys = jax.random.split(jax.random.key(0) if rng_key is None else rng_key, (2, num))
    _raise(where, group, _laws(group, _floating(where, group, example), keys), tolerance)


def _raise(where: str, group: Group | Symmetry, violations: dict[str, Array], tolerance: float) -> None:
    for law, violation in jax.device_get(violations).items():
        if not violation <= tolerance:
            raise ValueError(
                f"{where}: {type(_group_of(group)).__name__} is no group action: {law} (violation {violation:.2g}, "
                f"allowed {tolerance:.2g})."
            )


def _floating(where: str, group: Group | Symmetry, example: PyTree) -> PyTree:
    if not isinstance(group, Symmetry):
        return finite(where, example, "example")
    group.check_sites(where, example, "example")
    return {name: finite(where, example[name], "example") for name in group.sites}


def _group_of(group: Group | Symmetry) -> Group:
    return group.group if isinstance(group, Symmetry) else group


@eqx.filter_jit
def _laws(group: Any, x: PyTree, keys: Array) -> dict[str, Array]:
    """By how much the laws of a group are broken."""
    laws, act = _group_of(group), jax.vmap(group.action)
    g, h = (jax.vmap(laws.propose)(k) for k in keys)
    repeated = _repeated(x, keys.shape[1])
    moved = act(h, repeated)
    return {
        "the identity changes the array": _violation(group.action(laws.identity, x), x),
        "the product g h does not act as h followed by g": _violation(
            act(jax.vmap(laws.compose)(g, h), repeated), act(g, moved)
        ),
        "the inverse of g does not undo g": _violation(act(jax.vmap(laws.inverse)(h), moved), repeated),
    }


@eqx.filter_jit
def _further(group: Any, x: PyTree, keys: Array) -> dict[str, Array]:
    """By how much invariants and canonical forms vary along an orbit, and log determinants are wrong."""
    elements = jax.vmap(_group_of(group).propose)(keys)
    moved = jax.vmap(group.action, (0, None))(elements, x)
    found = {
        "`invariants` vary along an orbit": _violation(
            jax.vmap(group.invariants)(moved), _repeated(group.invariants(x), len(keys))
        ),
        "`canonical` varies along an orbit": _violation(
            jax.vmap(group.canonical)(moved), _repeated(group.canonical(x), len(keys))
        ),
    }
    if sum(as_real(leaf).size for leaf in jax.tree.leaves(x)) <= MOST_COORDINATES:
        one = jax.tree.map(lambda e: e[0], elements)
        difference = group.log_abs_det(one, x) - _log_abs_det(group, one, x)
        found["`log_abs_det` is not that of the Jacobian"] = jnp.abs(difference)
    return found


def _violation(one: PyTree, other: PyTree) -> Array:
    """The largest difference, relative to the largest entry of its array."""
    differences = []
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if a.shape != b.shape:
            raise ValueError(f"check_action: the action changes the shape of an array, from {b.shape} to {a.shape}.")
        differences.append(jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(b)), jnp.finfo(a.dtype).tiny))
    return jnp.max(jnp.stack(differences))


def _repeated(x: PyTree, num: int) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), x)


def _log_abs_det(group: Any, g: Element, x: Mapping[str, Array] | Array) -> Array:
    leaves, structure = jax.tree.flatten(x)
    real = [as_real(leaf) for leaf in leaves]
    flat, unravel = ravel_pytree(real)

    def moved(flat: Array) -> Array:
        parts = unravel(flat)
        back = [
            jax.lax.complex(p[..., 0], p[..., 1]) if jnp.iscomplexobj(leaf) else p
            for p, leaf in zip(parts, leaves, strict=True)
        ]
        found = jax.tree.leaves(group.action(g, jax.tree.unflatten(structure, back)))
        return ravel_pytree([as_real(leaf) for leaf in found])[0]

    return jnp.linalg.slogdet(jax.jacobian(moved)(flat))[1]
