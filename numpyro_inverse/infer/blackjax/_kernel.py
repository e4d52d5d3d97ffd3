"""BlackJAX's sampling algorithms as NumPyro kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import blackjax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.initialization import init_to_uniform
from numpyro.util import identity, is_prng_key

from numpyro_inverse._checks import check_positive
from numpyro_inverse._model import Trace
from numpyro_inverse.infer.blackjax import _algorithms as bridge
from numpyro_inverse.infer.kernels._base import GradientKernel, KernelState, Move, Point, counted, seeded_potential
from numpyro_inverse.infer.kernels._failures import Failure
from numpyro_inverse.infer.kernels._raise_if import raise_if
from numpyro_inverse.infer.laplace import Reference, prior_reference

OTHER_PARTICLES = (
    "BlackJAX: the particles of this state, of iteration {}, are of the posterior for other model arguments; start a "
    "new run instead of continuing it."
)


class BlackJAXState(NamedTuple):
    """State of :class:`BlackJAX`; every field is available as an extra field.

    Attributes:
        i: iteration, warm-up included.
        z: latent values in unconstrained space.
        potential_energy: minus the log density at ``z``.
        accept_prob: of the last move; 1 for algorithms that do not reject.
        mean_accept_prob: its mean over the moves after the warm-up.
        diverging: BlackJAX called the last move divergent, or, if it does not say, accepted it with probability 0.
        step_size: of the last move; 0 for algorithms without one.
        num_steps: integrator steps, or evaluations of the likelihood, of the last move.
        num_grads: gradients that the last move took.
        num_failures: divergent moves so far that ended where the log density is not a number, or zero, as far as
            BlackJAX's info shows it (Hamiltonian and microcanonical algorithms).
        first_failure: iteration of the first of them; -1 if there is none.
        failed_at: its point, flat; where the chain was if it is not known.
        fingerprint: of the model arguments that ``algorithm_state`` is for.
        info: every scalar in BlackJAX's ``info``, by name (``"info.energy"``).
        parameters: what the warm-up found, by name (``"parameters.L"``).
        algorithm_state: BlackJAX's own state.
        reference: means and standard deviations of the prior, for algorithms that need a Gaussian.
        rng_key: key of the next move.
    """

    i: Int[Array, ""]
    z: PyTree
    potential_energy: Float[Array, ""]
    accept_prob: Float[Array, ""]
    mean_accept_prob: Float[Array, ""]
    diverging: Bool[Array, ""]
    step_size: Float[Array, ""]
    num_steps: Int[Array, ""]
    num_grads: Int[Array, ""]
    num_failures: Int[Array, ""]
    first_failure: Int[Array, ""]
    failed_at: Float[Array, "n"]
    fingerprint: UInt[Array, ""]
    info: dict[str, Array]
    parameters: dict[str, Any]
    algorithm_state: Any
    reference: Reference
    rng_key: Array


class BlackJAX(GradientKernel):
    r"""A BlackJAX sampling algorithm on a NumPyro model, with BlackJAX's own adaptation in the warm-up.

    >>> kernel = BlackJAX(model, algorithm=blackjax.mclmc)
    >>> kernel = BlackJAX(model, algorithm=blackjax.nuts, warmup=blackjax.pathfinder_adaptation)
    >>> kernel = BlackJAX(model, algorithm=blackjax.mala, step_size=0.01)

    The algorithm sees a flat unconstrained vector; constrained and deterministic sites come back as in the model.

    ====================================== ===================== ==============================================
    algorithm                              law                   warm-up unless the parameters are given
    ====================================== ===================== ==============================================
    ``nuts``, ``hmc``, ``mhmc``            exact                 ``window_adaptation``
    ``mala``, ``barker``, others           exact                 dual averaging of ``step_size``
    ``ghmc``                               exact                 ``meads_adaptation`` with an ensemble of 16
    ``adjusted_mclmc`` and ``..._dynamic`` exact                 ``adjusted_mclmc_find_L_and_step_size``
    ``mclmc``                              biased by its step    ``mclmc_find_L_and_step_size``
    ``elliptical_slice``, slice            exact                 none needed
    ``sgld``                               biased by its step    none: give ``step_size``
    ``tempered_smc``, adaptive or not      exact as particles    the temperatures: at most ``num_warmup``
                                           grow in number
    ====================================== ===================== ==============================================

    ``elliptical_slice`` and tempered SMC split the posterior into the Gaussian reference of :class:`PCN`, the prior of
    a whitened field, and the rest. SMC makes particles in the warm-up; draws visit them in turn, each moved by HMC
    first, so that the weights of separate modes are the particles', and ``parameters.log_evidence`` is an extra field.
    Take as many particles as draws: a warning tells when a chain goes through them again.
    ``sgld`` draws batches afresh from the model's subsampling ``plate`` sites. The tuning of ``mclmc`` takes 10 of its
    steps for each iteration of warm-up.

    The whole warm-up happens at its first iteration. As a block of ``Gibbs`` it happens at its first and middle
    iterations, each time at what the other sites are then, and the chain moves in between; with other sites far from
    where they will be, give the parameters instead.

    Extra fields: ``accept_prob``, ``num_steps``, ``diverging``, ``potential_energy``, ``step_size``, ``num_grads``, and
    ``info.name`` for every scalar in BlackJAX's info.

    Args:
        model: a NumPyro model.
        potential_fn: instead of ``model``, a potential energy on any pytree; ``init_params`` are then needed.
        algorithm: ``blackjax.nuts`` or another, or a function from a log density and the parameters to a
            ``blackjax.SamplingAlgorithm``.
        warmup: how parameters are adapted: ``True`` for the table's way, ``False`` for no adaptation (warm-up moves the
            chain), or one of BlackJAX's adaptations, ``functools.partial`` of it for its options
            (``blackjax.window_adaptation_low_rank``, ``blackjax.pathfinder_adaptation``, ...).
        init_strategy: NumPyro's, for the first point.
        **parameters: of the algorithm (``step_size``, ``inverse_mass_matrix`` on the flat vector, ...); what is given
            here is not adapted. For SMC: ``num_particles`` (1000), ``target_ess`` (0.8, of which temperatures are
            chosen), ``num_mcmc_steps`` (8 HMC moves of each particle at each temperature) of up to
            ``num_integration_steps`` (8); it evaluates about 36 gradients for each particle and temperature.

    Raises:
        ValueError: not exactly one of ``model`` and ``potential_fn``; an algorithm that is no sampler; a parameter that
            it does not have, or that neither the user nor the warm-up gives; some, not all, of what a warm-up finds
            given. When a run starts, naming the site: a discrete latent, no latent, a subsampling plate (but for
            ``sgld``), a first point that is not finite, a single latent number for a microcanonical algorithm.
        RuntimeError: the warm-up ends with parameters that are not finite, SMC does not reach the posterior's
            temperature, or ``sgld`` is unstable. It names the iteration; JAX shows it as ``JaxRuntimeError``.

    References:
        Cabezas, Corenflos, Lao & Louf, BlackJAX: Composable Bayesian inference in JAX, arXiv:2402.10797 (2024); Murray,
        Adams & MacKay, AISTATS (2010); Chopin, Biometrika 89 (2002) 539-551.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Callable | None = None,
        *,
        algorithm: Any,
        warmup: Callable | bool = True,
        init_strategy: Callable = init_to_uniform,
        **parameters: Any,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        self._algorithm = algorithm
        self._given = parameters
        self._warmup = self._check_algorithm(warmup)

    def _check_algorithm(self, warmup: Callable | bool) -> Callable | None:
        """The adaptation, if any, once what was given makes sense."""
        algorithm, given = self._algorithm, self._given
        name = bridge.name_of(algorithm)
        variational = isinstance(algorithm, (blackjax.GenerateVariationalAPI, blackjax.GeneratePathfinderAPI))
        if not callable(algorithm) or variational or name in bridge.NOT_BRIDGED:
            raise ValueError(
                f"BlackJAX: `algorithm` must be one of BlackJAX's Markov chains, such as blackjax.nuts; got "
                f"{algorithm if isinstance(algorithm, str) else name!r}."
            )
        signature = inspect.signature(getattr(algorithm, "differentiable", algorithm)).parameters
        known = set(signature) | set(bridge.needed(algorithm)) | ({"temperature"} if name == "sgld" else set())
        if bridge.one_of(algorithm, bridge.smc.SMC):
            known = {"num_particles", "target_ess", "num_mcmc_steps", "num_integration_steps"}
        unknown = sorted(set(given) - known)
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
            raise ValueError(f"BlackJAX: {name} has no parameter {unknown[0]!r}; it has {', '.join(sorted(known))}.")
        if "step_size" in given:
            check_positive("BlackJAX", "step_size", given["step_size"])
        missing = [parameter for parameter in bridge.needed(algorithm) if parameter not in given]
        if warmup is True:
            default = bridge.default_warmup(algorithm)
            wanted = missing or bridge.one_of(algorithm, bridge.smc.SMC) or "step_size" not in given
            warmup = default if wanted and default is not None else False
        if warmup is False:
            if missing:
                raise ValueError(
                    f"BlackJAX: {name} needs `{missing[0]}`: give it, or a `warmup` that finds it (default: "
                    f"{getattr(bridge.default_warmup(algorithm), '__name__', 'none')})."
                )
            return None
        if not callable(warmup):
            raise ValueError(
                f"BlackJAX: `warmup` must be True, False or one of BlackJAX's adaptations; got {warmup!r}."
            )
        if "step_size" in given:
            missing_too = f" and `{missing[0]}`" if missing else ""
            raise ValueError(
                f"BlackJAX: the warm-up finds `step_size`{missing_too}: leave `step_size` out, or give all parameters "
                "and `warmup=False`."
            )
        return warmup

    @property
    def needs_density(self) -> bool:  # type: ignore[override]
        """Whether the draws depend on the value of the log density: not for ``sgld``, nor for ``mclmc`` with its
        parameters given, which is not adjusted; its tuning does look at energies.
        """
        gradient_only = self._algorithm is blackjax.sgld or (
            self._algorithm is blackjax.mclmc
            and self._warmup is None
            and np.isinf(self._given.get("desired_energy_var_max_ratio", np.inf))
        )
        return not gradient_only

    # What the algorithm sees.

    def _constants(self, trace: Trace, z: PyTree, *_: Any) -> Reference:
        return prior_reference(trace, z)

    def _adaptation(self, point: Point) -> tuple:
        return ()

    def _step_size(self, adapt_state: Any) -> Float[Array, ""]:
        return jnp.zeros(())

    def _check_batches(self, trace: Trace) -> None:
        if self._algorithm is not blackjax.sgld:
            super()._check_batches(trace)

    def _potential(self, args: tuple, kwargs: dict[str, Any], key: Array) -> Callable:
        if self._model is None or self._algorithm is not blackjax.sgld:
            return super()._potential(args, kwargs, key)
        return seeded_potential(self._model, args, kwargs, key)

    def _view(self, reference: Reference, unravel: Callable, args: tuple, kwargs: Any) -> bridge.Target:
        key = jax.random.key(0)

        def batch_log_density(x, key):
            value = -self._potential(args, kwargs or {}, key)(unravel(x))
            return jnp.where(jnp.isnan(value), -jnp.inf, value)

        return bridge.Target(lambda x: batch_log_density(x, key), batch_log_density, reference)

    # The chain.

    def init(
        self, rng_key: Array, num_warmup: int, init_params: Any, model_args: tuple, model_kwargs: dict[str, Any] | None
    ) -> Any:
        """The first state; ``init_params`` are unconstrained values, some sites or all.

        Raises:
            ValueError: as the class says.
        """
        if num_warmup == 0 and self._warmup is not None:
            missing = bridge.needed(self._algorithm)
            raise ValueError(
                f"BlackJAX: {bridge.name_of(self._algorithm)} without warm-up iterations needs its parameters "
                f"({', '.join(missing) or 'which only a warm-up makes'}); give them or a positive `num_warmup`."
            )
        first = super().init(rng_key, num_warmup, init_params, model_args, model_kwargs)
        one = partial(self._begin, model_args=model_args, model_kwargs=model_kwargs)
        return one(first) if is_prng_key(rng_key) else jax.vmap(one)(first)  # type: ignore[arg-type]

    def _begin(self, first: KernelState, model_args: tuple, model_kwargs: Any) -> BlackJAXState:
        x, unravel = ravel_pytree(first.z)
        if x.size < 2 and bridge.one_of(self._algorithm, bridge.MICROCANONICAL):
            raise ValueError(
                f"BlackJAX: {bridge.name_of(self._algorithm)} moves on a sphere and needs two latent numbers or more; "
                "the model has one. Use blackjax.nuts."
            )
        target = self._view(first.constants, unravel, model_args, model_kwargs)
        rng_key, key = jax.random.split(first.rng_key)
        parameters: dict[str, Any] = {}
        if self._warmup is not None:  # the shapes of what it will find
            found = jax.eval_shape(lambda: self._adapted(target, key, x)[1])
            parameters = jax.tree.map(lambda leaf: _placeholder(leaf, x.dtype), found)
        algorithm = bridge.sampling_algorithm(self._algorithm, target, self._given | parameters)
        state = algorithm.init(x, key)
        _, info = jax.eval_shape(algorithm.step, key, state)
        return BlackJAXState(
            i=first.i,
            z=first.z,
            potential_energy=first.potential_energy,
            accept_prob=first.accept_prob,
            mean_accept_prob=first.mean_accept_prob,
            diverging=first.diverging,
            step_size=self._size_of_step(parameters, x.dtype),
            num_steps=first.num_grads,
            num_grads=first.num_grads,
            num_failures=first.num_failures,
            first_failure=first.first_failure,
            failed_at=first.failed_at,
            fingerprint=first.fingerprint,
            info={k: jnp.zeros((), jnp.result_type(v)) for k, v in _scalars(info).items()},
            parameters=parameters,
            algorithm_state=jax.tree.map(jnp.asarray, state),
            reference=first.constants,
            rng_key=rng_key,
        )

    def _size_of_step(self, parameters: dict[str, Any], dtype: Any) -> Float[Array, ""]:
        size = (self._given | parameters).get("step_size", 0.0)
        return jnp.asarray(size if jnp.ndim(size) == 0 else 0.0, dtype)

    def _adapted(self, target: bridge.Target, key: Array, x: Float[Array, "n"]) -> tuple[Array, dict[str, Any]]:
        assert self._warmup is not None
        return bridge.warm_up(self._algorithm, self._warmup, target, key, x, self._num_warmup, self._given)

    def _sample_one(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """The next state; in warm-up iterations the adapted chain rests where the adaptation left it."""
        state = self._renewed(state, model_args, model_kwargs)
        _, unravel = ravel_pytree(state.z)
        target = self._view(state.reference, unravel, model_args, model_kwargs)
        adapt = partial(self._adapt, target=target, unravel=unravel)
        step = partial(self._step, target=target, unravel=unravel)
        if self._warmup is None or self._num_warmup == 0:
            moved = step(state)
        elif GIBBS_SITES_KWARG in (model_kwargs or {}):
            due = (state.i == 0) | (state.i == self._num_warmup // 2)
            moved = step(_if(due, adapt, state))
        else:
            moved = _if(state.i >= self._num_warmup, step, _if(state.i == 0, adapt, state))
        return moved._replace(i=state.i + 1)

    def _adapt(self, state: BlackJAXState, target: bridge.Target, unravel: Callable) -> BlackJAXState:
        rng_key, key, key_init = jax.random.split(state.rng_key, 3)
        x, parameters = self._adapted(target, key, ravel_pytree(state.z)[0])
        parameters = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), parameters, state.parameters)
        bad = ~jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((x, parameters))]))
        if "step_size" in parameters:
            bad = bad | ~jnp.all(parameters["step_size"] > 0)
        name = bridge.name_of(self._algorithm)
        message = (
            f"BlackJAX: the warm-up of {name} at iteration {{}} ended with parameters that are not finite, or with a "
            "step size of 0, as it does where the log density is not a number near the chain. Take more warm-up "
            "iterations, other `init_params`, or give the parameters."
        )
        x = raise_if(bad, state.i, message, x)
        if "temperature" in parameters:
            cold = f"BlackJAX: {name} has not reached the posterior within {self._num_warmup} temperatures; raise "
            x = raise_if(parameters["temperature"] < 1, state.i, cold + "`num_warmup` (iteration {}).", x)
        inner = bridge.sampling_algorithm(self._algorithm, target, self._given | parameters).init(x, key_init)
        return state._replace(
            z=unravel(x),
            potential_energy=-target.log_density(x),
            step_size=self._size_of_step(parameters, x.dtype),
            parameters=parameters,
            algorithm_state=_like(inner, state.algorithm_state),
            rng_key=rng_key,
        )

    def _step(self, state: BlackJAXState, target: bridge.Target, unravel: Callable) -> BlackJAXState:
        rng_key, key = jax.random.split(state.rng_key)
        algorithm = bridge.sampling_algorithm(self._algorithm, target, self._given | state.parameters)
        inner, info = algorithm.step(key, state.algorithm_state)
        move = self._read(key, state, inner, info, target)
        drawn = jnp.where(state.i < self._num_warmup, state.i, state.i - self._num_warmup)
        mean = state.mean_accept_prob + (move.accept_prob - state.mean_accept_prob) / (drawn + 1)
        return state._replace(
            z=unravel(move.point.x),
            potential_energy=move.point.potential_energy,
            accept_prob=move.accept_prob,
            mean_accept_prob=mean.astype(move.accept_prob.dtype),
            diverging=move.diverging,
            step_size=self._size_of_step(state.parameters, move.point.x.dtype),
            num_steps=jnp.asarray(move.adapt_state, int),
            num_grads=jnp.asarray(move.num_grads, int),
            **counted(state, move.failure),
            info={k: jnp.asarray(v, state.info[k].dtype) for k, v in _scalars(info).items()},
            algorithm_state=_like(inner, state.algorithm_state),
            rng_key=rng_key,
        )

    def _read(self, key: Array, state: BlackJAXState, inner: Any, info: Any, target: bridge.Target) -> Move:
        """BlackJAX's state and info in NumPyro's terms; ``adapt_state`` of the move is its number of steps."""
        x = getattr(inner, "position", inner)
        value = getattr(inner, "logdensity", None)
        if self._algorithm is blackjax.elliptical_slice:
            u = state.reference.noise(x)
            value = inner.logdensity - 0.5 * u @ u
        elif value is None:
            value = target.batch_log_density(x, key)
        bad = ~(jnp.all(jnp.isfinite(x)) & jnp.isfinite(value))
        if self._algorithm is blackjax.sgld:
            message = (
                "BlackJAX: sgld is unstable at iteration {}: `step_size` is too large for the curvature, or the log "
                "density is not a number there."
            )
            x = raise_if(bad, state.i, message, x)
        found = _scalars(info)
        steps = found.get("num_integration_steps", found.get("subiter", jnp.ones((), int)))
        if self._algorithm is blackjax.sgld:
            grads = 1
        elif self._algorithm is blackjax.elliptical_slice or not _has_gradient(inner):
            grads = 0
        else:
            grads = steps * (2 if bridge.one_of(self._algorithm, bridge.MICROCANONICAL) else 1)
        accept_prob = jnp.clip(jnp.nan_to_num(found.get("acceptance_rate", jnp.ones(()))), 0, 1).astype(x.dtype)
        # What says nothing of divergences rejects hopeless proposals, and those without a density, with certainty.
        hopeless = ~jnp.asarray(found.get("nonans", found.get("acceptance_rate", 1.0) > 0))
        diverging = jnp.asarray(found.get("is_divergent", hopeless), bool)
        point = Point(x, -jnp.asarray(value, x.dtype), x[:0])
        failure = _failure(info, found, diverging, ravel_pytree(state.z)[0])
        return Move(point, point, accept_prob, diverging, grads, steps, failure)  # type: ignore[arg-type]

    def _move(self, key: Array, here: Point, state: Any, target: Callable) -> Move:
        raise NotImplementedError("BlackJAX moves its own state; see `sample`.")

    def _renewed(self, state: Any, args: tuple, kwargs: dict[str, Any] | None) -> Any:
        """The state for these model arguments, which may be others than those that it was made with."""
        state, stale = super()._check_arguments(state, args, kwargs)
        if stale is None:
            return state
        if bridge.one_of(self._algorithm, bridge.smc.SMC):
            return state._replace(i=raise_if(stale, state.i, OTHER_PARTICLES, state.i))
        # Over all chains, so that a batch of chains none of which is stale evaluates nothing.
        return jax.lax.cond(eqxi.unvmap_any(stale), lambda s: self.refresh(s, args, kwargs), identity, state)

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict[str, Any] | None) -> Any:
        """The state for other model arguments, as Gibbs sampling needs it; a momentum is kept."""

        def again(state: BlackJAXState) -> BlackJAXState:
            x, unravel = ravel_pytree(state.z)
            target = self._view(state.reference, unravel, model_args, model_kwargs)
            algorithm = bridge.sampling_algorithm(self._algorithm, target, self._given | state.parameters)
            old, new = state.algorithm_state, algorithm.init(x, state.rng_key)
            names = ("momentum", "slice", "random_generator_arg", "particles", "turn")
            kept = {k: getattr(old, k) for k in names if hasattr(old, k) and hasattr(new, "_replace")}
            new = new._replace(**kept) if kept else new
            mark = jnp.broadcast_to(self._mark(model_args, model_kwargs), state.fingerprint.shape)
            energy = -target.log_density(x)
            return state._replace(potential_energy=energy, algorithm_state=_like(new, old), fingerprint=mark)

        return again(state) if is_prng_key(state.rng_key) else jax.vmap(again)(state)

    def __getstate__(self) -> dict[str, Any]:
        """BlackJAX's algorithms pickle by value but are known by identity, so their name is kept."""
        state = super().__getstate__()
        name = bridge.name_of(self._algorithm)
        return state | {"_algorithm": name} if getattr(blackjax, name, None) is self._algorithm else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        name = state["_algorithm"]
        self.__dict__.update(state | {"_algorithm": getattr(blackjax, name)} if isinstance(name, str) else state)


