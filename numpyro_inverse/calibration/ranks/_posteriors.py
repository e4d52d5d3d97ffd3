"""Anything that draws from a posterior, as one function ``(key, data) -> Draws``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int
from numpyro.infer import MCMC, SVI
from numpyro.infer.mcmc import MCMCKernel

from numpyro_inverse._checks import check_count, describe
from numpyro_inverse._model import abstract_trace, sample_sites
from numpyro_inverse.calibration._arguments import check_values
from numpyro_inverse.calibration.ranks._problem import Data, Problem
from numpyro_inverse.infer import ExactGaussian
from numpyro_inverse.infer.kernels._failures import counts_failures, failing_site

NUM_WARMUP, NUM_SAMPLES = 300, 500  # of a kernel's chain
FEWEST_DRAWS = 9  # ranks among fewer do not show the tails


class Failures(NamedTuple):
    """Moves that met points without a log density; of the first: chain, iteration, place of the site; -1: unknown."""

    number: Int[Array, ""] | int
    chain: Int[Array, ""] | int
    iteration: Int[Array, ""] | int
    site: Int[Array, ""] | int


NO_FAILURES = Failures(0, -1, -1, -1)


class Draws(NamedTuple):
    """Posterior draws by site, draws first, whether a transition diverged, and how many met no log density."""

    sites: dict[str, Array]
    diverging: Bool[Array, ""]
    failures: Failures = NO_FAILURES


class Call(NamedTuple):
    """How the model is called, and how many draws are made; None: the default, or the ``MCMC``'s own."""

    args: tuple
    kwargs: Mapping[str, Any]
    num_draws: int
    num_warmup: int | None
    num_samples: int | None
    num_steps: int


def call_of(where: str, problem: Problem, num_draws: Any, num_warmup: Any, num_samples: Any, num_steps: Any) -> Call:
    """The model's arguments and the numbers, checked.

    Raises:
        TypeError, ValueError: a number that is none or too small.
    """
    return Call(
        problem.args,
        problem.kwargs,
        check_count(where, "num_draws", num_draws, FEWEST_DRAWS),
        None if num_warmup is None else check_count(where, "num_warmup", num_warmup, 0),
        None if num_samples is None else check_count(where, "num_samples", num_samples),
        check_count(where, "num_steps", num_steps),
    )


class Posterior(NamedTuple):
    """A function that draws.

    Attributes:
        draw: it.
        num_chains: of how many chains its draws are; None: they are independent of each other.
        failing: the sites among which :class:`Failures` counts places.
    """

    draw: Callable[[Array, Data], Draws]
    num_chains: int | None
    failing: tuple[str, ...] = ()


@singledispatch
def posterior_of(inference: Any, call: Call, example: Data) -> Posterior:
    """``inference`` as a function of key and data; ``example`` is one simulated data set."""
    if not callable(inference):
        raise TypeError(
            "calibration: `inference` must be an `MCMC`, a NumPyro MCMC kernel, an `SVI`, or a function `(key, data) "
            f"-> {{site: draws}}`; got {describe(inference)}."
        )
    only = next(iter(example)) if len(example) == 1 else None

    def draw(key: Array, data: Data) -> Draws:
        sites = inference(key, data if only is None else data[only])
        if not isinstance(sites, Mapping):
            raise TypeError(
                f"calibration: `inference(key, data)` must return a dict of draws by site; got {describe(sites)}."
            )
        where = "inference(key, data)"
        found = {k: jnp.asarray(check_values("calibration", f"{where}[{k!r}]", v)) for k, v in sites.items()}
        return Draws(found, jnp.zeros((), bool))

    return Posterior(draw, None)


@posterior_of.register
def _(kernel: MCMCKernel, call: Call, example: Data) -> Posterior:
    num_warmup = NUM_WARMUP if call.num_warmup is None else call.num_warmup
    num_samples = NUM_SAMPLES if call.num_samples is None else call.num_samples
    return posterior_of(
        MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, progress_bar=False),
        call._replace(num_warmup=None, num_samples=None),
        example,
    )


