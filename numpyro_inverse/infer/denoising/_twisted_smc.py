"""Posterior draws by reverse diffusion with particles: the guidance's error is weighted away."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_count, is_traced
from numpyro_inverse.infer.denoising._diffusion_posterior import Problem, checked, moment_matched, read_problem
from numpyro_inverse.infer.denoising._reverse_diffusion import reverse_step

HERE = "twisted_smc"
RESAMPLED = 0.5  # share of the particles below which the effective sample size asks for new ones
FEW = 0.05  # and below which the draws are not to be trusted


class ParticleDraws(NamedTuple):
    """What sequential Monte Carlo gives.

    Attributes:
        samples: ``{site: array}`` of shape ``(num_chains, num_particles, *shape)``, equally weighted, as
            :func:`to_arviz` takes it. Chains are independent runs.
        log_evidence: each chain's estimate of :math:`\\log p(y)`; that of all chains is
            ``logsumexp(log_evidence) - log(num_chains)``.
        effective_sample_size: of the weighted particles at each level after the first, before new ones are drawn.
    """

    samples: dict[str, Array]
    log_evidence: Float[Array, " chains"]
    effective_sample_size: Float[Array, "chains steps"]


class _Particles(NamedTuple):
    """Weighted particles at a noise level."""

    x: Float[Array, "particles n"]
    prior: Float[Array, "particles n"]
    data: Float[Array, "particles n"]
    log_twist: Float[Array, " particles"]
    log_weight: Float[Array, " particles"]  # their exponentials sum to 1


def twisted_smc(
    model: Callable,
    denoiser: Callable[[Array, Any], Array],
    *,
    rng_key: Array,
    num_particles: int,
    sigma_max: float,
    sigma_min: float,
    num_steps: int = 200,
    num_chains: int = 1,
    model_args: tuple = (),
    model_kwargs: dict[str, Any] | None = None,
) -> ParticleDraws:
    r"""Draw from the posterior under a denoiser's prior by sequential Monte Carlo, with its evidence.

    The prior is the reverse diffusion that the denoiser D drives,

    .. math:: x_0 \sim N(0, \sigma_{max}^2 I), \qquad
              x_{i+1} \mid x_i \sim N\Bigl(x_i + h_i \frac{D(x_i, \sigma_i) - x_i}{\sigma_i^2},\ h_i I\Bigr),
              \qquad h_i = \sigma_i^2 - \sigma_{i+1}^2,

    down to level ``sigma_min``, and the data are of its last state. With :math:`J = \partial D / \partial x`, what x at
    level :math:`\sigma` makes of the data is approximated by the twist

    .. math:: \psi_\sigma(x) = N\bigl(y;\ A D(x, \sigma),\ \tau^2 I + \sigma^2 A J A^T\bigr),

    the likelihood itself at the last step. Particles move as in :func:`diffusion_posterior`, guided by the twist's
    gradient g (with a fixed covariance), and are weighted by

    .. math:: w_{i+1} = \frac{\psi_{i+1}(x_{i+1})}{\psi_i(x_i)}\,
              \frac{N(x_{i+1};\ m_i,\ h_i I)}{N(x_{i+1};\ m_i + h_i g_i,\ h_i I)},

    with :math:`m_i` the prior's mean; where their effective sample size falls below half their number they are drawn
    anew (systematic resampling).

    **Exact** as ``num_particles`` grows, whatever the quality of the twist, for that prior; and the evidence is
    unbiased with any number of particles, so that independent chains may be averaged. What remains is the prior's own
    error: of order 1 / ``num_steps`` in its variance, the noise of level ``sigma_min`` and the start's error of order
    (prior scale / ``sigma_max``) squared. More steps also make the weights more even. The matrices of the twist are as
    large as the data, for each particle.

    Draws that descend from one particle are neighbors, so that ArviZ's effective sample size sees it.

    >>> def likelihood(data=None):
    ...     signal = numpyro.sample("signal", dist.ImproperUniform(dist.constraints.real, (), (3,)))
    ...     numpyro.sample("data", dist.Normal(signal[:2], 0.1).to_event(1), obs=data)
    >>> found = ni.infer.twisted_smc(
    ...     likelihood, lambda x, sigma: x / (1 + sigma**2), rng_key=jax.random.key(0), num_particles=64,
    ...     sigma_max=40.0, sigma_min=1e-2, num_steps=20, model_args=(jnp.array([0.5, 1.0]),))
    >>> found.samples["signal"].shape, found.log_evidence.shape
    ((1, 64, 3), (1,))

    Args:
        model: as :class:`SplitGibbs` wants it.
        denoiser: a function of a signal and a noise level, right from ``sigma_min`` to ``sigma_max``: the posterior
            mean under a prior, or at least with a Jacobian that leaves the twist's covariance positive definite.
        rng_key: random key.
        num_particles: particles a chain, 2 or more.
        sigma_max: the first noise level, far above the signal's scale.
        sigma_min: the last, far below the posterior's.
        num_steps: steps from the first to the last level, 2 or more.
        num_chains: independent runs.
        model_args: the model's arguments, with the data.
        model_kwargs: its keyword arguments.

    Returns:
        Draws, log evidence and effective sample sizes: :class:`ParticleDraws`.

    Raises:
        TypeError, ValueError: as :func:`diffusion_posterior`.
        RuntimeError: draws that are not finite.

    Warns:
        UserWarning: fewer than 5 % of a chain's particles, or fewer than two, were effective at some level.

    References:
        Wu et al., NeurIPS 36 (2023), arXiv 2306.17775, algorithm 1 (twisted diffusion sampling); Boys et al. (2024),
        arXiv 2310.06721 (the twist's covariance); Naesseth, Lindsten & Schon, Found. Trends Mach. Learn. 12 (2019)
        (unbiased evidence).
    """
    chains = check_count(HERE, "num_chains", num_chains)
    count = check_count(HERE, "num_particles", num_particles, 2)
    check_count(HERE, "num_steps", num_steps, 2)
    problem = read_problem(HERE, model, denoiser, rng_key, sigma_max, sigma_min, num_steps, model_args, model_kwargs)
    run = jax.jit(jax.vmap(partial(_run, problem, count)))
    draws, log_evidence, effective = run(jax.random.split(rng_key, chains))
    log_evidence = checked(HERE, log_evidence, log_evidence)
    least = max(2.0, FEW * count)
    if not is_traced(effective) and (worst := float(jnp.min(effective))) < least:
        warnings.warn(
            f"{HERE}: at some noise level only {worst:.1f} of {count} particles were effective, so that the draws of a "
            "chain have few ancestors: take more `num_steps` or more particles, and compare chains.",
            UserWarning,
            stacklevel=2,
        )
    return ParticleDraws({problem.name: draws}, log_evidence, effective)


def _run(problem: Problem, count: int, key: Array) -> tuple[Array, Array, Array]:
    """One chain: draws, log evidence, effective sample sizes."""
    affine, levels = problem.white.affine(), problem.levels
    normalizer, dtype = problem.white.log_normalizer(), levels.dtype
    guided = jax.vmap(partial(moment_matched, affine, problem.denoise), (0, None))
    key_start, key_steps, key_final, key_draws = jax.random.split(key, 4)

    def step(carry, inputs):
        particles, log_evidence = carry
        key, sigma, after = inputs
        key_resample, key_move = jax.random.split(key)
        particles = _resampled(key_resample, particles, RESAMPLED)
        x, log_ratio = _moved(key_move, particles, sigma, after)
        at = guided(x, after)
        log_weight, change, effective = _weighted(particles, log_ratio, at.log_twist)
        return (_Particles(x, *at, log_weight), log_evidence + change), effective

    x = levels[0] * jax.random.normal(key_start, (count, problem.white.size), dtype)
    at = guided(x, levels[0])
    start = logsumexp(at.log_twist)
    carry = _Particles(x, *at, at.log_twist - start), start - jnp.log(jnp.asarray(count, dtype))
    steps = jax.random.split(key_steps, len(levels) - 2), levels[:-2], levels[1:-1]
    (particles, log_evidence), effective = jax.lax.scan(step, carry, steps)

    key_resample, key_move = jax.random.split(key_final)
    particles = _resampled(key_resample, particles, RESAMPLED)
    x, log_ratio = _moved(key_move, particles, levels[-2], levels[-1])
    log_likelihood = -0.5 * jnp.sum((affine.offset - jax.vmap(affine.forward)(x)) ** 2, axis=1)
    log_weight, change, last = _weighted(particles, log_ratio, log_likelihood)
    draws = _resampled(key_draws, particles._replace(x=x, log_weight=log_weight), 1.0).x
    evidence = normalizer + log_evidence + change
    return draws.reshape(count, *problem.shape), evidence, jnp.append(effective, last)


def _moved(key: Array, particles: _Particles, sigma: Array, after: Array) -> tuple[Array, Array]:
    """Particles at the next level, and the log of the prior's transition density over that of the guided one."""
    noise = jax.random.normal(key, particles.x.shape, particles.x.dtype)
    x = reverse_step(particles.prior + particles.data, particles.x, noise, sigma, after)
    h = sigma**2 - after**2
    return x, -jnp.sum(particles.data * (0.5 * h * particles.data + jnp.sqrt(h) * noise), axis=1)


def _weighted(particles: _Particles, log_ratio: Array, log_twist: Array) -> tuple[Array, Array, Array]:
    """The particles' next log weights, what they add to the log evidence, and their effective sample size."""
    log_weight = particles.log_weight + log_ratio + log_twist - particles.log_twist
    change = logsumexp(log_weight)
    log_weight = log_weight - change
    return log_weight, change, jnp.exp(-logsumexp(2 * log_weight))


def _resampled(key: Array, particles: _Particles, share: float) -> _Particles:
    """Equally weighted particles by systematic resampling, if less than a share of them is effective."""
    from blackjax.smc.resampling import systematic

    count = len(particles.x)
    drawn = systematic(key, jnp.exp(particles.log_weight), count)
    wanted = jnp.exp(-logsumexp(2 * particles.log_weight)) < share * count
    chosen = jnp.where(wanted, drawn, jnp.arange(count))
    even = jnp.full_like(particles.log_weight, -jnp.log(count))
    taken = jax.tree.map(lambda leaf: leaf[chosen], particles)
    return taken._replace(log_weight=jnp.where(wanted, even, particles.log_weight))
