"""Quadratic problems with linear denoisers, where every fixed point has a closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse.operators import Matrix
from numpyro_inverse.solvers import LeastSquares

SIZE, DATA, SIGMA, SCALE = 6, 4, 0.6, 0.7


class Linear(eqx.Module):
    """The denoiser D(x) = W x, whatever the noise level."""

    matrix: jax.Array

    def __call__(self, x, sigma):
        return jnp.matmul(self.matrix, x, precision="highest")


class Shrinkage(eqx.Module):
    """The mean given x of a signal of covariance C, whose noise has the standard deviation sigma."""

    covariance: jax.Array

    def __call__(self, x, sigma):
        noisy = self.covariance + sigma**2 * jnp.eye(len(self.covariance))
        return jnp.matmul(self.covariance, jnp.linalg.solve(noisy, x), precision="highest")


class Problem:
    """A, y, the prior's covariance C and what follows from them, in NumPy."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.a, self.y = rng.normal(size=(DATA, SIZE)), rng.normal(size=DATA)
        root = rng.normal(size=(SIZE, SIZE))
        self.c = root @ root.T / SIZE + 0.1 * np.eye(SIZE)
        self.w = self.c @ np.linalg.inv(self.c + SIGMA**2 * np.eye(SIZE))
        self.h, self.b = self.a.T @ self.a / SCALE**2, self.a.T @ self.y / SCALE**2
        self.lipschitz = np.linalg.norm(self.h, 2)

    def term(self):
        return LeastSquares(Matrix(self.a), self.y, SCALE)

    def plug_and_play(self, step):
        """(H + (W^-1 - I) / gamma)^-1 b."""
        return np.linalg.solve(self.h + (np.linalg.inv(self.w) - np.eye(SIZE)) / step, self.b)

    def red(self, weight):
        """(H + lambda (I - W))^-1 b."""
        return np.linalg.solve(self.h + weight * (np.eye(SIZE) - self.w), self.b)

    def posterior_mean(self):
        return np.linalg.solve(self.h + np.linalg.inv(self.c), self.b)
