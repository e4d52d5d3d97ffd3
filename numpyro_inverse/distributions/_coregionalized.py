"""Several correlated fields, as a triangular mixture of independent ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from numpyro_inverse._checks import check_broadcast, check_finite, check_instance, check_real, check_trailing, is_traced
from numpyro_inverse.distributions._autoregressive_field import check_field, from_white_noise, white_noise
from numpyro_inverse.distributions._precision_factors import (
    Entries,
    PrecisionFactors,
    mixture_entries,
    mixture_factors,
)
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution, domain_of
from numpyro_inverse.domains._stacked import Stacked


class Coregionalized(ReparametrizedDistribution):
    r"""Correlated fields on one domain: the linear model of coregionalization,

    .. math:: u_a = \sum_{b \le a} L_{ab}\, w_b, \qquad w_b \sim \text{fields}[b] \text{ independent}, \qquad
        \operatorname{Cov}(u_a(x), u_c(y)) = \sum_b L_{ab} L_{cb}\, C_b(x, y),

    with a lower triangle L. Where the fields have scale 1, :math:`L L^{\mathsf T}` is the covariance of the values at
    one place. With n places,

    .. math:: \log p(u) = \sum_b \log p_b\bigl((L^{-1} u)_b\bigr) - n \sum_b \log |L_{bb}| .

    Values have the shape ``(number of fields, *event_shape of one)``. The domain is a
    :class:`~numpyro_inverse.domains.Stacked` one with the axis ``component``.

    Args:
        fields: Gaussian fields made of white noise, such as :class:`Matern`, of one event shape; ranges may differ.
        mixing: L, of shape ``batch + (number, number)``.

    Raises:
        TypeError: ``fields`` are none, or ``mixing`` not real numbers.
        ValueError: fields of different shapes or domains, a mixing matrix of another shape, with numbers above its
            diagonal or zeros on it (a traced one gives NaN).

    References:
        Gelfand, Schmidt, Banerjee & Sirmans, TEST 13 (2004) 263-312, section 3; Wackernagel, Multivariate Geostatistics
        (2003), chapter 26.
    """

    arg_constraints = {"mixing": constraints.independent(constraints.real, 2)}  # noqa: RUF012
    reparametrized_params = ["mixing"]  # noqa: RUF012
    pytree_data_fields = ("fields", "mixing")

    def __init__(
        self,
        fields: Sequence[Distribution],
        mixing: Float[Array, "*batch k k"],
        *,
        validate_args: bool | None = None,
    ):
        name = "Coregionalized"
        check_instance(name, "fields", fields, Sequence, "a sequence of fields")
        if not fields:
            raise ValueError(f"{name}: `fields` is empty.")
        self.fields = tuple(check_field(name, f"fields[{i}]", field) for i, field in enumerate(fields))
        shapes = {(field.event_shape, field.base_dist.event_shape) for field in self.fields}
        if len(shapes) > 1:
            found = ", ".join(str(field.event_shape) for field in self.fields)
            raise ValueError(f"{name}: `fields` must have one event shape and the same base; got {found}.")
        if any(domain_of(field) != domain_of(self.fields[0]) for field in self.fields):
            found = ", ".join(str(domain_of(field)) for field in self.fields)
            raise ValueError(f"{name}: `fields` must be on one domain; got {found}.")
        count = len(self.fields)
        mixing = check_trailing(name, "mixing", check_finite(name, "mixing", mixing), (count, count))
        if not is_traced(mixing):
            numbers = np.asarray(mixing)
            if np.any(np.triu(numbers, 1)) or not np.all(np.diagonal(numbers, axis1=-2, axis2=-1)):
                raise ValueError(f"{name}: `mixing` must be a lower triangle without zeros on its diagonal.")
        self.mixing = jnp.asarray(mixing, jnp.result_type(float, mixing))
        if is_traced(mixing):
            wrong = jnp.any(jnp.triu(self.mixing, 1) != 0, axis=(-2, -1), keepdims=True)
            wrong |= jnp.any(jnp.diagonal(self.mixing, axis1=-2, axis2=-1) == 0, axis=-1)[..., None, None]
            self.mixing = jnp.where(wrong, jnp.nan, self.mixing)
        each = {f"fields_{i}": field.batch_shape for i, field in enumerate(self.fields)}
        batch = check_broadcast(name, mixing=self.mixing.shape[:-2], **each)
        self.mixing = jnp.broadcast_to(self.mixing, (*batch, count, count))
        super().__init__(batch, (count, *self.fields[0].event_shape), validate_args=validate_args)

    @property
    def support(self):
        """Real numbers."""
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def domain(self) -> Stacked | None:
        """The fields', once for each."""
        space = domain_of(self.fields[0])
        return None if space is None else Stacked(space, "component", len(self.fields))

    @property
    def base_dist(self):
        """White noise, for each of the independent fields."""
        return white_noise(self.fields[0], self.batch_shape, len(self.fields))

    def from_base(self, z):
        """The mixture of the fields driven by white noise."""
        noise = jnp.moveaxis(z, -1 - self.fields[0].base_dist.event_dim, 0)
        return self._mix([from_white_noise(field, noise[i]) for i, field in enumerate(self.fields)])

    def _mix(self, w: list[Array]) -> Array:
        return self._stack([sum(self._entry(a, b) * w[b] for b in range(a + 1)) for a in range(len(w))])  # type: ignore[misc]

    def _entry(self, a: int, b: int) -> Array:
        return self.mixing[..., a, b][(..., *(None,) * self.fields[0].event_dim)]

    def _stack(self, parts: list[Array]) -> Array:
        return jnp.stack(jnp.broadcast_arrays(*parts), axis=-1 - self.fields[0].event_dim)

    @validate_sample
    def log_prob(self, value, intermediates=None):
        """Log density, by the triangular map back to the independent fields.

        Raises:
            TypeError, ValueError: ``value`` is not of real numbers, or of another shape; as the fields'.
        """
        name = "Coregionalized.log_prob"
        value = jnp.asarray(check_trailing(name, "value", check_real(name, "value", value), self.event_shape))
        check_broadcast(name, value=value.shape[: -self.event_dim], batch=self.batch_shape)
        u = jnp.moveaxis(value, -1 - self.fields[0].event_dim, 0)
        w: list[Array] = []
        for a in range(len(self.fields)):
            w.append((u[a] - sum(self._entry(a, b) * w[b] for b in range(a))) / self._entry(a, a))
        density = sum(field.log_prob(x) for field, x in zip(self.fields, w, strict=True))
        diagonal = jnp.diagonal(self.mixing, axis1=-2, axis2=-1)
        return density - prod(self.fields[0].event_shape) * jnp.sum(jnp.log(jnp.abs(diagonal)), axis=-1)

    @property
    def precision_entries(self) -> Entries | None:
        """Where :meth:`precision_factors` have entries; None where a field has none, and for a batch."""
        each: list[Any] = [getattr(field, "precision_entries", None) for field in self.fields]
        if self.batch_shape or any(entries is None for entries in each):
            return None
        return mixture_entries(each[0], prod(self.fields[0].event_shape), len(self.fields), self._pairs)

    def precision_factors(self) -> PrecisionFactors:
        r"""The precision by sparse matrices on ``precision_entries``."""
        fields: Any = self.fields
        size, count = prod(fields[0].event_shape), len(fields)
        inverse = solve_triangular(self.mixing, jnp.eye(count, dtype=self.mixing.dtype), lower=True)
        own, below = jnp.diagonal(inverse), inverse[self._pairs[:, 0], self._pairs[:, 1]]
        parts = [field.precision_factors() for field in fields]
        return mixture_factors(parts, fields[0].precision_entries, size, own, below, self._pairs)

    @property
    def _pairs(self) -> np.ndarray:
        """Each field with those before it."""
        return np.stack(np.tril_indices(len(self.fields), -1), axis=1)

    @property
    def mean(self):
        """L times the fields' means."""
        shape = self.batch_shape + self.event_shape
        return jnp.broadcast_to(self._mix([field.mean for field in self.fields]), shape)

    @property
    def variance(self):
        """The squares of L times the fields' variances."""
        v = [field.variance for field in self.fields]
        parts = [sum(self._entry(a, b) ** 2 * v[b] for b in range(a + 1)) for a in range(len(v))]
        return jnp.broadcast_to(self._stack(parts), self.batch_shape + self.event_shape)  # type: ignore[arg-type]
