"""The law of a generator's output, a prior on a manifold without a density, and that law with a residual."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import (
    Distribution,
    Normal,
    TransformedDistribution,
    biject_to,
    constraints,
)

from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution, unwrapped


class Pushforward(ReparametrizedDistribution):
    r"""The law :math:`G_\# \mu` of :math:`u = G(z)`, :math:`z \sim \mu`, for a generator such as a trained decoder.

    Where z has fewer numbers than u the law lives on the image of G, a set of volume zero: it has no density, and
    :meth:`log_prob` says so. Inference goes through the latent: :func:`numpyro_inverse.whiten` samples z as site
    ``u_latent`` and makes ``u`` deterministic. A truth off the image of G is then excluded, whatever the data.

    With a ``residual`` the law is that of :math:`u = G(z) + r`, z and r independent, and no truth is excluded:

    >>> def model(data=None):
    ...     scale = numpyro.sample("scale", dist.HalfNormal(0.1))
    ...     rest = Matern(grid, range=0.1, scale=scale, smoothness=1.0)
    ...     latent = dist.Normal(0, 1).expand([8]).to_event(1)
    ...     u = numpyro.sample("u", Pushforward(decoder, latent, residual=rest))
    ...     numpyro.sample("data", dist.Normal(blur(u), 0.1).to_event(2), obs=data)

    The density of that sum at u is an integral over z, which :meth:`log_prob` does not take; the pair has a density,
    and ``whiten`` samples it as one vector ``u_latent``: z, and after it what r is made of (white noise for a Normal
    or a field, the base of a transformed distribution, else r itself), each flattened and without constraints.
    :meth:`parts` takes it apart.

    Args:
        generator: G, any function of one latent (an Equinox module, or a Python function), without batch axes; it is
            mapped over them.
        base: :math:`\mu`, a NumPyro distribution without batch shape.
        residual: the distribution of r, with the generator's output as event shape; its batch shape is that of u.

    Raises:
        TypeError: ``generator`` cannot be called, or ``base`` or ``residual`` is no distribution.
        ValueError: ``base`` is discrete or has a batch shape; the generator does not take a latent of its shape, or
            does not return one floating-point array; ``residual`` is discrete or has another event shape.

    References:
        Bora, Jalal, Price & Dimakis, ICML 2017; Holden, Pereyra & Zygalakis, SIAM J. Imaging Sci. 15 (2022) 892-924.
    """

    arg_constraints: dict = {}  # noqa: RUF012
    pytree_data_fields: tuple[str, ...] = ("_arrays", "_base", "_residual")
    pytree_aux_fields = ("_rest",)

    def __init__(
        self,
        generator: Callable[[Float[Array, "*latent"]], Float[Array, "*shape"]],
        base: Distribution,
        *,
        residual: Distribution | None = None,
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
        if residual is not None:
            _check_residual(residual, shape)
        # Arrays cross `jit` as data, NumPy's too; the rest is compared and hashed.
        generator = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, generator)
        self._arrays, self._rest = eqx.partition(generator, eqx.is_array)
        self._base, self._residual = base, residual
        super().__init__(() if residual is None else residual.batch_shape, shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """Arrays of the output's shape; that they lie on the image of the generator cannot be checked."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def generator(self) -> Callable:
        """G."""
        return eqx.combine(self._arrays, self._rest)

    @property
    def residual(self) -> Any:
        """The law of r, or None."""
        return self._residual

    @property
    def base_dist(self) -> Distribution:
        r""":math:`\mu`; with a residual the law of the flattened pair."""
        return self._base if self._residual is None else self._pair()[0].simplest()

    def from_base(self, z: Float[Array, "*batch_and_latent"]) -> Float[Array, "*batch_and_shape"]:
        """G(z), or G(z) + r, mapped over leading axes."""
        image, rest = self.parts(z)
        return image if self._residual is None else image + rest

    def parts(
        self, latent: Float[Array, "*batch_and_latent"]
    ) -> tuple[Float[Array, "*batch_and_shape"], Float[Array, "*batch_and_shape"]]:
        """G(z) and r from values of the site ``u_latent``; r is zero without a residual.

        Raises:
            ValueError: an array that does not end in the latent's shape.
        """
        z, rest = jnp.asarray(latent), None
        shape = self.base_dist.event_shape
        if z.shape[z.ndim - min(len(shape), z.ndim) :] != shape:
            raise ValueError(f"Pushforward: a latent must have shape {shape}; got an array of shape {z.shape}.")
        if self._residual is not None:
            pair, through = self._pair()
            z, noise = pair.split(z)
            rest = through(noise)
        batch = z.shape[: z.ndim - self._base.event_dim]
        flat = z.reshape((prod(batch), *self._base.event_shape))
        image = jax.vmap(self.generator)(flat).reshape(batch + self.event_shape)
        return image, jnp.zeros_like(image) if rest is None else rest

    def _pair(self) -> tuple[_Pair, Callable[[Array], Array]]:
        noise, through = _noise(self._residual)
        return _Pair(self._base.expand(self.batch_shape), noise), through

    def log_prob(self, value: Array) -> Array:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        why = (
            "the law of a generator's output is singular, so it has no density"
            if self._residual is None
            else "the density of a generator's output plus a residual is an integral over its latent, not taken here"
        )
        raise NotImplementedError(
            f"Pushforward: {why}. Sample the latent instead: run the kernel, guide or `Predictive` on "
            "`numpyro_inverse.whiten(model)`, where the site is deterministic and its latent is sampled (or, for one "
            "site, on `numpyro.handlers.reparam(model, config={name: numpyro_inverse.infer.BaseReparam()})`)."
        )


