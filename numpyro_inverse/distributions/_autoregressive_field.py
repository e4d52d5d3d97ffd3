"""Fields that change in time: autoregressive of order one, with innovations from any field."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, Normal, constraints
from numpyro.distributions.util import validate_sample

from numpyro_inverse._checks import (
    check_broadcast,
    check_count,
    check_finite,
    check_instance,
    check_real,
    check_trailing,
    is_traced,
    show,
)
from numpyro_inverse.distributions._precision_factors import (
    Entries,
    PrecisionFactors,
    mixture_entries,
    mixture_factors,
)
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution, domain_of, has_base, unwrapped
from numpyro_inverse.domains._stacked import Stacked


class AutoregressiveField(ReparametrizedDistribution):
    r"""A field at T equally spaced times, stationary in time and separable in space and time.

    With the mean m and the departures from it :math:`v_t = u_t - m`,

    .. math:: v_1 = e_1, \qquad v_t = \rho\, v_{t-1} + \sqrt{1 - \rho^2}\, e_t, \qquad e_t \sim \text{field} - m,

    so that at every time the law is that of ``field``, and
    :math:`\operatorname{Cov}(v_s, v_t) = \rho^{|s - t|} \operatorname{Cov}(e)`. The precision is the Kronecker product
    of that of an AR(1) process with that of the field, so for n places

    .. math:: \log\det Q = T \log\det Q_{\text{field}} - (T - 1)\, n \log(1 - \rho^2),

    and the density costs one factorization of the field, whatever T is. Over a field on a mesh it is integrated out by
    sparse algebra in :class:`~numpyro_inverse.infer.LatentGaussian`.

    Values have the shape ``(num_steps, *field.event_shape)``. The field knows its domain, a
    :class:`~numpyro_inverse.domains.Stacked` one with the axis ``time``, if ``field`` does.

    Args:
        field: the law at one time, such as :class:`Matern`: a Gaussian field with ``base_dist`` and ``from_base``.
        correlation: :math:`\rho \in (-1, 1)` between one time and the next, of any batch shape.
        num_steps: T.

    Raises:
        TypeError: ``field`` is no field that is made of white noise, ``correlation`` no real number.
        ValueError: a correlation that is not between -1 and 1 (a traced one gives NaN), or no positive number of steps.

    References:
        Cameletti, Lindgren, Simpson & Rue, AStA Adv. Stat. Anal. 97 (2013) 109-131, eqs. 2-4; Rue & Held, Gaussian
        Markov Random Fields (2005), section 1.1.
    """

    arg_constraints = {"correlation": constraints.interval(-1.0, 1.0)}  # noqa: RUF012
    reparametrized_params = ["correlation"]  # noqa: RUF012
    pytree_data_fields = ("field", "correlation")
    pytree_aux_fields = ("num_steps",)

    def __init__(
        self,
        field: Distribution,
        correlation: float | Float[Array, "*batch"],
        num_steps: int,
        *,
        validate_args: bool | None = None,
    ):
        name = "AutoregressiveField"
        check_field(name, "field", field)
        self.field, self.num_steps = field, check_count(name, "num_steps", num_steps)
        correlation = check_finite(name, "correlation", correlation)
        if not is_traced(correlation) and not np.all(np.abs(np.asarray(correlation)) < 1):
            raise ValueError(f"{name}: `correlation` must be between -1 and 1; got {show(correlation)}.")
        rho = jnp.asarray(correlation, jnp.result_type(float, correlation))
        rho = jnp.where(jnp.abs(rho) < 1, rho, jnp.nan) if is_traced(correlation) else rho
        batch = check_broadcast(name, correlation=rho.shape, field=field.batch_shape)
        self.correlation = jnp.broadcast_to(rho, batch)
        super().__init__(batch, (self.num_steps, *field.event_shape), validate_args=validate_args)

    @property
    def support(self):
        """Real numbers."""
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def domain(self) -> Stacked | None:
        """The field's, at each time."""
        space = domain_of(self.field)
        return None if space is None else Stacked(space, "time", self.num_steps)

    @property
    def base_dist(self):
        """White noise: the field's own, at each time."""
        return white_noise(self.field, self.batch_shape, self.num_steps)

    def from_base(self, z):
        """The fields driven by white noise."""
        axis = -1 - self.field.base_dist.event_dim
        innovations = from_white_noise(self.field, jnp.moveaxis(z, axis, 0)) - self.field.mean
        rho = self._along(self.correlation)

        def step(before: Array, e: Array) -> tuple[Array, Array]:
            now = rho * before + jnp.sqrt(1 - rho**2) * e
            return now, now

        first = jnp.broadcast_to(innovations[0], jnp.broadcast_shapes(innovations.shape[1:], rho.shape))
        _, later = jax.lax.scan(step, first, innovations[1:])
        found = jnp.concatenate([first[None], later]) + self.field.mean
        return jnp.moveaxis(found, 0, -1 - self.field.event_dim)

    @validate_sample
    def log_prob(self, value, intermediates=None):
        """Log density; the field's own, of the innovations, with their Jacobian.

        Raises:
            TypeError, ValueError: ``value`` is not of real numbers, or of another shape; as the field's.
        """
        name = "AutoregressiveField.log_prob"
        value = jnp.asarray(check_trailing(name, "value", check_real(name, "value", value), self.event_shape))
        check_broadcast(name, value=value.shape[: -self.event_dim], batch=self.batch_shape)
        value = jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, self.batch_shape + self.event_shape))
        v = jnp.moveaxis(value, -1 - self.field.event_dim, 0) - self.field.mean
        rho = self._along(self.correlation)
        e = jnp.concatenate([v[:1], (v[1:] - rho * v[:-1]) / jnp.sqrt(1 - rho**2)])
        density = jnp.sum(self.field.log_prob(e + self.field.mean), axis=0)
        jacobian = (self.num_steps - 1) * prod(self.field.event_shape) * jnp.log1p(-(self.correlation**2))
        return density - 0.5 * jacobian

    @property
    def precision_entries(self) -> Entries | None:
        """Where :meth:`precision_factors` have entries; None where ``field`` has none, and for a batch."""
        entries = None if self.batch_shape else getattr(self.field, "precision_entries", None)
        return entries and mixture_entries(entries, prod(self.field.event_shape), self.num_steps, self._pairs)

    def precision_factors(self) -> PrecisionFactors:
        r"""The precision by sparse matrices on ``precision_entries``; the innovations are the independent fields."""
        field: Any = self.field
        rho, later = self.correlation, self.num_steps - 1
        one = 1 / jnp.sqrt(1 - rho**2)
        own = jnp.where(jnp.arange(self.num_steps) == 0, 1, one)
        below = jnp.broadcast_to(-rho * one, (later,))
        size = prod(field.event_shape)
        return mixture_factors([field.precision_factors()], field.precision_entries, size, own, below, self._pairs)

    @property
    def _pairs(self) -> np.ndarray:
        """A time and the one before."""
        return np.stack([np.arange(1, self.num_steps), np.arange(self.num_steps - 1)], axis=1)

    def _along(self, x: Array) -> Array:
        return x[(..., *(None,) * self.field.event_dim)]

    @property
    def mean(self):
        """The field's mean at each time."""
        return self._each_time(self.field.mean)

    @property
    def variance(self):
        """The field's variance at each time."""
        return self._each_time(self.field.variance)

    def _each_time(self, x: Array) -> Array:
        return jnp.broadcast_to(jnp.expand_dims(x, -1 - self.field.event_dim), self.batch_shape + self.event_shape)


