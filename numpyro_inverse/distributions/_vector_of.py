"""The support of a vector whose numbers are of different kinds."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from numpyro_inverse._checks import check_instance


class VectorOf(constraints.Constraint):
    """Vectors with a constraint for each number, such as counts beside positive times.

    >>> mixed = VectorOf(constraints.nonnegative_integer, constraints.positive, constraints.real)
    >>> mixed(jnp.asarray([3.0, 0.2, -1.0]))
    Array(True, dtype=bool)

    Args:
        *parts: NumPyro constraints of single numbers.

    Raises:
        TypeError: one that is no constraint.
        ValueError: none at all, or one of whole vectors.
    """

    event_dim = 1

    def __init__(self, *parts: constraints.Constraint):
        if not parts:
            raise ValueError("VectorOf: `parts` must have a constraint for each number; there is none.")
        for i, part in enumerate(parts):
            check_instance("VectorOf", f"parts[{i}]", part, constraints.Constraint, "a NumPyro constraint")
            if part.event_dim:
                raise ValueError(f"VectorOf: `parts[{i}]` must be a constraint of single numbers; {part} is of arrays.")
        self.parts = parts

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether all numbers are."""
        return all(part.is_discrete for part in self.parts)

    def __call__(self, x: Float[Array, "*batch n"]) -> Bool[Array, "*batch"]:
        if np.shape(x)[-1:] != (len(self.parts),):
            return jnp.zeros(np.shape(x)[:-1], bool)
        return jnp.all(jnp.stack([jnp.asarray(p(x[..., i])) for i, p in enumerate(self.parts)], axis=-1), axis=-1)

    def __repr__(self) -> str:
        return f"VectorOf({', '.join(map(repr, self.parts))})"

    def feasible_like(self, prototype: Array) -> Array:
        """A vector within, of the prototype's shape."""
        numbers = [part.feasible_like(prototype[..., i]) for i, part in enumerate(self.parts)]
        return jnp.stack([jnp.asarray(x, prototype.dtype) for x in numbers], axis=-1)

    def tree_flatten(self) -> tuple[tuple, tuple]:
        return self.parts, ((), {"num": len(self.parts)})

    @classmethod
    def tree_unflatten(cls, aux_data: tuple, params: tuple) -> VectorOf:
        return cls(*params)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, VectorOf) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(("VectorOf", len(self.parts)))
