"""The law of what a program computes at random: it can be drawn, and has no density that could be evaluated."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import Distribution, constraints

from numpyro_inverse._checks import check_callable, check_count, check_instance, check_real


class Simulator(Distribution):
    r"""The law of :math:`x = f(k, \theta)` for a random key k: a likelihood that one can only simulate from.

    It marks the site of a model whose law is to be learned: :class:`numpyro_inverse.sbi.NLE`, ``NRE`` and ``NPE`` draw
    from that very model and put a surrogate in its place. :meth:`log_prob` raises.

    >>> def ricker(key, log_rate, noise):
    ...     ...
    >>> def model(counts=None):
    ...     log_rate = numpyro.sample("log_rate", dist.Normal(4, 1))
    ...     noise = numpyro.sample("noise", dist.HalfNormal(1))
    ...     numpyro.sample("counts", Simulator(ricker, log_rate, noise, support=constraints.nonnegative_integer),
    ...                    obs=counts)

    A surrogate learns the law given these arguments, wherever they come from: what the simulator should see of
    covariates or of other sites is an argument, and what is fixed may be closed over.

    Args:
        fn: f, from a random key and one set of arguments to one array. JAX traces it; a program of another kind goes
            through :class:`numpyro_inverse.sbi.External`.
        *args: :math:`\theta`, real numbers or arrays. Leading axes are batch axes, as everywhere in NumPyro.
        event_dims: how many trailing axes of each argument belong to one simulation: one number for all of them, or
            one for each. Default 0: f takes numbers.
        support: a NumPyro constraint for the values, of one number or of a whole event. Declare what is known
            (``positive``, ``unit_interval``, ``nonnegative_integer``, ``integer_interval(0, n)``, ...): surrogates keep
            to it exactly.

    Raises:
        TypeError: ``fn`` is not callable; an argument that is no array of real numbers; ``support`` is no constraint.
        ValueError: an argument with fewer axes than its ``event_dims``; batch axes that do not broadcast; ``fn`` does
            not take such arguments, or does not return one array of real numbers; ``support`` for events with more
            axes.
    """

    arg_constraints: dict = {}  # noqa: RUF012
    pytree_data_fields = ("args", "_arrays")
    pytree_aux_fields = ("_rest", "event_dims", "_support")

    def __init__(
        self,
        fn: Callable[..., Array],
        *args: Array | float,
        event_dims: int | tuple[int, ...] = 0,
        support: constraints.Constraint = constraints.real,
        validate_args: bool | None = None,
    ):
        check_callable("Simulator", "fn", fn, "a function of a random key and the arguments")
        check_instance("Simulator", "support", support, constraints.Constraint, "a NumPyro constraint")
        self.args = tuple(jnp.asarray(check_real("Simulator", f"args[{i}]", arg)) for i, arg in enumerate(args))
        self.event_dims = _event_dims(event_dims, self.args)
        batch = _batch_shape(self.args, self.event_dims)
        # Arrays cross `jit` as data, NumPy's too; the rest is compared and hashed.
        fn = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, fn)
        self._arrays, self._rest = eqx.partition(fn, eqx.is_array)
        event = _output(fn, self.args, self.event_dims).shape
        if support.event_dim > len(event):
            raise ValueError(
                f"Simulator: `support` is for events of {support.event_dim} axes or more; `fn` returns shape {event}."
            )
        axes = len(event) - support.event_dim
        self._support = constraints.independent(support, axes) if axes else support
        super().__init__(batch, event, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """What was declared."""
        return self._support

    @property
    def fn(self) -> Callable[..., Array]:
        """f."""
        return eqx.combine(self._arrays, self._rest)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """One simulation for each element of the batch and each draw, each with a key of its own."""
        batch = self.batch_shape
        flat = [
            jnp.broadcast_to(arg, batch + _event(arg, n)).reshape(prod(batch), *_event(arg, n))
            for arg, n in zip(self.args, self.event_dims, strict=True)
        ]
        keys = jax.random.split(key, (prod(sample_shape), prod(batch)))
        draws = jax.vmap(jax.vmap(self.fn), (0, *(None,) * len(flat)))(keys, *flat)
        return draws.reshape(tuple(sample_shape) + batch + self.event_shape)

    def log_prob(self, value: Array) -> Array:
        """There is none.

        Raises:
            NotImplementedError: always; it names the remedy.
        """
        raise NotImplementedError(
            "Simulator: a simulator's law can be drawn but not evaluated. Learn it from simulations of the model, and "
            "infer with the model in which the surrogate has its place: `numpyro_inverse.sbi.NLE(model, "
            "site).fit(key).model` (or `NRE`); or learn the posterior itself: "
            "`numpyro_inverse.sbi.NPE(model).fit(key)`. A study of calibration leaves it out by `log_likelihood=False`."
        )


def _event_dims(event_dims: Any, args: tuple[Array, ...]) -> tuple[int, ...]:
    """One number for each argument, checked."""
    each = tuple(event_dims) if isinstance(event_dims, tuple | list) else (event_dims,) * len(args)
    if len(each) != len(args):
        raise ValueError(f"Simulator: `event_dims` has {len(each)} numbers for {len(args)} arguments.")
    each = tuple(check_count("Simulator", "event_dims", n, 0) for n in each)
    for i, (arg, n) in enumerate(zip(args, each, strict=True)):
        if arg.ndim < n:
            raise ValueError(
                f"Simulator: `args[{i}]` has shape {arg.shape}, fewer axes than the {n} of one simulation "
                "(`event_dims`)."
            )
    return each


def _event(arg: Array, n: int) -> tuple[int, ...]:
    return arg.shape[arg.ndim - n :]


def _batch_shape(args: tuple[Array, ...], event_dims: tuple[int, ...]) -> tuple[int, ...]:
    shapes = [arg.shape[: arg.ndim - n] for arg, n in zip(args, event_dims, strict=True)]
    try:
        return jnp.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ValueError(
            f"Simulator: the batch axes of the arguments, {', '.join(map(str, shapes))}, do not broadcast. Axes of one "
            "simulation are told by `event_dims`."
        ) from error


def _output(fn: Callable, args: tuple[Array, ...], event_dims: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Shape and type of one simulation."""
    one = [jax.ShapeDtypeStruct(_event(arg, n), arg.dtype) for arg, n in zip(args, event_dims, strict=True)]
    try:
        found = jax.eval_shape(fn, jax.random.key(0), *one)
    except (TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(str(arg.shape) for arg in one) or "none"
        raise ValueError(
            f"Simulator: `fn` does not take a random key and arguments of shapes {shapes} (`event_dims` tells how many "
            f"axes of an argument belong to one simulation): {str(error).splitlines()[0]}"
        ) from error
    real = isinstance(found, jax.ShapeDtypeStruct) and any(
        jnp.issubdtype(found.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)
    )
    if not real:
        raise ValueError(f"Simulator: `fn` must return one array of real numbers; got {found}.")
    return found
