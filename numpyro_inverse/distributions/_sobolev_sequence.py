"""A Gaussian prior on the coefficients of a basis."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from numpyro_inverse._checks import check_broadcast, check_count, check_positive, check_real, check_trailing, is_traced
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution


class SobolevSequence(ReparametrizedDistribution):
    r"""Independent coefficients :math:`\theta_j \sim N(0, \tau^2 j^{-1 - 2\alpha})`, j = 1, ..., J.

    Almost surely in the Sobolev space of order s for every :math:`s < \alpha`, and in none of order
    :math:`s \ge \alpha`. Truncation to J modes makes the prior finite-dimensional: posteriors from n observations of
    coefficients damped by :math:`j^{-s}` contract at the rate of the sequence only while
    :math:`J \gg n^{1 / (1 + 2\alpha + 2s)}`.

    Args:
        num_modes: J.
        smoothness: :math:`\alpha > 0`; may be an array of the batch shape, and may be sampled.
        scale: :math:`\tau > 0`, likewise.

    Raises:
        TypeError: an argument that is no real number.
        ValueError: ``num_modes`` below 1; a smoothness or scale that is not positive and finite (NaN if it is traced).

    References:
        Knapik, van der Vaart & van Zanten, Annals of Statistics 39 (2011) 2626-2657, section 2.
    """

    arg_constraints = {"smoothness": constraints.positive, "scale": constraints.positive}  # noqa: RUF012
    reparametrized_params = ["smoothness", "scale"]  # noqa: RUF012
    support = constraints.real_vector
    pytree_data_fields = ("smoothness", "scale")
    pytree_aux_fields = ("num_modes",)

    def __init__(
        self,
        num_modes: int,
        *,
        smoothness: float | Float[Array, "*batch"],
        scale: float | Float[Array, "*batch"] = 1.0,
        validate_args: bool | None = None,
    ):
        name = "SobolevSequence"
        self.num_modes = check_count(name, "num_modes", num_modes)
        smoothness, scale = check_positive(name, "smoothness", smoothness), check_positive(name, "scale", scale)
        if 0 in check_broadcast(name, smoothness=jnp.shape(smoothness), scale=jnp.shape(scale)):
            raise ValueError(f"{name}: `smoothness` and `scale` must not be empty.")
        dtype = jnp.result_type(float, smoothness, scale)
        self.smoothness, self.scale = jnp.broadcast_arrays(
            *(jnp.where(v > 0, v, jnp.nan) if is_traced(v) else jnp.asarray(v, dtype) for v in (smoothness, scale))
        )
        self.smoothness, self.scale = self.smoothness.astype(dtype), self.scale.astype(dtype)
        super().__init__(jnp.shape(self.scale), (self.num_modes,), validate_args=validate_args)

    @property
    def amplitudes(self) -> Float[Array, "*batch J"]:
        r"""Standard deviations, :math:`\tau j^{-1/2 - \alpha}`."""
        j = jnp.arange(1, self.num_modes + 1, dtype=self.scale.dtype)
        return self.scale[..., None] * j ** (-0.5 - self.smoothness[..., None])

    @property
    def base_dist(self) -> dist.Distribution:
        """White noise."""
        return dist.Normal(jnp.zeros((), self.scale.dtype), 1.0).expand((*self.batch_shape, self.num_modes)).to_event(1)

    def from_base(self, z: Float[Array, "*batch J"]) -> Float[Array, "*batch J"]:
        """Coefficients from white noise."""
        return self.from_coefficients(self.amplitudes * z)

    def from_coefficients(self, w: Float[Array, "*batch J"]) -> Float[Array, "*batch J"]:
        """The coefficients are the event itself."""
        return w

    def log_prob(self, value: Float[Array, "*batch J"]) -> Float[Array, "*batch"]:
        """Log density.

        Raises:
            TypeError: ``value`` is not of real numbers.
            ValueError: its last axis is not of J coefficients.
        """
        value = check_trailing(
            "SobolevSequence.log_prob",
            "value",
            check_real("SobolevSequence.log_prob", "value", value),
            (self.num_modes,),
        )
        return dist.Normal(0.0, self.amplitudes).to_event(1).log_prob(value)

    @property
    def mean(self) -> Float[Array, "*batch J"]:
        """Zero."""
        return jnp.zeros((*self.batch_shape, self.num_modes), self.scale.dtype)

    @property
    def variance(self) -> Float[Array, "*batch J"]:
        """Squared amplitudes."""
        return self.amplitudes**2
