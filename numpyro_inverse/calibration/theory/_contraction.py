"""How fast posteriors contract as the noise goes down."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.special import gamma, zeta

from numpyro_inverse._checks import (
    check_count,
    check_finite,
    check_instance,
    check_key,
    check_nonnegative_number,
    check_positive_number,
    check_static,
    describe,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

GUARD = 5.0  # modes over n^(1/q) below which the truncation is felt
GENEROUS = 100.0  # the same by default
MEMBERS = ("risk", "squared_errors", "check", "rate")  # of a family


class Risk(NamedTuple):
    """Squared norms: :math:`E \\int |\\theta - \\theta_0|^2 d\\Pi(\\theta | y)` is the sum of the three."""

    bias: float
    variance: float
    spread: float

    @property
    def total(self) -> float:
        """Mean squared distance of posterior draws from the truth."""
        return self.bias + self.variance + self.spread


class Family(Protocol):
    """A problem observed at precision n, with its posterior in closed form."""

    def risk(self, n: float) -> Risk:
        """Exact squared bias, variance and posterior spread."""

    def squared_errors(self, n: float, rng: np.random.Generator, number: int) -> Float[np.ndarray, " number"]:
        """Squared distances from the truth of one posterior draw per simulated data set."""

    def check(self, n: float) -> None:
        """Raise ValueError where the family cannot show its rate."""

    @property
    def rate(self) -> float:
        """Exponent r of :math:`n^{-r}`, in norm."""


@dataclass(frozen=True)
class SobolevFamily:
    r"""Coefficients :math:`y_j = j^{-s} \theta_j + n^{-1/2} W_j` under the prior
    :math:`\theta_j \sim N(0, j^{-1-2\alpha})` (:class:`~numpyro_inverse.distributions.SobolevSequence`), for the truth
    :math:`\theta_{0,j} = j^{-1/2-\beta}`.

    With :math:`q = 1 + 2\alpha + 2s` the posterior's distance from the truth falls, in norm, like
    :math:`n^{-\min(\alpha, \beta) / q}` (:math:`\beta \le q`); squared norms fall twice as fast.

    Args:
        alpha: prior smoothness.
        ill_posedness: s.
        beta: smoothness of the truth.
        num_modes: J; default: :math:`100\, n^{1/q}` for the largest n, at least 1000.

    Raises:
        TypeError: a parameter that is no number.
        ValueError: a parameter that is not positive and finite (``ill_posedness``: negative).

    References:
        Knapik, van der Vaart & van Zanten, Annals of Statistics 39 (2011) 2626-2657, theorem 4.1.
    """

    alpha: float
    ill_posedness: float
    beta: float
    num_modes: int | None = None

    def __post_init__(self) -> None:
        check_positive_number("SobolevFamily", "alpha", self.alpha)
        check_positive_number("SobolevFamily", "beta", self.beta)
        check_nonnegative_number("SobolevFamily", "ill_posedness", self.ill_posedness)
        if self.num_modes is not None:
            check_count("SobolevFamily", "num_modes", self.num_modes)

    @property
    def q(self) -> float:
        r""":math:`1 + 2\alpha + 2s`."""
        return 1 + 2 * self.alpha + 2 * self.ill_posedness

    @property
    def rate(self) -> float:
        """In norm."""
        return min(self.alpha, self.beta, self.q) / self.q

    def check(self, n: float) -> None:
        r"""Raises ValueError for fewer than :math:`5\, n^{1/q}` modes, which fake the parametric rate."""
        n = check_positive_number("SobolevFamily.check", "n", n)
        if self.num_modes is not None and self.num_modes < GUARD * n ** (1 / self.q):
            raise ValueError(
                f"contraction: `num_modes` = {self.num_modes} modes are too few at n = {n:.3g}: with fewer than "
                f"5 n^(1/q) = {ceil(GUARD * n ** (1 / self.q))} the slope bends to the parametric -1/2."
            )

    def _modes(self, n: float) -> Float[np.ndarray, " J"]:
        number = self.num_modes or max(1000, ceil(GENEROUS * n ** (1 / self.q)))
        return np.arange(1.0, number + 1)

    def _rest(self, j: Float[np.ndarray, " J"]) -> tuple[float, float]:
        """Squared truth and prior variance beyond the last mode, where data have nothing to say; 0 if J was chosen."""
        if self.num_modes is not None:
            return 0.0, 0.0
        return float(zeta(1 + 2 * self.beta, len(j) + 1)), float(zeta(1 + 2 * self.alpha, len(j) + 1))

    def risk(self, n: float) -> Risk:
        """Sums over the modes, and Hurwitz zeta functions for those beyond."""
        j = self._modes(check_positive_number("SobolevFamily.risk", "n", n))
        weight = j**self.q / (j**self.q + n)  # of the prior in each mode
        spread = j ** (2 * self.ill_posedness) / (j**self.q + n)
        variance = n * j ** (2 * self.ill_posedness) / (j**self.q + n) ** 2
        bias_rest, spread_rest = self._rest(j)
        bias = float(np.sum(j ** (-1 - 2 * self.beta) * weight**2)) + bias_rest
        return Risk(bias, float(variance.sum()), float(spread.sum()) + spread_rest)

    def asymptotic(self, n: float) -> Risk:
        r"""The leading terms :math:`C n^{-2\alpha/q}` of variance and spread and :math:`C n^{-2\beta/q}` of the bias:

        .. math:: \text{spread} \sim \frac{\pi / q}{\sin(\pi (2s+1)/q)} n^{-2\alpha/q}, \quad
            \text{variance} \sim \tfrac1q \Gamma(\tfrac{2s+1}{q}) \Gamma(2 - \tfrac{2s+1}{q}) n^{-2\alpha/q}, \quad
            \text{bias} \sim \tfrac1q \Gamma(2 - \tfrac{2\beta}{q}) \Gamma(\tfrac{2\beta}{q}) n^{-2\beta/q}.

        Raises:
            ValueError: :math:`\beta \ge q`, where the bias saturates at :math:`n^{-2}`.
        """
        n = check_positive_number("SobolevFamily.asymptotic", "n", n)
        if self.beta >= self.q:
            raise ValueError(f"SobolevFamily: the bias' constant needs beta < q = {self.q:g}; got {self.beta}.")
        q, middle, smooth = self.q, (2 * self.ill_posedness + 1) / self.q, 2 * self.beta / self.q
        prior = n ** (-2 * self.alpha / q)
        return Risk(
            bias=float(gamma(2 - smooth) * gamma(smooth) / q * n**-smooth),
            variance=float(gamma(middle) * gamma(2 - middle) / q * prior),
            spread=float(np.pi / q / np.sin(np.pi * middle) * prior),
        )

    def squared_errors(self, n: float, rng: np.random.Generator, number: int) -> Float[np.ndarray, " number"]:
        """Simulated mode by mode, in blocks."""
        number = _check_simulation("SobolevFamily.squared_errors", n, rng, number)
        j = self._modes(n)
        total = np.full(number, sum(self._rest(j)))
        for block in np.array_split(j, max(1, len(j) * number // 2**22)):
            truth, kappa, prior = (
                block ** (-0.5 - self.beta),
                block**-self.ill_posedness,
                block ** (-1 - 2 * self.alpha),
            )
            data = kappa * truth + rng.standard_normal((number, len(block))) / np.sqrt(n)
            variance = prior / (1 + n * prior * kappa**2)
            draw = n * variance * kappa * data + np.sqrt(variance) * rng.standard_normal(data.shape)
            total += np.sum((draw - truth) ** 2, axis=1)
        return total


def _check_simulation(where: str, n: float, rng: np.random.Generator, number: int) -> int:
    check_positive_number(where, "n", n)
    check_instance(where, "rng", rng, np.random.Generator, "a numpy.random.Generator")
    return check_count(where, "number", number)


class GeneratorFamily:
    r"""Data :math:`y = K x_0 + n^{-1/2} W` under the latent-generator prior :math:`x = B z`, :math:`z \sim N(0, I_k)`.

    With :math:`M = B^T K^T K B` the latent posterior is :math:`N(n S B^T K^T y, S)`, :math:`S = (I + n M)^{-1}`. The
    distance falls like :math:`n^{-1/2}` once :math:`n \mu_{\min}(M)` is about 20 or more, down to the floor
    :math:`|x_0 - B M^{-1} B^T K^T K x_0|` for a truth off the generator's range.

    Args:
        generator: B, shape (d, k).
        forward: K, shape (m, d).
        truth: :math:`x_0`, shape (d,).

    Raises:
        TypeError: what are no real numbers.
        ValueError: shapes that do not fit, numbers that are not finite; :math:`K B` without full column rank.
    """

    def __init__(self, generator: Float[Array, "d k"], forward: Float[Array, "m d"], truth: Float[Array, " d"]):
        where, given = "GeneratorFamily", {"generator": generator, "forward": forward, "truth": truth}
        b, k, x = (
            np.asarray(check_finite(where, name, check_static(where, name, v)), float) for name, v in given.items()
        )
        if b.ndim != 2 or not b.size or k.ndim != 2 or k.shape[1] != len(b) or x.shape != (len(b),):
            raise ValueError(
                "GeneratorFamily: `generator` must be (d, k), `forward` (m, d) and `truth` (d,); got "
                f"{b.shape}, {k.shape} and {x.shape}."
            )
        self.generator, self.forward, self.truth = b, k, x
        self.information = (k @ b).T @ (k @ b)
        self.smallest = float(np.linalg.eigvalsh(self.information)[0])
        if self.smallest <= 1e-12 * np.trace(self.information):
            raise ValueError(
                f"{where}: `forward` times `generator` must have full column rank; some latents are never seen."
            )

    rate = 0.5

    def check(self, n: float) -> None:
        """Nothing: every n shows something."""
        check_positive_number("GeneratorFamily.check", "n", n)

    @property
    def floor(self) -> float:
        """Distance from the truth that no amount of data removes."""
        b, k, x = self.generator, self.forward, self.truth
        return float(np.linalg.norm(x - b @ np.linalg.solve(self.information, b.T @ (k.T @ (k @ x)))))

    def _gain(self, n: float) -> tuple[np.ndarray, np.ndarray]:
        s = np.linalg.inv(np.eye(len(self.information)) + n * self.information)
        return s, n * self.generator @ s @ self.generator.T @ self.forward.T

    def risk(self, n: float) -> Risk:
        """Traces."""
        n = check_positive_number("GeneratorFamily.risk", "n", n)
        s, gain = self._gain(n)
        bias = float(np.sum((gain @ (self.forward @ self.truth) - self.truth) ** 2))
        return Risk(bias, float(np.sum(gain**2) / n), float(np.trace(self.generator @ s @ self.generator.T)))

    def squared_errors(self, n: float, rng: np.random.Generator, number: int) -> Float[np.ndarray, " number"]:
        """Simulated."""
        number = _check_simulation("GeneratorFamily.squared_errors", n, rng, number)
        s, gain = self._gain(n)
        data = self.forward @ self.truth + rng.standard_normal((number, len(self.forward))) / np.sqrt(n)
        latent = rng.standard_normal((number, len(s))) @ np.linalg.cholesky(s).T
        return np.sum((data @ gain.T + latent @ self.generator.T - self.truth) ** 2, axis=1)


@dataclass(frozen=True)
class Contraction:
    """Distances of posterior draws from the truth, in norm (never squared), over n.

    Attributes:
        noise_levels: noise standard deviations :math:`n^{-1/2}`.
        measured: root mean square distance over simulated data sets.
        standard_error: of ``measured``.
        exact: the same in closed form.
        slope: least-squares slope of log ``exact`` over log n.
        measured_slope: the same of ``measured``.
        slope_error: standard error of ``measured_slope``.
        rate: the theory's exponent; ``slope`` tends to its negative.
    """

    noise_levels: Float[np.ndarray, " levels"]
    measured: Float[np.ndarray, " levels"]
    standard_error: Float[np.ndarray, " levels"]
    exact: Float[np.ndarray, " levels"]
    slope: float
    measured_slope: float
    slope_error: float
    rate: float

    @property
    def table(self) -> DataFrame:
        """One row per noise level."""
        from pandas import DataFrame

        columns = ("noise_levels", "measured", "standard_error", "exact")
        return DataFrame({name: getattr(self, name) for name in columns})

    def verdict(self, level: float = 0.05) -> str:
        """One sentence."""
        return (
            f"Contraction: distance ~ n^{self.measured_slope:.3f} +- {self.slope_error:.3f} measured, "
            f"n^{self.slope:.3f} in closed form; theory n^{-self.rate:.3f} as n grows."
        )

    def plot(self) -> Figure:
        """Distances over n, with the theory's slope."""
        from matplotlib import pyplot as plt

        n = self.noise_levels**-2
        figure, ax = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
        ax.errorbar(n, self.measured, 2 * self.standard_error, fmt="o", ms=4, label="measured")
        ax.plot(n, self.exact, label="closed form")
        guide = self.exact[-1] * (n / n[-1]) ** -self.rate
        ax.plot(n, guide, "--", color="0.5", label=f"slope {-self.rate:.3g}")
        ax.set(xscale="log", yscale="log", xlabel="n = noise$^{-2}$", ylabel="distance from the truth")
        ax.legend(frameon=False, fontsize=8)
        return figure


