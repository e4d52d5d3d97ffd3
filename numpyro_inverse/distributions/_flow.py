"""Normalizing flows as NumPyro distributions: any bijection of a base with a density."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, Normal, TransformedDistribution, constraints
from numpyro.distributions.transforms import ComposeTransform, Transform
from numpyro.distributions.util import validate_sample

from numpyro_inverse._checks import check_real


class BijectionTransform(Transform):
    """A bijection of arrays from another library as a NumPyro ``Transform``.

    Args:
        bijection: maps one event: an object with ``forward_and_log_det`` and ``inverse_and_log_det`` (Distrax's
            bijectors, the flows of :mod:`numpyro_inverse.nn`), or FlowJAX's ``transform_and_log_det``. A pytree. It is
            mapped over batch axes. If it has an attribute ``codomain``, a NumPyro constraint, that is the support. A
            conditional one has a ``context_shape`` (FlowJAX: ``cond_shape``), and its methods take a context after
            the event.
        event_shape: of what it takes.
        context: for a conditional bijection, with any batch axes in front, which become those of the transform.

    Raises:
        TypeError: ``bijection`` has no such methods; ``context`` is missing or not wanted.
        ValueError: it does not take an array of ``event_shape``, or does not return an array and one number;
            ``context`` has another shape.
    """

    def __init__(
        self,
        bijection: Any,
        event_shape: tuple[int, ...],
        context: Float[Array, "*batch_and_context"] | None = None,
    ):
        _forward(bijection)
        _inverse(bijection)
        self.context_shape = _context_shape(bijection)
        self.context = _checked_context(bijection, self.context_shape, context)
        latent = jax.ShapeDtypeStruct(tuple(event_shape), jnp.result_type(float))
        given = [] if self.context is None else [jax.ShapeDtypeStruct(self.context_shape, self.context.dtype)]
        try:
            image, log_det = jax.eval_shape(lambda z, *c: _forward(bijection)(z, *c), latent, *given)
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"Flow: `bijection` does not take the base's event shape {latent.shape}: {str(error).splitlines()[0]}"
            ) from error
        if log_det.shape != ():
            raise ValueError(
                "Flow: `bijection` must return the log determinant of one event as one number; for an event of shape "
                f"{latent.shape} it has shape {log_det.shape} (`distrax.Block` sums it over the event)."
            )
        # Arrays cross `jit` as data, NumPy's too; the rest is compared and hashed.
        leaves, structure = jax.tree.flatten(bijection)
        dynamic = [eqx.is_array(leaf) or isinstance(leaf, np.ndarray) for leaf in leaves]
        self.arrays = tuple(jnp.asarray(leaf) for leaf, d in zip(leaves, dynamic, strict=True) if d)
        self.rest = (tuple(None if d else leaf for leaf, d in zip(leaves, dynamic, strict=True)), structure)
        self.dynamic = tuple(dynamic)
        self.event_shape = tuple(event_shape)
        self.image_shape = image.shape

    def tree_flatten(self):
        names = ("rest", "dynamic", "event_shape", "image_shape", "context_shape")
        return (self.arrays, self.context), (("arrays", "context"), {name: getattr(self, name) for name in names})

    @property
    def bijection(self) -> Any:
        """What was given."""
        arrays = iter(self.arrays)
        static, structure = self.rest
        leaves = [next(arrays) if d else leaf for d, leaf in zip(self.dynamic, static, strict=True)]
        return jax.tree.unflatten(structure, leaves)

    @property
    def domain(self) -> constraints.Constraint:
        """Real arrays of the event's shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def codomain(self) -> constraints.Constraint:
        """The bijection's own, or real arrays."""
        own = getattr(self.bijection, "codomain", None)
        if isinstance(own, constraints.Constraint):
            return own
        return constraints.independent(constraints.real, len(self.image_shape))

    def __call__(self, x):
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x):
        """The image and the log determinant."""
        return self._mapped(_forward(self.bijection), x, self.event_shape, self.image_shape)

    def inverse_and_log_det(self, y: Float[Array, "*batch_and_image"]) -> tuple[Array, Array]:
        """The preimage and the log determinant of the inverse."""
        return self._mapped(_inverse(self.bijection), y, self.image_shape, self.event_shape)

    def _inverse(self, y):
        return self.inverse_and_log_det(y)[0]

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        """Of the forward map, at x."""
        return self.call_with_intermediates(x)[1] if intermediates is None else intermediates

    def forward_shape(self, shape):
        """Batch axes are kept, and broadcast with those of the contexts."""
        return self._other_shape(shape, self.event_shape, self.image_shape)

    def inverse_shape(self, shape):
        """Batch axes are kept, and broadcast with those of the contexts."""
        return self._other_shape(shape, self.image_shape, self.event_shape)

    @property
    def _batch_of_contexts(self) -> tuple[int, ...]:
        if self.context is None or self.context_shape is None:
            return ()
        return jnp.shape(self.context)[: jnp.ndim(self.context) - len(self.context_shape)]

    def _other_shape(self, shape, one, other):
        batch = len(shape) - len(one)
        if batch < 0 or tuple(shape[batch:]) != one:
            raise ValueError(f"Flow: an event must have shape {one}; got an array of shape {tuple(shape)}.")
        try:
            return (*jnp.broadcast_shapes(tuple(shape[:batch]), self._batch_of_contexts), *other)
        except ValueError as error:
            raise ValueError(
                f"Flow: batch shape {self._batch_of_contexts} of `context` does not broadcast with "
                f"{tuple(shape[:batch])} of the events."
            ) from error

    def _mapped(self, f: Callable, x: Array, one: tuple[int, ...], other: tuple[int, ...]) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        shape = self._other_shape(x.shape, one, other)
        batch = shape[: len(shape) - len(other)]
        if self.context is None or self.context_shape is None:
            y, log_det = jax.vmap(f)(x.reshape(prod(batch), *one))
            return y.reshape(shape), log_det.reshape(batch)
        # What depends on a context alone (its embedding) is computed once for all events that share it.
        own = len(self._batch_of_contexts)
        inner = batch[len(batch) - own :]
        context = jnp.broadcast_to(self.context, inner + self.context_shape).reshape(prod(inner), *self.context_shape)
        x = jnp.broadcast_to(x, batch + one).reshape(prod(batch[: len(batch) - own]), prod(inner), *one)
        y, log_det = jax.vmap(jax.vmap(f), (0, None))(x, context)
        return y.reshape(shape), log_det.reshape(batch)


