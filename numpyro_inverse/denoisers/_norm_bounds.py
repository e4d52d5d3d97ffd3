"""Spectral norms of matrices and convolutions: exact, or bounds from above."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from numpyro_inverse._checks import check_count, check_finite, check_static, show
from numpyro_inverse.denoisers._certificate import Certificate

ROUNDING = 1e-6  # relative, on top of every bound: more than double precision needs, about what single precision has
DENSE = 1500  # side of the largest matrix of a convolution that is decomposed as it is
WIDE = 4  # kernel sides: a wider image has frequencies close enough
PHASES = (0.0, 0.25, 0.5, 0.75)


def matrix_norm(matrix: Any) -> Certificate:
    """The largest singular value of a matrix, by its singular value decomposition in double precision.

    >>> ni.denoisers.matrix_norm([[0.0, 2.0], [1.0, 0.0]]).bound
    2.000002

    Args:
        matrix: of shape (m, n), real, known.

    Returns:
        A certified bound, larger than the norm by a millionth for rounding.

    Raises:
        TypeError: no real numbers; traced values.
        ValueError: no matrix, empty, or not finite.
    """
    return _certified(_spectral(_known("matrix_norm", "matrix", matrix, 2)), "singular value decomposition")


def gram_bound(matrix: Any, iterations: int = 6) -> Certificate:
    r"""A bound of the spectral norm by squaring the Gram matrix,
    :math:`\lVert W \rVert \le \lVert (W^{\mathsf T} W)^{2^{t-1}} \rVert_F^{2^{-t}}`.

    It falls to the norm at a quadratic rate in t, from above at every t: by t = 6 it is within one per cent for
    hundreds of columns. Each iterate is divided by its Frobenius norm, so that nothing overflows.

    Args:
        matrix: of shape (m, n), real, known.
        iterations: t, of 1 or more.

    Returns:
        A certified bound, with a millionth for rounding.

    Raises:
        TypeError: no real numbers; traced values.
        ValueError: no matrix, empty, or not finite; ``iterations`` below 1.

    References:
        B. Delattre, Q. Barthélemy, A. Araujo and A. Allauzen, *Efficient bound of Lipschitz constant for convolutional
        layers by Gram iteration*, ICML 2023, theorem 1.
    """
    matrix = _known("gram_bound", "matrix", matrix, 2)
    iterations = check_count("gram_bound", "iterations", iterations)
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    log_scale = 0.0  # the power is exp(log_scale) times the iterate
    for step in range(iterations):
        size = np.linalg.norm(gram)
        if size == 0:
            return _certified(0.0, "Gram iteration")
        gram, log_scale = gram / size, log_scale + np.log(size)
        if step < iterations - 1:
            gram, log_scale = gram @ gram, 2 * log_scale
    return _certified(float(np.exp(log_scale / 2**iterations)), f"Gram iteration, {iterations} steps")


def circular_convolution_norm(kernel: Any, shape: tuple[int, int]) -> Certificate:
    r"""The spectral norm of a convolution of periodic images, from the discrete Fourier transform of its kernel.

    The singular values are those of one matrix, of output times input channels, per frequency. A correlation, which is
    what neural networks call a convolution, has the same.

    Args:
        kernel: of shape (output channels, input channels, h, w), as in Equinox; real, known.
        shape: (H, W) of the images; a kernel that is larger wraps around.

    Returns:
        The norm, certified, with a millionth for rounding.

    Raises:
        TypeError: no real numbers; traced values; ``shape`` no pair of integers.
        ValueError: an array without four axes, or empty; numbers that are not finite; a side below 1.

    References:
        H. Sedghi, V. Gupta and P. M. Long, *The singular values of convolutional layers*, ICLR 2019, theorem 6.
    """
    kernel = _known("circular_convolution_norm", "kernel", kernel, 4)
    shape = check_sides("circular_convolution_norm", shape)
    return _certified(_largest(kernel, shape, (0.0, 0.0)), "Fourier transform of a circular convolution")


def zero_padded_convolution_bound(kernel: Any, shape: tuple[int, int]) -> Certificate:
    r"""A bound of the spectral norm of a convolution that is zero outside the image, with any padding or stride.

    On n + k - 1 points nothing wraps around: the matrix is a part of that of a circular convolution of images of that
    size, whose norm bounds it. (The circular norm on n points does **not**.) It is also a part of circulants whose
    frequencies are shifted, so on narrow images, less than four kernels wide, the smallest of sixteen shifts counts.

    Args:
        kernel: of shape (output channels, input channels, h, w), as in Equinox; real, known.
        shape: (H, W) of the images.

    Returns:
        A certified bound, with a millionth for rounding. Above the truth by a few per cent at most if the image is
        more than four kernels wide; by up to half if it is as narrow as the kernel: see
        :func:`same_convolution_norm`.

    Raises:
        TypeError: no real numbers; traced values; ``shape`` no pair of integers.
        ValueError: an array without four axes, or empty; numbers that are not finite; a side below 1.

    References:
        A part of a matrix has a norm that is at most the whole's: R. A. Horn and C. R. Johnson, *Topics in Matrix
        Analysis*, corollary 3.1.3. Circulants: G. H. Golub and C. F. Van Loan, *Matrix Computations*, 4th ed., section
        4.8.
    """
    here = "zero_padded_convolution_bound"
    kernel = _known(here, "kernel", kernel, 4)
    shape = check_sides(here, shape)
    wrapped = tuple(n + k - 1 for n, k in zip(shape, kernel.shape[2:], strict=True))
    narrow = any(n < WIDE * k for n, k in zip(shape, kernel.shape[2:], strict=True))
    shifts = product(PHASES, PHASES) if narrow else [(0.0, 0.0)]
    bound = min(_largest(kernel, wrapped, shift) for shift in shifts)
    return _certified(bound, f"Fourier transform on {wrapped[0]} x {wrapped[1]} points, of which the image is a part")


def same_convolution_norm(kernel: Any, shape: tuple[int, int]) -> Certificate:
    """The spectral norm of a 'same' convolution on a small image, by its dense matrix.

    Args:
        kernel: of shape (output channels, input channels, h, w), as in Equinox; real, known; odd sides.
        shape: (H, W) of the images.

    Returns:
        The norm, certified, with a millionth for rounding.

    Raises:
        TypeError: no real numbers; traced values; ``shape`` no pair of integers.
        ValueError: an array without four axes, or empty; numbers that are not finite; a side below 1; an even kernel.
    """
    here = "same_convolution_norm"
    kernel = _known(here, "kernel", kernel, 4)
    shape = check_sides(here, shape)
    if any(side % 2 == 0 for side in kernel.shape[2:]):
        raise ValueError(f"{here}: `kernel` must have odd sides; got {kernel.shape[2:]}.")
    return _certified(_spectral(_dense(kernel, shape)), "singular value decomposition of the convolution's matrix")


def _dense(kernel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The matrix of a 'same' correlation, zero outside the image."""
    out, into, h, w = kernel.shape
    along = [
        np.stack([np.eye(n, k=offset - side // 2) for offset in range(side)])
        for n, side in zip(shape, (h, w), strict=True)
    ]
    matrix = np.einsum("oiab,ayp,bxq->oyxipq", kernel, *along, optimize=True)
    return matrix.reshape(out * shape[0] * shape[1], into * shape[0] * shape[1])


def _largest(kernel: np.ndarray, shape: tuple[int, int], shift: tuple[float, float]) -> float:
    """The largest singular value of the kernel's Fourier transform; a shift is in spacings of the frequencies."""
    waves = [
        np.exp(-2j * np.pi * np.outer(np.arange(n) + part, np.arange(side)) / n)
        for n, side, part in zip(shape, kernel.shape[2:], shift, strict=True)
    ]
    rows = np.einsum("oiab,xb->oiax", kernel, waves[1])
    return max(_spectral(np.einsum("oiax,a->xoi", rows, wave)) for wave in waves[0])


def _spectral(matrices: np.ndarray) -> float:
    """The largest singular value of all, from eigenvalues of the smaller Gram matrices."""
    scale = np.max(np.abs(matrices))
    if scale == 0:
        return 0.0
    scaled = matrices / scale
    adjoint = scaled.conj().swapaxes(-1, -2)
    wide = scaled.shape[-2] < scaled.shape[-1]
    gram = scaled @ adjoint if wide else adjoint @ scaled
    return float(scale * np.sqrt(max(np.max(np.linalg.eigvalsh(gram)), 0.0)))


def _certified(norm: float, method: str) -> Certificate:
    return Certificate(norm * (1 + ROUNDING), method, True)


def _known(where: str, argument: str, value: Any, axes: int) -> np.ndarray:
    """Finite real numbers in double precision, with so many axes."""
    array = np.asarray(check_finite(where, argument, check_static(where, argument, value)), float)
    if array.ndim != axes or array.size == 0:
        what = "a matrix" if axes == 2 else "of shape (output channels, input channels, h, w)"
        raise ValueError(f"{where}: `{argument}` must be {what}, and not empty; got shape {array.shape}.")
    return array


def check_sides(where: str, shape: Any) -> tuple[int, int]:
    """The sides of an image."""
    check_static(where, "shape", shape)
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise TypeError(f"{where}: `shape` must be the pair (H, W) of an image's sides; got {show(shape)}.")
    return check_count(where, "shape[0]", shape[0]), check_count(where, "shape[1]", shape[1])