class _Pair(Distribution):
    """Two independent events as one vector of real numbers, each flattened in its unconstrained coordinates."""

    arg_constraints: dict = {}  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("_both",)

    def __init__(self, first: Distribution, second: Distribution):
        self._both = (first, second)
        sizes = [prod(biject_to(d.support).inverse_shape(d.event_shape)) for d in self._both]
        super().__init__(first.batch_shape, (sum(sizes),))

    def simplest(self) -> Distribution:
        """A Normal if both are, so that kernels recognise it."""
        cores = [unwrapped(d) for d in self._both]
        if not all(isinstance(core, Normal) for core in cores):
            return self
        flat = [(*d.batch_shape, prod(d.event_shape)) for d in self._both]
        loc, scale = (
            jnp.concatenate(
                [
                    jnp.broadcast_to(getattr(core, name), d.shape()).reshape(shape)
                    for core, d, shape in zip(cores, self._both, flat, strict=True)
                ],
                axis=-1,
            )
            for name in ("loc", "scale")
        )
        return Normal(loc, scale).to_event(1)

    def split(self, value: Float[Array, "*batch n"]) -> list[Array]:
        """The two events."""
        return [transform(x) for transform, x in self._unconstrained(value)]

    def _unconstrained(self, value: Array) -> list[tuple[Any, Array]]:
        transforms = [biject_to(d.support) for d in self._both]
        shapes = [t.inverse_shape(d.event_shape) for t, d in zip(transforms, self._both, strict=True)]
        pieces = jnp.split(value, [prod(shapes[0])], axis=-1)
        return [
            (t, x.reshape(value.shape[:-1] + shape)) for t, x, shape in zip(transforms, pieces, shapes, strict=True)
        ]

    def sample(self, key, sample_shape=()):
        draws = [d.sample(k, sample_shape) for d, k in zip(self._both, jax.random.split(key), strict=True)]
        flat = [biject_to(d.support).inv(x) for d, x in zip(self._both, draws, strict=True)]
        return jnp.concatenate([x.reshape((*sample_shape, *self.batch_shape, -1)) for x in flat], axis=-1)

    def log_prob(self, value):
        total = jnp.zeros(())
        for d, (transform, x) in zip(self._both, self._unconstrained(value), strict=True):
            y = transform(x)
            total = total + d.log_prob(y) + transform.log_abs_det_jacobian(x, y)
        return total


def _noise(fn: Distribution) -> tuple[Distribution, Callable[[Array], Array]]:
    """A distribution and a map of it whose law is ``fn``."""
    core, shape = unwrapped(fn), fn.shape()
    if isinstance(core, ReparametrizedDistribution):
        noise, through = core.base_dist, core.from_base
    elif isinstance(core, TransformedDistribution):
        noise, through = core.base_dist, lambda w: reduce(lambda w, transform: transform(w), core.transforms, w)
    elif isinstance(core, Normal):
        dtype = jnp.result_type(float, core.loc, core.scale)
        noise = Normal(jnp.zeros((), dtype), jnp.ones((), dtype))
        through = lambda w: core.loc + core.scale * w  # noqa: E731
    else:
        return fn, lambda w: w
    expanded = shape[: len(shape) - core.event_dim]
    return noise.expand(expanded).to_event(len(expanded) - len(fn.batch_shape)), through


def _check_residual(residual: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(residual, Distribution):
        raise TypeError(f"Pushforward: `residual` must be a NumPyro distribution; got {type(residual).__name__}.")
    if residual.support.is_discrete:
        raise ValueError("Pushforward: `residual` must be continuous.")
    if residual.event_shape != shape:
        hint = ""
        if residual.event_dim < len(shape) <= len(residual.shape()) and residual.shape()[-len(shape) :] == shape:
            hint = f" Use `.to_event({len(shape) - residual.event_dim})`."
        raise ValueError(
            f"Pushforward: `residual` must have the generator's output shape {shape} as event shape; got event shape "
            f"{residual.event_shape} and batch shape {residual.batch_shape}.{hint}"
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