def contraction(
    family: Family, noise_levels: Float[Array, " levels"], rng_key: Key[Array, ""], *, num_datasets: int = 200
) -> Contraction:
    r"""Measure :math:`r_n = (E \int |\theta - \theta_0|^2 d\Pi(\theta \mid y))^{1/2}` over n and fit its slope.

    Args:
        family: :class:`SobolevFamily` or :class:`GeneratorFamily`.
        noise_levels: two or more noise standard deviations :math:`n^{-1/2}`.
        rng_key: a JAX random key.
        num_datasets: simulated data sets per level.

    Raises:
        TypeError: ``family`` lacks what a family has.
        ValueError: fewer than two different levels, a level that is not positive, too few modes for the largest n.
    """
    if isinstance(family, type) or not all(hasattr(family, name) for name in MEMBERS):
        raise TypeError(
            f"contraction: `family` must be a SobolevFamily or a GeneratorFamily, or have their members; got "
            f"{describe(family)}."
        )
    check_key("contraction", "rng_key", rng_key)
    check_static("contraction", "noise_levels", noise_levels)
    levels = np.sort(np.ravel(np.asarray(check_finite("contraction", "noise_levels", noise_levels), float)))[::-1]
    if len(np.unique(levels)) < 2 or not np.all((levels > 0) & np.isfinite(levels)):
        raise ValueError(
            f"contraction: `noise_levels` must be two or more different positive numbers; got {noise_levels}."
        )
    num_datasets = check_count("contraction", "num_datasets", num_datasets, 2)
    n = levels**-2
    family.check(float(n[-1]))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).ravel())
    squares = np.stack([family.squared_errors(float(v), rng, num_datasets) for v in n])
    measured = np.sqrt(squares.mean(axis=1))
    error = squares.std(axis=1, ddof=1) / np.sqrt(num_datasets) / (2 * measured)
    exact = np.sqrt([family.risk(float(v)).total for v in n])
    off = np.log(n) - np.mean(np.log(n))
    leverage = off / np.sum(off**2)
    return Contraction(
        noise_levels=levels,
        measured=measured,
        standard_error=error,
        exact=exact,
        slope=float(leverage @ np.log(exact)),
        measured_slope=float(leverage @ np.log(measured)),
        slope_error=float(np.sqrt(np.sum((leverage * error / measured) ** 2))),
        rate=family.rate,
    )
