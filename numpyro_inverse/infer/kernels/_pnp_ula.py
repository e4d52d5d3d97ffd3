"""Langevin sampling with a denoiser for a prior: plug-and-play ULA, with a tail term or projected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_nonnegative_number, check_number, check_positive_number, show
from numpyro_inverse.denoisers._denoiser import check_denoiser, denoised
from numpyro_inverse.infer.kernels._base import Point
from numpyro_inverse.infer.kernels._ula import ULA


class _DenoisedULA(ULA):
    """What the two have in common: the field of the denoiser at one site, and the constants that bound the step."""

    _default_box: tuple[float, float]

    def __init__(
        self,
        model: Callable,
        *,
        site: str,
        denoiser: Callable,
        sigma: float,
        data_lipschitz: float,
        residual_lipschitz: float | None = None,
        strength: float = 1.0,
        box: tuple[float, float] | None = None,
        step_size: float | None = None,
        init_strategy: Callable = init_to_uniform,
    ):
        if not isinstance(site, str):
            raise TypeError(f"{self._name}: `site` must be the name of a latent site; got {show(site)}.")
        self._site, self._denoiser = site, check_denoiser(self._name, denoiser)
        self._sigma = check_positive_number(self._name, "sigma", sigma)
        self._strength = check_positive_number(self._name, "strength", strength)
        self._box = _interval(self._name, self._default_box if box is None else box)
        data = check_nonnegative_number(self._name, "data_lipschitz", data_lipschitz)
        prior = self._strength * _residual(self._name, denoiser, self._sigma, residual_lipschitz) / self._sigma**2
        self._prepare(data, prior)
        limit = self._limit(data, prior)
        step_size = 0.99 * limit if step_size is None else check_positive_number(self._name, "step_size", step_size)
        if not step_size < limit:
            raise ValueError(
                f"{self._name}: `step_size` must be below {limit:.4g}, the bound that `sigma`, `strength` and the two "
                f"Lipschitz constants give; got {step_size:.4g}."
            )
        super().__init__(model, None, step_size=step_size, init_strategy=init_strategy)

    def _prepare(self, data: float, prior: float) -> None:
        """What follows from the Lipschitz constants."""

    def _limit(self, data: float, prior: float) -> float:
        """The bound of the step."""
        return 1 / (data + prior)

    @property
    def step_size(self) -> float:
        r""":math:`\delta`."""
        return self._delta

    def _check_trace(self, trace: dict) -> None:
        super()._check_trace(trace)
        found = trace.get(self._site)
        if found is None or found["type"] != "sample" or found["is_observed"]:
            raise ValueError(f"{self._name}: `site` {self._site!r} is not a latent site of the model.")

    def _target(self, args: tuple, kwargs: dict[str, Any] | None, unravel: Callable) -> Callable:
        data_term = super()._target(args, kwargs, unravel)

        def target(x: Float[Array, "n"], key: Array) -> Point:
            z = self._placed(unravel(x))
            x, _ = ravel_pytree(z)
            point = data_term(x, key)
            field = {name: jnp.zeros_like(v) for name, v in z.items()} | {self._site: self._field(z[self._site])}
            return point._replace(grad=point.grad + ravel_pytree(field)[0])

        return target

    def _placed(self, z: PyTree) -> PyTree:
        """The point where the gradient is taken."""
        return z

    def _field(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Minus the drift of the prior."""
        away = x - denoised(self._name, self._denoiser, x, self._sigma)
        return self._strength / self._sigma**2 * away


