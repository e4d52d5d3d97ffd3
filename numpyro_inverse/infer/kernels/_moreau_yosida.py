"""Langevin sampling under a non-smooth prior that has a proximal operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree
from numpyro.infer.initialization import init_to_uniform

from numpyro_inverse._checks import check_callable, check_positive_number, check_real
from numpyro_inverse.infer.kernels._base import Point
from numpyro_inverse.infer.kernels._ula import ULA
from numpyro_inverse.infer.kernels._unadjusted import GaussianLaw


class MoreauYosidaULA(ULA):
    r"""ULA for :math:`e^{-f - g}` with f smooth, from the model, and g known by its proximal operator (MYULA),

    .. math::

        x^+ = x - \delta\, \nabla f(x) - \frac{\delta}{\lambda} \bigl(x - \operatorname{prox}_{\lambda g}(x)\bigr)
              + \sqrt{2 \delta}\, \xi, \qquad
        \operatorname{prox}_{\lambda g}(x) = \arg\min_u g(u) + \frac{|u - x|^2}{2 \lambda}.

    It is :class:`ULA` on :math:`f + g^\lambda`, with :math:`g^\lambda` the Moreau envelope of g, whose gradient is
    :math:`1/\lambda`-Lipschitz. **Biased** twice: by :math:`\lambda`, which smooths the prior (usually
    :math:`\lambda \sim 1/L_f`, :math:`L_f` the Lipschitz constant of :math:`\nabla f`), and by :math:`\delta`, stable
    below :math:`2 / (L_f + 1/\lambda)` and usually at most half of that. For a Gaussian g of covariance C and f of
    precision H, it is ULA on the precision :math:`H + (C + \lambda I)^{-1}`
    (:meth:`gaussian_law`).

    >>> def model(y):
    ...     x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), (64,)))
    ...     numpyro.sample("y", dist.Normal(blur(x), 0.1).to_event(1), obs=y)
    >>> def prox(z, smoothing):  # of 3 |x|_1
    ...     return {"x": jnp.sign(z["x"]) * jnp.maximum(jnp.abs(z["x"]) - 3 * smoothing, 0)}
    >>> kernel = MoreauYosidaULA(model, prox=prox, smoothing=1e-2, step_size=5e-3)

    Args:
        model: a NumPyro model of f: everything but g.
        potential_fn: instead of ``model``, f on any pytree; ``init_params`` are then needed.
        prox: ``prox(z, smoothing)``, :math:`\operatorname{prox}_{\lambda g}` on the pytree of unconstrained latents (a
            dictionary by site); latents that g does not involve come back as they are.
        smoothing: :math:`\lambda`.
        step_size: :math:`\delta`.
        init_strategy: NumPyro's, for the first point.

    The extra field ``potential_energy`` is f alone: g itself is not known.

    Raises:
        TypeError: ``prox`` cannot be called.
        ValueError: ``smoothing`` not positive; and as :class:`ULA`.
        RuntimeError: as :class:`ULA`.

    References:
        Durmus, Moulines & Pereyra, SIAM J. Imaging Sci. 11 (2018) 473-506.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        prox: Callable,
        smoothing: float,
        step_size: float,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, step_size=step_size, init_strategy=init_strategy)
        self._prox = check_callable(self._name, "prox", prox)
        self._smoothing = check_positive_number(self._name, "smoothing", smoothing)

    def gaussian_law(self, curvature: Float[Array | np.ndarray, "..."] | float) -> GaussianLaw:
        r"""Stationary variance :math:`h^{-1} (1 - \delta h / 2)^{-1}` and lag-1 correlation :math:`1 - \delta h` of a
        mode with :math:`f + g^\lambda = h x^2 / 2`.

        Args:
            curvature: h, of any shape: the precision of f **plus the envelope's**, which is
                :math:`(c + \lambda)^{-1}` for a Gaussian g of variance c.

        Raises:
            ValueError: :math:`\delta h` not in (0, 2), where there is no stationary law.
        """
        return super().gaussian_law(curvature)

    def _target(self, args: tuple, kwargs: dict[str, Any] | None, unravel: Callable) -> Callable:
        smooth = super()._target(args, kwargs, unravel)

        def target(x: Float[Array, "n"], key: Array) -> Point:
            point = smooth(x, key)
            nearer = self._nearer(unravel(x))
            return point._replace(grad=point.grad + (x - nearer) / self._smoothing)

        return target

    def _nearer(self, z: PyTree) -> Float[Array, "n"]:
        """The proximal point, flat."""
        found = self._prox(z, self._smoothing)
        wanted_structure: Any = jax.tree.structure(z)
        if wanted_structure != jax.tree.structure(found):
            shown = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
            wanted = f"sites {', '.join(map(str, z))}" if isinstance(z, dict) else "the latents as it gets them"
            raise ValueError(f"{self._name}: `prox` must return {wanted}; got {shown}.")
        for (path, old), new in zip(jax.tree.leaves_with_path(z), jax.tree.leaves(found), strict=True):
            place = f"z{jax.tree_util.keystr(path)}"
            check_real(self._name, f"prox of {place}", new)
            if np.shape(new) != np.shape(old):
                raise ValueError(f"{self._name}: `prox` turns shape {np.shape(old)} of {place} into {np.shape(new)}.")
        return ravel_pytree(found)[0]
