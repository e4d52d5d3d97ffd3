"""BlackJAX's sampling algorithms on flat vectors, called alike whatever they need: densities, gradients, a prior."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
from blackjax.adaptation.base import return_all_adapt_info
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.base import SamplingAlgorithm
from blackjax.mcmc.adjusted_mclmc_dynamic import make_random_trajectory_length_fn
from jaxtyping import Array, Float

from numpyro_inverse.infer.blackjax import _smc as smc
from numpyro_inverse.infer.laplace import Reference

HERE = "BlackJAX"
MICROCANONICAL = (blackjax.mclmc, blackjax.adjusted_mclmc, blackjax.adjusted_mclmc_dynamic)
HAMILTONIAN = (blackjax.nuts, blackjax.hmc, blackjax.mhmc)
NOT_BRIDGED = {
    "csgld",
    "svgd",
    "sgnht",
    "sghmc",
    "partial_posteriors_smc",
    "persistent_sampling_smc",
    "inner_kernel_tuning",
}
NOT_BRIDGED |= {"adaptive_persistent_sampling_smc", "pretuning", "mgrad_gaussian", "nss"}
ENSEMBLE = 16  # chains with which MEADS tunes GHMC
MCLMC_STEPS = 10  # of the microcanonical tuning, for each iteration of warm-up: it takes single integrator steps
TARGET_ACCEPTANCE = {"mala": 0.574, "barker": 0.4, "adjusted_mclmc": 0.9, "adjusted_mclmc_dynamic": 0.9}


@dataclass(frozen=True)
class Target:
    """The posterior on flat unconstrained vectors; ``log_density(x)`` is minus infinity where it is not a number."""

    log_density: Callable[[Float[Array, "n"]], Float[Array, ""]]
    batch_log_density: Callable[[Float[Array, "n"], Array], Float[Array, ""]]  # with the batch that a key draws
    reference: Reference

    def log_likelihood(self, x: Float[Array, "n"]) -> Float[Array, ""]:
        """The log density relative to the Gaussian reference, up to a constant."""
        u = self.reference.noise(x)
        return self.log_density(x) + 0.5 * u @ u


def one_of(algorithm: Any, group: tuple) -> bool:
    """Membership by identity: BlackJAX's algorithms are not hashable and compare by value."""
    return any(algorithm is member for member in group)


def name_of(algorithm: Any) -> str:
    """The name under which BlackJAX exports the algorithm."""
    names = [name for name, value in vars(blackjax).items() if value is algorithm and not name.startswith("_")]
    return names[0] if names else getattr(algorithm, "__name__", type(algorithm).__name__)


