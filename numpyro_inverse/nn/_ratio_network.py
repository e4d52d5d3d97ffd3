"""The ratio of a joint law to the product of its marginals, and the losses that it is learned by."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import (
    check_callable,
    check_key,
    check_nonnegative_number,
    check_positive_number,
    check_real,
)
from numpyro_inverse.nn._context_embedding import ContextEmbedding, as_embedding, features_of
from numpyro_inverse.nn._networks import check_counts, check_event, check_rows

ROWS = 20_000  # for the Gaussian law at the start
RIDGE = 1e-6


class RatioNetwork(eqx.Module):
    r"""A function :math:`\log r(x, c)` that learns :math:`\log p(x \mid c) - \log p(x)`.

    With :math:`u = (z, h)`, the standardized event z and the features h of the context, it is :math:`u^T B u + b^T u +
    f(u)`: a quadratic form, which is all that jointly Gaussian laws need, and a residual multilayer perceptron.

    >>> network = nn.RatioNetwork(2, 3, key=jax.random.key(0))
    >>> network(jnp.zeros(2), jnp.zeros(3)).shape
    ()

    Args:
        size: numbers in x.
        context: the numbers in a context vector, or a :class:`~numpyro_inverse.nn.ContextEmbedding`.
        width: of the hidden layers.
        depth: residual blocks.
        data: rows of x and their contexts. It standardizes with the rows' mean and standard deviation, and starts as
            the log ratio of the jointly Gaussian law with the covariance of both.
        key: of the initial weights.

    Raises:
        TypeError: a size that is no integer; a ``context`` that is neither a number nor an embedding, or missing; data
            that are no numbers; ``key`` is no random key.
        ValueError: a size that is too small; data of another shape or not finite; when called, arrays of other shapes.

    References:
        Hermans, Begy & Louppe, ICML 2020, section 3 (the ratio); He, Zhang, Ren & Sun, ECCV 2016 (residual blocks).
    """

    quadratic: Float[Array, "n n"]
    linear: Float[Array, " n"]
    offset: Float[Array, ""]
    first: eqx.nn.Linear
    blocks: tuple[eqx.nn.MLP, ...]
    last: Float[Array, " width"]
    mean: Float[Array, " size"]
    scale: Float[Array, " size"]
    embedding: ContextEmbedding
    shape: tuple[int] = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        context: int | ContextEmbedding,
        *,
        width: int = 64,
        depth: int = 2,
        data: tuple[np.ndarray, np.ndarray] | None = None,
        key: PRNGKeyArray,
    ):
        check_counts("RatioNetwork", size=size, width=width, depth=depth)
        check_key("RatioNetwork", "key", key)
        embedding = as_embedding("RatioNetwork", context)
        if embedding is None:
            raise TypeError("RatioNetwork: a ratio is that of x and a `context`; got None.")
        rows, contexts = (None, None) if data is None else _pair(data, embedding.shape)
        # The events are standardized like contexts.
        standard = ContextEmbedding((size,), data=rows)
        self.mean, self.scale = standard.mean, standard.scale
        self.embedding, self.shape = embedding, (size,)
        n, dtype = size + embedding.size, jnp.result_type(float)
        form: tuple[Any, Any, Any] = (np.zeros((n, n)), np.zeros(n), 0.0)
        if rows is not None and contexts is not None:
            z, c = (jnp.asarray(part[:ROWS], dtype) for part in (rows, contexts))
            seen = [jax.vmap(standard)(z), jax.lax.map(embedding, c)]
            form = _gaussian_log_ratio(np.concatenate([np.asarray(part, float) for part in seen], axis=1), size)
        self.quadratic, self.linear, self.offset = (jnp.asarray(part, dtype) for part in form)
        keys = jax.random.split(key, depth + 1)
        self.first = eqx.nn.Linear(n, width, key=keys[0])
        self.blocks = tuple(eqx.nn.MLP(width, width, width, 1, jax.nn.gelu, key=k) for k in keys[1:])
        self.last = jnp.zeros(width, dtype)

    @property
    def context_shape(self) -> tuple[int, ...]:
        """The shape of a context."""
        return self.embedding.shape

    def __call__(self, x: Float[Array, " size"], context: Float[Array, "*context"]) -> Float[Array, ""]:
        """The logarithm of the ratio."""
        x = check_event("RatioNetwork", "x", x, self.shape).astype(self.mean.dtype)
        z = (x - jax.lax.stop_gradient(self.mean)) / jax.lax.stop_gradient(self.scale)
        features: Any = features_of("RatioNetwork", self.embedding, context)
        u = jnp.concatenate([z, features])
        h = self.first(u)
        for block in self.blocks:
            h = h + block(jax.nn.gelu(h))
        return u @ self.quadratic @ u + self.linear @ u + self.offset + self.last @ jax.nn.gelu(h)


def _pair(data: Any, shape_of_context: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and contexts, the latter of that shape and finite."""
    if not isinstance(data, tuple) or len(data) != 2:
        raise ValueError("RatioNetwork: `data` must be a pair of rows and as many contexts.")
    rows, contexts = (check_rows("RatioNetwork", "data", part) for part in data)
    if not rows.ndim or rows.shape[:1] != contexts.shape[:1]:
        raise ValueError("RatioNetwork: `data` must be a pair of rows and as many contexts.")
    if contexts.shape[1:] != shape_of_context or not np.all(np.isfinite(contexts)):
        raise ValueError(
            f"RatioNetwork: contexts in `data` must be finite, of shape {shape_of_context} each; got an array of shape "
            f"{contexts.shape}."
        )
    return rows, contexts


