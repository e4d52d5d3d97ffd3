"""Independent normal coefficients of a basis."""

from __future__ import annotations

from abc import abstractmethod

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from numpyro_inverse._checks import check_positive, check_real, check_trailing, is_traced
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution


class IndependentCoefficients(ReparametrizedDistribution):
    r"""The law of :math:`w_k = a_k z_k`, z white noise. A subclass gives ``amplitudes``."""

    support = constraints.real_vector

    @property
    @abstractmethod
    def amplitudes(self) -> Float[Array, "*batch m"]:
        """The standard deviations."""

    @property
    def base_dist(self) -> dist.Distribution:
        """White noise."""
        white = dist.Normal(jnp.zeros((), self.amplitudes.dtype), 1.0)
        return white.expand(self.batch_shape + self.event_shape).to_event(1)

    def from_base(self, z: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
        """Coefficients from white noise."""
        return self.from_coefficients(self.amplitudes * z)

    def from_coefficients(self, w: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
        """The coefficients are the event itself."""
        return w

    def log_prob(self, value: Float[Array, "*batch m"]) -> Float[Array, "*batch"]:
        """Log density.

        Raises:
            TypeError: ``value`` is not of real numbers.
            ValueError: its last axis is not of m coefficients.
        """
        where = f"{type(self).__name__}.log_prob"
        value = check_trailing(where, "value", check_real(where, "value", value), self.event_shape)
        return dist.Normal(0.0, self.amplitudes).to_event(1).log_prob(value)

    @property
    def mean(self) -> Float[Array, "*batch m"]:
        """Zero."""
        return jnp.zeros(self.batch_shape + self.event_shape, self.amplitudes.dtype)

    @property
    def variance(self) -> Float[Array, "*batch m"]:
        """Squared amplitudes."""
        return self.amplitudes**2


class NormalSequence(IndependentCoefficients):
    r"""Independent coefficients :math:`w_k \sim N(0, a_k^2)`, k = 1, ..., m.

    The law of a Gaussian field's coefficients in a basis: what a model samples where it reads the field through few
    functionals of the basis (values at the places of some data) and needs no values on a mesh. Unlike those, the
    coefficients have a density. :func:`~numpyro_inverse.infer.fit_coordinates` chooses how far to center each of them,
    and :class:`~numpyro_inverse.infer.LatentGaussian` integrates them out.

    >>> from numpyro_inverse.distributions import NormalSequence
    >>> float(NormalSequence([2.0, 0.5]).variance.sum())
    4.25

    Args:
        amplitudes: the standard deviations a, of shape ``batch + (m,)``. May be traced.

    Raises:
        TypeError: ``amplitudes`` are no real numbers.
        ValueError: they are not positive and finite (NaN if they are traced), or have no axis of coefficients.
    """

    arg_constraints = {"amplitudes": constraints.independent(constraints.positive, 1)}  # noqa: RUF012
    reparametrized_params = ["amplitudes"]  # noqa: RUF012
    pytree_data_fields = ("_amplitudes",)

    def __init__(self, amplitudes: Float[Array, "*batch m"], *, validate_args: bool | None = None):
        given = check_positive(type(self).__name__, "amplitudes", amplitudes)
        shape = jnp.shape(given)
        if not shape or 0 in shape:
            raise ValueError(
                f"{type(self).__name__}: `amplitudes` must have shape batch + (m,), m >= 1; got shape {shape}."
            )
        array = jnp.asarray(given, jnp.result_type(float, given))
        self._amplitudes = jnp.where(array > 0, array, jnp.nan) if is_traced(given) else array
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def amplitudes(self) -> Float[Array, "*batch m"]:
        """The standard deviations."""
        return self._amplitudes
