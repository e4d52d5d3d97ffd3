"""Gaussian fields that are diagonal in the fast transform of a grid."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import MultivariateNormal, Normal, constraints
from numpyro.distributions.util import validate_sample

from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution
from numpyro_inverse.domains import Grid
from numpyro_inverse.domains._transforms import basis_at, variance_synthesis

DENSE_LIMIT = 4096


class SpectralField(ReparametrizedDistribution):
    r"""A Gaussian field whose coefficients in the Laplacian's eigenbasis are independent:

    .. math:: u(x) = m(x) + \sum_k \sqrt{S_k}\, z_k\, \phi_k(x), \qquad z_k \sim N(0, 1),

    with :math:`\phi_k` the L2-orthonormal eigenfunctions of ``domain`` (cosines, sines or both). The spectrum
    :math:`S_k` has the units of the field squared times volume, so it means the same on every grid:

    >>> from numpyro_inverse.domains import Grid
    >>> grid = Grid((64, 64))
    >>> sobolev = SpectralField(grid, (1.0 + grid.eigenvalues) ** -2.0)
    >>> torus = Grid((64, 64), boundary="periodic")
    >>> gmrf = SpectralField(torus, torus.cell_volume / (30.0 * (torus.difference_eigenvalues + 1.0)))

    Args:
        domain: the grid whose eigenbasis is used.
        spectrum: positive :math:`S_k`, shape ``batch + domain.shape`` (or broadcastable to it), in the order of
            ``domain.eigenvalues``.
        mean: a number, or an array that broadcasts to ``batch + window.shape``.
        window: a grid whose cells are the leading cells of ``domain``; the field is seen there only, and is then no
            longer diagonal: its density is formed densely, up to 4096 cells. Default: all of ``domain``.

    Raises:
        ValueError: shapes that do not fit, or a spectrum that is not positive and finite.
    """

    arg_constraints = {"spectrum": constraints.positive}  # noqa: RUF012
    reparametrized_params = ["spectrum"]  # noqa: RUF012
    pytree_data_fields: tuple[str, ...] = ("spectrum", "_mean")
    pytree_aux_fields: tuple[str, ...] = ("domain", "window")

    def __init__(
        self,
        domain: Grid,
        spectrum: Float[Array, "*batch_and_shape"],
        *,
        mean: float | Float[Array, "..."] = 0.0,
        window: Grid | None = None,
        validate_args: bool | None = None,
    ):
        name = type(self).__name__
        self.domain = domain
        self.window = domain if window is None else window
        if self.window.ndim != domain.ndim or any(w > n for w, n in zip(self.window.shape, domain.shape, strict=True)):
            raise ValueError(f"{name}: `window` {self.window.shape} does not fit into `domain` {domain.shape}.")
        spectrum = jnp.asarray(spectrum)
        check_positive(name, "spectrum", spectrum)
        mean = jnp.asarray(mean, jnp.result_type(float, spectrum))
        check_finite(name, "mean", mean)
        batch_shape = jnp.broadcast_shapes(
            _batch_shape(name, "spectrum", spectrum.shape, domain.shape),
            _batch_shape(name, "mean", mean.shape, self.window.shape),
        )
        self.spectrum = jnp.broadcast_to(spectrum, batch_shape + domain.shape)
        self._mean = mean
        super().__init__(batch_shape, self.window.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        """All arrays of the window's shape."""
        return constraints.independent(constraints.real, self.window.ndim)

    @property
    def amplitudes(self) -> Float[Array, "*batch_and_shape"]:
        """Standard deviations of the coefficients in the grid's orthonormal basis (the units of the field)."""
        return jnp.sqrt(self.spectrum / self.domain.cell_volume)

    @property
    def base_dist(self):
        """White noise, one number per mode."""
        white = Normal(jnp.zeros((), self.spectrum.dtype), jnp.ones((), self.spectrum.dtype))
        return white.expand(self.batch_shape + self.domain.shape).to_event(self.domain.ndim)

    def from_base(self, z):
        """The field with white coefficients ``z``."""
        return self.from_coefficients(self.amplitudes * z)

    def from_coefficients(self, w: Float[Array, "*batch_and_shape"]) -> Float[Array, "*batch_and_window"]:
        """The field with coefficients ``w`` in the grid's orthonormal basis."""
        return self._mean + self._crop(self.domain.inverse_transform(w))

    def _crop(self, x: Array) -> Array:
        if self.window.shape == self.domain.shape:
            return x
        return x[(..., *(slice(n) for n in self.window.shape))]

    @property
    def mean(self):
        """Shape ``batch + window.shape``."""
        return jnp.broadcast_to(self._mean, self.batch_shape + self.event_shape)

    @property
    def variance(self):
        r"""Pointwise variance :math:`\sum_k S_k \phi_k(x)^2`, shape ``batch + window.shape``."""
        variance = self.spectrum / self.domain.cell_volume
        for axis, boundary in enumerate(self.domain.boundary):
            variance = variance_synthesis(variance, boundary, axis - self.domain.ndim)
        return self._crop(variance)

    @property
    def covariance_matrix(self) -> Float[Array, "*batch n n"]:
        """Dense covariance of the raveled field.

        Raises:
            ValueError: more than 4096 cells.
        """
        n = self.window.size
        if n > DENSE_LIMIT:
            raise ValueError(
                f"{type(self).__name__}: a dense covariance is formed up to {DENSE_LIMIT} cells; this field has {n}. "
                "The density of a field seen through a window (`padding`) needs it; `whiten(model)` does not."
            )
        d, batch = self.domain.ndim, self.batch_shape
        covariance = self.spectrum / self.domain.cell_volume
        for boundary, size, cells in zip(self.domain.boundary, self.domain.shape, self.window.shape, strict=True):
            rows = jnp.asarray(basis_at(boundary, size, (np.arange(cells) + 0.5) / size), covariance.dtype)
            covariance = jnp.moveaxis(covariance, len(batch), -1)  # an axis of modes becomes a pair of axes of cells
            covariance = jnp.matmul(covariance[..., None, :] * rows, rows.T, precision="highest")
        pairs = [len(batch) + 2 * a for a in range(d)]
        order = (*range(len(batch)), *pairs, *(a + 1 for a in pairs))
        covariance = covariance.transpose(order).reshape((*batch, n, n))
        return 0.5 * (covariance + jnp.swapaxes(covariance, -1, -2))

    @validate_sample
    def log_prob(self, value, intermediates=None):
        r"""Log density, :math:`-\tfrac12 \sum_k \bigl( w_k^2 / v_k + \log 2 \pi v_k \bigr)` with coefficients
        :math:`w` of ``value - mean`` and their variances :math:`v`; dense if the field is seen through a window (and
        then NaN where the covariance is singular to working precision, as for a smooth field in float32)."""
        residual = value - self._mean
        d = self.domain.ndim
        if self.window.shape != self.domain.shape:
            flat = residual.reshape((*residual.shape[:-d], -1))
            zero = jnp.zeros(flat.shape[-1:], flat.dtype)
            factor = jnp.linalg.cholesky(self.covariance_matrix)
            return MultivariateNormal(zero, scale_tril=factor, validate_args=False).log_prob(flat)
        axes = tuple(range(-d, 0))
        w = self.domain.transform(residual) / self.amplitudes
        log_scale = jnp.sum(jnp.log(self.amplitudes), axis=axes)
        return -0.5 * jnp.sum(w**2, axis=axes) - log_scale - 0.5 * self.domain.size * np.log(2 * np.pi)


