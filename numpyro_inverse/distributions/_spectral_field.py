"""Gaussian fields that are diagonal in the fast transform of a grid."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import MultivariateNormal, Normal, constraints
from numpyro.distributions.util import validate_sample

from numpyro_inverse._checks import (
    check_broadcast,
    check_finite,
    check_instance,
    check_positive,
    check_real,
    check_trailing,
    is_traced,
)
from numpyro_inverse.distributions._reparametrized import ReparametrizedDistribution
from numpyro_inverse.domains import Grid
from numpyro_inverse.domains._transforms import basis_at, shared_modes, variance_synthesis

DENSE_LIMIT = 4096
BIAS = 0.1  # of the scale by rounding, in standard deviations of its posterior
SINGULAR = 0.02  # rounding over the smallest conditional variances: just before a Cholesky factor breaks down


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
        TypeError: ``domain`` or ``window`` is no grid, ``spectrum`` or ``mean`` are no real numbers.
        ValueError: shapes or a window's cells that do not fit, or a spectrum that is not positive and finite.
    """

    arg_constraints = {"spectrum": constraints.positive}  # noqa: RUF012
    reparametrized_params = ["spectrum"]  # noqa: RUF012
    pytree_data_fields: tuple[str, ...] = ("_variances", "_mean")
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
        check_instance(name, "domain", domain, Grid, "a Grid")
        spectrum = check_positive(name, "spectrum", spectrum)
        spectrum = jnp.asarray(spectrum, jnp.result_type(float, spectrum))
        volume, limits = domain.cell_volume, jnp.finfo(spectrum.dtype)
        steps = (volume,) if limits.tiny < volume < limits.max else domain.spacing
        for step in steps:
            spectrum = spectrum / step
        self._set(domain, window, check_finite(name, "spectrum` / `cell_volume", spectrum), mean, validate_args)

    def _set(self, domain: Grid, window: Grid | None, variances: Array, mean: Any, validate_args: bool | None) -> None:
        """Finish with the variances of the coefficients at ``_scale`` 1."""
        name = type(self).__name__
        self.domain = domain
        self.window = domain if window is None else check_instance(name, "window", window, Grid, "a Grid")
        if self.window.ndim != domain.ndim or any(w > n for w, n in zip(self.window.shape, domain.shape, strict=True)):
            raise ValueError(f"{name}: `window` {self.window.shape} does not fit into `domain` {domain.shape}.")
        if not np.allclose(self.window.spacing, domain.spacing, rtol=1e-5, atol=0):
            raise ValueError(
                f"{name}: the cells of `window`, of sides {self.window.spacing}, are not those of `domain`, of sides "
                f"{domain.spacing}."
            )
        mean = jnp.asarray(check_finite(name, "mean", mean), jnp.result_type(float, variances))
        batch_shape = check_broadcast(
            name,
            spectrum=_batch_shape(name, "spectrum", variances.shape, domain.shape),
            mean=_batch_shape(name, "mean", mean.shape, self.window.shape),
        )
        self._variances = jnp.broadcast_to(variances, batch_shape + domain.shape)
        self._mean = mean
        super().__init__(batch_shape, self.window.shape, validate_args=validate_args)

    @property
    def _scale(self) -> Array:
        """What the field is multiplied by: kept apart, so that nothing underflows in anybody's units."""
        return jnp.ones((), self._variances.dtype)

    def _parameters(self) -> str:
        """What decides the spectrum, for a message."""
        return f"a spectrum over {self.domain.shape} modes"

    @property
    def spectrum(self) -> Float[Array, "*batch_and_shape"]:
        """Variances of the coefficients in the L2-orthonormal eigenfunctions (the field squared times volume)."""
        return _on_axes(self._scale**2, self.domain.ndim) * self._variances * self.domain.cell_volume

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        """All arrays of the window's shape."""
        return constraints.independent(constraints.real, self.window.ndim)

    @property
    def amplitudes(self) -> Float[Array, "*batch_and_shape"]:
        """Standard deviations of the coefficients in the grid's orthonormal basis (the units of the field)."""
        return _on_axes(self._scale, self.domain.ndim) * jnp.sqrt(self._variances)

    @property
    def base_dist(self):
        """White noise, one number per mode."""
        white = Normal(jnp.zeros((), self._variances.dtype), jnp.ones((), self._variances.dtype))
        return white.expand(self.batch_shape + self.domain.shape).to_event(self.domain.ndim)

    def from_base(self, z):
        """The field with white coefficients ``z``."""
        return self.from_coefficients(self.amplitudes * z)

    def from_coefficients(self, w: Float[Array, "*batch_and_shape"]) -> Float[Array, "*batch_and_window"]:
        """The field with coefficients ``w`` in the grid's orthonormal basis."""
        return self._mean + self._crop(self.domain.inverse_transform(w))

    def restrict_noise(
        self, coarse: SpectralField, z: Float[Array, "*batch_and_shape"]
    ) -> Float[Array, "*batch_and_coarse_shape"]:
        """The coefficients of the modes that a coarser grid has, too; see
        :func:`~numpyro_inverse.distributions.restrict_noise`.

        Raises:
            TypeError: ``coarse`` is no field on a grid.
            ValueError: its grid is no coarser one of the same box and boundary.
        """
        name = f"{type(self).__name__}.restrict_noise"
        check_instance(name, "coarse", coarse, SpectralField, "a field on a grid")
        here, there = self.domain, coarse.domain
        same = here.boundary == there.boundary and np.allclose(here.extent, there.extent, rtol=1e-5, atol=0)
        if not same or any(n < m for n, m in zip(here.shape, there.shape, strict=True)):
            raise ValueError(
                f"{name}: the grid of `coarse`, with its padding, must be a coarser one of the same box and boundary; "
                f"got {there} for {here}."
            )
        for axis, (boundary, n, m) in enumerate(zip(here.boundary, here.shape, there.shape, strict=True)):
            z = jnp.take(z, shared_modes(boundary, n, m), axis=axis - here.ndim)
        return z

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
        variance = self._variances
        for axis, boundary in enumerate(self.domain.boundary):
            variance = variance_synthesis(variance, boundary, axis - self.domain.ndim)
        return _on_axes(self._scale**2, self.domain.ndim) * self._crop(variance)

    @property
    def covariance_matrix(self) -> Float[Array, "*batch n n"]:
        """Dense covariance of the raveled field.

        Raises:
            ValueError: more than 4096 cells.
        """
        return _on_axes(self._scale**2, 2) * self._unit_covariance

    @property
    def _unit_covariance(self) -> Array:
        n = self.window.size
        if n > DENSE_LIMIT:
            raise ValueError(
                f"{type(self).__name__}: a dense covariance is formed up to {DENSE_LIMIT} cells; this field has {n}. "
                "The density of a field seen through a window (`padding`) needs it; `whiten(model)` does not."
            )
        d, batch = self.domain.ndim, self.batch_shape
        covariance = self._variances
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
        :math:`w` of ``value - mean`` and their variances :math:`v`; dense if the field is seen through a window.

        A value that is rounded to precision :math:`\epsilon` has errors of a size r in every coefficient, about
        :math:`r^2 = \epsilon^2 (\operatorname{mean}(v) + \operatorname{mean}(m^2))`. Where they hide the smallest
        :math:`v_k`, so that they add :math:`\tfrac12 \sum_k r^2 / v_k > 0.1 \sqrt{N / 2}` to the exponent (a tenth of a
        posterior standard deviation of the field's scale), or where a dense covariance is singular, there is no density
        in this precision: an error, or NaN where that is only known within ``jit``.

        Raises:
            TypeError: ``value`` is not of real numbers.
            ValueError: its trailing axes are not the event's, or the smallest variances are hidden by rounding.
        """
        name, d, n = f"{type(self).__name__}.log_prob", self.domain.ndim, self.window.size
        value = jnp.asarray(check_trailing(name, "value", check_real(name, "value", value), self.event_shape))
        check_broadcast(name, value=value.shape[: value.ndim - d], batch=self.batch_shape)
        residual = value - self._mean
        real = jnp.issubdtype(value.dtype, jnp.floating)
        coarser = max((value.dtype, residual.dtype) if real else (residual.dtype,), key=lambda t: jnp.finfo(t).eps)
        if self.window.shape != self.domain.shape:
            factor = jnp.linalg.cholesky(self._unit_covariance)
            smallest = jnp.diagonal(factor, axis1=-2, axis2=-1)
            hidden = jnp.finfo(factor.dtype).eps * jnp.sum(smallest**-2.0, axis=-1) / np.sqrt(n / 2) > SINGULAR
            hidden = hidden | ~jnp.isfinite(jnp.sum(smallest, axis=-1))
            flat = (residual / _on_axes(self._scale, d)).reshape((*residual.shape[:-d], -1))
            zero = jnp.zeros(flat.shape[-1:], flat.dtype)
            density = MultivariateNormal(zero, scale_tril=factor, validate_args=False).log_prob(flat)
        else:
            axes, v = tuple(range(-d, 0)), self._variances
            hidden = self._hidden_by_rounding(coarser)
            w = self.domain.transform(residual) / _on_axes(self._scale, d) / jnp.sqrt(v)  # no value is rounded anew
            density = -0.5 * (jnp.sum(w**2, axis=axes) + jnp.sum(jnp.log(v), axis=axes) + n * np.log(2 * np.pi))
        if not is_traced(hidden) and np.any(hidden):
            raise ValueError(
                f"{name}: rounding to {coarser} hides the smallest modes of this field ({self._parameters()}), "
                "so that it has no density in this precision. Use `whiten(model)`, which needs none, double precision "
                "(`jax.enable_x64`), a coarser grid or less smoothness."
            )
        return jnp.where(hidden, jnp.nan, density - n * jnp.log(self._scale))

    def _hidden_by_rounding(self, precision: Any) -> Array:
        """Whether rounding a value to that precision biases the density of its coefficients."""
        axes, v = tuple(range(-self.domain.ndim, 0)), self._variances
        offset = jnp.broadcast_to(self._mean, self.batch_shape + self.event_shape) / _on_axes(self._scale, len(axes))
        rounding = jnp.finfo(precision).eps ** 2 * (jnp.mean(v, axis=axes) + jnp.mean(offset**2, axis=axes))
        return 0.5 * rounding * jnp.sum(1 / v, axis=axes) > BIAS * np.sqrt(self.domain.size / 2)


def _on_axes(value: Array, d: int) -> Array:
    """With ``d`` axes more, to broadcast over cells."""
    return value[(..., *(None,) * d)]


def _batch_shape(name: str, argument: str, shape: tuple[int, ...], event_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The batch part of ``shape``, whose trailing axes must broadcast to ``event_shape``."""
    d = len(event_shape)
    trailing = shape[max(len(shape) - d, 0) :]
    trailing = (1,) * (d - len(trailing)) + trailing
    if any(t not in (1, n) for t, n in zip(trailing, event_shape, strict=True)):
        raise ValueError(f"{name}: `{argument}` must broadcast to batch + {event_shape}; got shape {shape}.")
    return shape[: max(len(shape) - d, 0)]
