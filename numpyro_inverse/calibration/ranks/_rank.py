"""The rank of one truth among draws that may be correlated or tied."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Score = Callable[[Float[Array, "n q"], Bool[Array, " n"]], Float[Array, "n q"]]  # symmetric in the n values


class Rank(NamedTuple):
    """Of every element of a test quantity, with the draws that were left and whether they move."""

    rank: Int[Array, "*shape"]
    ess: Float[Array, ""]
    moves: Bool[Array, ""]


def rank_of(
    rng_key: Array,
    truth: Float[Array, "*shape"],
    draws: Float[Array, "n *shape"],
    num_draws: int,
    num_chains: int | None,
    score: Score | None,
) -> Rank:
    """The rank of the truth among the draws, 0 to ``num_draws``, ties broken at random.

    Correlated draws are thinned to their effective number. Where that is not ``num_draws``, the rank r among n goes to
    the common scale through :math:`(r + V) / (n + 1)`, V uniform, which is exactly uniform.

    Args:
        rng_key: a JAX random key.
        truth: one value.
        draws: of the same shape each; chain after chain.
        num_draws: of the common scale.
        num_chains: how many chains the draws are of; None: they are independent.
        score: what is ranked instead of the values.
    """
    n = draws.shape[0]
    flat = draws.reshape(n, -1)
    if jnp.issubdtype(flat.dtype, jnp.bool_):
        flat = flat.astype(int)
    continuous = jnp.issubdtype(flat.dtype, jnp.floating)  # a discrete posterior may well have one value only
    moves = jnp.all(jnp.any(flat != flat[:1], axis=0)) | (not continuous)
    ess = jnp.asarray(float(n)) if num_chains is None else smallest_ess(flat, num_chains)
    step = jnp.where(ess > 0, jnp.ceil(n / jnp.maximum(ess, 1.0)), n).astype(int)
    kept = jnp.arange(n) % step == 0
    count = jnp.sum(kept)
    value = jnp.ravel(truth).astype(flat.dtype)
    if score is not None:
        everything = score(jnp.concatenate([value[None], flat]), jnp.concatenate([jnp.ones(1, bool), kept]))
        value, flat = everything[0], everything[1:]
    kept = kept[:, None]
    below = jnp.sum((flat < value) & kept, axis=0)
    ties = jnp.sum((flat == value) & kept, axis=0)
    key_ties, key_scale = jax.random.split(rng_key)
    rank = below + jnp.floor(jax.random.uniform(key_ties, below.shape) * (ties + 1)).astype(int)
    pit = (rank + jax.random.uniform(key_scale, below.shape)) / (count + 1)
    common = jnp.minimum(jnp.floor(pit * (num_draws + 1)).astype(int), num_draws)
    common = jnp.where(count == num_draws, rank, common)
    return Rank(common.reshape(truth.shape), count.astype(float), moves)


@partial(jax.jit, static_argnames="num_chains")
def smallest_ess(flat: Float[Array, "n q"], num_chains: int = 1) -> Float[Array, ""]:
    """The smallest effective number of draws, of values and of squared deviations.

    The squares see what antithetic chains hide: draws that alternate about the mean rank too evenly.
    """
    from blackjax.diagnostics import effective_sample_size  # importing BlackJAX starts JAX's backends

    flat = flat.astype(float)
    both = jnp.concatenate([flat, (flat - jnp.mean(flat, axis=0)) ** 2], axis=1)
    ess = effective_sample_size(both.reshape(num_chains, -1, both.shape[1]))
    return jnp.minimum(jnp.min(ess), flat.shape[0])
