"""Several fits of one density as one density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key


class Ensemble(eqx.Module):
    r"""The mixture, with equal weights, of densities of one kind that were fitted apart:

    .. math:: q(x \mid c) = \frac 1 K \sum_{k=1}^K q_k(x \mid c) .

    Networks that start from other weights err in other places, and where they disagree the mixture is wide. By
    convexity it is no worse than its members are on average, :math:`-\log q \le -\frac 1 K \sum_k \log q_k`, for any
    data.

    >>> law = nn.Ensemble([nn.MixtureAutoregressive(2, context=3, key=k) for k in jax.random.split(key, 5)])
    >>> law.log_prob(jnp.zeros(2), jnp.zeros(3)).shape
    ()

    Args:
        members: Equinox modules with ``log_prob(x, context)`` and ``sample(key, context)``, equal but for the numbers
            in their arrays. These are stacked, so that all members are evaluated in one pass.

    Raises:
        TypeError: ``members`` is no sequence of modules with these methods.
        ValueError: there is none; two of them differ in more than numbers.

    References:
        Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017, section 2.4; Hermans, Delaunoy, Rozet, Wehenkel, Begy &
        Louppe, TMLR 2022 (posteriors).
    """

    stacked: Any
    size: int = eqx.field(static=True)

    def __init__(self, members: Sequence[Any]):
        if isinstance(members, str) or not isinstance(members, Sequence):
            raise TypeError(f"Ensemble: `members` must be a sequence of modules; got {type(members).__name__}.")
        if not members:
            raise ValueError("Ensemble: `members` is empty; give one at least.")
        for member in members:
            if isinstance(member, type) or not (hasattr(member, "log_prob") and hasattr(member, "sample")):
                raise TypeError(
                    "Ensemble: `members` must have the methods `log_prob` and `sample`; got "
                    f"{'the class ' + member.__name__ if isinstance(member, type) else type(member).__name__}."
                )
        arrays, rest = zip(*(eqx.partition(member, _is_array) for member in members), strict=True)
        first = _outline(arrays[0], rest[0])
        for k in range(1, len(members)):
            if _outline(arrays[k], rest[k]) != first:
                raise ValueError(
                    f"Ensemble: `members` 0 and {k} differ in more than the numbers in their arrays; make all of them "
                    "with the same arguments, but for the key."
                )
        self.stacked = eqx.combine(jax.tree.map(lambda *x: jnp.stack(x), *arrays), rest[0])
        self.size = len(members)

    @property
    def members(self) -> tuple[Any, ...]:
        """The densities."""
        arrays, rest = eqx.partition(self.stacked, eqx.is_array)
        return tuple(eqx.combine(jax.tree.map(lambda x, k=k: x[k], arrays), rest) for k in range(self.size))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an event."""
        return self.stacked.shape

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """The shape of a context; None if the law takes none."""
        return getattr(self.stacked, "context_shape", None)

    def log_prob(self, x: Float[Array, "*event"], context: Float[Array, "*context"] | None = None) -> Float[Array, ""]:
        """Log density of one event."""
        given = () if context is None else (context,)
        each = eqx.filter_vmap(lambda member: member.log_prob(x, *given))(self.stacked)
        return jax.nn.logsumexp(each) - jnp.log(self.size)

    def sample(self, key: PRNGKeyArray, context: Float[Array, "*context"] | None = None) -> Float[Array, "*event"]:
        """One draw, of a member that is chosen anew each time."""
        given = () if context is None else (context,)
        key_member, key_draw = jax.random.split(check_key("Ensemble", "key", key))
        keys = jax.random.split(key_draw, self.size)
        each = eqx.filter_vmap(lambda member, key: member.sample(key, *given))(self.stacked, keys)
        return each[jax.random.randint(key_member, (), 0, self.size)]


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def _outline(arrays: Any, rest: Any) -> tuple:
    """All that a module is but for the numbers in its arrays."""
    leaves, structure = jax.tree.flatten(arrays)
    return [(x.shape, x.dtype) for x in leaves], structure, jax.tree.leaves(rest)