def needed(algorithm: Any) -> list[str]:
    """Names of the parameters without a default that the user or the warm-up must give."""
    if algorithm is blackjax.sgld:
        return ["step_size"]
    if algorithm is blackjax.elliptical_slice or one_of(algorithm, smc.SMC):
        return []
    signature = inspect.signature(getattr(algorithm, "differentiable", algorithm)).parameters.values()
    names = [p.name for p in list(signature)[1:] if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return [*names, "num_integration_steps"] if algorithm is blackjax.adjusted_mclmc else names


def sampling_algorithm(algorithm: Any, target: Target, parameters: dict[str, Any]) -> SamplingAlgorithm:
    """BlackJAX's ``init`` and ``step`` for a target; ``init`` takes a key whether it needs one or not."""
    if algorithm is blackjax.elliptical_slice:
        loc, scale = target.reference
        return algorithm(target.log_likelihood, mean=loc, cov=scale**2, **parameters)
    if algorithm is blackjax.sgld:
        return _stochastic_gradient(target, **parameters)
    if one_of(algorithm, smc.SMC):
        return smc.particle_sampler(target.log_density, target.reference, **parameters)
    if algorithm is blackjax.adjusted_mclmc:
        parameters = parameters | {"integration_steps_params": (parameters["num_integration_steps"],)}
        del parameters["num_integration_steps"]
    if algorithm is blackjax.adjusted_mclmc_dynamic and "integration_steps_params" in parameters:
        parameters = {"integration_steps_fn": make_random_trajectory_length_fn(True)} | parameters
    return algorithm(target.log_density, **parameters)


def _stochastic_gradient(target: Target, step_size: float, temperature: float = 1.0) -> SamplingAlgorithm:
    """SGLD: the batch is drawn afresh for every gradient."""
    sgld = blackjax.sgld(jax.grad(target.batch_log_density))

    def step(key, x):
        key_batch, key_noise = jax.random.split(key)
        return sgld.step(key_noise, x, key_batch, step_size, temperature), ()

    return SamplingAlgorithm(lambda x, rng_key=None: x, step)


def default_warmup(algorithm: Any) -> Callable | None:
    """BlackJAX's own adaptation for the algorithm, or dual averaging of its step size."""
    if one_of(algorithm, HAMILTONIAN):
        return blackjax.window_adaptation
    if algorithm is blackjax.mclmc:
        return blackjax.mclmc_find_L_and_step_size
    if one_of(algorithm, MICROCANONICAL):
        return blackjax.adjusted_mclmc_find_L_and_step_size
    if algorithm is blackjax.ghmc:
        return blackjax.meads_adaptation
    if one_of(algorithm, smc.SMC):
        return smc.temper
    return dual_averaging_adaptation if "step_size" in needed(algorithm) and algorithm is not blackjax.sgld else None


def warm_up(
    algorithm: Any,
    warmup: Callable,
    target: Target,
    key: Array,
    x: Float[Array, "n"],
    num_steps: int,
    given: dict[str, Any],
) -> tuple[Float[Array, "n"], dict[str, Any]]:
    """Where the warm-up ends and the parameters it found, those that were given left out."""
    plain = warmup.func if isinstance(warmup, partial) else warmup
    if plain is blackjax.mclmc_find_L_and_step_size:
        x, found = _tune_mclmc(warmup, target, key, x, num_steps)
    elif plain is blackjax.adjusted_mclmc_find_L_and_step_size:
        x, found = _tune_adjusted_mclmc(algorithm, warmup, target, key, x, num_steps)
    elif plain is blackjax.meads_adaptation:
        x, found = _tune_ghmc(warmup, target, key, x, num_steps)
    elif plain is dual_averaging_adaptation:
        x, found = _tune_step_size(algorithm, warmup, target, key, x, num_steps, given)
    elif plain is smc.temper:
        x, found = smc.temper(algorithm, target.log_density, target.reference, key, num_steps, **given)
    else:
        x, found = _run_adaptation(algorithm, warmup, target, key, x, num_steps, given)
    return x, {k: v for k, v in found.items() if k not in given and not k.startswith("_")}


def _accepts(function: Callable, name: str) -> bool:
    return name in inspect.signature(function).parameters


def _run_adaptation(algorithm, warmup, target, key, x, num_steps, given):
    """What BlackJAX calls an ``AdaptationAlgorithm``: windows, low-rank, pathfinder, staged."""
    options: dict[str, Any] = {}
    trace = inspect.signature(warmup).parameters.get("adaptation_info_fn")
    if trace is not None and trace.default is return_all_adapt_info:
        options["adaptation_info_fn"] = lambda *_: None  # the trace of the warm-up is not kept
    call = inspect.signature(algorithm.build_kernel()).parameters
    options |= {k: v for k, v in given.items() if k in call or (k == "integrator" and _accepts(warmup, k))}
    (state, found), _ = warmup(algorithm, target.log_density, **options).run(key, x, num_steps)
    return state.position, found


def _tune_mclmc(warmup, target, key, x, num_steps):
    key_init, key = jax.random.split(key)
    state = blackjax.mclmc.init(x, target.log_density, key_init)
    kernel = blackjax.mclmc.build_kernel()
    state, found, _ = warmup(kernel, MCLMC_STEPS * num_steps, state, key, logdensity_fn=target.log_density)
    return state.position, found._asdict()


def _tune_adjusted_mclmc(algorithm, warmup, target, key, x, num_steps):
    dynamic = algorithm is blackjax.adjusted_mclmc_dynamic
    if dynamic:
        state = algorithm.init(x, target.log_density, key)
        kernel = algorithm.build_kernel(integration_steps_fn=make_random_trajectory_length_fn(True))
    else:
        state = algorithm.init(x, target.log_density)
        fixed = algorithm.build_kernel()

        def kernel(*, integration_steps_params, **rest):
            return fixed(integration_steps_params=(_steps(*integration_steps_params),), **rest)

    options = {} if isinstance(warmup, partial) and "target" in warmup.keywords else {"target": 0.9}
    state, found, *_ = warmup(kernel, target.log_density, num_steps, state, key, **options)
    length = found.L / found.step_size
    steps = {"integration_steps_params": (length,)} if dynamic else {"num_integration_steps": _steps(length)}
    return state.position, {"step_size": found.step_size, "inverse_mass_matrix": found.inverse_mass_matrix} | steps


def _steps(length: Float[Array, ""]) -> Array:
    return jnp.maximum(jnp.ceil(length), 1).astype(int)


def _tune_ghmc(warmup, target, key, x, num_steps):
    """MEADS learns from an ensemble; it starts around the first point, a tenth of the reference's scale apart."""
    key_noise, key = jax.random.split(key)
    given = warmup.keywords.get("num_chains") if isinstance(warmup, partial) else None
    noise = jax.random.normal(key_noise, (given or ENSEMBLE, *x.shape), x.dtype)
    ensemble = x + 0.1 * target.reference.scale * noise
    options = {} if given else {"num_chains": ENSEMBLE}
    adaptation = warmup(target.log_density, adaptation_info_fn=lambda *_: None, **options)
    (states, found), _ = adaptation.run(key, ensemble, num_steps)
    return states.position[0], found


def _tune_step_size(algorithm, warmup, target, key, x, num_steps, given):
    """Dual averaging of ``step_size`` to a mean acceptance."""
    options = {} if isinstance(warmup, partial) else {"target": TARGET_ACCEPTANCE.get(name_of(algorithm), 0.65)}
    begin, update, end = warmup(**options)

    def move(carry, key):
        state, tuning = carry
        step_size = jnp.exp(tuning.log_step_size)
        state, info = sampling_algorithm(algorithm, target, given | {"step_size": step_size}).step(key, state)
        return (state, update(tuning, jnp.nan_to_num(info.acceptance_rate))), None

    key_init, key = jax.random.split(key)
    first = jnp.asarray(0.5 / x.size**0.5, x.dtype)
    state = sampling_algorithm(algorithm, target, given | {"step_size": first}).init(x, key_init)
    (state, tuning), _ = jax.lax.scan(move, (state, begin(first)), jax.random.split(key, num_steps))
    return state.position, {"step_size": end(tuning)}
