r"""Signals with independent increments under four operators: a referee for denoisers as priors.

:What: :math:`s_k = s_{k-1} + u_k`, :math:`s_0 = 0`, with independent increments of one law, and
    :math:`y = A s + \tau \xi`.
:Dimension: 64.
:Prior: :data:`LAWS` by name: ``gauss`` (variance 0.25), ``laplace`` (scale 1), ``bernoulli-laplace`` (0 with
    probability 0.9, else Laplace of scale 1), ``student-1``, ``student-2``, ``student-3`` (degrees of freedom; scale
    1).
:Data: :data:`OPERATORS` by name: ``identity``; ``deconvolution``, a Gaussian of standard deviation 2 on 13 taps with
    zeros beyond the ends; ``imputation``, 40 of the samples, the last among them, without which the mean of Cauchy
    signals would not exist; ``fourier``, real and imaginary parts of 16 of the 33 frequencies of the unitary transform,
    the eight lowest and eight others (30 numbers).
:Likelihood: independent normal; its standard deviation :math:`\tau` is such that the signal-to-noise ratio
    :math:`\|A s\|^2 / m \tau^2` of each simulated signal is 25 dB, and known.
:Parameters: ``law`` and ``operator``, by name; ``noise``.
:Reference posterior: :func:`posterior_draws` by conjugate latent Gibbs; for ``gauss`` in closed form too,
    :func:`exact_posterior`.
:Source: dps-benchmark, arXiv 2509.12821, after P. Bohra, P. del Aguila Pla, J.-F. Giovannelli and M. Unser, IEEE Trans.
    Signal Process. 71 (2023). Laws, length, signal-to-noise ratio and point spread are theirs; the share of jumps, the
    boundary, which samples and which frequencies are left open there, and are ours.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models._linear_gaussian import dense_posterior
from numpyro_inverse.denoisers import IncrementsDenoiser

LENGTH = 64
DECIBEL = 25.0
LAWS = ("gauss", "laplace", "bernoulli-laplace", "student-1", "student-2", "student-3")
OPERATORS = ("identity", "deconvolution", "imputation", "fourier")
JUMPS = 0.1  # share of increments that are not zero under bernoulli-laplace


def increments(law):
    """The law of an increment that is not zero, and the probability that it is not."""
    if law == "gauss":
        return dist.Normal(0.0, 0.5), 1.0
    if law in ("laplace", "bernoulli-laplace"):
        return dist.Laplace(0.0, 1.0), JUMPS if law == "bernoulli-laplace" else 1.0
    if law in LAWS:
        return dist.StudentT(float(law[-1]), 0.0, 1.0), 1.0
    raise ValueError(f"models.levy: `law` must be one of {', '.join(LAWS)}; got {law!r}.")


def matrix(operator):
    """The forward map, float64."""
    if operator == "identity":
        return np.eye(LENGTH)
    if operator == "deconvolution":
        j = np.arange(LENGTH)
        distance = j[:, None] - j
        kernel = np.where(np.abs(distance) <= 6, np.exp(-0.5 * (distance / 2.0) ** 2), 0.0)
        return kernel / np.sum(np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2))
    chosen = np.random.default_rng(0)
    if operator == "imputation":
        kept = np.sort(np.append(chosen.choice(LENGTH - 1, 39, replace=False), LENGTH - 1))
        return np.eye(LENGTH)[kept]
    if operator == "fourier":
        frequencies = np.sort(np.append(np.arange(8), 8 + chosen.choice(LENGTH // 2 - 7, 8, replace=False)))
        rows = np.fft.fft(np.eye(LENGTH), norm="ortho")[frequencies]
        rows = np.concatenate([rows.real, rows.imag])
        return rows[np.linalg.norm(rows, axis=1) > 1e-9]  # frequencies 0 and 32 have no imaginary part
    raise ValueError(f"models.levy: `operator` must be one of {', '.join(OPERATORS)}; got {operator!r}.")


def denoiser(law, **options):
    """The posterior mean of such a signal in white noise; options of :class:`IncrementsDenoiser`."""
    fn, probability = increments(law)
    return IncrementsDenoiser(fn, jump_probability=probability, **options)


def model(data=None, *, law="laplace", operator="identity", noise=0.5):
    """The NumPyro model: sites ``increments`` and ``data``, and the deterministic site ``signal``.

    The increments of ``bernoulli-laplace`` have no density: its posterior is that of :func:`posterior_draws`.
    """
    fn, probability = increments(law)
    if probability < 1:
        raise ValueError(f"models.levy: the increments of {law!r} have an atom and no density; use `posterior_draws`.")
    u = numpyro.sample("increments", fn.expand([LENGTH]).to_event(1))
    signal = numpyro.deterministic("signal", jnp.cumsum(u))
    observe(signal, data, operator=operator, noise=noise)


def likelihood(data=None, *, operator="identity", noise=0.5):
    """The same data of a ``signal`` without a prior, for a denoiser to be one."""
    signal = numpyro.sample("signal", dist.ImproperUniform(dist.constraints.real, (), (LENGTH,)))
    observe(signal, data, operator=operator, noise=noise)


def observe(signal, data, *, operator, noise):
    """The site ``data``."""
    forward = jnp.asarray(matrix(operator), jnp.result_type(float))
    numpyro.sample("data", dist.Normal(forward @ signal, noise).to_event(1), obs=data)


def simulate(key, *, law="laplace", operator="identity"):
    """A signal, its data and their noise level; signals that are zero throughout are drawn again."""
    fn, probability = increments(law)
    key_increments, key_noise, key_jumps = jax.random.split(key, 3)
    u = fn.sample(key_increments, (LENGTH,))
    if probability < 1:

        def again(carry):
            keys = jax.random.split(carry[0])
            return keys[0], jax.random.bernoulli(keys[1], probability, (LENGTH,))

        _, jumps = jax.lax.while_loop(lambda carry: ~carry[1].any(), again, (key_jumps, jnp.zeros(LENGTH, bool)))
        u = jnp.where(jumps, u, 0)
    signal = jnp.cumsum(u)
    clean = jnp.asarray(matrix(operator), signal.dtype) @ signal
    noise = jnp.sqrt(jnp.mean(clean**2) / 10 ** (DECIBEL / 10))
    return signal, clean + noise * jax.random.normal(key_noise, clean.shape), noise


def exact_posterior(data, *, operator="identity", noise=0.5):
    """The posterior of ``signal`` under ``gauss``: mean, standard deviations, covariance and log evidence."""
    root = np.tril(np.ones((LENGTH, LENGTH)))
    return dense_posterior(matrix(operator), data, float(noise), 0.25 * root @ root.T, (LENGTH,))


# The exact posterior of every law, by Gibbs sampling of the variances of the increments.


def posterior_draws(key, data, *, law, operator, noise, num_warmup=1000, num_samples=2000, thinning=1):
    r"""A chain of draws of ``signal`` given data, shape ``(num_samples, 64)``.

    Map it over keys and data sets by ``jax.lax.map``; on a CPU ``jax.vmap`` is several times slower.

    An increment is :math:`u_k \sim N(0, w_k)` given a variance of its own: :math:`w_k` is exponential of mean 2
    (Laplace) or inverse gamma :math:`(\nu / 2, \nu / 2)` (Student); for Bernoulli-Laplace :math:`u_k = b_k v_k`.
    In turn are drawn

    - the indicators b one by one given w, with the increments integrated out (rank-one updates of the data's
      covariance), and after that their exchange with a neighbor;
    - the increments given w and b, jointly: a Gaussian;
    - the variances given the increments: inverse Gaussian :math:`(1 / |u|, 1)` for :math:`1 / w`, or inverse gamma
      :math:`((\nu + 1) / 2, (\nu + u^2) / 2)`; from their prior where b is 0.

    Use double precision (``jax.enable_x64``).

    Args:
        key: random key.
        data: y.
        law, operator: by name.
        noise: its standard deviation.
        num_warmup: sweeps before the first draw; the chain starts at variances from the prior.
        num_samples: draws.
        thinning: sweeps a draw.
    """
    rows = matrix(operator) @ np.tril(np.ones((LENGTH, LENGTH)))  # from increments to data
    rows = jnp.asarray(rows, jnp.result_type(float))
    y = jnp.asarray(data, rows.dtype)
    scales = partial(_variances, law)

    def sweep(_, state):
        key, _, w, b = state
        key, *keys = jax.random.split(key, 5)
        if law == "bernoulli-laplace":
            inverse = jnp.linalg.inv((rows * (b * w)) @ rows.T + noise**2 * jnp.eye(len(y)))
            b, inverse = _indicators(keys[0], rows, y, w, b, inverse)
            b, w = _exchanges(keys[3], rows, y, w, b, inverse)
        factor = jnp.linalg.cholesky((rows * (b * w)) @ rows.T + noise**2 * jnp.eye(len(y)))
        prior = jnp.sqrt(b * w) * jax.random.normal(keys[1], (LENGTH,))
        residual = y - rows @ prior - noise * jax.random.normal(keys[2], y.shape)
        u = prior + b * w * (rows.T @ jax.scipy.linalg.cho_solve((factor, True), residual))
        return key, u, scales(jax.random.fold_in(keys[2], 1), u, b), b

    def draw(state, _):
        state = jax.lax.fori_loop(0, thinning, sweep, state)
        return state, jnp.cumsum(state[1])

    key, key_start = jax.random.split(key)
    zero = jnp.zeros(LENGTH, rows.dtype)
    b = zero if law == "bernoulli-laplace" else zero + 1
    state = key, zero, scales(key_start, zero, zero), b
    state = jax.lax.fori_loop(0, num_warmup, sweep, state)
    return jax.lax.scan(draw, state, length=num_samples)[1]


def _variances(law, key, u, b):
    """The increments' variances given increments, or from the prior where b is 0."""
    if law == "gauss":
        return jnp.full_like(u, 0.25)
    if law.endswith("laplace"):
        key_normal, key_choice, key_prior = jax.random.split(key, 3)
        mean = 1 / jnp.maximum(jnp.abs(u), 1e-12)
        spread = mean * jax.random.normal(key_normal, u.shape, u.dtype) ** 2
        small = mean / (1 + spread / 2 + jnp.sqrt(spread * (1 + spread / 4)))  # Michael, Schucany & Haas 1976
        first = jax.random.uniform(key_choice, u.shape, u.dtype) * (mean + small) <= mean
        given = jnp.where(first, 1 / small, small / mean**2)
        return jnp.where(b > 0, given, 2 * jax.random.exponential(key_prior, u.shape, u.dtype))
    degrees = int(law[-1])
    chi_squared = jax.random.normal(key, (degrees + 1, *u.shape), u.dtype) ** 2
    total = jnp.where(b > 0, jnp.sum(chi_squared, axis=0), jnp.sum(chi_squared[1:], axis=0))
    return (degrees + jnp.where(b > 0, u**2, 0)) / total


