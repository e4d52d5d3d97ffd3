"""The law of a generator's output: a prior on a manifold, without a density."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from numpyro_inverse.distributions.reparametrized import ReparametrizedDistribution


class Pushforward(ReparametrizedDistribution):
    r"""The law :math:`G_\# \mu` of :math:`u = G(z)`, :math:`z \sim \mu`, for a generator such as a trained decoder.

    Where z has fewer numbers than u the law lives on the image of G, a set of volume zero: it has no density, and
    :meth:`log_prob` says so. Inference goes through the latent: :func:`numpyro_inverse.whiten` samples z as site
    ``u_latent`` and makes ``u`` deterministic. A truth off the image of G is then excluded, whatever the data; add a
    small field to let it in:

    >>> def model(data=None):  # doctest: +SKIP
    ...     shape = numpyro.sample("shape", Pushforward(decoder, dist.Normal(0, 1).expand([8]).to_event(1)))
    ...     rest = numpyro.sample("rest", Matern(grid, range=0.1, scale=0.05, smoothness=1.0))
    ...     numpyro.sample("data", dist.Normal(blur(shape + rest), 0.1).to_event(2), obs=data)

    Args:
        generator: G, any function of one latent (an Equinox module, or a Python function), without batch axes; it is
            mapped over them.
        base: :math:`\mu`, a NumPyro distribution without batch shape.

    Raises:
        TypeError: ``generator`` cannot be called, or ``base`` is no distribution.
        ValueError: ``base`` is discrete or has a batch shape; the generator does not take a latent of its shape, or
            does not return one floating-point array.

    References:
        Bora, Jalal, Price & Dimakis, ICML 2017; Holden, Pereyra & Zygalakis, SIAM J. Imaging Sci. 15 (2022) 892-924.
    """

    arg_constraints: dict = {}  # noqa: RUF012
    pytree_data_fields = ("_arrays", "_base")
    pytree_aux_fields = ("_rest",)

    def __init__(
        self,
        generator: Callable[[Float[Array, "*latent"]], Float[Array, "*shape"]],
        base: Distribution,
        *,
        validate_args: bool | None = None,
    ):
        if not callable(generator):
            raise TypeError(
                f"Pushforward: `generator` must be a function of one latent; got {type(generator).__name__}."
            )
        if not isinstance(base, Distribution):
            raise TypeError(f"Pushforward: `base` must be a NumPyro distribution; got {type(base).__name__}.")
        if base.batch_shape or base.support.is_discrete:
            raise ValueError(
                "Pushforward: `base` must be continuous and without a batch shape (`.to_event()` makes it one latent); "
                f"got batch shape {base.batch_shape}."
            )
        shape = _output_shape(generator, base)
        # Arrays cross `jit` as data, NumPy's too; the rest is compared and hashed.
        generator = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, generator)
        self._arrays, self._rest = eqx.partition(generator, eqx.is_array)
        self._base = base
        super().__init__((), shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """Arrays of the output's shape; that they lie on the image of the generator cannot be checked."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def generator(self) -> Callable:
        """G."""
        return eqx.combine(self._arrays, self._rest)

    @property
    def base_dist(self) -> Distribution:
        r""":math:`\mu`."""
        return self._base

    def from_base(self, z: Float[Array, "*batch_and_latent"]) -> Float[Array, "*batch_and_shape"]:
        """G(z), mapped over leading axes."""
        z = jnp.asarray(z)
        batch = z.shape[: z.ndim - self._base.event_dim]
        flat = z.reshape((prod(batch), *self._base.event_shape))
        return jax.vmap(self.generator)(flat).reshape(batch + self.event_shape)

    def log_prob(self, value: Array) -> Array:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "Pushforward: the law of a generator's output is singular, so it has no density. Sample the latent "
            "instead: run the kernel, guide or `Predictive` on `numpyro_inverse.whiten(model)`, where the site is "
            "deterministic and its latent is sampled."
        )


def _output_shape(generator: Callable, base: Distribution) -> tuple[int, ...]:
    latent = jax.eval_shape(base.sample, jax.random.key(0))
    try:
        found = jax.eval_shape(generator, latent)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"Pushforward: `generator` does not take a latent of `base`'s shape {latent.shape}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"Pushforward: `generator` must return one floating-point array; got {found}.")
    return found.shape