class Flow(TransformedDistribution):
    r"""The law of :math:`u = f(z)`, :math:`z \sim p_0`, for an invertible map f such as a trained normalizing flow.

    .. math:: \log p(u) = \log p_0(f^{-1}(u)) + \log \left|\det \partial f^{-1} / \partial u\right|

    :func:`numpyro_inverse.whiten` samples z as site ``u_latent`` and makes ``u`` deterministic; there the prior is
    ``base`` whatever the shape of the flow, so it is where NUTS moves well.

    >>> flow = nn.load_pretrained("fashion_mnist_flow")
    >>> def model(data=None):
    ...     image = numpyro.sample("image", Flow(flow))
    ...     numpyro.sample("data", dist.Normal(blur(image), 0.05).to_event(2), obs=data)

    Args:
        bijection: f, for one event: a NumPyro ``Transform``; a Distrax bijector; a flow of :mod:`numpyro_inverse.nn`; a
            FlowJAX bijection, or a FlowJAX distribution transformed from standard normal noise.
        base: :math:`p_0`, with any batch shape. Default: standard normal of the bijection's ``shape``.
        context: what a conditional bijection is given, :math:`u = f(z; c)`; its batch axes are the batch shape of the
            law.

    Raises:
        TypeError: ``bijection`` is none of these; ``base`` is no distribution, or is missing and the bijection has no
            ``shape``; ``context`` is missing or not wanted.
        ValueError: ``base`` is discrete, or its event shape is not what the bijection takes; ``context`` has another
            shape than the bijection takes, or batch axes that do not broadcast with the base's.

    References:
        Papamakarios, Nalisnick, Rezende, Mohamed & Lakshminarayanan, JMLR 22 (2021) 57, equation 6.
    """

    def __init__(
        self,
        bijection: Any,
        base: Distribution | None = None,
        *,
        context: Float[Array, "*batch_and_context"] | None = None,
        validate_args: bool | None = None,
    ):
        bijection = _unwrapped_flowjax(bijection)
        if not isinstance(bijection, Transform):
            _forward(bijection)
        if base is None:
            shape = getattr(bijection, "shape", None)
            if not isinstance(shape, tuple):
                raise TypeError(
                    f"Flow: `base` is needed, for {type(bijection).__name__} does not say the shape of its events; for "
                    "example `dist.Normal(0, 1).expand([n]).to_event(1)`."
                )
            base = Normal(0.0, 1.0).expand(shape).to_event(len(shape))
        if not isinstance(base, Distribution):
            raise TypeError(f"Flow: `base` must be a NumPyro distribution; got {type(base).__name__}.")
        if base.support.is_discrete:
            raise ValueError("Flow: `base` must be continuous.")
        if not isinstance(bijection, Transform):
            transform = BijectionTransform(bijection, base.event_shape, context)
        elif context is None:
            transform = bijection
        else:
            raise TypeError("Flow: `context` is for conditional bijections; a NumPyro transform takes none.")
        try:
            super().__init__(base, transform, validate_args=validate_args)
        except (TypeError, ValueError) as error:
            if str(error).startswith("Flow: "):
                raise
            raise ValueError(
                f"Flow: `bijection` does not take the base's event shape {base.event_shape}: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def from_base(self, z: Float[Array, "*batch_and_event"]) -> Float[Array, "*batch_and_event"]:
        """f(z), mapped over leading axes."""
        return ComposeTransform(self.transforms)(z)

    @validate_sample
    def log_prob(self, value, intermediates=None):
        """Log density, by one evaluation of the inverse."""
        if intermediates is not None or not isinstance(self.transforms[-1], BijectionTransform):
            return super().log_prob(value, intermediates)
        z, log_det = self.transforms[-1].inverse_and_log_det(value)
        inner = TransformedDistribution(self.base_dist, self.transforms[:-1]) if self.transforms[1:] else self.base_dist
        return inner.log_prob(z) + log_det


def _forward(bijection: Any) -> Callable:
    for name in ("forward_and_log_det", "transform_and_log_det"):
        if hasattr(bijection, name):
            return getattr(bijection, name)
    raise TypeError(
        "Flow: `bijection` must be a NumPyro `Transform`, or have the methods `forward_and_log_det` and "
        f"`inverse_and_log_det` (Distrax) or `transform_and_log_det` (FlowJAX); got {type(bijection).__name__}."
    )


def _inverse(bijection: Any) -> Callable:
    if not hasattr(bijection, "inverse_and_log_det"):
        raise TypeError(
            f"Flow: `bijection` must have the method `inverse_and_log_det`; {type(bijection).__name__} has none."
        )
    return bijection.inverse_and_log_det


def _context_shape(bijection: Any) -> tuple[int, ...] | None:
    found = getattr(bijection, "context_shape", getattr(bijection, "cond_shape", None))
    return found if isinstance(found, tuple) else None


def _checked_context(bijection: Any, wanted: tuple[int, ...] | None, context: Any) -> Array | None:
    """The context as an array, if the bijection takes it."""
    if wanted is None:
        if context is not None:
            raise TypeError(f"Flow: `bijection` takes no `context`; {type(bijection).__name__} is not conditional.")
        return None
    if context is None:
        raise TypeError(f"Flow: `context` is needed, an array of shape {wanted} or a batch of them.")
    context = jnp.asarray(check_real("Flow", "context", context), jnp.result_type(float))
    if context.shape[max(context.ndim - len(wanted), 0) :] != wanted:
        raise ValueError(f"Flow: `context` must have shape {wanted} after batch axes; got {context.shape}.")
    return context


def _unwrapped_flowjax(flow: Any) -> Any:
    """The bijection of a FlowJAX distribution, down to its standard normal base."""
    if not (hasattr(flow, "bijection") and hasattr(flow, "base_dist")) or isinstance(flow, Distribution | Transform):
        return flow
    from flowjax.bijections import Chain
    from flowjax.distributions import StandardNormal

    chain = []
    while hasattr(flow, "bijection"):
        chain.append(flow.bijection)
        flow = flow.base_dist
    if not isinstance(flow, StandardNormal):
        raise TypeError(
            "Flow: a FlowJAX distribution must be transformed from standard normal noise; this one starts from "
            f"{type(flow).__name__}. Give its `bijection`, and the NumPyro distribution that is its base as `base`."
        )
    return chain[0] if len(chain) == 1 else Chain(chain[::-1])
