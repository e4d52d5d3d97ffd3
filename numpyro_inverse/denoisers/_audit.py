"""What the field of a denoiser is at given points, and which solvers and samplers that leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_finite, check_key, check_positive_number, check_static
from numpyro_inverse.denoisers._denoiser import (
    Denoise,
    certificates_of,
    check_array,
    check_denoiser,
    denoised,
    has_potential,
    potential_of,
)
from numpyro_inverse.denoisers._krylov import largest_singular_value
from numpyro_inverse.denoisers._recommendation import Recommendation, recommend

HERE = "audit_denoiser"
STEP, NODES = 0.05, 5  # half of the line on which a potential is compared with its field, in lengths of the field
NORMS = ("lipschitz", "residual", "firm", "cocoercive")


class Measured(NamedTuple):
    """One number of an audit.

    Attributes:
        value: at the worst of the points; of a certificate, what it bounds the number by.
        error: its Monte Carlo standard error; 0 where nothing is random.
        kind: ``"estimate"``, at the given points, or ``"certificate"``, everywhere.
        estimate: what was found at the points, in either case.
    """

    value: float
    error: float
    kind: str
    estimate: float


class DenoiserAudit(NamedTuple):
    """What :func:`audit_denoiser` found; ``print`` it.

    Attributes:
        asymmetry: :math:`\\lVert J - J^{\\mathsf T} \\rVert_F / \\lVert J \\rVert_F`; 0: the field has a potential.
        lipschitz: :math:`\\lVert J \\rVert`.
        residual: :math:`\\lVert I - J \\rVert`.
        firm: :math:`\\lVert 2 J - I \\rVert`.
        cocoercive: :math:`\\lVert 2 \\gamma J - I \\rVert`.
        gamma: of the last.
        homogeneity: :math:`\\lVert J x - D(x) \\rVert / \\lVert D(x) \\rVert`, the limit of
            :math:`\\lVert D((1 + e) x) - (1 + e) D(x) \\rVert / (e \\lVert D(x) \\rVert)`.
        potential: how far differences of U are from the work of :math:`(x - D(x)) / \\sigma^2` on short lines, relative
            to it; None if there is none.
        sigma: the noise level.
        recommendation: solvers and samplers, or none, and why.
    """

    asymmetry: Measured
    lipschitz: Measured
    residual: Measured
    firm: Measured
    cocoercive: Measured
    gamma: float
    homogeneity: Measured
    potential: Measured | None
    sigma: float
    recommendation: Recommendation

    def __str__(self) -> str:
        rows = [
            ("|J - J'|_F / |J|_F", self.asymmetry),
            ("|J|", self.lipschitz),
            ("|I - J|", self.residual),
            ("|2 J - I|", self.firm),
            (f"|2 gamma J - I|, gamma = {self.gamma:g}", self.cocoercive),
            ("|J x - D(x)| / |D(x)|", self.homogeneity),
        ]
        if self.potential is not None:
            rows.append(("|dU - field dx| / |field dx|", self.potential))
        lines = [f"Denoiser at noise level {self.sigma:g}; J is its Jacobian"]
        for name, found in rows:
            line = f"  {name:<34} {found.value:>9.3g} +- {found.error:<8.2g} {found.kind}"
            lines.append(line + (f" (found {found.estimate:.3g})" if found.kind == "certificate" else ""))
        return "\n".join([*lines, str(self.recommendation)])


def audit_denoiser(
    denoiser: Denoise,
    x: Float[Array, "*shape"] | Sequence[Float[Array, "*shape"]],
    sigma: Any,
    *,
    rng_key: PRNGKeyArray,
    num_probes: int = 8,
    num_iterations: int = 12,
    gamma: float = 0.25,
) -> DenoiserAudit:
    r"""Measure the Jacobian J of a denoiser at given points, and say which solvers and samplers it may be used with.

    The asymmetry comes from one product with J and one with its transpose per probe v,
    :math:`\mathrm E \lVert J v - J^{\mathsf T} v \rVert^2 = \lVert J - J^{\mathsf T} \rVert_F^2`; norms from Lanczos
    iterations started at each probe, of which the largest is reported, with the spread over probes as error: **from
    below, at these points only**. Where the denoiser has ``certificates(sigma)``, those count instead, and the audit
    checks that they are not refuted. Values of a ``potential`` are compared with the work of the field.

    >>> report = ni.denoisers.audit_denoiser(lambda x, sigma: x / (1 + sigma**2), jnp.ones(9), 0.5, rng_key=key)
    >>> round(report.lipschitz.value, 4)
    0.8

    Args:
        denoiser: any function of an array and a noise level.
        x: an array, or a list of arrays of one shape: noisy ones, such as the denoiser will be given.
        sigma: the noise level, a known positive number.
        rng_key: of the probes.
        num_probes: 2 or more.
        num_iterations: of Lanczos, for each probe and norm.
        gamma: of the cocoercivity :math:`\lVert 2 \gamma J - I \rVert \le 1`.

    Returns:
        The numbers, each with an error and its kind, and a recommendation.

    Raises:
        TypeError: no function, numbers or key; traced values; what the denoiser returns is no array, its potential no
            number, or its ``certificates`` are none.
        ValueError: no arrays, empty ones, or several shapes; a number that is not finite, in ``x`` or from the
            denoiser; ``sigma`` or ``gamma`` not positive; fewer than 2 probes; a certificate that is refuted.

    References:
        E. T. Reehorst and P. Schniter, *Regularization by denoising: clarifications and new interpretations*, IEEE
        Trans. Comput. Imaging 5 (2019), section III: symmetry and local homogeneity.
    """
    check_denoiser(HERE, denoiser)
    sigma = check_positive_number(HERE, "sigma", sigma)
    gamma = check_positive_number(HERE, "gamma", gamma)
    probes, steps = check_count(HERE, "num_probes", num_probes, 2), check_count(HERE, "num_iterations", num_iterations)
    points = _points(x)
    keys = jax.random.split(check_key(HERE, "rng_key", rng_key), len(points))
    found = [
        _measure(denoiser, point, sigma, key, probes, steps, gamma) for point, key in zip(points, keys, strict=True)
    ]
    for values in found:
        for name, (value, _) in values.items():
            check_finite(HERE, f"{name} of what the denoiser returns", value)
    certificates = certificates_of(HERE, denoiser, sigma)
    parts = {name: _worst([values[name] for values in found]) for name in found[0]}
    for name, bound in certificates.items():
        if name in parts and bound.certified:
            parts[name] = _certified(name, parts[name], float(bound.bound))
    declared = parts.pop("potential", None)
    return DenoiserAudit(
        **parts, gamma=gamma, potential=declared, sigma=sigma, recommendation=recommend(parts, declared, gamma)
    )


def _points(x: Any) -> list[Array]:
    points = list(x) if isinstance(x, list | tuple) else [x]
    if not points:
        raise ValueError(f"{HERE}: `x` must be an array or a list of arrays; got an empty list.")
    arrays = [check_array(HERE, check_finite(HERE, "x", check_static(HERE, "x", point))) for point in points]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(f"{HERE}: the arrays of `x` must have one shape; got {sorted(shapes)}.")
    return arrays


@eqx.filter_jit
def _measure(denoiser, x, sigma, key, num_probes, steps, gamma) -> dict[str, tuple[Array, Array]]:
    """Pairs of a number and its standard error, at one point; the noise level is a constant of the program."""

    def checked(x):
        return denoised(HERE, denoiser, x, sigma)

    value, forward = jax.linearize(checked, x)
    transpose = jax.linear_transpose(forward, x)

    def backward(v):
        return transpose(v)[0]

    probes = jax.random.normal(key, (num_probes, *x.shape), x.dtype)

    def of_probe(v):
        one, two = forward(v), backward(v)

        def norm(factors):
            a, b = factors

            def shifted(product):
                return lambda v: a * product(v) + b * v

            return largest_singular_value(shifted(forward), shifted(backward), v, steps)

        factors = jnp.asarray([(1, 0), (-1, 1), (2, -1), (2 * gamma, -1)], x.dtype)
        return jnp.sum((one - two) ** 2), jnp.sum(one**2), jax.lax.map(norm, factors)

    odd, whole, norms = jax.lax.map(of_probe, probes)
    largest, spread = jnp.max(norms, axis=0), jnp.std(norms, axis=0, ddof=1)
    found = {name: (largest[i], spread[i]) for i, name in enumerate(NORMS)}
    found["asymmetry"] = _ratio(odd, whole)
    none = jnp.zeros((), x.dtype)
    found["homogeneity"] = _relative(forward(x) - value, value), none
    if has_potential(denoiser):
        wrong = jax.lax.map(lambda v: _work_missed(denoiser, x, x - value, v, sigma), probes)
        found["potential"] = jnp.max(wrong), jnp.std(wrong, ddof=1)
    return found


def _work_missed(denoiser: Any, x: Array, field: Array, v: Array, sigma: float) -> Array:
    """How far a difference of potentials is from the work of the field on a short line, relative to it.

    The line goes along the field, tilted at random. Values are compared, for the gradient of a potential may be one
    that was set by hand.
    """
    line = STEP * (field + v * jnp.linalg.norm(field.ravel()) / jnp.linalg.norm(v.ravel()))
    places, weights = np.polynomial.legendre.leggauss(NODES)

    def power(t):
        there = x + t * line
        return jnp.vdot(there - denoised(HERE, denoiser, there, sigma), line) / sigma**2

    work = jnp.asarray(weights, x.dtype) @ jax.lax.map(power, jnp.asarray(places, x.dtype))
    gained = potential_of(HERE, denoiser, x + line, sigma) - potential_of(HERE, denoiser, x - line, sigma)
    return _relative(gained - work, work)


def _ratio(odd: Array, whole: Array) -> tuple[Array, Array]:
    """The root of the ratio of two means, and its standard error by the delta method."""
    tiny = jnp.finfo(whole.dtype).tiny
    scale = jnp.maximum(jnp.mean(whole), tiny)
    square = jnp.mean(odd) / scale
    error = jnp.std(odd - square * whole, ddof=1) / scale / jnp.sqrt(len(odd))
    root = jnp.sqrt(square)
    return root, error / jnp.maximum(2 * root, jnp.sqrt(tiny))


def _relative(difference: Array, value: Array) -> Array:
    size = jnp.linalg.norm(value.ravel())
    return jnp.linalg.norm(difference.ravel()) / jnp.maximum(size, jnp.finfo(size.dtype).tiny)


def _worst(pairs: list[tuple[Array, Array]]) -> Measured:
    value, error = max((float(value), float(error)) for value, error in pairs)
    return Measured(value, error, "estimate", value)


def _certified(name: str, found: Measured, bound: float) -> Measured:
    rounding = 1 + 1e3 * float(np.finfo(np.float32).eps)
    if found.estimate > bound * rounding:
        raise ValueError(
            f"{HERE}: the denoiser's certificate `{name}` is false: it claims at most {bound:g}, and "
            f"{found.estimate:g} was found."
        )
    return Measured(bound, 0.0, "certificate", found.estimate)
