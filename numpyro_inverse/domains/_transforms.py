"""Orthonormal cosine, sine and Fourier transforms along an axis, on cell centers ``(i + 1/2) h``.

The eigenfunctions of the Laplacian on an interval under each boundary condition, sampled at ``n`` cell centers, are
an orthonormal basis of R^n (DCT-II, DST-II and the real Fourier basis; Strang, SIAM Review 41, 1999, Table 1). Up to
``DENSE_LIMIT`` points a dense matrix product is faster than XLA's FFT on CPU and on GPU, and is used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float

from numpyro_inverse.operators._kronecker import apply_along_axis

DENSE_LIMIT = 512
BOUNDARIES = ("neumann", "dirichlet", "periodic")


@lru_cache(maxsize=64)
def mode_numbers(boundary: str, n: int) -> np.ndarray:
    """Half-wave counts of the modes: the wavenumber of mode ``j`` is ``pi * mode_numbers[j] / length``."""
    if boundary == "neumann":
        return np.arange(n)
    if boundary == "dirichlet":
        return np.arange(1, n + 1)
    return 2 * ((np.arange(n) + 1) // 2)  # 0, cos 1, sin 1, cos 2, sin 2, ...


def shared_modes(boundary: str, fine: int, coarse: int) -> np.ndarray:
    """Where the modes of a coarser grid stand among those of a finer one."""
    places = np.arange(coarse)
    if boundary == "periodic" and coarse % 2 == 0 and fine > coarse:  # its last mode is a sine, after the cosine
        places[-1] = coarse
    return places


def basis_at(boundary: str, n: int, t: np.ndarray) -> np.ndarray:
    """The ``n`` basis functions at positions ``t`` in [0, 1], scaled to be orthonormal on the cell centers.

    Returns an array of shape ``(len(t), n)``.
    """
    angle = np.pi * np.multiply.outer(np.asarray(t, float), mode_numbers(boundary, n))
    if boundary == "neumann":
        values = np.sqrt(2 / n) * np.cos(angle)
        values[:, 0] = np.sqrt(1 / n)
        return values
    if boundary == "dirichlet":
        values = np.sqrt(2 / n) * np.sin(angle)
        values[:, -1] = np.sqrt(1 / n) * np.sin(angle[:, -1])
        return values
    values = np.sqrt(2 / n) * np.where(np.arange(n) % 2 == 1, np.cos(angle), np.sin(angle))
    values[:, 0] = np.sqrt(1 / n)
    if n % 2 == 0 and n > 1:  # at the Nyquist frequency only the sine is seen by the cell centers
        values[:, -1] = np.sqrt(1 / n) * np.sin(angle[:, -1])
    return values


@lru_cache(maxsize=64)
def basis(boundary: str, n: int) -> np.ndarray:
    """The orthonormal basis: entry ``(i, k)`` is mode ``k`` at cell center ``i``."""
    return basis_at(boundary, n, (np.arange(n) + 0.5) / n)


def cardinal(boundary: str, n: int, t: np.ndarray) -> np.ndarray:
    """Weights of the ``n`` values at cell centers in the series' value at ``t``; shape ``(len(t), n)``."""
    w = basis_at(boundary, n, t)
    if n <= DENSE_LIMIT:
        return w @ basis(boundary, n).T
    if boundary == "neumann":
        return scipy.fft.idct(w, norm="ortho")
    if boundary == "dirichlet":
        return scipy.fft.idct(w[:, ::-1], norm="ortho") * (1 - 2 * (np.arange(n) % 2))
    shift = np.exp(1j * np.pi * np.arange(n // 2 + 1) / n)
    return np.fft.irfft(_from_real_modes(w, n, np) * shift, n=n, norm="ortho")


def analysis(x: Float[Array, "..."], boundary: str, axis: int) -> Float[Array, "..."]:
    """Coefficients of ``x`` in the orthonormal basis along ``axis``."""
    n = x.shape[axis]
    if n <= DENSE_LIMIT:
        return apply_along_axis(jnp.asarray(basis(boundary, n).T, x.dtype), x, axis)
    x = jnp.moveaxis(x, axis, -1)
    if boundary == "neumann":
        w = jax.scipy.fft.dct(x, norm="ortho")
    elif boundary == "dirichlet":
        w = jax.scipy.fft.dct(x * _alternating(n, x.dtype), norm="ortho")[..., ::-1]
    else:
        w = _to_real_modes(jnp.fft.rfft(x, norm="ortho") * _half_cell_shift(n, x.dtype), n)
    return jnp.moveaxis(w, -1, axis)


def synthesis(w: Float[Array, "..."], boundary: str, axis: int) -> Float[Array, "..."]:
    """The field with coefficients ``w`` along ``axis``: the inverse (and transpose) of :func:`analysis`."""
    n = w.shape[axis]
    if n <= DENSE_LIMIT:
        return apply_along_axis(jnp.asarray(basis(boundary, n), w.dtype), w, axis)
    w = jnp.moveaxis(w, axis, -1)
    if boundary == "neumann":
        x = jax.scipy.fft.idct(w, norm="ortho")
    elif boundary == "dirichlet":
        x = jax.scipy.fft.idct(w[..., ::-1], norm="ortho") * _alternating(n, w.dtype)
    else:
        x = jnp.fft.irfft(_from_real_modes(w, n) * jnp.conj(_half_cell_shift(n, w.dtype)), n=n, norm="ortho")
    return jnp.moveaxis(x, -1, axis)


def variance_synthesis(v: Float[Array, "..."], boundary: str, axis: int) -> Float[Array, "..."]:
    r"""Pointwise :math:`\sum_k v_k b_k(x_i)^2` along ``axis``: the variances that coefficient variances ``v`` give.

    Up to ``DENSE_LIMIT`` points the squared basis is applied; beyond, :math:`2 \cos^2 = 1 + \cos 2\theta` and
    :math:`2 \sin^2 = 1 - \cos 2\theta` make the result a cosine series, with wavenumbers above the grid's folded back.
    """
    n = v.shape[axis]
    if n <= DENSE_LIMIT:
        return apply_along_axis(jnp.asarray(basis(boundary, n) ** 2, v.dtype), v, axis)
    v = jnp.moveaxis(v, axis, -1)
    double = 2 * mode_numbers(boundary, n)
    sign = np.where(np.arange(n) % 2 == 1, 1.0, -1.0) if boundary == "periodic" else np.full(n, 1.0)
    if boundary == "dirichlet":
        sign = -sign
    sign = np.where(double < n, sign, -sign) * (double % (2 * n) != 0) * (double != n)
    folded = np.where(double < n, double, 2 * n - double) % n
    series = jnp.zeros_like(v).at[..., folded].add(v * jnp.asarray(sign / np.sqrt(2 * n), v.dtype))
    series = series.at[..., 0].add(jnp.sum(v, axis=-1) / np.sqrt(n))
    return jnp.maximum(jnp.moveaxis(synthesis(series, "neumann", -1), -1, axis), 0)


def _alternating(n: int, dtype) -> Array:
    return jnp.asarray(1 - 2 * (np.arange(n) % 2), dtype)


def _half_cell_shift(n: int, dtype) -> Array:
    return jnp.asarray(np.exp(-1j * np.pi * np.arange(n // 2 + 1) / n), jnp.result_type(dtype, jnp.complex64))


def _to_real_modes(f: Array, n: int) -> Array:
    """Half spectrum, phases relative to the first cell center, to ``[mean, cos 1, sin 1, cos 2, ...]``."""
    m = (n - 1) // 2
    pairs = np.sqrt(2.0) * jnp.stack([f[..., 1 : m + 1].real, -f[..., 1 : m + 1].imag], axis=-1)
    parts = [f[..., :1].real, pairs.reshape((*f.shape[:-1], 2 * m))]
    if n % 2 == 0:
        parts.append(-f[..., -1:].imag)
    return jnp.concatenate(parts, axis=-1)


def _from_real_modes(w: Any, n: int, xp: Any = jnp) -> Any:
    m = (n - 1) // 2
    pairs = w[..., 1 : 2 * m + 1].reshape((*w.shape[:-1], m, 2)) / np.sqrt(2.0)
    parts = [w[..., :1] + 0j, pairs[..., 0] - 1j * pairs[..., 1]]
    if n % 2 == 0:
        parts.append(-1j * w[..., -1:])
    return xp.concatenate(parts, axis=-1)
