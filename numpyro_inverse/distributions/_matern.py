"""The Whittle-Matérn field on a grid."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from numpyro_inverse._arrays import as_jax
from numpyro_inverse._checks import check_broadcast, check_instance, check_positive, is_traced, show
from numpyro_inverse.distributions._fractional_matern import FractionalMatern, is_fractional
from numpyro_inverse.distributions._matern_images import added_variance
from numpyro_inverse.distributions._matern_mesh import MaternMesh
from numpyro_inverse.distributions._matern_spectrum import matern_variances
from numpyro_inverse.distributions._spectral_field import SpectralField
from numpyro_inverse.domains import Grid, Mesh

ADDED = 0.01  # share of the variance that images may add without a warning
ROUGH = 0.1  # smoothness below which the tail of the correlation is long


class Matern(SpectralField):
    r"""A Gaussian field with Matérn covariance, the solution of
    :math:`(\kappa^2 - \Delta)^{(\nu + d/2)/2} (\tau u) = \mathcal W` under the grid's boundary condition.

    Away from the boundary,

    .. math:: \operatorname{Cov}(u(x), u(y)) = \sigma^2 \frac{2^{1-\nu}}{\Gamma(\nu)} (\kappa r)^\nu K_\nu(\kappa r),
        \qquad r = |x - y|,\quad \kappa = \sqrt{8 \nu} / \rho,

    exactly, between the cells of any grid: the spectrum is folded, so refinement adds resolution and changes nothing
    else. Near a Neumann boundary the variance rises (2x at an edge, 4x at a corner), near a Dirichlet boundary it falls
    to zero, within about a range (several, for a smoothness below 0.1, whose correlation has a long tail). ``padding``
    removes that: the field is sampled on a torus larger by the padding and seen in the domain only, so its variance is
    the same everywhere. What comes round the torus adds to it: the sum of the correlations at all multiples of the
    torus' sides. On a domain as long as a range, a padding of one range adds 2 % in 1-D, 5 % in 2-D and 8 % in 3-D for
    smoothness 1, of two ranges 0.5 % at most; values at opposite ends of the domain gain the covariance at the length
    of the padding (0.14 at one range, 0.01 at two). A warning says where it adds more than 1 %. Padding by the whole
    extent is the average of the Dirichlet and Neumann fields (Kutri & Scheichl, arXiv:2412.07929).

    Smooth fields have modes that single precision cannot see in a value: above a certain smoothness (about 3.5 at 128
    cells a range in 1-D, see docs/fields.md) the density is refused, or NaN under ``jit``. ``sample`` and ``whiten``
    need none and work at any smoothness.

    Args:
        domain: the grid the field lives on; on a :class:`~numpyro_inverse.domains.Mesh` the result is a
            :class:`MaternMesh` or a :class:`FractionalMatern`, with the arguments described there.
        range: :math:`\rho > 0` in length units; correlation is 0.10 to 0.14 at that distance. A tuple gives one range
            per axis (geometric anisotropy); each may be an array of the batch shape.
        scale: marginal standard deviation :math:`\sigma > 0` away from the boundary.
        smoothness: :math:`\nu > 0`; any real number, and it may be sampled.
        mean: a number or an array that broadcasts to ``batch + domain.shape``.
        padding: extra room in length units, one number or one per axis; the density is then dense (up to 4096 cells),
            while ``sample`` and ``whiten`` stay fast. The domain's own boundary condition no longer matters.

    Raises:
        TypeError: ``domain`` is no grid, or a parameter is no real number.
        ValueError: a range, scale or smoothness that is not positive and finite, or shapes that do not fit. A traced
            one gives NaN instead.

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

    def __new__(cls, domain: Any = None, *args: Any, **kwargs: Any) -> Any:
        """A field on a mesh is a :class:`MaternMesh` or a :class:`FractionalMatern`, of other arguments."""
        if cls is Matern and isinstance(domain, Mesh):
            fractional = is_fractional(kwargs.get("smoothness"), domain.manifold_dim)
            return (FractionalMatern if fractional else MaternMesh)(domain, *args, **kwargs)
        return super().__new__(cls)

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
        check_instance("Matern", "domain", domain, Grid, "a Grid or a Mesh")
        d = domain.ndim
        ranges = tuple(range) if isinstance(range, tuple | list) else (range,) * d
        if len(ranges) != d:
            raise ValueError(f"Matern: `range` must be one value or a tuple of one per axis ({d}); got {len(ranges)}.")
        ranges = tuple(check_positive("Matern", "range", r) for r in ranges)
        scale, smoothness = check_positive("Matern", "scale", scale), check_positive("Matern", "smoothness", smoothness)
        alike = len({id(r) for r in ranges}) == 1
        along = {"range": ranges[0]} if alike else {f"range_{a}": r for a, r in enumerate(ranges)}
        shapes = {
            name: jnp.shape(value) for name, value in (along | {"scale": scale, "smoothness": smoothness}).items()
        }
        if 0 in check_broadcast("Matern", **shapes):
            raise ValueError(f"Matern: `range`, `scale` and `smoothness` must not be empty; got shapes {shapes}.")
        torus = domain.extended(padding)
        host = domain if torus.shape == domain.shape else torus
        if not is_traced(ranges, smoothness):
            _warn_of_images(domain, host, ranges, smoothness)

        dtype = jnp.result_type(float, *ranges, scale, smoothness)
        known = None if is_traced(ranges, smoothness) else _known_variances(host, ranges, smoothness, dtype)
        values = [_positive_or_nan(value, dtype) for value in (*ranges, scale, smoothness)]
        xp = jnp if is_traced(values) else np
        *per_axis, scale, smoothness = xp.broadcast_arrays(*values)
        self.range = jnp.asarray(xp.stack(per_axis, axis=-1))
        self.scale = jnp.asarray(scale)
        self.smoothness = jnp.asarray(smoothness)
        if known is None:
            variances = matern_variances(host, self.range[..., :1] if alike else self.range, self.smoothness)
        elif np.all(np.isfinite(known)):
            variances = as_jax(known)
        else:
            raise ValueError(
                f"Matern: `range` {show(range)}, with `smoothness` {show(smoothness)}, is too far from the spacing "
                f"{domain.spacing} for {dtype}: the field is a constant there, or white noise."
            )
        variances = jnp.broadcast_to(variances, smoothness.shape + host.shape)
        self._set(host, domain, variances, mean, validate_args)

    @property
    def _scale(self) -> Array:
        return self.scale

    def _parameters(self) -> str:
        return f"range {show(self.range)}, smoothness {show(self.smoothness)}, spacing {self.window.spacing}"


