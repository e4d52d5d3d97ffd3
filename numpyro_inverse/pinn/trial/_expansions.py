"""Gaussian processes as trial spaces: truncated expansions whose coefficients are standard normal a priori."""

from __future__ import annotations

from itertools import product

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import brentq
from scipy.special import gamma

from numpyro_inverse._checks import check_count, check_instance, check_nonnegative_number, check_positive_number
from numpyro_inverse.pinn._box import Box
from numpyro_inverse.pinn._parameters import as_point
from numpyro_inverse.pinn.trial._bases import LinearBasis
from numpyro_inverse.pinn.trial._constant import Constant


class ExponentialExpansion(LinearBasis):
    r"""The Karhunen-Loève expansion of the process with covariance :math:`s^2 e^{-|x - x'| / \rho}` on an interval.

    :math:`u(x) = \sum_k \phi_k \sqrt{\lambda_k}\, e_k(x)` with :math:`\phi_k \sim N(0, 1)` a priori. On
    :math:`[-a, a]`, with :math:`c = 1/\rho`, :math:`\lambda = 2 c s^2 / (\omega^2 + c^2)`; the frequencies alternate
    between the roots of :math:`c = \omega \tan \omega a` (cosines) and of :math:`\omega = -c \tan \omega a` (sines).

    Args:
        domain: an interval.
        num: number of terms.
        range: :math:`\rho`, in the domain's units.
        scale: s.

    References:
        Ghanem & Spanos, Stochastic Finite Elements (1991), section 2.3.3.
    """

    coefficients: Float[Array, " k"]
    domain: Box
    frequencies: Constant = eqx.field(static=True)
    amplitudes: Constant = eqx.field(static=True)

    def __init__(self, domain: Box, num: int, *, range: float, scale: float = 1.0):
        here = "ExponentialExpansion"
        self.domain = check_instance(here, "domain", domain, Box, "a Box")
        if domain.ndim != 1:
            raise ValueError(f"{here}: `domain` must be an interval; got {domain.ndim} axes. Take MaternExpansion.")
        num, c = check_count(here, "num", num), 1 / check_positive_number(here, "range", range)
        scale, a = check_positive_number(here, "scale", scale), domain.extent[0] / 2
        index = np.arange(num)
        w = np.array([brentq(_equation(k, c, a), k * np.pi / 2 / a, (k + 1) * np.pi / 2 / a) for k in index])
        sign = np.where(index % 2 == 0, 1, -1)  # cosines, then sines
        norm = np.sqrt(a + sign * np.sin(2 * w * a) / (2 * w))
        self.frequencies = Constant(w)
        self.amplitudes = Constant(scale * np.sqrt(2 * c / (w**2 + c**2)) / norm)
        self.coefficients = jnp.zeros(num)

    def functions(self, x):
        x = as_point("ExponentialExpansion", x, 1)
        a = jnp.asarray(self.domain.extent[0] / 2, x.dtype)
        phase = self.frequencies.like(x) * self.domain.unit(x)[0] * a
        return self.amplitudes.like(x) * jnp.where(jnp.arange(len(phase)) % 2 == 0, jnp.cos(phase), jnp.sin(phase))

    def energy(self) -> float:
        """The share of the process's variance, on average over the interval, that the terms have."""
        w, c = self.frequencies.value, _inverse_range(self)
        return float(np.sum(2 * c / (w**2 + c**2)) / self.domain.extent[0])


def _inverse_range(u: ExponentialExpansion) -> float:
    """From the first root: c = w tan(w a)."""
    w, a = u.frequencies.value[0], u.domain.extent[0] / 2
    return float(w * np.tan(w * a))


def _equation(k, c, a):
    """The k-th frequency is its only root in (k, k + 1) pi / 2a; written without the tangent's poles."""
    if k % 2 == 0:
        return lambda w: c * np.cos(w * a) - w * np.sin(w * a)
    return lambda w: w * np.cos(w * a) + c * np.sin(w * a)


class MaternExpansion(LinearBasis):
    r"""A Matérn process on a box as a truncated series of cosines, in any number of dimensions.

    :math:`u(x) = \sum_k \phi_k \sqrt{S(|\omega_k|)}\, e_k(x)` with :math:`\phi_k \sim N(0, 1)` a priori, the
    eigenfunctions :math:`e_k` of the Laplacian with Neumann conditions on the box widened by ``padding`` on every
    side, and the spectral density

    .. math:: S(\omega) = s^2 \frac{2^d \pi^{d/2} \Gamma(\nu + d/2)}{\Gamma(\nu)} \kappa^{2 \nu}
              (\kappa^2 + \omega^2)^{-\nu - d/2}, \qquad \kappa = \sqrt{2 \nu} / \rho.

    Args:
        domain: the box.
        num: number of terms, the lowest frequencies first.
        range: :math:`\rho`, in the domain's units.
        smoothness: :math:`\nu`; second derivatives need more than 2.
        scale: s.
        padding: in the domain's units; default: the range.

    References:
        Solin & Särkkä, Stat. Comput. 30 (2020) 419-446.
    """

    coefficients: Float[Array, " k"]
    domain: Box
    padding: float = eqx.field(static=True)
    waves: Constant = eqx.field(static=True)
    amplitudes: Constant = eqx.field(static=True)

    def __init__(
        self,
        domain: Box,
        num: int,
        *,
        range: float,
        smoothness: float = 3.5,
        scale: float = 1.0,
        padding: float | None = None,
    ):
        here = "MaternExpansion"
        self.domain = check_instance(here, "domain", domain, Box, "a Box")
        num = check_count(here, "num", num)
        rho, nu = check_positive_number(here, "range", range), check_positive_number(here, "smoothness", smoothness)
        s = check_positive_number(here, "scale", scale)
        self.padding = rho if padding is None else check_nonnegative_number(here, "padding", padding)
        d, length = domain.ndim, np.array(domain.extent) + 2 * self.padding
        k = _lowest(length, num)
        kappa, omega = np.sqrt(2 * nu) / rho, np.pi * k / length
        factor = 2**d * np.pi ** (d / 2) * gamma(nu + d / 2) / gamma(nu) * kappa ** (2 * nu)
        density = s**2 * factor * (kappa**2 + np.sum(omega**2, axis=1)) ** (-nu - d / 2)
        norm = np.prod(np.where(k == 0, 1.0, 2.0) / length, axis=1)
        self.waves, self.amplitudes = Constant(omega), Constant(np.sqrt(density * norm))
        self.coefficients = jnp.zeros(num)

    def functions(self, x):
        x = as_point("MaternExpansion", x, self.domain.ndim)
        from_edge = x - jnp.asarray(self.domain.lower, x.dtype) + self.padding
        return self.amplitudes.like(x) * jnp.prod(jnp.cos(self.waves.like(x) * from_edge), axis=1)


def _lowest(length: np.ndarray, num: int) -> np.ndarray:
    """The ``num`` wave numbers of lowest frequency on a box of those sides, shape (num, d)."""
    side = (
        1 + int(np.ceil(num * max(length) / min(length)))
        if len(length) == 1
        else 2 + int(np.ceil(2 * num ** (1 / len(length)) * max(length) / min(length)))
    )
    every = product(range(side), repeat=len(length))
    ordered = sorted(every, key=lambda k: (float(np.sum((np.array(k) / length) ** 2)), k))
    return np.array(ordered[:num], float)
