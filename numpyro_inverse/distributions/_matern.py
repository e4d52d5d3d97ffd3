"""The Whittle-Matérn field on a grid."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from numpyro_inverse.distributions._matern_spectrum import matern_spectrum
from numpyro_inverse.distributions._spectral_field import SpectralField, check_positive
from numpyro_inverse.domains import Grid


class Matern(SpectralField):
    r"""A Gaussian field with Matérn covariance, the solution of
    :math:`(\kappa^2 - \Delta)^{(\nu + d/2)/2} (\tau u) = \mathcal W` under the grid's boundary condition.

    Away from the boundary,

    .. math:: \operatorname{Cov}(u(x), u(y)) = \sigma^2 \frac{2^{1-\nu}}{\Gamma(\nu)} (\kappa r)^\nu K_\nu(\kappa r),
        \qquad r = |x - y|,\quad \kappa = \sqrt{8 \nu} / \rho,

    exactly, between the cells of any grid: the spectrum is folded, so refinement adds resolution and changes nothing
    else. Near a Neumann boundary the variance rises (2x at an edge, 4x at a corner), near a Dirichlet boundary it falls
    to zero, within about a range. ``padding`` removes that: the field is sampled on a torus larger by the padding and
    seen in the domain only, so its variance is the same everywhere; covariances at distance r gain those at the
    torus' other way round, negligible once ``padding`` is about a range. Padding by the whole extent is the
    average of the Dirichlet and Neumann fields (Kutri & Scheichl, arXiv:2412.07929).

    Args:
        domain: the grid the field lives on.
        range: :math:`\rho > 0` in length units; correlation is 0.10 to 0.14 at that distance. A tuple gives one range
            per axis (geometric anisotropy); each may be an array of the batch shape.
        scale: marginal standard deviation :math:`\sigma > 0` away from the boundary.
        smoothness: :math:`\nu > 0`; any real number, and it may be sampled.
        mean: a number or an array that broadcasts to ``batch + domain.shape``.
        padding: extra room in length units, one number or one per axis; the density is then dense (up to 4096 cells),
            while ``sample`` and ``whiten`` stay fast. The domain's own boundary condition no longer matters.

    Raises:
        ValueError: a range, scale or smoothness that is not positive and finite, or shapes that do not fit.

    References:
        Whittle, Bull. Int. Stat. Inst. 40 (1963) 974-994; Lindgren, Rue & Lindström, JRSS B 73 (2011) 423-498, eq. 1-2.
    """

    arg_constraints = {  # noqa: RUF012
        "range": constraints.positive,
        "scale": constraints.positive,
        "smoothness": constraints.positive,
    }
    reparametrized_params = ["range", "scale", "smoothness"]  # noqa: RUF012
    pytree_data_fields = ("range", "scale", "smoothness")

    def __init__(
        self,
        domain: Grid,
        *,
        range: float | Float[Array, "*batch"] | tuple[float | Float[Array, "*batch"], ...],
        scale: float | Float[Array, "*batch"],
        smoothness: float | Float[Array, "*batch"],
        mean: float | Float[Array, "..."] = 0.0,
        padding: float | tuple[float, ...] = 0.0,
        validate_args: bool | None = None,
    ):
        d = domain.ndim
        ranges = tuple(range) if isinstance(range, tuple | list) else (range,) * d
        if len(ranges) != d:
            raise ValueError(f"Matern: `range` must be one value or a tuple of one per axis ({d}); got {len(ranges)}.")
        dtype = jnp.result_type(float, *ranges, scale, smoothness)
        *per_axis, scale, smoothness = jnp.broadcast_arrays(
            *(jnp.asarray(value, dtype) for value in (*ranges, scale, smoothness))
        )
        for argument, value in (("range", jnp.stack(per_axis)), ("scale", scale), ("smoothness", smoothness)):
            check_positive("Matern", argument, value)
        self.range = jnp.stack(per_axis, axis=-1)
        self.scale = scale
        self.smoothness = smoothness
        torus = domain.extended(padding)
        host = domain if torus.shape == domain.shape else torus
        spectrum = matern_spectrum(host, self.range, scale, smoothness)
        super().__init__(host, spectrum, mean=mean, window=domain, validate_args=validate_args)
