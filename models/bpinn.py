r"""Bayesian physics-informed networks' own benchmark: a rate of reaction from noisy sources and a few values.

:What: :math:`\lambda u'' + k \tanh u = f` on [-0.7, 0.7], :math:`\lambda = 0.01`; and in the plane
    :math:`\lambda \Delta u + k u^2 = f` on :math:`[-1, 1]^2`. k is unknown.
:Dimension: k, and the 20 coefficients of an expansion of u, or the 2,701 weights of a network (one dimension).
:Prior: :math:`k \sim N(0, 1)`; u a Gaussian process of covariance :math:`e^{-|x - x'| / 0.25}` on [-1, 1], its first 20
    terms; or a network of two hidden layers of 50 with tanh, all weights and biases standard normal.
:Data: of the source f at 32 equidistant points, of u at 6 inside and at the 2 ends, for :math:`u = \sin^3 6x`, k = 0.7.
    In the plane of :math:`u = \sin \pi x \sin \pi y`, k = 1.
:Likelihood: normal, standard deviations 0.01 everywhere, or 0.1 of f and of u inside.
:Reference posterior: published standard deviations of k, :data:`PUBLISHED_SD` and
    :data:`PUBLISHED_NETWORK_SD`. The published means depend on a draw of the noise that was not published.
:Source: L. Yang, X. Meng and G. E. Karniadakis, J. Comput. Phys. 425 (2021) 109913, eq. (18), tables 1 and 3; the
    positions of the six values are not stated, and are equidistant here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.module import random_eqx_module

from numpyro_inverse import pinn

DIFFUSION, RATE = 0.01, 0.7
DOMAIN, WIDE = pinn.Box(-0.7, 0.7), pinn.Box(-1.0, 1.0)
SOURCES = np.linspace(-0.7, 0.7, 32)[:, None]
INSIDE = np.linspace(-0.7, 0.7, 8)[1:-1, None]
ENDS = np.array([[-0.7], [0.7]])
PUBLISHED_SD = {0.01: 5.63e-3, 0.1: 5.82e-2}  # of k, by the noise; Hamiltonian Monte Carlo with the expansion
PUBLISHED_NETWORK_SD = {0.01: 5.75e-3, 0.1: 5.63e-2}  # the same with a network
SQUARE = pinn.Box((-1.0, -1.0), (1.0, 1.0))


def solution(x):
    """u at a point."""
    return jnp.sin(6 * x[0]) ** 3


def operator(u, x, k):
    """The left side, as a function of u."""
    return DIFFUSION * pinn.derivative(u, 0, 0)(x) + k * jnp.tanh(u(x))


def simulate(rng, noise=0.01):
    """Data of f, of u inside and of u at the ends; the last always with standard deviation 0.01."""
    f = jax.vmap(lambda x: operator(solution, x, RATE))(jnp.asarray(SOURCES))
    inside, ends = (jax.vmap(solution)(jnp.asarray(x)) for x in (INSIDE, ENDS))
    return tuple(np.asarray(v) + s * rng.normal(size=v.shape) for v, s in ((f, noise), (inside, noise), (ends, 0.01)))


def expansion(num=20):
    """The trial space; the terms have 91.8 % of the process's variance."""
    return pinn.ExponentialExpansion(WIDE, num, range=0.25)


def equation(f):
    """The equation with the measured source at its points: the residual's noise is that of f."""
    values = jnp.asarray(f)
    index = pinn.Box(-0.7, 0.7)

    def residual(u, x, k):
        i = jnp.round((index.unit(x)[0] + 1) / 2 * (len(values) - 1)).astype(int)
        return operator(u, x, k) - values[i]

    return pinn.PDE(residual, DOMAIN, points=SOURCES, boundary=())


def model(f, inside, ends, noise=0.01, num=20):
    """The NumPyro model: sites ``k`` and ``coefficients``, the equation as a factor, and the data of u."""
    k = numpyro.sample("k", dist.Normal(0.0, 1.0))
    basis = expansion(num)
    u = basis.with_coefficients(numpyro.sample("coefficients", dist.Normal(0, 1).expand((num,)).to_event(1)))
    observe(u, k, f, inside, ends, noise)


def network_model(f, inside, ends, noise=0.01, width=50):
    """The same with a network of two hidden layers, all of it standard normal: sites ``k`` and ``u/...``."""
    k = numpyro.sample("k", dist.Normal(0.0, 1.0))
    network = pinn.MLP(WIDE, width=width, depth=2, key=jax.random.key(0))
    observe(random_eqx_module("u", network, prior=dist.Normal(0, 1)), k, f, inside, ends, noise)


def observe(u, k, f, inside, ends, noise):
    """The equation as a factor, and the data of u."""
    pinn.factor("pde", equation(f), u, k, noise)
    for name, points, values, scale in (("inside", INSIDE, inside, noise), ("ends", ENDS, ends, 0.01)):
        numpyro.sample(name, dist.Normal(jax.vmap(u)(jnp.asarray(points)), scale).to_event(1), obs=jnp.asarray(values))


def plane_solution(x):
    """u in the plane."""
    return jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1])


def plane_residual(u, x, k):
    """The equation in the plane, its source that of k = 1."""
    exact = plane_solution(x)
    source = -2 * jnp.pi**2 * DIFFUSION * exact + exact**2
    return DIFFUSION * pinn.laplacian(u)(x) + k * u(x) ** 2 - source


def plane_problem(trial, rng, num_points=144, noise=0.01, scale=0.01):
    """Inference of k in the plane: u vanishes on the boundary, 100 noisy values inside, an exact source."""
    where = SQUARE.sobol(100, seed=1)
    values = np.asarray(jax.vmap(plane_solution)(where)) + noise * rng.normal(size=100)
    side = round(num_points**0.5)
    pde = pinn.PDE(plane_residual, SQUARE, points=SQUARE.grid(side), boundary=())
    return pinn.Problem(pde, trial, pinn.Data(where, values, noise), scale=scale)
