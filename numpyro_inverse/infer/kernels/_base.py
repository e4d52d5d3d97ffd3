"""What every gradient kernel shares: a target on flat vectors, a first state, and the interface of ``MCMCKernel``."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt
from numpyro import handlers
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model, potential_energy, transform_fn
from numpyro.util import identity, is_prng_key

from numpyro_inverse._checks import check_callable, check_key, check_real, describe
from numpyro_inverse._fingerprint import fingerprint
from numpyro_inverse._model import (
    Trace,
    abstract_trace,
    discrete_latents,
    latent_sites,
    sample_sites,
    subsampling_plates,
    trace_at,
    transforms,
)
from numpyro_inverse.distributions._energy import gradients_suffice, is_gradient_only, without_value
from numpyro_inverse.infer.kernels._failures import Failure, site_densities

NOWHERE = "the first point of a chain has a density or a gradient that is not finite; give other `init_params`."


class Point(NamedTuple):
    """A flat unconstrained vector with its potential energy and gradient."""

    x: Float[Array, "n"]
    potential_energy: Float[Array, ""]
    grad: Float[Array, "n"]


class KernelState(NamedTuple):
    """State of our kernels; every field is available as an extra field.

    Attributes:
        i: iteration, warm-up included.
        z: latent values in unconstrained space.
        potential_energy: minus the log density at ``z``, up to a constant.
        grad: its gradient, flat; empty for kernels that need none.
        accept_prob: of the last proposal; 1 for unadjusted kernels.
        mean_accept_prob: its mean over the warm-up, then over the draws.
        diverging: the last proposal was hopeless (log acceptance ratio below -1000).
        step_size: of the last move.
        num_grads: gradients that the last move took.
        num_failures: moves so far that met a point whose log density, or its gradient, is not a number.
        first_failure: iteration of the first of them; -1 if there is none.
        failed_at: its point, flat.
        fingerprint: of the model arguments that the potential and the gradient are for.
        adapt_state: what warm-up adapts.
        constants: what is fixed when a chain starts.
        rng_key: key of the next move.
    """

    i: Int[Array, ""]
    z: PyTree
    potential_energy: Float[Array, ""]
    grad: Float[Array, "n"]
    accept_prob: Float[Array, ""]
    mean_accept_prob: Float[Array, ""]
    diverging: Bool[Array, ""]
    step_size: Float[Array, ""]
    num_grads: Int[Array, ""]
    num_failures: Int[Array, ""]
    first_failure: Int[Array, ""]
    failed_at: Float[Array, "n"]
    fingerprint: UInt[Array, ""]
    adapt_state: Any
    constants: Any
    rng_key: Array


class Move(NamedTuple):
    """What one transition returns; ``evaluated`` is the last point for which the target was called."""

    point: Point
    evaluated: Point
    accept_prob: Float[Array, ""]
    diverging: Bool[Array, ""]
    num_grads: int
    adapt_state: Any
    failure: Failure


class GradientKernel(MCMCKernel):
    """Base of our kernels. A subclass defines :meth:`_adaptation`, :meth:`_step_size` and :meth:`_move`.

    Args:
        model: a NumPyro model.
        potential_fn: instead of ``model``, a potential energy on any pytree; ``init_params`` are then needed.
        init_strategy: NumPyro's, for the first point.

    Attributes:
        needs_density: whether the draws depend on the potential's *value*, as an acceptance probability or an energy
            does. A kernel for which it is false uses gradients alone, so that a factor of the model may have a right
            gradient and no value.
    """

    sample_field = "z"
    needs_density: bool = True

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        init_strategy: Callable = init_to_uniform,
    ):
        if (model is None) == (potential_fn is None):
            raise ValueError(f"{self._name}: give either `model` or `potential_fn`.")
        self._model = model if model is None else check_callable(self._name, "model", model, "a NumPyro model")
        self._potential_fn = potential_fn
        if potential_fn is not None:
            check_callable(self._name, "potential_fn", potential_fn)
        self._init_strategy = check_callable(self._name, "init_strategy", init_strategy)
        self._num_warmup = 0
        self._forget()

    def _forget(self) -> None:
        """Drop what was built from the model."""
        self._potential_gen: Callable | None = None
        self._postprocess: Callable | None = None
        self._transforms: dict[str, Any] = {}
        self._sample_fn: Callable | None = None  # MCMC initialises a kernel for which this is None

    # What a kernel defines.

    @abstractmethod
    def _adaptation(self, point: Point) -> Any:
        """The first ``adapt_state``."""

    @abstractmethod
    def _step_size(self, adapt_state: Any) -> Float[Array, ""]:
        """The step size in it."""

    @abstractmethod
    def _move(self, key: Array, here: Point, state: KernelState, target: Callable) -> Move:
        """One transition from ``here``; ``target(x, key)`` is the :class:`Point` at ``x``."""

    def _constants(self, trace: Trace, z: PyTree, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What is fixed at the start: from a trace of the model (or {}), the first chain's point, the arguments."""
        return ()

    def _start(self, x: Float[Array, "n"], constants: Any, key: Array) -> Float[Array, "n"]:
        """Where a chain starts if no ``init_params`` are given; ``x`` is what ``init_strategy`` found."""
        return x

    def _evaluate(self, potential: Callable, x: Float[Array, "n"]) -> Point:
        """The point at ``x``."""
        return Point(x, *jax.value_and_grad(potential)(x))

    def _kept(self, point: Point) -> Point:
        """What of a point the state remembers; kernels that do not use the last gradient drop it."""
        return point

    @property
    def _density(self) -> Callable | None:
        """The model for its log density: without a value where none is needed."""
        return self._model if self._model is None or self.needs_density else gradients_suffice(self._model)

    def _check_trace(self, trace: Trace) -> None:
        """Refuse models that the kernel cannot sample."""
        for name, site in sample_sites(trace).items():
            if self.needs_density and is_gradient_only(site["fn"]):
                raise ValueError(f"{self._name}: site {name!r}: {without_value(site['fn'])}")
        for name in discrete_latents(trace):
            raise ValueError(
                f"{self._name}: latent site {name!r} is discrete. Sum it out in the model, or sample it with "
                "`DiscreteGibbs` in a `Gibbs` kernel."
            )
        if not latent_sites(trace):
            raise ValueError(f"{self._name}: the model has no latent site; there is nothing to sample.")

    def _check_batches(self, trace: Trace) -> None:
        """Refuse subsampling: the potential would be that of one batch for ever."""
        for name in subsampling_plates(trace):
            raise ValueError(
                f"{self._name}: plate {name!r} subsamples, but this kernel needs all the data. Leave out "
                "`subsample_size`, or use `TemperedSGLD`."
            )

    # The interface of MCMCKernel.

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def model(self) -> Callable | None:
        """The model."""
        return self._model

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields that ``MCMC`` always collects."""
        return ("z", "diverging")

    def get_diagnostics_str(self, state: KernelState) -> str:
        """What the progress bar shows."""
        shown = f"step size {float(state.step_size):.2e}, acceptance {float(state.mean_accept_prob):.2f}"
        failures = int(state.num_failures)
        return f"{shown}, {failures} without a density" if failures else shown

    def init(
        self, rng_key: Array, num_warmup: int, init_params: Any, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> KernelState:
        """The first state; ``init_params`` are unconstrained values, some sites or all.

        Raises:
            TypeError: ``rng_key`` is no random key; ``init_params`` are no numbers.
            ValueError: a discrete latent, no latent, a first point that is not finite, ``init_params`` of a site that
                is not latent or of another shape; the site is named.
        """
        _check_keys(self._name, rng_key)
        self._num_warmup = num_warmup
        self._sample_fn = self._sample_one
        single = is_prng_key(rng_key)
        split = partial(jax.random.split, num=3)
        keys = split(rng_key) if single else jnp.swapaxes(jax.vmap(split)(rng_key), 0, 1)
        z, trace = self._first(keys[0], keys[1], init_params, model_args, model_kwargs or {})
        first = z if single else jax.tree.map(lambda v: v[0], z)
        constants = self._constants(trace, first, model_args, model_kwargs or {})
        mark = self._mark(model_args, model_kwargs)

        def state_at(z: PyTree, rng_key: Array) -> tuple[KernelState, Array]:
            x, unravel = ravel_pytree(z)
            rng_key, key = jax.random.split(rng_key)
            if init_params is None:
                x = self._start(x, constants, jax.random.fold_in(key, 0))
            point = self._target(model_args, model_kwargs, unravel)(x, key)
            good = jnp.isfinite(point.potential_energy) & jnp.all(jnp.isfinite(point.grad))
            point = self._kept(point)
            adapt_state = self._adaptation(point)
            zero = jnp.zeros((), x.dtype)
            state = KernelState(
                i=jnp.zeros((), int),
                z=unravel(x),
                potential_energy=point.potential_energy,
                grad=point.grad,
                accept_prob=zero,
                mean_accept_prob=zero,
                diverging=jnp.zeros((), bool),
                step_size=jnp.asarray(self._step_size(adapt_state), x.dtype),
                num_grads=jnp.zeros((), int),
                num_failures=jnp.zeros((), int),
                first_failure=jnp.full((), -1),
                failed_at=x,
                fingerprint=jnp.asarray(mark),
                adapt_state=adapt_state,
                constants=constants,
                rng_key=rng_key,
            )
            return state, good

        with numpyro.validation_enabled(False):  # what is not finite is told below
            state, good = state_at(z, keys[2]) if single else jax.vmap(state_at)(z, keys[2])
        good = jnp.all(good)
        if isinstance(good, jax.core.Tracer):
            bad = eqx.error_if(state.potential_energy, ~good, f"{self._name}: {NOWHERE}")
            return state._replace(potential_energy=bad)
        if not good:
            raise ValueError(f"{self._name}: {self._blame(z, single, model_args, model_kwargs or {})}")
        return state

    def _first(self, key: Array, model_key: Array, given: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, dict]:
        """First values, and a trace of the model."""
        if self._model is None:
            if given is None:
                raise ValueError(f"{self._name}: `potential_fn` needs `init_params`.")
            given = jax.tree.map(partial(check_real, self._name, "init_params"), given)
            if not jax.tree.leaves(given):
                raise ValueError(f"{self._name}: `init_params` has no numbers; there is nothing to sample.")
            return jax.tree.map(lambda v: jnp.asarray(v, jnp.result_type(float)), given), {}
        trace = trace_at(self._model, args, kwargs, substitute_fn=self._init_strategy(), rng_key=_one(key))
        self._check_trace(trace)
        self._check_batches(trace)
        started = handlers.substitute(handlers.seed(self._model, _one(key)), substitute_fn=self._init_strategy())
        again = latent_sites(abstract_trace(started, args, kwargs))
        changed = sorted(again.keys() ^ latent_sites(trace).keys())
        if changed:
            raise ValueError(
                f"{self._name}: the model's latent sites change from call to call: {changed[0]!r} is there in some "
                "only. They must depend on nothing but the model's arguments."
            )
        self._transforms = transforms(trace)
        try:
            found, self._potential_gen, self._postprocess, _ = initialize_model(
                model_key,
                self._density,
                dynamic_args=True,
                init_strategy=self._init_strategy,
                model_args=args,
                model_kwargs=kwargs,
            )
        except RuntimeError as error:
            first = {name: site["value"] for name, site in latent_sites(trace).items()}
            values = transform_fn(self._transforms, first, invert=True)
            raise ValueError(f"{self._name}: {self._blame(values, True, args, kwargs)}") from error
        z = dict(found.z)
        return z if given is None else z | self._first_values(given, z, kwargs), trace

    def _first_values(self, given: Any, z: dict[str, Array], kwargs: dict[str, Any]) -> dict[str, Array]:
        """``init_params`` in unconstrained space, of the shapes of ``z``."""
        if not isinstance(given, dict):
            raise TypeError(f"{self._name}: `init_params` must be a dictionary by latent site; got {describe(given)}.")
        for name in given:
            if name not in z:
                raise ValueError(f"{self._name}: `init_params` has {name!r}, which is not a latent site.")
        if GIBBS_SITES_KWARG in kwargs:  # Gibbs hands constrained values to its blocks
            given = transform_fn({k: self._transforms[k] for k in given}, given, invert=True)
        for name, value in given.items():
            check_real(self._name, f"init_params[{name!r}]", value)
            if np.shape(value) != z[name].shape:
                raise ValueError(
                    f"{self._name}: `init_params` of site {name!r} must have shape {z[name].shape}, chains first, in "
                    f"unconstrained space; got {np.shape(value)}."
                )
        return {name: jnp.asarray(value, z[name].dtype) for name, value in given.items()}

    def _blame(self, z: PyTree, single: bool, args: tuple, kwargs: dict[str, Any]) -> str:
        """The site at which the log density, or its gradient, is not finite."""
        if not isinstance(z, dict) or self._model is None:
            return NOWHERE
        model = self._density
        chains = [z] if single else [jax.tree.map(lambda v: v[c], z) for c in range(len(jax.tree.leaves(z)[0]))]
        for values in chains:
            densities = partial(site_densities, model, args, kwargs)
            with numpyro.validation_enabled(False):
                found = densities(values)
                slopes = jax.grad(lambda v: sum(densities(v).values()))(values)
            for name, value in found.items():
                if not jnp.isfinite(value):
                    return f"site {name!r} has log density {float(value)} at the first point; give other `init_params`."
            for name, slope in slopes.items():
                if not jnp.all(jnp.isfinite(slope)):
                    return f"the gradient in site {name!r} is not finite at the first point; give other `init_params`."
        return NOWHERE

    def sample(self, state: KernelState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> KernelState:
        """The next state; with other model arguments than the last ones, the same point evaluated anew."""
        single = is_prng_key(state.rng_key)
        one = partial(self._sample_one, model_args=model_args, model_kwargs=model_kwargs)
        return one(state) if single else jax.vmap(one)(state)

    def _sample_one(self, state: KernelState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> KernelState:
        rng_key, key = jax.random.split(state.rng_key)
        x, unravel = ravel_pytree(state.z)
        here = Point(x, state.potential_energy, state.grad)
        state, stale = self._check_arguments(state, model_args, model_kwargs)
        target = self._target(model_args, model_kwargs, unravel)
        if stale is None:
            move = self._move(key, here, state, target)
        else:
            # Not in a branch of its own: the potential would be compiled once more.
            move = self._move(key, here, state, self._pinned(target, stale, x))
            move = move._replace(
                point=jax.tree.map(partial(jnp.where, stale), _startable(move.evaluated), move.point),
                diverging=move.diverging & ~stale,
            )
        drawn = jnp.where(state.i < self._num_warmup, state.i, state.i - self._num_warmup)
        mean = state.mean_accept_prob + (move.accept_prob - state.mean_accept_prob) / (drawn + 1)
        return KernelState(
            i=state.i + 1,
            z=unravel(move.point.x),
            potential_energy=move.point.potential_energy,
            grad=move.point.grad,
            accept_prob=move.accept_prob,
            mean_accept_prob=mean.astype(x.dtype),
            diverging=move.diverging,
            step_size=jnp.asarray(self._step_size(state.adapt_state), x.dtype),
            num_grads=jnp.asarray(move.num_grads, int),
            **counted(state, move.failure),
            fingerprint=jnp.asarray(self._mark(model_args, model_kwargs)),
            adapt_state=move.adapt_state,
            constants=state.constants,
            rng_key=rng_key,
        )

    def _mark(self, args: tuple, kwargs: dict[str, Any] | None) -> Any:
        """The fingerprint of the arguments; 0 where they do not matter, or where Gibbs refreshes the state."""
        if self._model is None or GIBBS_SITES_KWARG in (kwargs or {}):
            return np.uint32(0)
        return fingerprint((args, kwargs))

    def _check_arguments(
        self, state: KernelState, args: tuple, kwargs: dict[str, Any] | None
    ) -> tuple[KernelState, Bool[Array, ""] | None]:
        """Whether the state is for other model arguments than these; None where that cannot be."""
        if self._model is None or GIBBS_SITES_KWARG in (kwargs or {}):
            return state, None
        return state, state.fingerprint != self._mark(args, kwargs)

    def _pinned(self, target: Callable, stale: Bool[Array, ""], here: Float[Array, "n"]) -> Callable:
        """The target; that at ``here``, whatever is asked for, where the state is stale."""
        return lambda x, key: target(jnp.where(stale, here, x), key)

    def _potential(self, args: tuple, kwargs: dict[str, Any], key: Array) -> Callable:
        """The potential energy of a pytree of latents; ``key`` is for kernels whose gradients are random."""
        if self._model is None:
            return self._potential_fn  # type: ignore[return-value]
        if self._potential_gen is None:
            raise RuntimeError(f"{self._name}: call `init` first.")
        return self._potential_gen(*args, **kwargs)

    def _target(self, args: tuple, kwargs: dict[str, Any] | None, unravel: Callable) -> Callable:
        def target(x: Float[Array, "n"], key: Array) -> Point:
            potential = self._potential(args, kwargs or {}, key)
            return self._evaluate(lambda x: potential(unravel(x)), x)

        return target

    def refresh(self, state: KernelState, model_args: tuple, model_kwargs: dict[str, Any] | None) -> KernelState:
        """The state for other model arguments, as Gibbs sampling needs it."""

        def again(state: KernelState) -> KernelState:
            x, unravel = ravel_pytree(state.z)
            point = self._kept(self._target(model_args, model_kwargs, unravel)(x, state.rng_key))
            mark = jnp.broadcast_to(self._mark(model_args, model_kwargs), state.fingerprint.shape)
            return state._replace(potential_energy=point.potential_energy, grad=point.grad, fingerprint=mark)

        return again(state) if is_prng_key(state.rng_key) else jax.vmap(again)(state)

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """From unconstrained values to constrained ones and deterministic sites."""
        return identity if self._postprocess is None else self._postprocess(*model_args, **(model_kwargs or {}))

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Callable:
        """From unconstrained values to constrained ones, by transforms alone."""
        return partial(transform_fn, self._transforms)

    def wrap_model(self, wrapper: Callable) -> GradientKernel:
        """A copy for the wrapped model."""
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._forget()
        return kernel

    def __getstate__(self) -> dict[str, Any]:
        """Without what was built from the model, which may not pickle."""
        built: dict[str, Any] = {"_potential_gen": None, "_postprocess": None, "_transforms": {}, "_sample_fn": None}
        return self.__dict__ | built


def seeded_potential(model: Callable, args: tuple, kwargs: dict[str, Any], rng_key: Array) -> Callable:
    """The potential energy of a pytree of unconstrained latents; batches are those that ``rng_key`` draws."""
    return partial(potential_energy, handlers.seed(model, rng_key), args, kwargs)


def _startable(point: Point) -> Point:
    """The point, left for any other where its potential is not a number."""
    energy = point.potential_energy
    return point._replace(potential_energy=jnp.where(jnp.isnan(energy), jnp.inf, energy))


def counted(state: Any, failure: Failure) -> dict[str, Any]:
    """The fields of the state that count failures, after a move."""
    first = failure.happened & (state.num_failures == 0)
    return {
        "num_failures": state.num_failures + failure.happened,
        "first_failure": jnp.where(first, state.i, state.first_failure),
        "failed_at": jnp.where(first, failure.x, state.failed_at),
    }


def _check_keys(where: str, rng_key: Any) -> None:
    """One random key, or one for each chain."""
    single = not hasattr(rng_key, "dtype") or is_prng_key(rng_key)
    check_key(where, "rng_key", rng_key if single else rng_key[0])


def _one(key: Array) -> Array:
    return key if is_prng_key(key) else key[0]
