r"""Lorenz's equations of 1963: a forward map whose derivatives grow without bound.

:What: :math:`\dot x = \sigma (y - x)`, :math:`\dot y = x (\rho - z) - y`, :math:`\dot z = x y - \beta z`,
    :math:`\sigma = 10`; the classical Runge-Kutta method with steps of 0.01.
:Dimension: 2 unknowns, :math:`\rho` and :math:`\beta`; in :func:`model` the state at time 0 too.
:Prior: :math:`\rho \sim U(26.5, 30.5)`, :math:`\beta \sim U(2.4, 2.9)`, where almost every trajectory is chaotic;
    the state normal, as wide as the attractor.
:Data: of :func:`model`, the three coordinates at 0.1, 0.2, ..., 20, with independent normal errors of standard
    deviation 1. Of :func:`simulator_model`, nine averages over 20 units of time, after 10
    to reach the attractor from a random state: three means, three variances, the covariances xy, xz, yz.
:Likelihood: of the trajectory, in closed form and useless to a sampler beyond a few units of time: errors grow like
    :math:`e^{\lambda t}` with the largest Lyapunov exponent, :math:`\lambda = 0.906` at (28, 8/3). Of the averages,
    none.
:Parameters: ``num_observations``, ``noise``.
:Reference posterior: none; the simulator's posterior is that of many simulations.
:Source: E. N. Lorenz, J. Atmos. Sci. 20 (1963) 130-141. Nine averages as data: E. Cleary et al., J. Comput. Phys. 424
    (2021) 109716. Exponents: J. C. Sprott, Chaos and Time-Series Analysis (2003).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse.distributions import Simulator

SIGMA = 10.0
STEP, INTERVAL = 0.01, 0.1  # of the scheme, of the observations
SPIN_UP, WINDOW = 10.0, 20.0  # of the averages
CENTER, SPREAD = np.array([0.0, 0.0, 24.0]), np.array([8.0, 9.0, 9.0])  # of the attractor, roughly


def model(x=None, *, num_observations=200, noise=1.0):
    """The NumPyro model of the trajectory: sites ``rho``, ``beta``, ``start`` and ``x``, (num_observations, 3)."""
    rho, beta = parameters()
    start = numpyro.sample("start", dist.Normal(CENTER, SPREAD).to_event(1))
    path = trajectory(start, rho, beta, num_observations, round(INTERVAL / STEP))
    times = INTERVAL * np.arange(1, num_observations + 1)
    numpyro.sample("x", dist.Normal(path, noise).to_event(2), obs=x, infer={"times": times})


def simulator_model(x=None):
    """The NumPyro model of the averages: sites ``rho``, ``beta`` and ``x``, shape (9,)."""
    rho, beta = parameters()
    numpyro.sample("x", Simulator(averages, rho, beta), obs=x)


def parameters():
    """The two sites of unknowns."""
    return numpyro.sample("rho", dist.Uniform(26.5, 30.5)), numpyro.sample("beta", dist.Uniform(2.4, 2.9))


def trajectory(start, rho, beta, num_observations, steps_between=1):
    """The states after each ``steps_between`` steps, shape (num_observations, 3)."""
    advance = partial(step, rho=rho, beta=beta)

    def to_next(state, _):
        state = jax.lax.fori_loop(0, steps_between, lambda _, s: advance(s), state)
        return state, state

    return jax.lax.scan(to_next, start, length=num_observations)[1]


def averages(rng_key, rho, beta, *, window=WINDOW):
    """Means, variances and covariances (xy, xz, yz) over a window, from a random state."""
    advance = partial(step, rho=rho, beta=beta)
    start = CENTER + SPREAD * jax.random.normal(rng_key, (3,))
    state = jax.lax.fori_loop(0, round(SPIN_UP / STEP), lambda _, s: advance(s), start)
    count = round(window / STEP)

    def add(_, carry):
        state, first, second = carry
        state = advance(state)
        shifted = state - CENTER
        return state, first + shifted / count, second + jnp.outer(shifted, shifted) / count

    _, mean, second = jax.lax.fori_loop(0, count, add, (state, jnp.zeros(3), jnp.zeros((3, 3))))
    covariance = second - jnp.outer(mean, mean)
    return jnp.concatenate([mean + CENTER, jnp.diag(covariance), covariance[np.triu_indices(3, 1)]])


def step(state, rho, beta, size=STEP):
    """One step of the classical Runge-Kutta method."""
    a = field(state, rho, beta)
    b = field(state + size / 2 * a, rho, beta)
    c = field(state + size / 2 * b, rho, beta)
    d = field(state + size * c, rho, beta)
    return state + size / 6 * (a + 2 * b + 2 * c + d)


def field(state, rho, beta):
    """The right-hand side."""
    x, y, z = state
    return jnp.stack([SIGMA * (y - x), x * (rho - z) - y, x * y - beta * z])