def _batch_shape(name: str, argument: str, shape: tuple[int, ...], event_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The batch part of ``shape``, whose trailing axes must broadcast to ``event_shape``."""
    d = len(event_shape)
    trailing = shape[max(len(shape) - d, 0) :]
    trailing = (1,) * (d - len(trailing)) + trailing
    if any(t not in (1, n) for t, n in zip(trailing, event_shape, strict=True)):
        raise ValueError(f"{name}: `{argument}` must broadcast to batch + {event_shape}; got shape {shape}.")
    return shape[: max(len(shape) - d, 0)]


def check_finite(name: str, argument: str, value: Array) -> None:
    """Raise if ``value`` is concrete and not finite."""
    if not isinstance(value, jax.core.Tracer) and not np.all(np.isfinite(value)):
        raise ValueError(f"{name}: `{argument}` must be finite; {int(np.sum(~np.isfinite(value)))} values are not.")


def check_positive(name: str, argument: str, value: Array) -> None:
    """Raise if ``value`` is concrete and not finite and positive."""
    if isinstance(value, jax.core.Tracer):
        return
    value = np.asarray(value)
    bad = ~(np.isfinite(value) & (value > 0))
    if bad.any():
        raise ValueError(f"{name}: `{argument}` must be positive and finite; got {value[bad].ravel()[0]}.")
