"""The smallest posterior with two modes: a square observed with noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.special import gamma, hyp1f1, hyperu

from numpyro_inverse._checks import (
    check_count,
    check_key,
    check_number,
    check_positive_number,
    check_real,
    check_static,
)

LARGEST_RATIO = 37.0  # of data to noise, where e^(z^2 / 2) leaves double precision
CELLS = 20001  # of the table that draws are inverted from


class SignSymmetric:
    r"""The posterior of :math:`y = u^2 + \sigma \xi`, :math:`u \sim N(0, 1)`, which is even in u.

    With :math:`a = 1 / (2 \sigma^2)`, :math:`b = 1/2 - y / \sigma^2`, :math:`z = b / \sqrt{2a}` and
    :math:`\nu = (p + 1) / 2`,

    .. math:: \int |u|^p e^{-a u^4 - b u^2} du = (2a)^{-\nu/2}\, \Gamma(\nu)\, e^{z^2/4} D_{-\nu}(z)

    with the parabolic cylinder function :math:`D_{-\nu}` (DLMF 12.5.1).

    Args:
        y: the datum.
        sigma: noise standard deviation.

    Raises:
        ValueError: ``sigma`` not positive, or data beyond 37 noise standard deviations either way.
    """

    def __init__(self, y: float, sigma: float):
        y = self.y = check_number("SignSymmetric", "y", y)
        sigma = self.sigma = check_positive_number("SignSymmetric", "sigma", sigma)
        self.a, self.b = 1 / (2 * sigma**2), 0.5 - y / sigma**2
        if abs(self.b) > LARGEST_RATIO * np.sqrt(2 * self.a):
            raise ValueError(
                f"SignSymmetric: |`y`| / `sigma` must stay below {LARGEST_RATIO:g}; got {abs(y) / sigma:.3g}."
            )

    def _integral(self, p: float) -> float:
        """int |u|^p exp(-a u^4 - b u^2) du."""
        nu, z = (p + 1) / 2, self.b / np.sqrt(2 * self.a)
        x = z**2 / 2
        if z > 0:  # e^(z^2/4) D_-nu(z), DLMF 12.7.14
            cylinder = 2 ** (-nu / 2) * hyperu(nu / 2, 0.5, x)
        else:  # DLMF 12.2.6 and 12.7.12-13; both terms are positive
            cylinder = (
                2 ** (-nu / 2)
                * np.sqrt(np.pi)
                * (
                    hyp1f1(nu / 2, 0.5, x) / gamma((nu + 1) / 2)
                    - np.sqrt(2) * z * hyp1f1((nu + 1) / 2, 1.5, x) / gamma(nu / 2)
                )
            )
        return float((2 * self.a) ** (-nu / 2) * gamma(nu) * cylinder)

    @property
    def evidence(self) -> float:
        """Z(y), the density of the datum."""
        return float(np.exp(-(self.y**2) / (2 * self.sigma**2)) * self._integral(0) / (2 * np.pi * self.sigma))

    def absolute_moment(self, p: float) -> float:
        """:math:`E |u|^p`, p > -1.

        Raises:
            ValueError: p is -1 or less.
        """
        p = check_number("SignSymmetric.absolute_moment", "p", p)
        if not p > -1:
            raise ValueError(f"SignSymmetric.absolute_moment: `p` must be above -1; got {p}.")
        return self._integral(p) / self._integral(0)

    def density(self, u: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The posterior density."""
        where = "SignSymmetric.density"
        u = np.asarray(check_real(where, "u", check_static(where, "u", u)), float)
        return np.exp(-self.a * u**4 - self.b * u**2) / self._integral(0)

    def draw(self, rng_key: Key[Array, ""], number: int) -> Float[Array, " n"]:
        """Independent draws: :math:`|u|` by inversion of a fine table, and a random sign."""
        check_key("SignSymmetric.draw", "rng_key", rng_key)
        number = check_count("SignSymmetric.draw", "number", number, 0)
        top = np.sqrt(max(self.y, 0.0) + 10 * self.sigma) + 1
        grid = np.linspace(0, top, CELLS)
        middle = (grid[1:] + grid[:-1]) / 2
        table = np.concatenate([[0.0], np.cumsum(self.density(middle))])
        key_u, key_sign = jax.random.split(rng_key)
        size = jnp.interp(jax.random.uniform(key_u, (number,)), jnp.asarray(table / table[-1]), jnp.asarray(grid))
        return size * jax.random.rademacher(key_sign, (number,), size.dtype)
