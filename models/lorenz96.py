r"""Lorenz's model of 1996: 40 places on a circle of latitude, and a closure with two parameters.

:What: :math:`\dot y_k = (y_{k+1} - y_{k-2}) y_{k-1} - y_k + F`, k = 1, ..., 40, periodic; the classical Runge-Kutta
    method with steps of 0.025.
:Dimension: of :func:`model` 41 unknowns, F and the state at time 0; of :func:`simulator_model` 2,
    :math:`\theta_1` and :math:`\theta_2`.
:Prior: :math:`F \sim N(8, 0.5^2)`, the state normal, as wide as the attractor; :math:`\theta_1 \sim U(0.5, 3.5)`,
    :math:`\theta_2 \sim U(0, 0.3)`.
:Data: of :func:`model`, all places at 0.1, 0.2, ..., 10, with independent normal errors of standard deviation 1.
    Of :func:`simulator_model`, six averages over 160 steps of the model with F = 10 from a fixed state, from
    which the closure :math:`\theta_1 + \theta_2 y_k` of what is not resolved is taken and to which a forcing
    :math:`\eta_k`, :math:`\eta \leftarrow 0.984\, \eta + \sqrt{1 - 0.984^2}\, \epsilon` at each step, is added: the
    mean, the variance, the covariance with the next step, with the next place, and with the places before and after
    at the next step.
:Likelihood: of the trajectory, in closed form; errors grow with the largest Lyapunov exponent, 1.67 at F = 8. Of the
    averages, none.
:Parameters: ``num_observations``, ``noise``.
:Reference posterior: none.
:Source: E. N. Lorenz, Predictability: a problem partly solved, ECMWF 1996; the closure: D. S. Wilks, Q. J. R.
    Meteorol. Soc. 131 (2005); the averages: J. Hakkarainen et al., Nonlin. Processes Geophys. 19 (2012); priors: O.
    Thomas et al., arXiv 1611.10242.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse.distributions import Simulator

PLACES = 40
STEP, INTERVAL = 0.025, 0.1  # of the scheme, of the observations
CENTER, SPREAD = 2.3, 3.6  # of a place on the attractor at F = 8, roughly
CLOSURE_FORCING, PERSISTENCE, CLOSURE_STEPS = 10.0, 0.984, 160


def model(x=None, *, num_observations=100, noise=1.0):
    """The NumPyro model of the trajectory: sites ``forcing``, ``start`` and ``x``, shape (num_observations, 40)."""
    forcing = numpyro.sample("forcing", dist.Normal(8.0, 0.5))
    start = numpyro.sample("start", dist.Normal(CENTER, SPREAD).expand((PLACES,)).to_event(1))
    path = trajectory(start, forcing, num_observations, round(INTERVAL / STEP))
    times = INTERVAL * np.arange(1, num_observations + 1)
    numpyro.sample("x", dist.Normal(path, noise).to_event(2), obs=x, infer={"times": times})


def simulator_model(x=None):
    """The NumPyro model of the averages: sites ``theta``, shape (2,), and ``x``, shape (6,)."""
    theta = numpyro.sample("theta", dist.Uniform(jnp.array([0.5, 0.0]), jnp.array([3.5, 0.3])).to_event(1))
    numpyro.sample("x", Simulator(averages, theta, event_dims=1), obs=x)


def trajectory(start, forcing, num_observations, steps_between=1):
    """The states after each ``steps_between`` steps, shape (num_observations, 40)."""

    def to_next(state, _):
        state = jax.lax.fori_loop(0, steps_between, lambda _, s: step(s, forcing), state)
        return state, state

    return jax.lax.scan(to_next, start, length=num_observations)[1]


def averages(rng_key, theta):
    """The six averages of the model with a stochastic closure."""

    def to_next(carry, key):
        state, unresolved = carry
        noise = jax.random.normal(key, (PLACES,))
        unresolved = PERSISTENCE * unresolved + jnp.sqrt(1 - PERSISTENCE**2) * noise
        # theta_2 y changes with the stages of a step; the rest is constant in it.
        state = step(state, CLOSURE_FORCING - theta[0] + unresolved, 1 + theta[1])
        return (state, unresolved), state

    start = CENTER + SPREAD * np.random.default_rng(0).standard_normal(PLACES)
    path = jax.lax.scan(
        to_next, (jnp.asarray(start, float), jnp.zeros(PLACES)), jax.random.split(rng_key, CLOSURE_STEPS)
    )[1]
    shifted = path - jnp.mean(path)
    now, later = shifted[:-1], shifted[1:]
    return jnp.stack(
        [
            jnp.mean(path),
            jnp.mean(shifted**2),
            jnp.mean(now * later),
            jnp.mean(shifted * jnp.roll(shifted, -1, axis=1)),
            jnp.mean(now * jnp.roll(later, 1, axis=1)),
            jnp.mean(now * jnp.roll(later, -1, axis=1)),
        ]
    )


def step(state, forcing, damping=1.0, size=STEP):
    """One step of the classical Runge-Kutta method."""
    a = field(state, forcing, damping)
    b = field(state + size / 2 * a, forcing, damping)
    c = field(state + size / 2 * b, forcing, damping)
    d = field(state + size * c, forcing, damping)
    return state + size / 6 * (a + 2 * b + 2 * c + d)


def field(state, forcing, damping=1.0):
    """The right-hand side."""
    advection = (jnp.roll(state, -1) - jnp.roll(state, 2)) * jnp.roll(state, 1)
    return advection - damping * state + forcing
