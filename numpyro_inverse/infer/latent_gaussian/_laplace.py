r"""The mode of Gaussian latents given data, and the Laplace approximation of the data's density.

With prior precision Q, predictor :math:`\eta = o + A r`, log likelihood :math:`\ell(\eta)` and
:math:`W = -\ell''(\eta)`, everything is in the space of the data: at a mode :math:`Q r = A^{\mathsf T} a` with
:math:`a = \ell'(\eta)`, and :math:`r^{\mathsf T} Q r = a^{\mathsf T} (\eta - o)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MAX_STEPS = 50
HALVINGS = 30  # from a rate of 1 to a count of a million, a full step is 2^16 times too long
SUFFICIENT = 1e-3  # share of the increase that the quadratic model promises, of a step that is taken

LogLikelihood = Callable[[Float[Array, " m"]], Float[Array, ""]]


class Mode(NamedTuple):
    """Where Newton's method ended.

    Attributes:
        eta: the predictor.
        dual: a.
        decrement: squared length of the next step, in posterior standard deviations.
        steps: how many were taken.
        converged: whether the next step is short.
    """

    eta: Float[Array, " m"]
    dual: Float[Array, " m"]
    decrement: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


class Laplace(NamedTuple):
    """The Laplace approximation at hyperparameters.

    Attributes:
        log_marginal: log density of the data, NaN where there is none.
        departure: r at the mode.
        eta: the predictor there.
        weights: W there.
        mode: how it was found.
        posterior: the Gaussian with precision Q + A^T W A.
    """

    log_marginal: Float[Array, ""]
    departure: Float[Array, " n"]
    eta: Float[Array, " m"]
    weights: Float[Array, " m"]
    mode: Mode
    posterior: Any


def slopes(likelihood: LogLikelihood, eta: Float[Array, " m"]) -> tuple[Array, Array]:
    r""":math:`\ell'` and :math:`-\ell''`, of a likelihood that is a sum over the predictor's numbers."""
    gradient, curvature = jax.jvp(jax.grad(likelihood), (eta,), (jnp.ones_like(eta),))
    return gradient, -curvature


def next_decrement(likelihood: LogLikelihood, eta: Float[Array, " m"], dual: Float[Array, " m"]) -> Float[Array, ""]:
    r"""A bound on the squared length of the Newton step from the latents :math:`Q^{-1} A^{\mathsf T} a`.

    The step's gradient is :math:`A^{\mathsf T} g` with :math:`g = \ell'(\eta) - a`, and
    :math:`A (Q + A^{\mathsf T} W A)^{-1} A^{\mathsf T} \preceq W^{-1}`: its squared length is at most
    :math:`\sum_i g_i^2 / W_i`, infinite where a weight is not positive and its slope is not zero. For normal data it is
    rounding after one step, so that no second matrix is factorized to see that.
    """
    gradient, weights = slopes(likelihood, eta)
    g = gradient - dual
    bound = g**2 / jnp.where(weights > 0, weights, 1)
    return jnp.sum(jnp.where(weights > 0, bound, jnp.where(g == 0, 0, jnp.inf)))


def find_mode(law: Any, likelihood: LogLikelihood, guess: Float[Array, " m"]) -> Mode:
    r"""Damped Newton steps on :math:`\ell(o + A r) - \tfrac12 r^{\mathsf T} Q r` (Rasmussen & Williams, algorithm 3.1),
    with the negative part of W left out, so that each goes up. Not differentiated.

    The first step is that from ``guess``, a mode at other hyperparameters, where it leads higher than the prior mean.
    """
    offset = law.offset
    eps = float(jnp.finfo(offset.dtype).eps)
    rest = 1e-20 if eps < 1e-10 else 1e-8  # of a step that is not taken, so that W is that of the mode
    last = 1e-6 if eps < 1e-10 else 1e-4  # the step is taken; the next one, in `laplace`, is the square of it

    def value(eta: Array, dual: Array) -> Array:
        return likelihood(eta) - 0.5 * jnp.vdot(dual, eta - offset)

    def unfinished(carry: tuple) -> Array:
        mode, _, moved = carry
        return (mode.steps < MAX_STEPS) & moved & ~mode.converged

    def step(carry: tuple) -> tuple:
        mode, before, _ = carry
        at = jnp.where(mode.steps == 0, guess, mode.eta)
        gradient, weights = slopes(likelihood, at)
        weights = jnp.maximum(weights, 0)
        r = law.factor(weights).solve(law.adjoint(weights * (at - offset) + gradient))
        eta = offset + law.forward(r)
        dual = gradient + weights * (at - eta)
        change = eta - mode.eta
        decrement = jnp.where(mode.steps == 0, jnp.inf, jnp.vdot(gradient - mode.dual, change))
        shares = 0.5 ** jnp.arange(HALVINGS, dtype=eta.dtype)
        reached = jax.vmap(lambda s: value(mode.eta + s * change, mode.dual + s * (dual - mode.dual)))(shares)
        slack = 100 * eps * (1 + jnp.abs(before))
        promised = jnp.where(mode.steps == 0, 0, SUFFICIENT * shares * decrement)
        good = reached >= before + promised - slack
        found, k = jnp.any(good), jnp.argmax(good)
        share = jnp.where(found, shares[k], 0)
        short = (jnp.abs(decrement) <= last) | (next_decrement(likelihood, eta, dual) <= rest)
        new = Mode(
            jnp.where(found, mode.eta + share * change, mode.eta),
            jnp.where(found, mode.dual + share * (dual - mode.dual), mode.dual),
            decrement,
            mode.steps + 1,
            found & short & (share == 1),
        )
        return new, jnp.where(found, reached[k], before), found | (mode.steps == 0)

    zero = jnp.zeros_like(offset)
    start = Mode(offset, zero, jnp.asarray(jnp.inf, offset.dtype), jnp.asarray(0), jnp.asarray(False))
    return jax.lax.while_loop(unfinished, step, (start, value(offset, zero), jnp.asarray(True)))[0]


def laplace(law: Any, likelihood: LogLikelihood, mode: Mode) -> Laplace:
    r"""The Laplace approximation at a mode, with exact first derivatives by the hyperparameters.

    .. math:: \log \hat p(y) = \ell(\eta) - \tfrac12 a^{\mathsf T} (\eta - o)
        - \tfrac12 \log\det (Q + A^{\mathsf T} W A) + \tfrac12 \log\det Q .

    A Newton step from the mode leads to the mode, whatever the hyperparameters are near these: as a function of them
    its result has the derivative of the mode (the implicit function theorem), in which W may be held fixed.
    """
    start = jax.lax.stop_gradient(mode.eta)
    gradient, weights = slopes(likelihood, start)
    weights = jax.lax.stop_gradient(weights)
    posterior = law.factor(weights)
    r = posterior.solve(law.adjoint(weights * (start - law.offset) + gradient))
    eta = law.offset + law.forward(r)
    dual = gradient + weights * (start - eta)
    at_mode = slopes(likelihood, eta)[1]
    moving = weights + at_mode - jax.lax.stop_gradient(at_mode)  # the same numbers, which move with the mode
    posterior = posterior.moved(moving)
    found = likelihood(eta) - 0.5 * jnp.vdot(dual, eta - law.offset) - 0.5 * posterior.log_ratio()
    return Laplace(jnp.where(mode.converged, found, jnp.nan), r, eta, weights, mode, posterior)