def _if(condition: Bool[Array, ""], change: Callable, state: BlackJAXState) -> BlackJAXState:
    """``change(state)`` where the condition holds; unlike ``cond``, a batch for which it never does costs nothing."""
    return jax.lax.fori_loop(0, jnp.where(condition, 1, 0), lambda _, s: change(s), state)


def _like(new: Any, old: Any) -> Any:
    def cast(new, old):
        return new if jnp.issubdtype(old.dtype, jax.dtypes.prng_key) else jnp.asarray(new, old.dtype)

    return jax.tree.map(cast, new, old)


def _placeholder(leaf: Any, dtype: Any) -> Array:
    dtype = dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype
    if leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1]:
        return jnp.eye(leaf.shape[0], dtype=dtype)
    return jnp.ones(leaf.shape, dtype)


def _scalars(info: Any) -> dict[str, Any]:
    fields = info._asdict() if hasattr(info, "_asdict") else {}
    return {k: v for k, v in fields.items() if isinstance(v, (bool, int, float)) or getattr(v, "shape", None) == ()}


def _failure(info: Any, found: dict[str, Any], diverging: Array, here: Float[Array, "n"]) -> Failure:
    """Whether a divergent move ended at a point without a log density, and the point, if BlackJAX shows it."""
    names = ("trajectory_leftmost_state", "trajectory_rightmost_state", "proposal")
    shown: list[Any] = [getattr(info, name, None) for name in names]
    ends = [end for end in shown if hasattr(end, "logdensity") and hasattr(end, "position")]
    failed = ~jnp.asarray(found.get("nonans", True))
    at = here
    for end in ends:
        bad = diverging & ~jnp.isfinite(end.logdensity)
        at = jnp.where(bad & ~failed, end.position, at)
        failed = failed | bad
    return Failure(failed, at)


def _has_gradient(inner: Any) -> bool:
    return hasattr(inner, "logdensity_grad") or hasattr(inner, "particles")
