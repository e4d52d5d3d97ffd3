"""The leaves of a pytree with names that are the same in every process."""

from __future__ import annotations

from typing import Any

import jax
from numpyro.distributions import Distribution


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Names and leaves, in JAX's order.

    NumPyro numbers the parameters of a distribution in an order that differs from process to process; here they have
    the names of its attributes.
    """
    found = []

    def walk(node: Any, name: str) -> None:
        if isinstance(node, Distribution):
            for field, value in zip(type(node).gather_pytree_data_fields(), node.tree_flatten()[0], strict=True):
                walk(value, f"{name}.{field}")
            return
        parts, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda part: isinstance(part, Distribution))
        for at, part in parts:
            if isinstance(part, Distribution):
                walk(part, name + jax.tree_util.keystr(at))
            else:
                found.append(((name + jax.tree_util.keystr(at)).lstrip("."), part))

    walk(tree, "")
    return found