def _gaussian_log_ratio(u: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Quadratic form, slopes and offset of log N(u) - log N(u_1) - log N(u_2), with mean and covariance of the rows."""
    mean, covariance = u.mean(axis=0), np.cov(u, rowvar=False) + RIDGE * np.eye(u.shape[1])
    apart = np.zeros_like(covariance)
    apart[:size, :size], apart[size:, size:] = covariance[:size, :size], covariance[size:, size:]
    form = -0.5 * (np.linalg.inv(covariance) - np.linalg.inv(apart))
    offset = -0.5 * (np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(apart)[1]) + mean @ form @ mean
    return form, -2 * form @ mean, float(offset)


def contrastive_ratio_loss(
    network: RatioNetwork,
    x: Float[Array, "n size"],
    contexts: Float[Array, "n *context"],
    key: PRNGKeyArray,
    *,
    contrasts: int = 10,
    gamma: float = 1.0,
    balance: float = 0.0,
) -> Float[Array, ""]:
    r"""Mean loss of a batch of pairs, smallest where :math:`\log r = \log p(x \mid c) - \log p(x)`, without a constant
    that is free.

    With K contrasts, contexts of other pairs of the batch, :math:`S = \sum_{k \le K} r(x, c_k)`,

    .. math:: L = -\tfrac{1}{1 + \gamma} E \log \frac{K}{K + \gamma S} - \tfrac{\gamma}{1 + \gamma} E \log
        \frac{\gamma r(x, c_1)}{K + \gamma S},

    where in the first term all contexts are contrasts, and in the second the first one is that of x.
    ``balance`` times :math:`(E_{p(x, c)} \sigma(\log r) + E_{p(x) p(c)} \sigma(\log r) - 1)^2` is added: it makes the
    ratio more conservative.

    Args:
        network: log r, from one event and one context to one number.
        x: events.
        contexts: theirs.
        key: of the contrasts.
        contrasts: K, fewer than the pairs of the batch.
        gamma: odds that one of the contexts is that of x.
        balance: 0 for no penalty; 100 in the paper that proposes it.

    Raises:
        TypeError: ``contrasts`` is no integer, ``key`` no random key, ``network`` no function; rows that are no
            numbers.
        ValueError: fewer than K + 1 pairs, events and contexts of different number, no contrast, ``gamma`` not
            positive, ``balance`` negative.

    References:
        Miller, Weniger & Forré, NeurIPS 2022, equations 6-10; Delaunoy, Hermans, Rozet, Wehenkel & Louppe, NeurIPS
        2022, equation 5 (balance).
    """
    name = "contrastive_ratio_loss"
    check_callable(name, "network", network, "a function of one event and one context")
    x, contexts = (jnp.asarray(check_real(name, a, rows)) for a, rows in (("x", x), ("contexts", contexts)))
    if not x.ndim or x.shape[:1] != contexts.shape[:1]:
        raise ValueError(
            f"{name}: `x` and `contexts` must have one row for each pair; got {x.shape}, {contexts.shape}."
        )
    n = len(x)
    check_key(name, "key", key)
    check_counts(name, contrasts=contrasts)
    gamma = check_positive_number(name, "gamma", gamma)
    balance = check_nonnegative_number(name, "balance", balance)
    if n <= contrasts:
        raise ValueError(f"{name}: `contrasts`, {contrasts}, must be fewer than the pairs of a batch; got {n} pairs.")
    # Contexts of pairs 1, ..., n - 1 places on, without one that is twice the same.
    away = jax.vmap(lambda k: jax.random.choice(k, n - 1, (contrasts,), replace=False) + 1)(jax.random.split(key, n))
    others = (jnp.arange(n)[:, None] + away) % n
    log_r = jax.vmap(network)(x, contexts)
    other = jax.vmap(lambda x, which: jax.vmap(lambda c: network(x, c))(contexts[which]))(x, others)
    none = math.log(contrasts / gamma)
    marginal = none - jnp.logaddexp(none, jax.nn.logsumexp(other, axis=1))
    all_of_them = jnp.concatenate([log_r[:, None], other[:, 1:]], axis=1)
    joint = log_r - jnp.logaddexp(none, jax.nn.logsumexp(all_of_them, axis=1))
    loss = -(jnp.mean(marginal) + gamma * jnp.mean(joint)) / (1 + gamma)
    balanced = jnp.mean(jax.nn.sigmoid(log_r)) + jnp.mean(jax.nn.sigmoid(other)) - 1
    return loss + balance * balanced**2
