"""Plug-and-play by splitting: half-quadratic splitting, ADMM, Douglas-Rachford."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from numpyro_inverse.denoisers._denoiser import Denoise
from numpyro_inverse.solvers._data_term import DataTerm
from numpyro_inverse.solvers._fixed_point import Scheme, Solution, solve
from numpyro_inverse.solvers._plug_and_play import DenoiserIteration


class HalfQuadraticMap(DenoiserIteration):
    r""":math:`T(x) = \operatorname{prox}_{\gamma f}(D(x))`."""

    solver = "pnp_hqs"
    needs_prox = True

    def image(self, z):
        return self.approach(self.denoise(z))


class ADMMMap(DenoiserIteration):
    r""":math:`T(v) = v + \operatorname{prox}_{\gamma f}(2 D(v) - v) - D(v)`, :math:`v = x + u`; it solves as D(v)."""

    solver = "pnp_admm"
    needs_prox = True

    def start(self, x):
        return self.approach(x)  # of u = 0

    def image(self, z):
        clean = self.denoise(z)
        return z + self.approach(2 * clean - z) - clean

    def solution(self, z):
        return self.denoise(z)


class DouglasRachfordMap(DenoiserIteration):
    r""":math:`T(v) = v + D(2 \operatorname{prox}_{\gamma f}(v) - v) - \operatorname{prox}_{\gamma f}(v)`; the solution
    is :math:`\operatorname{prox}_{\gamma f}(v)`.
    """

    solver = "pnp_drs"
    needs_prox = True

    def image(self, z):
        near = self.approach(z)
        return z + self.denoise(2 * near - z) - near

    def solution(self, z):
        return self.approach(z)


def pnp_hqs(
    data_term: DataTerm,
    denoiser: Denoise,
    x0: Float[Array, "*shape"],
    *,
    sigma: Any,
    step: Any,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r"""Plug-and-play half-quadratic splitting: :math:`x^+ = \operatorname{prox}_{\gamma f}(D(x, \sigma))`.

    Its fixed points are those of **RED**, not of :func:`pnp_pgd` or :func:`pnp_admm`:
    :math:`\nabla f(x) + (x - D(x)) / \gamma = 0`. It converges for every step if D is averaged and there is
    a fixed point.

    Args:
        data_term: f, with a proximal operator.
        denoiser: D, any function of an array and a noise level.
        x0: where to start; one array (``jax.vmap`` makes batches).
        sigma: the denoiser's noise level.
        step: :math:`\gamma`.
        max_steps: iterations at most.
        tolerance: of the relative residual; default 1e-5 in single, 1e-8 in double precision.

    Raises:
        TypeError: an argument of the wrong kind; ``data_term`` has no proximal operator.
        ValueError: ``sigma``, ``step``, ``max_steps`` or ``tolerance`` not positive; ``x0`` not finite or of another
            shape.
        Divergence: as :func:`pnp_pgd`.

    References:
        Zhang, Zuo, Gu & Zhang, CVPR (2017), equations 6 and 7, at a fixed penalty.
    """
    iteration = HalfQuadraticMap(data_term, denoiser, sigma=sigma, step=step)
    return solve("pnp_hqs", iteration, x0, Scheme(), max_steps=max_steps, tolerance=tolerance, shape=data_term.shape)


def pnp_admm(
    data_term: DataTerm,
    denoiser: Denoise,
    x0: Float[Array, "*shape"],
    *,
    sigma: Any,
    step: Any,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r"""Plug-and-play ADMM, from z = ``x0``, u = 0:

    .. math::

        x = \operatorname{prox}_{\gamma f}(z - u), \qquad z = D(x + u, \sigma), \qquad u \leftarrow u + x - z.

    It is iterated in the one variable x + u, on which it is an averaged map if D is firmly nonexpansive: it then
    converges for every step, if there is a fixed point. **With the mean under a Gaussian prior and**
    :math:`\gamma = \sigma^2` **it returns the exact posterior mean.** Fixed points are those of :func:`pnp_pgd`
    and :func:`pnp_drs`.

    Args:
        data_term: f, with a proximal operator.
        denoiser: D, any function of an array and a noise level.
        x0: where to start; one array (``jax.vmap`` makes batches).
        sigma: the denoiser's noise level.
        step: :math:`\gamma`, the inverse of the penalty.
        max_steps: iterations at most.
        tolerance: of the relative residual; default 1e-5 in single, 1e-8 in double precision.

    Raises:
        TypeError, ValueError, Divergence: as :func:`pnp_hqs`.

    References:
        Venkatakrishnan, Bouman & Wohlberg, IEEE GlobalSIP (2013); Ryu et al., ICML (2019), equation 2.
    """
    iteration = ADMMMap(data_term, denoiser, sigma=sigma, step=step)
    return solve("pnp_admm", iteration, x0, Scheme(), max_steps=max_steps, tolerance=tolerance, shape=data_term.shape)


def pnp_drs(
    data_term: DataTerm,
    denoiser: Denoise,
    x0: Float[Array, "*shape"],
    *,
    sigma: Any,
    step: Any,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r"""Plug-and-play Douglas-Rachford splitting:
    :math:`v^+ = \tfrac12 v + \tfrac12 (2 D - I)(2 \operatorname{prox}_{\gamma f} - I)\, v`,
    :math:`x = \operatorname{prox}_{\gamma f}(v)`.

    :func:`pnp_admm` with the two maps in the other order: the same fixed points under the same conditions.

    Args:
        data_term: f, with a proximal operator.
        denoiser: D, any function of an array and a noise level.
        x0: where v starts; one array (``jax.vmap`` makes batches).
        sigma: the denoiser's noise level.
        step: :math:`\gamma`.
        max_steps: iterations at most.
        tolerance: of the relative residual; default 1e-5 in single, 1e-8 in double precision.

    Raises:
        TypeError, ValueError, Divergence: as :func:`pnp_hqs`.

    References:
        Lions & Mercier, SIAM J. Numer. Anal. 16 (1979) 964-979; Ryu et al., ICML (2019), section 3.
    """
    iteration = DouglasRachfordMap(data_term, denoiser, sigma=sigma, step=step)
    return solve("pnp_drs", iteration, x0, Scheme(), max_steps=max_steps, tolerance=tolerance, shape=data_term.shape)
