"""A Gaussian prior on the coefficients of a basis."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from numpyro_inverse._checks import check_broadcast, check_count, check_positive, is_traced
from numpyro_inverse.distributions._normal_sequence import IndependentCoefficients


class SobolevSequence(IndependentCoefficients):
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