def check_field(where: str, argument: str, field: Any) -> Distribution:
    """A Gaussian field made of white noise. One without a mean, such as a :class:`Pushforward`, is not Gaussian."""
    check_instance(where, argument, field, Distribution, "a field, such as Matern")
    white = has_base(field) and field is unwrapped(field) and isinstance(unwrapped(field.base_dist), Normal)
    if not white or type(field).mean is Distribution.mean:
        raise TypeError(
            f"{where}: `{argument}` must be a Gaussian field made of white noise, such as Matern, not expanded; got "
            f"{type(field).__name__}."
        )
    return field


def white_noise(field: Distribution, batch: tuple[int, ...], count: int) -> Distribution:
    """That of ``count`` copies of a field, with mean 0 and variance 1 whatever the field's own base has."""
    base = field.base_dist
    shape = (*batch, count, *base.event_shape)
    dtype = jnp.result_type(base.mean)
    return Normal(jnp.zeros((), dtype), 1.0).expand(shape).to_event(1 + base.event_dim)


def from_white_noise(field: Distribution, z: Array) -> Array:
    """The field driven by standard white noise, from which its own base may differ by a mean and a scale."""
    base: Any = field.base_dist
    return field.from_base(base.mean + jnp.sqrt(base.variance) * z)  # type: ignore[attr-defined]