@posterior_of.register
def _(mcmc: MCMC, call: Call, example: Data) -> Posterior:
    for name, value in (("num_warmup", call.num_warmup), ("num_samples", call.num_samples)):
        if value is not None:
            raise ValueError(
                f"calibration: `{name}` = {value} beside an `MCMC`, which has its own, {getattr(mcmc, name)}; leave it "
                "out, or give the kernel instead of the `MCMC`."
            )
    kernel = mcmc.sampler
    if isinstance(kernel, ExactGaussian):
        return posterior_of(kernel, call, example)
    state = jax.eval_shape(
        lambda key: copy.copy(kernel).init(key, mcmc.num_warmup, None, call.args, dict(call.kwargs) | example),
        jax.random.key(0),
    )
    fields = ("diverging",) if "diverging" in getattr(state, "_fields", ()) else ()
    failing: tuple[str, ...] = ()
    if counts_failures(state) and kernel.model is not None:
        failing = tuple(sample_sites(abstract_trace(kernel.model, call.args, dict(call.kwargs) | example)))

    def chain(key: Array, data: Data) -> Draws:
        one = MCMC(
            copy.copy(kernel),
            num_warmup=mcmc.num_warmup,
            num_samples=mcmc.num_samples,
            thinning=mcmc.thinning,
            postprocess_fn=mcmc.postprocess_fn,
            progress_bar=False,
        )
        one.run(key, *call.args, extra_fields=fields, **dict(call.kwargs) | data)
        diverging = jnp.any(one.get_extra_fields().get("diverging", jnp.zeros(1, bool)))
        return Draws(one.get_samples(), diverging, failures(one.last_state, data))

    def failures(last: Any, data: Data) -> Failures:
        if not counts_failures(last):
            return NO_FAILURES
        site = jnp.full((), -1)
        if failing:
            _, unravel = ravel_pytree(last.z)
            site = failing_site(kernel.model, call.args, dict(call.kwargs) | data, unravel(last.failed_at), failing)
        first = jnp.where(last.num_failures > 0, jnp.stack([jnp.zeros((), int), last.first_failure, site]), -1)
        return Failures(last.num_failures, *first)

    def draw(key: Array, data: Data) -> Draws:
        if mcmc.num_chains == 1:
            return chain(key, data)
        chains = jax.vmap(chain, (0, None))(jax.random.split(key, mcmc.num_chains), data)  # not all kernels vectorize
        sites = {name: value.reshape(-1, *value.shape[2:]) for name, value in chains.sites.items()}
        return Draws(sites, jnp.any(chains.diverging), _joined(chains.failures))

    return Posterior(draw, mcmc.num_chains, failing)


def _joined(failures: Failures) -> Failures:
    """Failures of all chains, with the first one's chain."""
    number, _, iteration, site = map(jnp.asarray, failures)
    chain = jnp.argmin(jnp.where(number > 0, iteration, jnp.iinfo(number.dtype).max))
    return Failures(jnp.sum(number), jnp.where(jnp.any(number > 0), chain, -1), iteration[chain], site[chain])


@posterior_of.register
def _(kernel: ExactGaussian, call: Call, example: Data) -> Posterior:
    state = kernel.init(
        jax.random.split(jax.random.key(0), call.num_draws), 0, None, call.args, dict(call.kwargs) | example
    )

    def draw(key: Array, data: Data) -> Draws:
        kwargs = dict(call.kwargs) | data
        renewed = kernel.with_data(state, call.args, kwargs)
        renewed = renewed._replace(rng_key=jax.random.split(key, call.num_draws))
        z = kernel.sample(renewed, call.args, kwargs).z
        return Draws(jax.vmap(kernel.postprocess_fn(call.args, kwargs))(z), jnp.zeros((), bool))

    return Posterior(draw, None)


@posterior_of.register
def _(svi: SVI, call: Call, example: Data) -> Posterior:
    if not hasattr(svi.guide, "sample_posterior"):
        raise TypeError("calibration: `inference`, an `SVI`, must have an autoguide, with a method `sample_posterior`.")
    svi.init(jax.random.key(0), *call.args, **dict(call.kwargs) | example)  # builds the guide outside traced code

    def draw(key: Array, data: Data) -> Draws:
        key_fit, key_draw = jax.random.split(key)
        kwargs = dict(call.kwargs) | data
        fit = svi.run(key_fit, call.num_steps, *call.args, progress_bar=False, **kwargs)
        sites = svi.guide.sample_posterior(key_draw, fit.params, *call.args, sample_shape=(call.num_draws,), **kwargs)
        return Draws(sites, ~jnp.isfinite(fit.losses[-1]))

    return Posterior(draw, None)
