"""Regularization by denoising: gradient descent and proximal gradient descent."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from numpyro_inverse._checks import is_traced
from numpyro_inverse.denoisers._denoiser import Denoise, check_scalar
from numpyro_inverse.solvers._data_term import DataTerm, check_stable
from numpyro_inverse.solvers._fixed_point import Scheme, Solution, solve
from numpyro_inverse.solvers._plug_and_play import DenoiserIteration


class REDIteration(DenoiserIteration):
    r"""A map whose fixed points are the zeros of :math:`\nabla f(x) + \lambda (x - D(x))`,
    :math:`\lambda = \text{strength} / \sigma^2`.
    """

    strength: Float[Array, ""]

    def __init__(self, data_term: DataTerm, denoiser: Any, *, sigma: Any, step: Any, strength: Any = 1.0):
        super().__init__(data_term, denoiser, sigma=sigma, step=step)
        self.strength = jnp.asarray(check_scalar(self.solver, "strength", strength), float)

    def pull(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        r""":math:`\gamma \lambda (x - D(x))`."""
        return (self.step * self.strength / self.sigma**2).astype(x.dtype) * (x - self.denoise(x))


class REDGradientMap(REDIteration):
    r""":math:`T(x) = x - \gamma (\nabla f(x) + \lambda (x - D(x)))`."""

    solver = "red_gradient_descent"

    def image(self, z):
        return self.descend(z) - self.pull(z)


class REDProximalMap(REDIteration):
    r""":math:`T(x) = \operatorname{prox}_{\gamma f}(x - \gamma \lambda (x - D(x)))`."""

    solver = "red_proximal_gradient"
    needs_prox = True

    def image(self, z):
        return self.approach(z - self.pull(z))


def red_gradient_descent(
    data_term: DataTerm,
    denoiser: Denoise,
    x0: Float[Array, "*shape"],
    *,
    sigma: Any,
    step: Any,
    strength: Any = 1.0,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r"""Regularization by denoising, by gradient descent:

    .. math::

        x^+ = x - \gamma \bigl(\nabla f(x) + \lambda (x - D(x, \sigma))\bigr), \qquad
        \lambda = \text{strength} / \sigma^2.

    The regularizer's part is that of ``factors.RED`` with the same ``strength``: for a denoiser with a ``potential``,
    the fixed points are the stationary points of that density. For D the mean under a Gaussian prior N(m, C) it is the
    posterior mean under the **smoothed** prior :math:`N(m, C + \sigma^2 I)`, where :func:`pnp_admm` has the prior
    itself. It converges for :math:`\gamma < 2 / (L + 2 \lambda)` if D is nonexpansive and there is a fixed point.

    Args:
        data_term: f.
        denoiser: D, any function of an array and a noise level.
        x0: where to start; one array (``jax.vmap`` makes batches).
        sigma: the denoiser's noise level.
        step: :math:`\gamma`.
        strength: weight of the regularizer.
        max_steps: iterations at most.
        tolerance: of the relative residual; default 1e-5 in single, 1e-8 in double precision.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: ``sigma``, ``step``, ``strength``, ``max_steps`` or ``tolerance`` not positive; ``step`` of 2 / L or
            more; ``x0`` not finite or of another shape.
        Divergence: as :func:`pnp_pgd`.

    References:
        Romano, Elad & Milanfar, SIAM J. Imaging Sci. 10 (2017) 1804-1844, section 4; Reehorst & Schniter, IEEE Trans.
        Comput. Imaging 5 (2019) 52-67, for what it is without a potential.
    """
    iteration = REDGradientMap(data_term, denoiser, sigma=sigma, step=step, strength=strength)
    check_stable("red_gradient_descent", data_term, step, 2.0, "below 2 / L")
    return solve(
        "red_gradient_descent",
        iteration,
        x0,
        Scheme(),
        max_steps=max_steps,
        tolerance=tolerance,
        shape=data_term.shape,
    )


def red_proximal_gradient(
    data_term: DataTerm,
    denoiser: Denoise,
    x0: Float[Array, "*shape"],
    *,
    sigma: Any,
    step: Any,
    strength: Any = 1.0,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r"""Regularization by denoising, by proximal gradient descent:

    .. math::

        x^+ = \operatorname{prox}_{\gamma f}\bigl(x - \gamma \lambda (x - D(x, \sigma))\bigr), \qquad
        \lambda = \text{strength} / \sigma^2.

    The same fixed points as :func:`red_gradient_descent`, whatever the step. It converges for
    :math:`\gamma \lambda < 1` if D is nonexpansive and there is a fixed point, and, in objective and stationarity, for
    :math:`\gamma \lambda |I - D|_{\mathrm{Lip}} < 1` if :math:`I - D` is a gradient (*gradient-step PnP*). With
    :math:`\gamma \lambda = 1` it is :func:`pnp_hqs`.

    Args:
        data_term: f, with a proximal operator.
        denoiser: D, any function of an array and a noise level.
        x0: where to start; one array (``jax.vmap`` makes batches).
        sigma: the denoiser's noise level.
        step: :math:`\gamma`.
        strength: weight of the regularizer.
        max_steps: iterations at most.
        tolerance: of the relative residual; default 1e-5 in single, 1e-8 in double precision.

    Raises:
        TypeError: an argument of the wrong kind; ``data_term`` has no proximal operator.
        ValueError: as :func:`red_gradient_descent`; :math:`\gamma \lambda \ge 2`.
        Divergence: as :func:`pnp_pgd`.

    References:
        Reehorst & Schniter, IEEE Trans. Comput. Imaging 5 (2019) 52-67, algorithm 3; Hurault, Leclaire & Papadakis,
        ICLR (2022).
    """
    iteration = REDProximalMap(data_term, denoiser, sigma=sigma, step=step, strength=strength)
    if not is_traced(step, sigma, strength):
        relaxed = float(step) * float(strength) / float(sigma) ** 2
        if relaxed >= 2:
            raise ValueError(
                f"red_proximal_gradient: `step` must be below 2 sigma^2 / strength = "
                f"{2 * float(sigma) ** 2 / float(strength):.4g}, beyond which what the data do not see is pushed away "
                f"from D(x) further than it was; got {float(step):.4g}."
            )
    return solve(
        "red_proximal_gradient",
        iteration,
        x0,
        Scheme(),
        max_steps=max_steps,
        tolerance=tolerance,
        shape=data_term.shape,
    )
