"""The circularly symmetric complex normal distribution: noise of Fourier coefficients and visibilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from numpyro_inverse._checks import check_broadcast, check_numeric, check_real


class ComplexNormal(Distribution):
    r"""Complex numbers whose real and imaginary parts are independent, each of standard deviation ``scale``,

    .. math:: z = \mu + \sigma (\epsilon_1 + i \epsilon_2), \quad \epsilon \sim N(0, I), \qquad
        \log p(z) = -\frac{|z - \mu|^2}{2 \sigma^2} - 2 \log \sigma - \log 2 \pi,

    a density on the plane. **Convention**: :math:`\sigma` is the standard deviation of *each part*, as scanners and
    correlators state it, so that :math:`E |z - \mu|^2 = 2 \sigma^2` is the ``variance``; the literature's
    :math:`CN(\mu, \Gamma)` has :math:`\Gamma = 2 \sigma^2`. Relations between the parts (real signals' spectra) are not
    described: observe each independent coefficient once.

    >>> numpyro.sample("kspace", ComplexNormal(A @ u, 0.1).to_event(1), obs=y)

    Args:
        loc: :math:`\mu`, real or complex.
        scale: :math:`\sigma > 0`.

    Raises:
        TypeError: no numbers, or a complex ``scale``.
        ValueError: shapes that do not broadcast, of the parameters or of a value.

    References:
        Goodman, Annals of Mathematical Statistics 34 (1963) 152-177.
    """

    arg_constraints = {"loc": constraints.complex, "scale": constraints.positive}  # noqa: RUF012
    reparametrized_params = ["loc", "scale"]  # noqa: RUF012
    support = constraints.complex
    pytree_data_fields = ("real", "imag", "scale")  # real numbers, so that they are differentiated like any others

    def __init__(
        self,
        loc: Complex[Array, "*batch"] | complex = 0.0,
        scale: Float[Array, "*batch"] | float = 1.0,
        *,
        validate_args: bool | None = None,
    ):
        loc, scale = check_numeric("ComplexNormal", "loc", loc), check_real("ComplexNormal", "scale", scale)
        check_broadcast("ComplexNormal", loc=jnp.shape(loc), scale=jnp.shape(scale))
        dtype = jnp.result_type(float, jnp.real(loc), scale)
        real, imag, scale = (jnp.asarray(v, dtype) for v in (jnp.real(loc), jnp.imag(loc), scale))
        self.real, self.imag, self.scale = jnp.broadcast_arrays(real, imag, scale)
        super().__init__(jnp.shape(self.scale), (), validate_args=validate_args)

    @property
    def loc(self) -> Complex[Array, "*batch"]:
        r""":math:`\mu`."""
        return jax.lax.complex(self.real, self.imag)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Complex[Array, "..."]:
        """Draws of shape ``sample_shape + batch_shape``."""
        shape = (2, *sample_shape, *self.batch_shape)
        noise = jax.random.normal(key, shape, self.scale.dtype)
        return jax.lax.complex(self.real + self.scale * noise[0], self.imag + self.scale * noise[1])

    @validate_sample
    def log_prob(self, value: Complex[Array, "..."]) -> Float[Array, "..."]:
        """Log density per element, with respect to area in the plane."""
        check_broadcast("ComplexNormal.log_prob", value=jnp.shape(value), distribution=self.batch_shape)
        squared = (jnp.real(value) - self.real) ** 2 + (jnp.imag(value) - self.imag) ** 2
        return -0.5 * squared / self.scale**2 - 2 * jnp.log(self.scale) - np.log(2 * np.pi)

    @property
    def mean(self) -> Complex[Array, "*batch"]:
        r""":math:`\mu`."""
        return self.loc

    @property
    def variance(self) -> Float[Array, "*batch"]:
        r""":math:`E |z - \mu|^2 = 2 \sigma^2`."""
        return 2 * self.scale**2
