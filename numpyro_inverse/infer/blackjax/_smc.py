"""Tempered sequential Monte Carlo as a chain: particles brought to the posterior in warm-up, then visited in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from blackjax.smc.resampling import systematic
from jaxtyping import Array, Float, Int

from numpyro_inverse.infer.kernels._raise_if import warn_if
from numpyro_inverse.infer.laplace import Reference

SMC = (blackjax.adaptive_tempered_smc, blackjax.tempered_smc)
SETTLING = 2  # rounds of moves at the posterior's own temperature, the first of which resamples
MOVES_OF_A_DRAW = 2  # HMC moves of a particle that is visited
TARGET_ACCEPTANCE = 0.7


class ParticleState(NamedTuple):
    """The particles, and the one that the chain is at."""

    particles: Float[Array, "k n"]
    turn: Int[Array, ""]
    position: Float[Array, "n"]
    logdensity: Float[Array, ""]


class ParticleInfo(NamedTuple):
    """Of the moves of one particle."""

    acceptance_rate: Float[Array, ""]
    is_divergent: Array
    num_integration_steps: Array


def temper(
    algorithm: Any,
    log_density: Callable,
    reference: Reference,
    key: Array,
    max_temperatures: int,
    *,
    num_particles: int = 1000,
    target_ess: float = 0.8,
    num_mcmc_steps: int = 8,
    num_integration_steps: int = 8,
) -> tuple[Float[Array, "n"], dict[str, Any]]:
    r"""Particles from the Gaussian reference to the posterior, along :math:`N(m, S^2)\, L^\lambda`.

    Each temperature ends with ``num_mcmc_steps`` HMC moves of 1 to ``num_integration_steps`` steps, whose diagonal mass
    matrix and step size are read off the particles. The temperatures are adaptive, or :math:`(k / K)^3` for
    ``tempered_smc``. Where the density is zero or not a number no temperature helps: particles there go before the
    first one, and their share counts in the evidence.

    Returns:
        A particle, and parameters: the particles, the log evidence, what was tuned, the last :math:`\lambda`.
    """
    n = reference.loc.size
    key_draw, key = jax.random.split(key)
    noise = jax.random.normal(key_draw, (num_particles, n), reference.loc.dtype)
    particles = reference.loc + reference.scale * noise
    dtype = particles.dtype
    key_alive, key = jax.random.split(key)
    alive = jnp.isfinite(jax.vmap(log_density)(particles)).astype(dtype)
    particles = particles[systematic(key_alive, alive / jnp.sum(alive), num_particles)]

    def log_prior(x):
        u = reference.noise(x)
        return -0.5 * u @ u

    def build(name: Any, key, step_size, variance, **options):
        return name(
            log_prior,
            lambda x: log_density(x) - log_prior(x),
            blackjax.hmc.build_kernel(),
            blackjax.hmc.init,
            {
                "step_size": step_size[None],
                "inverse_mass_matrix": variance[None],
                "num_integration_steps": _trajectory(key, num_integration_steps)[None],
            },
            systematic,
            num_mcmc_steps=num_mcmc_steps,
            **options,
        )

    def advance(carry, last: bool):
        k, key, state, step_size, variance, evidence = carry
        key, key_step, key_length = jax.random.split(key, 3)
        made = partial(build, key=key_length, step_size=step_size, variance=variance)
        if last:
            found, info = made(blackjax.tempered_smc).step(key_step, state, 1.0)
        elif algorithm is blackjax.tempered_smc:
            found, info = made(algorithm).step(key_step, state, ((k + 1) / max_temperatures) ** 3)
        else:
            found, info = made(algorithm, target_ess=target_ess).step(key_step, state)
        found = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), found, state)
        evidence = evidence + jnp.where(last, 0, info.log_likelihood_increment)
        accepted = jnp.mean(jnp.nan_to_num(info.update_info.acceptance_rate))
        step_size = step_size * jnp.exp(accepted - TARGET_ACCEPTANCE)
        mean = found.weights @ found.particles
        variance = found.weights @ (found.particles - mean) ** 2 + 1e-6 * reference.scale**2
        return k + 1, key, found, step_size.astype(dtype), variance.astype(dtype), evidence.astype(dtype)

    def unfinished(carry):
        return (carry[2].tempering_param < 1) & (carry[0] < max_temperatures)

    state = blackjax.tempered_smc.init(particles)
    state = state._replace(weights=state.weights.astype(dtype), tempering_param=jnp.zeros((), dtype))
    first_step = jnp.asarray(0.5 / n**0.25, dtype)
    carry = (jnp.zeros((), int), key, state, first_step, reference.scale**2, jnp.log(jnp.mean(alive)))
    carry = jax.lax.while_loop(unfinished, lambda c: advance(c, False), carry)
    reached = carry[2].tempering_param
    carry = jax.lax.fori_loop(0, SETTLING, lambda _, c: advance(c, True), carry)
    _, _, state, step_size, variance, evidence = carry
    evidence = evidence + 0.5 * n * np.log(2 * np.pi) + jnp.sum(jnp.log(reference.scale))
    found = {"particles": state.particles, "step_size": step_size, "inverse_mass_matrix": variance}
    return state.particles[0], found | {"log_evidence": evidence.astype(dtype), "temperature": reached}


def particle_sampler(
    log_density: Callable,
    reference: Reference,
    *,
    particles: Float[Array, "k n"],
    step_size: Float[Array, ""],
    inverse_mass_matrix: Float[Array, "n"],
    num_integration_steps: int = 8,
    **_: Any,
) -> SamplingAlgorithm:
    """Particle after particle in turn, each moved by HMC: a chain on the product of the particles' laws.

    Resampling keeps the particles' order, so that relatives are neighbors, and draws of the chain are correlated as far
    as particles are related: its effective sample size counts families. A second round would count them again.
    """
    number = len(particles)
    again = (
        f"BlackJAX: a chain of tempered SMC has drawn each of its {number} particles, and goes through them again: "
        "what separate modes weigh does not become more certain by that, though the effective sample size grows. Take "
        "as many particles as draws (`num_particles`), or more chains."
    )

    def begin(x, rng_key=None):
        return ParticleState(particles, jnp.zeros((), int), x, log_density(x))

    def step(key, state):
        place = state.turn % number

        def move(here, key):
            key_length, key = jax.random.split(key)
            length = _trajectory(key_length, num_integration_steps)
            hmc = blackjax.hmc(log_density, step_size, inverse_mass_matrix, length)
            here, info = hmc.step(key, here)
            return here, (info.acceptance_rate, info.is_divergent, length)

        here = blackjax.hmc.init(state.particles[place], log_density)
        here, (accepted, diverging, steps) = jax.lax.scan(move, here, jax.random.split(key, MOVES_OF_A_DRAW))
        x = warn_if(state.turn == number, again, here.position)
        state = ParticleState(state.particles.at[place].set(x), state.turn + 1, x, here.logdensity)
        return state, ParticleInfo(jnp.mean(jnp.nan_to_num(accepted)), jnp.any(diverging), jnp.sum(steps))

    return SamplingAlgorithm(begin, step)


def _trajectory(key: Array, longest: int) -> Int[Array, ""]:
    """A random number of steps, so that no trajectory is near a period of the target."""
    return jax.random.randint(key, (), 1, longest + 1)
