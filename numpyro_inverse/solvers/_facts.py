"""What is known of a data term, a denoiser and a solver's map: certified where it can be, else estimated at points."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse.denoisers import Certificate
from numpyro_inverse.denoisers._denoiser import certificates_of, denoised, has_potential
from numpyro_inverse.solvers._data_term import DataTerm
from numpyro_inverse.solvers._fixed_point import Iteration
from numpyro_inverse.solvers._jacobian import asymmetry, jacobian_norm, least_curvature

HERE = "convergence_report"


class Facts:
    """Bounds of one data term, one denoiser and one map; each is found when it is first asked for."""

    def __init__(
        self,
        term: DataTerm,
        denoiser: Callable,
        sigma: Float[Array, ""],
        iteration: Iteration,
        points: Float[Array, "points *shape"],
        key: Array,
    ):
        self.term, self.iteration, self.points = term, iteration, points
        self.denoise = jax.tree_util.Partial(_at_level, denoiser, sigma)
        self.keys = iter(jax.random.split(key, 8))
        self.has_potential = has_potential(denoiser)
        self.certificates = certificates_of(HERE, denoiser, sigma)
        firm = self.certificates.get("firm")
        if firm is not None:  # D = (I + N) / 2 and I - D = (I - N) / 2, N = 2 D - I
            half = firm._replace(bound=(1 + float(firm.bound)) / 2, method=f"(1 + Lip(2 D - I)) / 2: {firm.method}")
            for name in ("lipschitz", "residual"):
                known = self.certificates.get(name)
                if known is None or (firm.certified and (not known.certified or known.bound > half.bound)):
                    self.certificates[name] = half

    def _of_denoiser(self, name: str, function: Callable) -> Certificate:
        known = self.certificates.get(name)
        if known is not None:
            return known._replace(bound=float(known.bound))
        return self._estimate(
            jacobian_norm(jax.tree_util.Partial(function, self.denoise), self.points, next(self.keys))
        )

    def _estimate(self, value: Any) -> Certificate:
        if not math.isfinite(value):
            raise ValueError(
                f"{HERE}: a Jacobian of the denoiser or the data term is not finite at one of the `points`; say where "
                "the solver will be, or mend what returns NaN there."
            )
        return Certificate(float(value), f"power iteration at {count(self.points)}", False)

    @cached_property
    def lipschitz(self) -> Certificate:
        """Lip(D)."""
        return self._of_denoiser("lipschitz", _itself)

    @cached_property
    def residual(self) -> Certificate:
        """Lip(I - D)."""
        return self._of_denoiser("residual", _residual)

    @cached_property
    def firm(self) -> Certificate:
        """Lip(2 D - I)."""
        return self._of_denoiser("firm", _reflection)

    @cached_property
    def gamma(self) -> float:
        """Of the cocoercivity: 1 / Lip(D), at most 1; an estimate of Lip(D) is given a tenth more."""
        return 1.0 / max(1.0, self.lipschitz.bound * (1.0 if self.lipschitz.certified else 1.1))

    @cached_property
    def cocoercive(self) -> Certificate:
        """Lip(2 gamma D - I)."""
        if self.gamma == 1:
            return self.firm
        scaled = jax.tree_util.Partial(_scaled_reflection, self.denoise, jnp.asarray(self.gamma, self.points.dtype))
        return self._estimate(jacobian_norm(scaled, self.points, next(self.keys)))

    @cached_property
    def asymmetry(self) -> float:
        """|Jv - J'v| / |Jv|."""
        return float(asymmetry(self.denoise, self.points, next(self.keys)))

    @cached_property
    def smoothness(self) -> Certificate:
        """L."""
        known = self.term.lipschitz()
        if known is not None:
            return known
        return self._estimate(jacobian_norm(_gradient(self.term), self.points, next(self.keys)))

    @cached_property
    def convexity(self) -> Certificate:
        """mu, negative where f is not convex."""
        known = self.term.strong_convexity()
        if known is not None:
            return known
        largest = jnp.asarray(self.smoothness.bound, self.points.dtype)
        return self._estimate(least_curvature(_gradient(self.term), self.points, largest, next(self.keys)))

    @cached_property
    def map(self) -> Certificate:
        """Lip(T), which nothing certifies."""
        return self._estimate(jacobian_norm(self.iteration, self.points, next(self.keys)))


def count(points: Array) -> str:
    """How many points, in words."""
    return f"{len(points)} point" + "s" * (len(points) != 1)


def _gradient(term: DataTerm) -> Callable:
    return jax.tree_util.Partial(_gradient_at, term)


def _gradient_at(term: DataTerm, x: Array) -> Array:
    return term.gradient(x)


def _at_level(denoiser: Callable, sigma: Array, x: Array) -> Array:
    return denoised(HERE, denoiser, x, sigma)


def _itself(denoise: Callable, x: Array) -> Array:
    return denoise(x)


def _residual(denoise: Callable, x: Array) -> Array:
    return x - denoise(x)


def _reflection(denoise: Callable, x: Array) -> Array:
    return 2 * denoise(x) - x


def _scaled_reflection(denoise: Callable, gamma: Array, x: Array) -> Array:
    return 2 * gamma * denoise(x) - x
