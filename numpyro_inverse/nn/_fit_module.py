"""An optimizer on one loss, in the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_callable, describe
from numpyro_inverse.nn._training import Fault, Fit, TrainingSettings, check_loss, train, training_rows

Loss = Callable[[Any, Any, PRNGKeyArray], Float[Array, ""]]


def fit_module(
    module: Any,
    loss: Loss,
    data: Any,
    *,
    key: PRNGKeyArray,
    settings: TrainingSettings | None = None,
    name: str = "fit_module",
    fault: Fault | None = None,
) -> Fit:
    r"""Minimizes a mean loss over the floating-point arrays of a module.

    >>> def loss(network, batch, key):
    ...     x, y = batch
    ...     return jnp.mean((jax.vmap(network)(x) - y) ** 2)
    >>> fit = fit_module(network, loss, (x, y), key=jax.random.key(0))

    Args:
        module: an Equinox module, or any pytree.
        loss: module, batch and key to the mean loss of the batch.
        data: rows, as for :func:`~numpyro_inverse.nn.train`: an array, or a pytree of arrays of one length.
        key: of shuffling and of the losses.
        settings: see :class:`~numpyro_inverse.nn.TrainingSettings`.
        name: of the caller, for messages.
        fault: what is wrong with a batch of rows, or None; asked where a loss is not finite.

    Returns:
        The module of the epoch with the smallest held-out loss, and the losses.

    Raises:
        FileNotFoundError, ValueError: as :func:`~numpyro_inverse.nn.train`.
        TypeError: as there; a module without floating-point arrays; ``loss`` cannot be called.
    """
    check_callable(name, "loss", loss, "a function of module, batch and key")
    if not any(map(eqx.is_inexact_array, jax.tree.leaves(module))):
        raise TypeError(f"{name}: `module` must have arrays of floating-point numbers; got {describe(module)}.")
    settings = TrainingSettings() if settings is None else settings
    optimizer = optimizer_of(settings, training_rows(data, settings, name))

    def step(state, batch, key):
        module, memory = state
        arrays, rest = eqx.partition(module, eqx.is_inexact_array)

        def value_fn(arrays):
            return check_loss(name, "loss", loss(eqx.combine(arrays, rest), batch, key))

        value, grad = jax.value_and_grad(value_fn)(arrays)
        change, memory = optimizer.update(grad, memory, arrays, value=value, grad=grad, value_fn=value_fn)
        return (eqx.apply_updates(module, change), memory), value

    def score(state, batch, key):
        return check_loss(name, "loss", loss(state[0], batch, key))

    state = (module, optimizer.init(eqx.filter(module, eqx.is_inexact_array)))
    return train(step, score, state, data, key=key, settings=settings, name=name, fault=fault)


def optimizer_of(
    settings: TrainingSettings, rows: int, every: int = 1, **adam: float
) -> optax.GradientTransformationExtraArgs:
    """The settings' optimizer, or Adam with clipped gradients and a cosine learning rate, for an update ``every`` so
    many batches of those rows.
    """
    if settings.optimizer is not None:
        return optax.with_extra_args_support(settings.optimizer)
    steps = settings.max_epochs * max(rows // (settings.batch_size or rows), 1) // every
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, max(steps // 50, 1), max(steps, 2))
    return optax.with_extra_args_support(
        optax.chain(optax.clip_by_global_norm(settings.gradient_norm), optax.adam(rate, **adam))
    )