def _rank_one(inverse, h, change):
    """The inverse after adding ``change * h h^T``, and the change of the log determinant of what is inverted."""
    product = inverse @ h
    factor = 1 + change * (h @ product)
    return inverse - (change / factor) * jnp.outer(product, product), jnp.log(factor)


def _indicators(key, rows, y, w, b, inverse):
    """Each indicator given the others and w, the increments integrated out."""
    uniforms = jax.random.uniform(key, (LENGTH,), rows.dtype)

    def visit(k, carry):
        b, inverse = carry
        product = inverse @ rows[:, k]
        squared, shared = rows[:, k] @ product, product @ y
        without = 1 - b[k] * w[k] * squared
        q, r = squared / without, shared / without  # of the covariance without increment k
        log_odds = np.log(JUMPS / (1 - JUMPS)) - 0.5 * jnp.log1p(w[k] * q) + 0.5 * w[k] * r**2 / (1 + w[k] * q)
        new = jnp.where(uniforms[k] < jax.nn.sigmoid(log_odds), 1.0, 0.0).astype(b.dtype)
        change = (new - b[k]) * w[k]
        inverse = jax.lax.cond(new == b[k], lambda i: i, lambda i: _rank_one(i, rows[:, k], change)[0], inverse)
        return b.at[k].set(new), inverse

    return jax.lax.fori_loop(0, LENGTH, visit, (b, inverse))


