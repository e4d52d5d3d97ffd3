"""Continuous flows learned by flow matching: a velocity that carries noise to data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_key
from numpyro_inverse.nn._context_embedding import ContextEmbedding, as_embedding, features_of
from numpyro_inverse.nn._networks import check_counts, check_event

LARGEST_TRACE = 16  # numbers up to which the divergence is computed exactly
FREQUENCIES = 4  # of the sines and cosines of time
LEAST_NOISE = 1e-3


class FlowMatching(eqx.Module):
    r"""The law of :math:`x_0` where :math:`dx_t / dt = v(x_t, t, c)` and :math:`x_1` is standard normal noise.

    The velocity v is a residual network of the standardized event, time and the context. It is trained on straight
    paths :math:`x_t = (1 - t) x + (t + \eta) e` from data x to noise e, with the loss :math:`|v(x_t, t, c) - (e -
    x)|^2`. The density follows from the divergence of v along the path, :math:`\log q(x) = \log \phi(x_1) + \int_0^1
    \operatorname{tr} \partial v / \partial x \, dt`, with the exact trace: each density takes one solution of the
    differential equation, too slow within NUTS.

    Args:
        size: numbers per event.
        width: hidden units of a layer.
        depth: residual blocks.
        context: makes it conditional: the numbers in a context vector, or a
            :class:`~numpyro_inverse.nn.ContextEmbedding`.
        data: rows whose mean and standard deviation it standardizes with.
        key: of the initial weights.

    Raises:
        TypeError: a size that is no integer; a ``context`` that is neither a number nor an embedding; data that are no
            numbers; ``key`` is no random key.
        ValueError: a size that is too small; data of another shape or not finite; a density of more than 16 numbers.
            When called: events and contexts of another shape.

    References:
        Lipman, Chen, Ben-Hamu, Nickel & Le, ICLR 2023, equations 9 and 22; Dax, Wildberger, Buchholz, Green, Macke &
        Schölkopf, NeurIPS 2023 (posteriors); Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud, ICLR 2019, equation 4
        (the density).
    """

    first: eqx.nn.Linear
    blocks: tuple[eqx.nn.MLP, ...]
    last: eqx.nn.Linear
    mean: Float[Array, " size"]
    scale: Float[Array, " size"]
    embedding: ContextEmbedding | None
    shape: tuple[int] = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        *,
        width: int = 128,
        depth: int = 3,
        context: int | ContextEmbedding | None = None,
        data: Float[np.ndarray, "n size"] | None = None,
        key: PRNGKeyArray,
    ):
        check_counts("FlowMatching", size=size, width=width, depth=depth)
        check_key("FlowMatching", "key", key)
        self.embedding = as_embedding("FlowMatching", context)
        standard = ContextEmbedding((size,), data=data)
        self.mean, self.scale, self.shape = standard.mean, standard.scale, (size,)
        n = size + 2 * FREQUENCIES + 1 + (0 if self.embedding is None else self.embedding.size)
        keys = jax.random.split(key, depth + 2)
        self.first = eqx.nn.Linear(n, width, key=keys[0])
        self.blocks = tuple(eqx.nn.MLP(width, width, width, 1, jax.nn.gelu, key=k) for k in keys[1:-1])
        self.last = eqx.nn.Linear(width, size, key=keys[-1])

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """The shape of a context; None if the law takes none."""
        return None if self.embedding is None else self.embedding.shape

    def velocity(self, z: Float[Array, " size"], t: Float[Array, ""], features: Array | None) -> Float[Array, " size"]:
        """v at a standardized event, time 0 (data) to 1 (noise), and the features of a context."""
        angles = jnp.pi * t * jnp.arange(1, FREQUENCIES + 1)
        seen = [z, jnp.atleast_1d(t), jnp.sin(angles), jnp.cos(angles), *([] if features is None else [features])]
        h = self.first(jnp.concatenate(seen).astype(z.dtype))
        for block in self.blocks:
            h = h + block(jax.nn.gelu(h))
        return self.last(jax.nn.gelu(h))

    def loss(
        self, x: Float[Array, " size"], context: Float[Array, "*context"] | None, key: PRNGKeyArray
    ) -> Float[Array, ""]:
        """The squared error of the velocity at one time of one path; the loss is its mean over paths."""
        of_time, of_noise = jax.random.split(check_key("FlowMatching", "key", key))
        z = self._standard(x)
        t = jax.random.uniform(of_time, (), z.dtype)
        noise = jax.random.normal(of_noise, z.shape, z.dtype)
        path = (1 - t) * z + (t + LEAST_NOISE) * noise
        return jnp.mean((self.velocity(path, t, self._features(context)) - (noise - z)) ** 2)

    def sample(self, key: PRNGKeyArray, context: Float[Array, "*context"] | None = None) -> Float[Array, " size"]:
        """One draw: noise carried from time 1 to time 0."""
        check_key("FlowMatching", "key", key)
        features = self._features(context)
        noise = jax.random.normal(key, self.shape, self.mean.dtype)
        z = carried(lambda t, z: self.velocity(z, t, features), noise, 1.0, 0.0)
        return self.mean + self.scale * z

    def log_prob(self, x: Float[Array, " size"], context: Float[Array, "*context"] | None = None) -> Float[Array, ""]:
        """Log density, by the exact trace.

        Raises:
            ValueError: events of more than 16 numbers.
        """
        if self.shape[0] > LARGEST_TRACE:
            raise ValueError(
                "FlowMatching: the density needs one derivative for each number along the whole path, and is refused "
                f"above {LARGEST_TRACE} numbers; this law has {self.shape[0]}. Use `nn.MixtureAutoregressive`, or draw."
            )
        features = self._features(context)
        log_density = carried_log_density(lambda t, z: self.velocity(z, t, features), self._standard(x))
        return log_density - jnp.sum(jnp.log(jax.lax.stop_gradient(self.scale)))

    def _standard(self, x: Array) -> Array:
        x = check_event("FlowMatching", "x", x, self.shape).astype(self.mean.dtype)
        return (x - jax.lax.stop_gradient(self.mean)) / jax.lax.stop_gradient(self.scale)

    def _features(self, context: Array | None) -> Array | None:
        return features_of("FlowMatching", self.embedding, context)


def carried(velocity: Callable[[Any, Any], Any], start: Any, begin: float, end: float) -> Any:
    """Where the velocity v(t, state) carries a state, by Dormand and Prince's method of order 5 with adaptive steps."""
    import diffrax

    dtype = jnp.result_type(*jax.tree.leaves(start))
    # The error of a step against that of the network: not smaller than single precision allows.
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-8
    return jax.tree.map(
        lambda leaf: leaf[-1],
        diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, state, _: velocity(t, state)),
            diffrax.Dopri5(),
            jnp.asarray(begin, dtype),
            jnp.asarray(end, dtype),
            None,
            start,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=4096,
        ).ys,
    )


def carried_log_density(velocity: Callable[[Array, Array], Array], x: Float[Array, " n"]) -> Float[Array, ""]:
    """Log density at x, at time 0, of standard normal noise at time 1 that the velocity carries back."""

    def both(t: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        z, _ = state
        return velocity(t, z), jnp.trace(jax.jacfwd(lambda z: velocity(t, z))(z))

    noise, divergence = carried(both, (x, jnp.zeros((), x.dtype)), 0.0, 1.0)
    return divergence - 0.5 * jnp.sum(noise**2) - 0.5 * x.size * jnp.log(2 * jnp.pi)