class PnPULA(_DenoisedULA):
    r"""Plug-and-play ULA: the data term from the model, the prior from a denoiser, a tail that holds the chain near a
    box,

    .. math::

        x^+ = x - \delta\, \nabla f(x) + \frac{\delta \alpha}{\sigma^2} \bigl( D(x, \sigma) - x \bigr)
              + \frac{\delta}{\lambda} \bigl( P_C(x) - x \bigr) + \sqrt{2 \delta}\, \xi,

    with :math:`P_C` the projection to the box C and

    .. math::

        \frac1\lambda = \frac{2 \alpha L}{\sigma^2} + 4 L_y, \qquad
        \delta < \frac13 \Bigl( \frac{\alpha L}{\sigma^2} + L_y + \frac1\lambda \Bigr)^{-1},

    :math:`L_y` the Lipschitz constant of :math:`\nabla f`, L that of D - I. The chain then converges geometrically for
    **any** denoiser with such an L, one without a potential too.

    **Biased**, by four things: the prior is smoothed by :math:`\sigma` (for the posterior mean D under a prior p, it is
    :math:`p * N(0, \sigma^2 I)` to the power :math:`\alpha`), the denoiser is not exact, the tail, and
    :math:`\delta`. For a Gaussian :math:`f` of precision H and a symmetric linear D = W the covariance, inside the box,
    is :math:`P^{-1} (I - \delta P / 2)^{-1}`, :math:`P = H + \alpha (I - W) / \sigma^2`
    (:meth:`ULA.gaussian_law`); for another W it solves :math:`P S + S P^T - \delta P S P^T = 2 I`.

    >>> def model(data=None):
    ...     image = numpyro.sample("image", dist.ImproperUniform(dist.constraints.real, (), grid.shape))
    ...     numpyro.sample("data", dist.Normal(blur(image), 0.1).to_event(2), obs=data)
    >>> prior = ni.distributions.SpectralField(grid, (1.0 + grid.eigenvalues) ** -2.0)
    >>> kernel = ni.infer.PnPULA(
    ...     model, site="image", denoiser=ni.denoisers.FieldDenoiser(prior), sigma=0.1, data_lipschitz=100.0
    ... )

    Args:
        model: a NumPyro model of f: everything but the denoiser's prior. The site's law is usually improper.
        site: the latent site that is denoised, one array of real numbers.
        denoiser: D, any function of an array and a noise level.
        sigma: :math:`\sigma`, in the units of the site; the paper's :math:`\epsilon` is its square.
        data_lipschitz: :math:`L_y`; :math:`\|A\|^2 / s^2` for a linear map A and Gaussian noise of standard deviation s
            (``operators.operator_norm`` gives the norm), or ``lipschitz_constant`` of the model.
        residual_lipschitz: L; by default what ``denoiser.certificates(sigma)["residual"]`` says.
        strength: :math:`\alpha`.
        box: the lower and the upper side of C, in the units of the site; by default -1 and 2, for images in [0, 1].
        step_size: :math:`\delta`; by default 0.99 of the bound.
        init_strategy: NumPyro's, for the first point.

    The extra field ``potential_energy`` is f alone.

    Raises:
        TypeError: ``denoiser`` cannot be called, ``site`` is no string, a parameter is no number.
        ValueError: a parameter not positive; an empty box; no ``residual_lipschitz`` and no certificate; ``step_size``
            at the bound or above. When a run starts: ``site`` is not a latent site; a denoiser that changes the shape;
            and as :class:`ULA`.
        RuntimeError: as :class:`ULA`; a denoiser that returns NaN is such a gradient.

    References:
        Laumont, De Bortoli, Almansa, Delon, Durmus & Pereyra, SIAM J. Imaging Sci. 15 (2022) 701-737, algorithm 1 and
        proposition 3.
    """

    _default_box = (-1.0, 2.0)

    @property
    def tail(self) -> float:
        r""":math:`\lambda`, in squared units of the site."""
        return self._tail

    def _prepare(self, data: float, prior: float) -> None:
        self._tail = 1 / (2 * prior + 4 * data)

    def _limit(self, data: float, prior: float) -> float:
        return 1 / (3 * (prior + data + 1 / self._tail))

    def _field(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return super()._field(x) + (x - jnp.clip(x, *self._box)) / self._tail


class ProjectedPnPULA(_DenoisedULA):
    r"""Plug-and-play ULA that is projected to a box in every step,

    .. math::

        x^+ = P_C \Bigl( x - \delta\, \nabla f(x) + \frac{\delta \alpha}{\sigma^2} \bigl( D(x, \sigma) - x \bigr)
              + \sqrt{2 \delta}\, \xi \Bigr), \qquad \delta < \Bigl( \frac{\alpha L}{\sigma^2} + L_y \Bigr)^{-1}.

    Its step may be longer than that of :class:`PnPULA`, by a factor of nine or more; what is projected stays on the
    box's faces, which is a bias of its own where the posterior reaches them.

    Args:
        model: as for :class:`PnPULA`.
        site: the latent site that is denoised.
        denoiser: D.
        sigma: :math:`\sigma`.
        data_lipschitz: :math:`L_y`.
        residual_lipschitz: L; by default what ``denoiser.certificates(sigma)["residual"]`` says.
        strength: :math:`\alpha`.
        box: the sides of C; by default 0 and 1.
        step_size: :math:`\delta`; by default 0.99 of the bound.
        init_strategy: NumPyro's, for the first point.

    Raises:
        TypeError, ValueError, RuntimeError: as :class:`PnPULA`.

    References:
        Laumont et al., SIAM J. Imaging Sci. 15 (2022) 701-737, algorithm 2.
    """

    _default_box = (0.0, 1.0)

    def _placed(self, z: PyTree) -> PyTree:
        return z | {self._site: jnp.clip(z[self._site], *self._box)}


def _interval(name: str, box: Any) -> tuple[float, float]:
    if not isinstance(box, tuple | list) or len(box) != 2:
        raise TypeError(f"{name}: `box` must be a pair, the lower and the upper side; got {show(box)}.")
    lower, upper = (check_number(name, "box", side) for side in box)
    if not lower < upper:
        raise ValueError(f"{name}: the lower side of `box` must be below the upper one; got {show(box)}.")
    return lower, upper


def _residual(name: str, denoiser: Any, sigma: float, given: float | None) -> float:
    """The Lipschitz constant of D - I, given or certified."""
    if given is not None:
        return check_positive_number(name, "residual_lipschitz", given)
    known = denoiser.certificates(sigma) if callable(getattr(denoiser, "certificates", None)) else {}
    if "residual" not in known or not np.isfinite(known["residual"].bound):
        raise ValueError(
            f"{name}: `residual_lipschitz` is missing, the Lipschitz constant of D - I, and this denoiser has no "
            "certificate of it. Measure it (`denoisers.audit_denoiser`; an estimate is a lower bound) or bound it."
        )
    return max(float(known["residual"].bound), float(np.finfo(np.float32).tiny))
