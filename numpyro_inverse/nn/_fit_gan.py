"""Generative adversarial networks: generators trained against a critic, without a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import Distribution

from numpyro_inverse._checks import check_key, check_nonnegative_number
from numpyro_inverse.nn._energy_score import energy_score
from numpyro_inverse.nn._fit_module import optimizer_of
from numpyro_inverse.nn._networks import check_counts
from numpyro_inverse.nn._prepare import as_they_are, fault_of, first_rows
from numpyro_inverse.nn._training import Fit, settings_from, train, training_rows


def fit_gan(
    generator: Any,
    critic: Any,
    data: Any,
    *,
    base: Distribution,
    key: PRNGKeyArray,
    critic_steps: int = 5,
    penalty: float = 10.0,
    prepare: Callable[[Array, PRNGKeyArray], Array] | None = None,
    **settings: Any,
) -> Fit:
    r"""Fits a generator G so that G(z), z from ``base``, looks like the data to a critic D (Wasserstein distance with
    gradient penalty):

    .. math:: \min_G \max_D \; E\, D(x) - E\, D(G(z)) - \lambda E (|\nabla D(\hat x)| - 1)^2

    with :math:`\hat x` uniform on the segment between a row x and a generated one. Every step changes D, every
    ``critic_steps``-th also G; both with Adam without a memory of past directions (:math:`\beta_1 = 0`,
    :math:`\beta_2 = 0.9`).

    The critic's loss says little about G. Held-out rows y are judged by :func:`energy_score`, so early stopping and the
    choice of the best epoch depend on no critic; up to a constant of the data it is the energy distance.

    Args:
        generator: G, an Equinox module from one latent to one example.
        critic: D, an Equinox module from one example to a number.
        data: rows, as for :func:`~numpyro_inverse.nn.train`: an array of one example per row, or a pytree of arrays of
            which ``prepare`` makes one.
        base: of the latent, a NumPyro distribution without batch shape; the same as for
            :class:`~numpyro_inverse.distributions.Pushforward`.
        key: of all randomness.
        critic_steps: steps of D per step of G.
        penalty: :math:`\lambda`.
        prepare: what a batch and a key become before the loss, such as :func:`~numpyro_inverse.nn.dequantize`.
        **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`; the learning rate, or the optimizer, is that of
            both.

    Returns:
        The generator with the best held-out score; D's losses, and the scores.

    Raises:
        TypeError: ``data`` is no array, ``base`` no distribution, a network cannot be called; ``critic_steps`` is no
            integer, ``penalty`` no number, ``key`` no random key.
        ValueError: as :func:`~numpyro_inverse.nn.train`; networks and rows whose shapes do not fit; a
            ``critic_steps`` or ``penalty`` that makes no sense.

    References:
        Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville, NeurIPS 2017, algorithm 1.

    >>> fit = fit_gan(generator, critic, rows, base=latent, key=jax.random.key(0))
    """
    chosen = settings_from("fit_gan", settings)
    prepare = as_they_are if prepare is None else prepare
    check_counts("fit_gan", critic_steps=critic_steps)
    check_nonnegative_number("fit_gan", "penalty", penalty)
    shape = _checked_shape(generator, critic, base)
    rows = training_rows(data, chosen, "fit_gan")
    check_key("fit_gan", "key", key)
    size = chosen.batch_size or rows
    if size < 2:
        raise ValueError(f"fit_gan: `batch_size` must be 2 or more, for the energy score; got {size}.")
    first_rows("fit_gan", data, rows, prepare, shape)
    optimizers = tuple(optimizer_of(chosen, rows, every, b1=0.0, b2=0.9) for every in (critic_steps, 1))

    def generated(generator: Any, key: PRNGKeyArray, count: int) -> Array:
        return jax.vmap(generator)(base.sample(key, (count,)))

    def critic_loss(critic: Any, generator: Any, x: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        drawn, placed = jax.random.split(key)
        fake = generated(generator, drawn, len(x))
        t = jax.random.uniform(placed, (len(x),) + (1,) * (x.ndim - 1), x.dtype)
        slopes = jax.vmap(jax.grad(lambda x: jnp.reshape(critic(x), ())))(t * x + (1 - t) * fake)
        norms = jnp.sqrt(jnp.sum(slopes.reshape(len(x), -1) ** 2, axis=1) + 1e-12)
        gain = jnp.mean(jax.vmap(critic)(fake)) - jnp.mean(jax.vmap(critic)(x))
        return gain + penalty * jnp.mean((norms - 1) ** 2)

    def generator_loss(generator: Any, critic: Any, key: PRNGKeyArray, count: int) -> Float[Array, ""]:
        return -jnp.mean(jax.vmap(critic)(generated(generator, key, count)))

    def step(state, batch, key):
        generator, (critic, memories, count) = state
        prepared, judged, moved = jax.random.split(key, 3)
        x = prepare(batch, prepared)
        value, gradient = eqx.filter_value_and_grad(critic_loss)(critic, generator, x, judged)
        change, critic_memory = optimizers[1].update(gradient, memories[1], eqx.filter(critic, eqx.is_inexact_array))
        critic = eqx.apply_updates(critic, change)

        arrays, rest = eqx.partition(generator, eqx.is_inexact_array)

        def move(arrays, memory):
            gradient = jax.grad(lambda a: generator_loss(eqx.combine(a, rest), critic, moved, len(x)))(arrays)
            change, memory = optimizers[0].update(gradient, memory, arrays)
            return eqx.apply_updates(arrays, change), memory

        due = (count + 1) % critic_steps == 0
        arrays, memory = jax.lax.cond(due, move, lambda arrays, memory: (arrays, memory), arrays, memories[0])
        return (eqx.combine(arrays, rest), (critic, (memory, critic_memory), count + 1)), value

    def score(state, batch, key):
        prepared, drawn = jax.random.split(key)
        return energy_score(generated(state[0], drawn, size), prepare(batch, prepared))

    memories = tuple(
        o.init(eqx.filter(n, eqx.is_inexact_array)) for o, n in zip(optimizers, (generator, critic), strict=True)
    )
    state = (generator, (critic, memories, jnp.zeros((), int)))
    return train(step, score, state, data, key=key, settings=chosen, name="fit_gan", fault=fault_of(prepare))


def _checked_shape(generator: Any, critic: Any, base: Distribution) -> tuple[int, ...]:
    """The shape of what the generator makes."""
    if not isinstance(base, Distribution):
        raise TypeError(f"fit_gan: `base` must be a NumPyro distribution; got {type(base).__name__}.")
    if base.batch_shape:
        raise ValueError(
            "fit_gan: `base` must have no batch shape (`.to_event()` makes it one latent); got batch shape "
            f"{base.batch_shape}."
        )
    latent = jax.eval_shape(base.sample, jax.random.key(0))
    made = _output("generator", generator, latent)
    judged = _output("critic", critic, made)
    if judged.size != 1:
        raise ValueError(f"fit_gan: `critic` must return one number; it returns an array of shape {judged.shape}.")
    return made.shape


def _output(name: str, network: Any, given: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    if not callable(network):
        raise TypeError(f"fit_gan: `{name}` must be a function of one array; got {type(network).__name__}.")
    try:
        found = jax.eval_shape(network, given)
    except (TypeError, ValueError, IndexError) as error:
        what = "the shape of a latent from `base`" if name == "generator" else "the shape that `generator` makes"
        raise ValueError(
            f"fit_gan: `{name}` does not take an array of shape {given.shape}, {what}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise ValueError(f"fit_gan: `{name}` must return one array; got {found}.")
    return found
