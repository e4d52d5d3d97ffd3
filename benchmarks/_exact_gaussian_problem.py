"""Deblurring problems with a closed-form posterior, in NumPy alone, shared with the peers' environment.

A periodic Gaussian blur in ``ndim`` dimensions, noise 0.01, and a first-order Gaussian Markov random field with zero
boundary values and precision 30 as the prior: precision matrix ``30 (L_1 + ... + L_d)``, ``L = tridiag(-1, 2, -1)``.
"""

from typing import NamedTuple

import numpy as np

SIGMA, PRECISION = 0.01, 30.0


class Problem(NamedTuple):
    """One axis' blur matrix, the same for all axes, and data of shape ``(n,) * ndim``."""

    ndim: int
    blur: np.ndarray
    data: np.ndarray

    @property
    def n(self) -> int:
        """Pixels per axis."""
        return len(self.blur)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Blurred image, raveled."""
        x = np.reshape(x, (self.n,) * self.ndim)
        return (self.blur @ x if self.ndim == 1 else self.blur @ x @ self.blur.T).ravel()

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Transpose of :meth:`forward`."""
        return Problem(self.ndim, self.blur.T, self.data).forward(y)

    def dense_blur(self) -> np.ndarray:
        """The blur on raveled images."""
        return self.blur if self.ndim == 1 else np.kron(self.blur, self.blur)

    def posterior(self, prior_precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean and standard deviation by dense algebra."""
        a = self.dense_blur()
        covariance = np.linalg.inv(prior_precision + a.T @ a / SIGMA**2)
        return covariance @ (a.T @ self.data.ravel()) / SIGMA**2, np.sqrt(np.diag(covariance))

    def prior_precision(self) -> np.ndarray:
        """Of the Markov random field."""
        one = 2 * np.eye(self.n) - np.eye(self.n, k=1) - np.eye(self.n, k=-1)
        eye = np.eye(self.n)
        return PRECISION * (one if self.ndim == 1 else np.kron(one, eye) + np.kron(eye, one))


def sine_transform(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal DST-I matrix (its own transpose and inverse) and the eigenvalues of tridiag(-1, 2, -1)."""
    k = np.arange(1, n + 1)
    basis = np.sqrt(2 / (n + 1)) * np.sin(np.pi * np.outer(k, k) / (n + 1))
    return basis, 4 * np.sin(np.pi * k / (2 * (n + 1))) ** 2


def amplitudes(n: int, ndim: int) -> np.ndarray:
    """Prior standard deviations of the sine coefficients."""
    _, values = sine_transform(n)
    return 1 / np.sqrt(PRECISION * (values if ndim == 1 else values[:, None] + values))


def deblurring(n: int, ndim: int, width: float, seed: int = 0) -> Problem:
    """The problem with data drawn from the model."""
    j = np.arange(-int(np.ceil(5 * width)), int(np.ceil(5 * width)) + 1)
    kernel = np.exp(-0.5 * (j / width) ** 2)
    blur = np.zeros((n, n))
    for i in range(n):
        np.add.at(blur[i], (i + j) % n, kernel / kernel.sum())
    rng = np.random.default_rng(seed)
    basis, _ = sine_transform(n)
    truth = amplitudes(n, ndim) * rng.standard_normal((n,) * ndim)
    truth = basis @ truth if ndim == 1 else basis @ truth @ basis
    problem = Problem(ndim, blur, np.zeros(()))
    data = problem.forward(truth) + SIGMA * rng.standard_normal(n**ndim)
    return problem._replace(data=data.reshape((n,) * ndim))