def _exchanges(key, rows, y, w, b, inverse):
    """Exchange the indicators and variances of neighbors, accepted by the density of the data."""
    uniforms = jax.random.uniform(key, (LENGTH,), rows.dtype)

    def exchange(k, b, w, inverse):
        change = b[k + 1] * w[k + 1] - b[k] * w[k]
        moved, one = _rank_one(inverse, rows[:, k], jnp.maximum(change, 0))  # what is added first keeps it regular
        moved, two = _rank_one(moved, rows[:, k + 1], jnp.maximum(-change, 0))
        moved, three = _rank_one(moved, rows[:, k], jnp.minimum(change, 0))
        moved, four = _rank_one(moved, rows[:, k + 1], jnp.minimum(-change, 0))
        log_ratio = -0.5 * (one + two + three + four) - 0.5 * (y @ moved @ y - y @ inverse @ y)
        accept = jnp.log(uniforms[k]) < log_ratio
        pair = jnp.array([k, k + 1])
        b = jnp.where(accept, b.at[pair].set(b[pair[::-1]]), b)
        w = jnp.where(accept, w.at[pair].set(w[pair[::-1]]), w)
        return b, w, jnp.where(accept, moved, inverse)

    def visit(k, carry):
        b = carry[0]
        return jax.lax.cond(b[k] + b[k + 1] > 0, lambda c: exchange(k, *c), lambda c: c, carry)

    return jax.lax.fori_loop(0, LENGTH - 1, visit, (b, w, inverse))[:2]
