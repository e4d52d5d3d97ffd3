"""Masked autoregressive flows for vectors: each number is transformed given those before it, and given a context."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key
from numpyro_inverse.nn._bijectors import LARGEST_LOG_SCALE, linear, standardizing
from numpyro_inverse.nn._context_embedding import ContextEmbedding, as_embedding, features_of
from numpyro_inverse.nn._flow_density import FlowDensity
from numpyro_inverse.nn._networks import check_counts, check_event


class AutoregressiveFlow(FlowDensity):
    r"""Masked autoregressive maps: :math:`z_i = (x_i - m_i(x_{<i})) / s_i(x_{<i})`, in a new order in every layer.

    With a context, m and s depend on it as well. The density takes one evaluation per layer; a draw takes as many as
    there are numbers, in a loop.

    Args:
        size: numbers per event, 2 or more; 1 or more with a context.
        layers: maps; the order is reversed between them.
        width: of the two masked hidden layers.
        data: rows whose mean and covariance the last linear map is to have at the start.
        context: makes it conditional: the numbers in a context vector, or a
            :class:`~numpyro_inverse.nn.ContextEmbedding` for contexts on another scale, of another shape or seen
            through a network.
        key: of the initial weights.

    Raises:
        TypeError: a size that is no integer; a ``context`` that is neither a number nor an embedding; data that are no
            numbers; ``key`` is no random key.
        ValueError: too few numbers, no layer or width; data that are not finite, have another length or are all
            the same. When called: events and contexts of another shape.

    References:
        Papamakarios, Pavlakou & Murray, NeurIPS 2017, equation 3; Germain, Gregor, Murray & Larochelle, ICML 2015 (the
        masks, and hidden units that see the context alone).
    """

    layers: tuple[tuple[tuple[Array, Array], ...], ...]
    matrix: Float[Array, "size size"]
    shift: Float[Array, " size"]
    context_weights: tuple[Float[Array, "width features"], ...]
    embedding: ContextEmbedding | None
    shape: tuple[int] = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        layers: int = 5,
        width: int = 64,
        data: Float[np.ndarray, "n size"] | None = None,
        context: int | ContextEmbedding | None = None,
        key: PRNGKeyArray,
    ):
        check_counts("AutoregressiveFlow", size=size, layers=layers, width=width)
        check_key("AutoregressiveFlow", "key", key)
        self.embedding = as_embedding("AutoregressiveFlow", context)
        if size < 2 and self.embedding is None:
            raise ValueError(f"AutoregressiveFlow: `size` must be 2 or more; got {size}.")

        def dense(key, n, m):
            return jax.random.normal(key, (m, n)) * (2 / n) ** 0.5, jnp.zeros(m)

        made, seen = [], []
        for one in jax.random.split(key, layers):
            first, second = jax.random.split(one)
            last = (jnp.zeros((2 * size, width)), jnp.zeros(2 * size))
            made.append((dense(first, size, width), dense(second, width, width), last))
            if self.embedding is not None:
                seen.append(dense(jax.random.fold_in(one, 2), self.embedding.size, width)[0])
        self.layers, self.context_weights = tuple(made), tuple(seen)
        matrix, shift = standardizing("AutoregressiveFlow", data, size)
        self.matrix, self.shift = matrix, shift
        self.shape = (size,)
        self.width = width

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """The shape of a context; None if the flow takes none."""
        return None if self.embedding is None else self.embedding.shape

    def inverse_and_log_det(
        self, x: Float[Array, " size"], context: Float[Array, "*context"] | None = None
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From data to noise."""
        x = check_event("AutoregressiveFlow", "x", x, self.shape)
        z, log_det = linear(self.matrix, self.shift).inverse_and_log_det(x)
        for layer, seen in reversed(self._layers_and_seen(context)):
            z = z[::-1]
            shift, log_scale = self._shift_and_log_scale(layer, z, seen)
            z = (z - shift) * jnp.exp(-log_scale)
            log_det -= jnp.sum(log_scale)
        return z, log_det

    def forward_and_log_det(
        self, z: Float[Array, " size"], context: Float[Array, "*context"] | None = None
    ) -> tuple[Float[Array, " size"], Float[Array, ""]]:
        """From noise to data, number by number."""
        z = check_event("AutoregressiveFlow", "z", z, self.shape)
        log_det = jnp.zeros((), z.dtype)
        for layer, seen in self._layers_and_seen(context):

            def one(i, x, z=z, layer=layer, seen=seen):
                shift, log_scale = self._shift_and_log_scale(layer, x, seen)
                return x.at[i].set(z[i] * jnp.exp(log_scale[i]) + shift[i])

            x = jax.lax.fori_loop(0, self.shape[0], one, jnp.zeros_like(z))
            log_det += jnp.sum(self._shift_and_log_scale(layer, x, seen)[1])
            z = x[::-1]
        x, change = linear(self.matrix, self.shift).forward_and_log_det(z)
        return x, log_det + change

    def _layers_and_seen(self, context: Array | None) -> list[tuple]:
        """The layers, and what the hidden units of each see of the context."""
        features = features_of("AutoregressiveFlow", self.embedding, context)
        if features is None:
            return [(layer, None) for layer in self.layers]
        return [(layer, w @ features) for layer, w in zip(self.layers, self.context_weights, strict=True)]

    def _shift_and_log_scale(self, layer, x, seen):
        size = self.shape[0]
        # A unit sees the numbers up to this one; with a context, some see that alone.
        units = np.arange(self.width)
        of_hidden = units % (size - 1) if self.embedding is None else units % size - 1
        masks = (
            of_hidden[:, None] >= np.arange(size)[None],
            of_hidden[:, None] >= of_hidden[None],
            np.tile(np.arange(size), 2)[:, None] > of_hidden[None],
        )
        for i, ((weight, bias), mask) in enumerate(zip(layer, masks, strict=True)):
            x = (weight * mask) @ x + bias
            if i == 0 and seen is not None:
                x = x + seen
            if i < 2:
                x = jax.nn.gelu(x)
        shift, log_scale = x[:size], x[size:]
        return shift, LARGEST_LOG_SCALE * jnp.tanh(log_scale / LARGEST_LOG_SCALE)