def _known_variances(host: Grid, ranges: tuple[Any, ...], smoothness: Any, dtype: Any) -> Any:
    """Variances as numbers, also where a model with a known range is being traced.

    The spectrum is some hundred operations, which take XLA seconds to compile and NumPy milliseconds.
    """
    known: list[Any] = list(np.broadcast_arrays(*(np.asarray(value, dtype) for value in (*ranges, smoothness))))
    along: Any = np.stack(known[:-1], axis=-1)
    with np.errstate(all="ignore"):  # what is not finite is refused by the caller, for all reasons alike
        return matern_variances(host, along, known[-1])


def _positive_or_nan(value: Any, dtype: Any) -> Any:
    """An array; traced values, which cannot be checked, are NaN where they are not positive."""
    return jnp.where(value > 0, jnp.asarray(value, dtype), jnp.nan) if is_traced(value) else np.asarray(value, dtype)


def _warn_of_images(domain: Grid, host: Grid, ranges: tuple[Any, ...], smoothness: Any) -> None:
    """Say where the torus is too short, or the tail of a rough field so long that the boundary is everywhere."""
    # Of NumPy's own arrays: a reduction of JAX's is traced where the model is, though its operand is known.
    roughest = float(np.min(np.asarray(smoothness)))
    longest = [float(np.max(np.asarray(r))) for r in ranges]

    def added(grow: float = 1.0) -> float:
        sides = [
            (length + grow * (torus - length)) / r
            for length, torus, r in zip(domain.extent, host.extent, longest, strict=True)
        ]
        return added_variance(tuple(sides), roughest)

    if host != domain and added() > ADDED:
        enough = next((g for g in 1.25 ** np.arange(1, 25) if added(g) <= ADDED), None)
        padding = tuple(t - length for t, length in zip(host.extent, domain.extent, strict=True))
        remedy = "" if enough is None else f"; {enough:.2g} times the padding keeps it below {ADDED:.0%}"
        warnings.warn(
            f"Matern: `padding` {tuple(float(f'{p:.3g}') for p in padding)} adds {added():.1%} to the variance of a "
            f"field of range {max(longest):.3g} and smoothness {roughest:.3g}, which comes round the torus{remedy}.",
            UserWarning,
            stacklevel=3,
        )
    elif host == domain and roughest < ROUGH and set(domain.boundary) != {"periodic"} and added() > ADDED:
        warnings.warn(
            f"Matern: with smoothness {roughest:.3g} and range {max(longest):.3g} the boundary changes the variance by "
            f"{added():.1%} in the middle of the domain; use a `padding` of several ranges.",
            UserWarning,
            stacklevel=3,
        )
