r"""A rate of reaction from a concentration: the linear test problem of physics-informed inversion, in closed form.

:What: :math:`-u'' + \theta u = f` on (0, 1), :math:`u = 0` at the ends, :math:`\theta` unknown.
:Dimension: one parameter; K data.
:Prior: :math:`\theta` uniform on (-5, 60) in :func:`model`.
:Data: :math:`y_k = u_k + \sigma \xi_k` in the sine basis :math:`\sqrt 2 \sin k \pi x`, or at points.
:Likelihood: normal.
:Reference posterior: by quadrature, :func:`exact_posterior`; :class:`Spectral` has objective, gradients and Fisher
    information of the penalized and of the constrained problem in closed form.
:Source: the formulas follow from :math:`u_k = f_k / d_k`, :math:`d_k = (k \pi)^2 + \theta`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.integrate import solve_bvp

from numpyro_inverse import pinn

LOW, HIGH = -5.0, 60.0
DOMAIN = pinn.Box(0.0, 1.0)


class Spectral(NamedTuple):
    r"""The problem in the sine basis: coefficients f of the source and y of the data, noise :math:`\sigma`, and the
    weight w of the residuals :math:`r_k = d_k \phi_k - f_k`. All float64.
    """

    source: np.ndarray
    data: np.ndarray
    noise: float
    weight: float

    def d(self, theta):
        """:math:`d_k`, shape (K,), or (..., K) for several theta."""
        return (np.arange(1, len(self.source) + 1) * np.pi) ** 2 + np.asarray(theta, float)[..., None]

    def solution(self, theta):
        """:math:`u_k`."""
        return self.source / self.d(theta)

    def constrained(self, theta):
        r""":math:`F = \sum_k (u_k - y_k)^2 / 2 \sigma^2`."""
        return 0.5 * np.sum((self.solution(theta) - self.data) ** 2, axis=-1) / self.noise**2

    def constrained_gradient(self, theta):
        """:math:`F'`."""
        d, u = self.d(theta), self.solution(theta)
        return -np.sum((u - self.data) * self.source / d**2, axis=-1) / self.noise**2

    def penalized(self, theta):
        r""":math:`j_w = \tfrac12 \sum_k e_k^2 / s_k`, :math:`e_k = y_k - u_k`, :math:`s_k = \sigma^2 + 1 / w d_k^2`."""
        d = self.d(theta)
        return 0.5 * np.sum((self.data - self.source / d) ** 2 / (self.noise**2 + 1 / (self.weight * d**2)), axis=-1)

    def penalized_gradient(self, theta):
        """:math:`j_w'`."""
        d = self.d(theta)
        e, s = self.data - self.source / d, self.noise**2 + 1 / (self.weight * d**2)
        return np.sum(e * self.source / (d**2 * s) + e**2 / (self.weight * d**3 * s**2), axis=-1)

    def penalized_solution(self, theta):
        r""":math:`\phi^*_k`, the minimizer of the penalized objective."""
        d = self.d(theta)
        return (self.data / self.noise**2 + self.weight * d * self.source) / self.curvature(theta)

    def curvature(self, theta):
        r""":math:`h_k = 1 / \sigma^2 + w d_k^2`."""
        return 1 / self.noise**2 + self.weight * self.d(theta) ** 2

    def mismatch(self, theta, error):
        r""":math:`w \sum_k [\delta_k (2 d_k \phi^*_k - f_k) + d_k \delta_k^2]`, which is
        :math:`\partial_\theta J_w(\phi^* + \delta) - j_w'` with :math:`\delta` = ``error``.
        """
        d, phi = self.d(theta), self.penalized_solution(theta)
        return self.weight * np.sum(error * (2 * d * phi - self.source) + d * error**2, axis=-1)

    def information(self, theta):
        r"""The Fisher information of the penalized problem, :math:`\sum_k f_k^2 / d_k^4 s_k`."""
        d = self.d(theta)
        return np.sum(self.source**2 / d**4 / (self.noise**2 + 1 / (self.weight * d**2)), axis=-1)


def problem(spectral, num_points=None):
    """The same problem for :mod:`numpyro_inverse.pinn`: K sines, collocation and data at inner nodes.

    At the n inner nodes the sines are orthogonal with squared length n + 1, so that scales times its root give the
    spectral objective exactly.
    """
    k = len(spectral.source)
    nodes = DOMAIN.nodes(k if num_points is None else num_points)
    basis = pinn.SineBasis(DOMAIN, k)
    source = basis.with_coefficients(jnp.asarray(spectral.source))
    values = jax.vmap(basis.with_coefficients(jnp.asarray(spectral.data)))(nodes)
    length = np.sqrt(len(nodes) + 1)
    pde = pinn.PDE(_Residual(source), DOMAIN, points=nodes, boundary=())
    data = pinn.Data(nodes, values, length * spectral.noise)
    return pinn.Problem(pde, basis, data, scale=length / np.sqrt(spectral.weight))


class _Residual:
    """-u'' + theta u - f, compared by what f is."""

    def __init__(self, source):
        self.source = source

    def __call__(self, u, x, theta):
        return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - self.source(x)


def simulate(rng, num=6, *, theta=3.0, noise=0.01, weight=100.0):
    """A problem with coefficients of the source from N(0, 25) and data at ``theta``."""
    source = 5 * rng.normal(size=num)
    u = source / ((np.arange(1, num + 1) * np.pi) ** 2 + theta)
    return Spectral(source, u + noise * rng.normal(size=num), noise, weight)


def model(spectral, likelihood):
    """The NumPyro model: site ``theta``, and a potential, such as a reduced one, as the likelihood."""
    theta = numpyro.sample("theta", dist.Uniform(LOW, HIGH))
    likelihood("likelihood", theta)


def exact_posterior(log_density, low=LOW, high=HIGH, num=20001):
    """Mean and standard deviation of a density on an interval, by the trapezoidal rule."""
    grid = np.linspace(low, high, num)
    value = np.asarray(log_density(grid), float)
    weight = np.exp(value - value.max())
    weight[[0, -1]] /= 2
    weight /= weight.sum()
    mean = weight @ grid
    return mean, np.sqrt(weight @ (grid - mean) ** 2)


def reference(source, theta, points):
    """The solution at points for any source, by SciPy's collocation for boundary value problems."""
    fun = lambda x, y: np.stack([y[1], theta * y[0] - source(x)])  # noqa: E731
    ends = lambda a, b: np.array([a[0], b[0]])  # noqa: E731
    x = np.linspace(0, 1, 201)
    return solve_bvp(fun, ends, x, np.zeros((2, 201)), tol=1e-10, max_nodes=100_000).sol(points)[0]
