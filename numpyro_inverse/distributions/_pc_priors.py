"""Penalized-complexity priors for the range and the standard deviation of a Matérn field."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, Exponential, constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from numpyro_inverse._checks import check_broadcast, check_count, check_positive, check_real, is_traced, show


class PCRange(Distribution):
    r"""The penalized-complexity prior of a field's range :math:`\rho` in :math:`d` dimensions, given by
    :math:`P(\rho < \rho_0) = p`:

    .. math:: p(\rho) = \frac{d}{2} \lambda \rho^{-1 - d/2} e^{-\lambda \rho^{-d/2}}, \qquad
        P(\rho < r) = e^{-\lambda r^{-d/2}}, \qquad \lambda = -\rho_0^{d/2} \log p .

    It shrinks towards an infinite range, a field that is a constant. Together with :class:`PCScale` it is the joint
    prior of Fuglstad et al., under which range and scale are independent.

    Args:
        lower: :math:`\rho_0`, a range below which the field's is unlikely to be, in length units.
        probability: :math:`p` in (0, 1), that it is below.
        ndim: :math:`d`, dimension of the domain; 2 on a surface.

    Raises:
        TypeError: what is no real number.
        ValueError: ``lower`` that is not positive, ``probability`` outside (0, 1), or ``ndim`` that is no positive
            integer.

    References:
        Fuglstad, Simpson, Lindgren & Rue, JASA 114 (2019) 445-452, theorem 2.6.
    """

    arg_constraints = {"lower": constraints.positive, "probability": constraints.unit_interval}  # noqa: RUF012
    support = constraints.positive
    reparametrized_params = ["lower", "probability"]  # noqa: RUF012
    pytree_data_fields = ("lower", "probability")
    pytree_aux_fields = ("ndim",)

    def __init__(
        self,
        lower: float | Float[Array, "*batch"],
        probability: float | Float[Array, "*batch"] = 0.05,
        *,
        ndim: int = 2,
        validate_args: bool | None = None,
    ):
        lower = check_positive("PCRange", "lower", lower)
        probability = _check_probability("PCRange", probability)
        self.ndim = check_count("PCRange", "ndim", ndim)
        batch = check_broadcast("PCRange", lower=jnp.shape(lower), probability=jnp.shape(probability))
        self.lower, self.probability = promote_shapes(jnp.asarray(lower, float), jnp.asarray(probability, float))
        super().__init__(batch, validate_args=validate_args)

    @property
    def _rate(self) -> Array:
        r""":math:`\lambda / \rho_0^{d/2}`."""
        return -jnp.log(self.probability)

    def sample(self, key, sample_shape=()):
        """Draws of shape ``sample_shape + batch_shape``."""
        noise = jax.random.exponential(key, sample_shape + self.batch_shape, self.lower.dtype)
        return self.lower * (self._rate / noise) ** (2 / self.ndim)

    @validate_sample
    def log_prob(self, value, intermediates=None):
        r"""Log density, in units of one over the range's."""
        t = self._rate * (value / self.lower) ** (-self.ndim / 2)
        return jnp.log(self.ndim / 2) + jnp.log(t) - t - jnp.log(value)

    def cdf(self, value):
        r""":math:`P(\rho < r)`."""
        return jnp.exp(-self._rate * (value / self.lower) ** (-self.ndim / 2))

    def icdf(self, q):
        r"""The quantile, :math:`\rho_0 (\log p / \log q)^{2/d}`."""
        return self.lower * (-self._rate / jnp.log(q)) ** (2 / self.ndim)

    @property
    def mean(self):
        r""":math:`\rho_0 (-\log p)^{2/d} \Gamma(1 - 2/d)`; infinite for :math:`d \le 2`."""
        return jnp.broadcast_to(self._moment(1), self.batch_shape)

    @property
    def variance(self):
        """Infinite for :math:`d \\le 4`."""
        second = self._moment(2)
        variance = jnp.where(jnp.isfinite(second), second - self._moment(1) ** 2, jnp.inf)
        return jnp.broadcast_to(variance, self.batch_shape)

    def _moment(self, k: int) -> Array:
        power = 2 * k / self.ndim
        if power >= 1:
            return jnp.full(jnp.shape(self._rate), jnp.inf)
        return self.lower**k * self._rate**power * jnp.exp(jax.scipy.special.gammaln(1 - power))


class PCScale(Exponential):
    r"""The penalized-complexity prior of a standard deviation :math:`\sigma`, given by :math:`P(\sigma > \sigma_0) =
    p`: exponential with rate :math:`-\log(p) / \sigma_0`, which shrinks towards no field at all.

    Args:
        upper: :math:`\sigma_0`, a standard deviation above which the field's is unlikely to be, in its unit.
        probability: :math:`p` in (0, 1), that it is above.

    Raises:
        TypeError: what is no real number.
        ValueError: ``upper`` that is not positive, or ``probability`` outside (0, 1).

    References:
        Simpson, Rue, Riebler, Martins & Sørbye, Statistical Science 32 (2017) 1-28, section 3.3; Fuglstad, Simpson,
        Lindgren & Rue, JASA 114 (2019) 445-452, theorem 2.6.
    """

    def __init__(
        self,
        upper: float | Float[Array, "*batch"],
        probability: float | Float[Array, "*batch"] = 0.05,
        *,
        validate_args: bool | None = None,
    ):
        upper = check_positive("PCScale", "upper", upper)
        probability = _check_probability("PCScale", probability)
        check_broadcast("PCScale", upper=jnp.shape(upper), probability=jnp.shape(probability))
        super().__init__(-jnp.log(jnp.asarray(probability, float)) / jnp.asarray(upper), validate_args=validate_args)


def _check_probability(where: str, value: Any) -> Any:
    array = check_real(where, "probability", value)
    if not is_traced(array):
        values = np.asarray(array)
        if not np.all((values > 0) & (values < 1)):
            raise ValueError(f"{where}: `probability` must be in (0, 1); got {show(value)}.")
    return array
