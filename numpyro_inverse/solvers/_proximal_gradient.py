"""Plug-and-play proximal gradient descent, plain and accelerated."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from numpyro_inverse.denoisers._denoiser import Denoise
from numpyro_inverse.solvers._data_term import DataTerm, check_stable
from numpyro_inverse.solvers._fixed_point import Scheme, Solution, solve
from numpyro_inverse.solvers._plug_and_play import DenoiserIteration


class ProximalGradientMap(DenoiserIteration):
    r""":math:`T(x) = D(x - \gamma \nabla f(x))`."""

    solver = "pnp_pgd"

    def image(self, z):
        return self.denoise(self.descend(z))


class _Accelerated(ProximalGradientMap):
    solver = "pnp_fista"


class _Momentum(Scheme):
    """:math:`z_{k+1} = x_k + \\frac{n - 1}{n + 3} (x_k - x_{k-1})`, n = k + 1, x the images."""

    def memory(self, z):
        return z

    def next(self, z, image, memory, k):
        weight = (k / (k + 4)).astype(z.dtype)
        return image + weight * (image - memory), image


def pnp_pgd(
    data_term: DataTerm,
    denoiser: Denoise,
    x0: Float[Array, "*shape"],
    *,
    sigma: Any,
    step: Any,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r"""Plug-and-play proximal gradient descent: :math:`x^+ = D(x - \gamma \nabla f(x), \sigma)`.

    It converges for :math:`\gamma < 2 / L` if D is averaged (firmly nonexpansive, say) and there is a fixed point; for
    other denoisers, ask :func:`convergence_report`. The fixed point depends on :math:`\gamma`: for D the mean under a
    Gaussian prior, it is the posterior mean if :math:`\gamma = \sigma^2`, and that of a prior of
    :math:`\sigma^2 / \gamma` times the precision otherwise. Where :math:`\sigma^2 \ge 2 / L` that step is too long:
    use :func:`pnp_admm`.

    >>> shrink = lambda x, sigma: x / (1 + sigma**2)  # the mean of x0 ~ N(0, 1) given x
    >>> term = LeastSquares(op.Mask(np.array([True, True, False])), jnp.array([1.0, 2.0]), 1.0)
    >>> pnp_pgd(term, shrink, jnp.zeros(3), sigma=1.0, step=1.0).x.tolist()
    [0.5, 1.0, 0.0]

    Args:
        data_term: f.
        denoiser: D, any function of an array and a noise level.
        x0: where to start; one array (``jax.vmap`` makes batches).
        sigma: the denoiser's noise level.
        step: :math:`\gamma`.
        max_steps: iterations at most.
        tolerance: of the relative residual; default 1e-5 in single, 1e-8 in double precision.

    Returns:
        The fixed point and how it was reached. It has derivatives with respect to all that the map depends on (data,
        sigma, step, arrays of the denoiser), by the implicit function theorem, as good as the fixed point was reached;
        none with respect to ``x0``.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: ``sigma``, ``step``, ``max_steps`` or ``tolerance`` not positive; ``step`` of 2 / L or more; ``x0``
            not finite or of another shape.
        Divergence: the iterates run away, or the denoiser returns NaN; it names the iteration. Within ``jit``, ``vmap``
            and ``grad`` nothing is raised and ``diverged`` is true.

    References:
        Venkatakrishnan, Bouman & Wohlberg, IEEE GlobalSIP (2013); Ryu et al., ICML (2019), equation 1.
    """
    iteration = ProximalGradientMap(data_term, denoiser, sigma=sigma, step=step)
    check_stable("pnp_pgd", data_term, step, 2.0, "below 2 / L")
    return solve("pnp_pgd", iteration, x0, Scheme(), max_steps=max_steps, tolerance=tolerance, shape=data_term.shape)


def pnp_fista(
    data_term: DataTerm,
    denoiser: Denoise,
    x0: Float[Array, "*shape"],
    *,
    sigma: Any,
    step: Any,
    max_steps: int = 1000,
    tolerance: float | None = None,
) -> Solution:
    r""":func:`pnp_pgd` with momentum: :math:`x_n = D(z_n - \gamma \nabla f(z_n))`,
    :math:`z_{n+1} = x_n + \frac{n - 1}{n + 3} (x_n - x_{n-1})`.

    The same fixed points, reached in fewer iterations where it converges. That is proved for a denoiser that is the
    proximal operator of a convex function and :math:`\gamma \le 1 / L`, and for no others: with a general denoiser,
    a nonexpansive one too, momentum may diverge where :func:`pnp_pgd` does not.

    Args:
        data_term: f.
        denoiser: D.
        x0: where to start.
        sigma: the denoiser's noise level.
        step: :math:`\gamma`, at most 1 / L.
        max_steps: iterations at most.
        tolerance: of the relative residual.

    Raises:
        TypeError, ValueError, Divergence: as :func:`pnp_pgd`; ``step`` above 1 / L.

    References:
        Beck & Teboulle, SIAM J. Imaging Sci. 2 (2009) 183-202; Chambolle & Dossal, J. Optim. Theory Appl. 166 (2015)
        968-982, for the weights (a = 3) and the convergence of the iterates.
    """
    iteration = _Accelerated(data_term, denoiser, sigma=sigma, step=step)
    check_stable("pnp_fista", data_term, step, 1.0 + 1e-3, "at most 1 / L")
    return solve(
        "pnp_fista", iteration, x0, _Momentum(), max_steps=max_steps, tolerance=tolerance, shape=data_term.shape
    )
