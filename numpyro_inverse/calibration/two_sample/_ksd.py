"""The kernel Stein discrepancy: draws against a density known up to a constant."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.distributions import biject_to
from numpyro.distributions.constraints import Constraint
from scipy.stats import binom

from numpyro_inverse._checks import check_callable, check_instance, check_key
from numpyro_inverse.calibration._arguments import returned
from numpyro_inverse.calibration.two_sample._significance import (
    SignificanceTest,
    against_null,
    check_permutations,
    checked_draws,
)

EDGE = 0.3  # share of the draws that are looked at, from either end
VANISHING = 0.3  # largest share of those in the outer half of their range where a density goes to zero
FALSE_ALARM = 0.05  # of finding an edge in draws of such a density


def ksd(
    draws: Float[Array, "n *shape"],
    score: Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]],
    rng_key: Key[Array, ""],
    *,
    support: Constraint | None = None,
    num_bootstrap: int = 499,
) -> SignificanceTest:
    r"""Do the draws follow the density whose score :math:`s = \nabla \log p` is given?

    .. math:: \operatorname{KSD}^2 = E\, u(x, x'), \quad u = s(x)^T s(x') k + s(x)^T \nabla' k + s(x')^T \nabla k
        + \operatorname{tr} \nabla \nabla' k,

    estimated without bias, with the inverse multiquadric kernel :math:`k = (1 + |x - x'|^2)^{-1/2}` between draws
    centered and whitened by their own covariance. No normalizing constant is needed. The null distribution is that of
    the centered degenerate statistic under random signs (wild bootstrap): the level is right for many independent
    draws, and up to two per cent off for some hundred. The test cannot see wrong weights of well separated modes.

    The expectation is zero only where the density vanishes at the ends of its support. Elsewhere (a Gamma law with
    shape 1, a uniform one) exact draws would be rejected, so name the ``support``: draws are mapped to the
    unconstrained space by ``biject_to(support)`` and the score with them, by the chain rule and the Jacobian. Without
    it, draws that pile up at an end are refused, where there are enough to tell: of a uniform law three in four times
    from 150 draws, nearly always from 500.

    Args:
        draws: independent draws.
        score: gradient of the log density at one draw.
        rng_key: a JAX random key.
        support: of the density; ``constraints.real`` says that there is no edge, whatever the draws look like.
        num_bootstrap: sign vectors.

    Raises:
        ValueError: too few draws, numbers that are not finite, identical draws, a score that is not finite or of
            another shape, draws outside ``support``; draws that pile up at an end when no ``support`` is given.
        TypeError: ``score`` is no function, ``support`` no constraint.

    References:
        Liu, Lee & Jordan, ICML 2016; Gorham & Mackey, ICML 2017, on the kernel.
    """
    check_key("ksd", "rng_key", rng_key)
    check_permutations("ksd", num_bootstrap, "num_bootstrap")
    check_callable("ksd", "score", score, "a function of one draw")
    rows = checked_draws("ksd", "draws", draws)
    shape = np.shape(draws)[1:]
    x = jnp.asarray(draws, float)
    found = returned("ksd", "score", score, x[0])
    if found.shape != shape:
        raise ValueError(f"ksd: `score` must return shape {shape} for one draw; got {found.shape}.")
    if support is None:
        _check_edges(rows)
        scores = jax.jit(jax.vmap(score))(x)
    else:
        check_instance("ksd", "support", support, Constraint, "a constraint of `numpyro.distributions.constraints`")
        if not np.all(support(x)):
            raise ValueError("ksd: some `draws` lie outside `support`.")
        unconstrained, scores = _unconstrained(x, score, support)
        rows = np.asarray(unconstrained, float).reshape(len(rows), -1)
    if not np.all(np.isfinite(scores)) or not np.all(np.isfinite(rows)):
        raise ValueError("ksd: `score` is not finite at some draw.")
    white, turned = _whitened(rows, np.asarray(scores, float).reshape(rows.shape))
    gram = _stein_kernel(jnp.asarray(white), jnp.asarray(turned))
    n = len(rows)
    gram = gram - jnp.diag(jnp.diagonal(gram))
    signs = jax.random.rademacher(rng_key, (num_bootstrap, n), float)
    null = jnp.sum(signs * (signs @ gram), axis=1) / (n * (n - 1))
    return against_null("KSD^2", jnp.sum(gram) / (n * (n - 1)), null)


def _unconstrained(x: Float[Array, "n *shape"], score: Callable, support: Constraint) -> tuple[Array, Array]:
    """Draws in the unconstrained space, and the score of their density there."""
    bijection = biject_to(support)

    def one(x: Array) -> tuple[Array, Array]:
        z = bijection.inv(x)
        there, pull = jax.vjp(bijection, z)
        volume = jax.grad(lambda z: jnp.sum(bijection.log_abs_det_jacobian(z, bijection(z))))(z)
        return z, pull(score(there))[0] + volume

    return jax.jit(jax.vmap(one))(x)


def _whitened(
    rows: Float[np.ndarray, "n d"], scores: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Draws with mean 0 and unit covariance, and their scores; correlations are shrunk by n / (n + d)."""
    n, d = rows.shape
    off = rows - np.mean(rows, axis=0)
    covariance = off.T @ off / n
    spread = np.sqrt(np.diag(covariance))
    spread = np.where(spread > 0, spread, 1.0)
    correlation = covariance / np.outer(spread, spread) * n / (n + d)
    np.fill_diagonal(correlation, 1.0)
    root = spread[:, None] * np.linalg.cholesky(correlation)
    return np.linalg.solve(root, off.T).T, scores @ root


def _check_edges(rows: Float[np.ndarray, "n d"]) -> None:
    """Raise where draws pile up at an end: the outer half of the range of the outermost holds too many of them."""
    n, d = rows.shape
    outermost = max(int(EDGE * n), 3)
    for side, values in (("lower", np.sort(rows, axis=0)), ("upper", -np.sort(-rows, axis=0))):
        depth = np.abs(values[:outermost] - values[0])
        inner = depth[1:-1]  # the ends are given
        outside = np.sum(inner <= depth[-1] / 2, axis=0)
        p = binom.sf(outside - 1, len(inner), VANISHING)
        worst = int(np.argmin(p))
        if p[worst] <= FALSE_ALARM / (2 * d) and depth[-1, worst] > 0:
            raise ValueError(
                f"ksd: `draws` pile up at the {side} end of element {worst}, {values[0, worst]:.4g}, as if their "
                "density did not vanish there; then exact draws are rejected, too. Give their `support`, such as "
                "`numpyro.distributions.constraints.positive`, or `constraints.real` if there is no edge."
            )


@jax.jit
def _stein_kernel(x: Float[Array, "n d"], s: Float[Array, "n d"]) -> Float[Array, "n n"]:
    d = x.shape[1]
    squares = jnp.sum(x**2, axis=1)
    r2 = jnp.maximum(squares[:, None] + squares - 2 * x @ x.T, 0)
    base = 1 + r2
    along = jnp.sum(s * x, axis=1)
    cross = s @ x.T
    # (s(x) - s(x'))^T (x - x')
    difference = along[:, None] + along[None, :] - cross - cross.T
    return (s @ s.T) * base**-0.5 + difference * base**-1.5 + d * base**-1.5 - 3 * r2 * base**-2.5
