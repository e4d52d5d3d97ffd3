"""Training of a surrogate on simulations and their derivatives, where the posterior is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import MCMC, NUTS

from numpyro_inverse._checks import check_count, check_flag, check_instance, check_key, check_model_call, check_real
from numpyro_inverse._model import (
    Trace,
    log_probs,
    observed_sites,
    real_parameters,
    simulated_data,
    trace_at,
    unconstrained_trace,
)
from numpyro_inverse.infer.laplace import Reference, prior_reference
from numpyro_inverse.infer.surrogates._emulate import emulate
from numpyro_inverse.infer.surrogates._surrogate import Surrogate, unravel

if TYPE_CHECKING:
    from numpyro_inverse.nn import TrainingSettings

HERE = "fit_surrogate"
TEMPERATURES = (1.0, 1.5)  # of the surrogate's posterior, at which new points are drawn: the tails matter too
PRIOR_SHARE = 0.25  # of the first design has one latent drawn from its prior, for directions without information
JITTER = 0.5  # of the first design, in posterior standard deviations
CHAINS, WARMUP = 4, 200  # of NUTS, looking for new points
CHECKS = 512  # fresh draws on which the finished surrogate is judged
CHUNK = 128  # simulations between two updates of the progress bar
FISHER_DRAWS, FISHER_DATA = 16, 32  # posterior draws, and data sets for each, for the scale of an output
UNLIKELY = 10.0  # nats below the posterior's log likelihoods at which a simulation counts half


class SurrogateFit(NamedTuple):
    """A trained surrogate and how good it is.

    Attributes:
        surrogate: for :func:`emulate`.
        log_ratio_sd: standard deviation of the error of the log likelihood over the ``draws`` that were given.
        acceptance: expected acceptance of independent proposals from its posterior, by those draws and its own.
        num_simulations: runs of the model.
        held_out_loss: of the last training, after each epoch.
    """

    surrogate: Surrogate
    log_ratio_sd: float
    acceptance: float
    num_simulations: int
    held_out_loss: list[float]


def fit_surrogate(
    model: Callable,
    draws: dict[str, Array],
    *,
    rng_key: PRNGKeyArray,
    model_args: tuple = (),
    model_kwargs: Mapping[str, Any] | None = None,
    num_simulations: int = 8000,
    derivatives: int = 8,
    rounds: int = 1,
    width: int = 256,
    depth: int = 3,
    settings: TrainingSettings | None = None,
    progress_bar: bool = True,
) -> SurrogateFit:
    r"""Train a :class:`Surrogate` on simulations of the model, where its posterior is.

    A first part of the simulations is at the ``draws`` of a short, ordinary run, spread by half a posterior standard
    deviation, or with one latent drawn anew from its prior, for the posterior has its tails where the data say little.
    After training on them, each round samples the posterior of the surrogate by NUTS, as it is and tempered, simulates
    there and trains again. With a simulation come derivatives :math:`J v` in random directions v of the posterior's
    covariance, each for a fraction of its price. The loss is

    .. math:: \sum_i a_i \bigl( |S^{-1} (\hat\theta(x_i) - \theta(x_i))|^2
        + |S^{-1} (\hat J(x_i) v_i - J(x_i) v_i)|^2 \bigr),

    one direction at a time; S holds the standard deviations with which the data inform the parameters (from the Fisher
    information; the noise of normal data), so that an error of 1 is one of the size of the noise, and :math:`a_i` is 1
    within the posterior and falls where the likelihood is small.

    >>> # not run: docs/surrogates.md does it
    >>> mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=300)  # doctest: +SKIP
    >>> mcmc.run(key, y)  # doctest: +SKIP
    >>> fit = fit_surrogate(model, mcmc.get_samples(), model_args=(y,), rng_key=key)  # doctest: +SKIP
    >>> kernel = DelayedAcceptance(model, approximation=emulate(model, fit.surrogate))  # doctest: +SKIP

    For up to a few hundred latents; the price of a simulation must be well above that of the network (20 microseconds).

    Args:
        model: a NumPyro model; whiten fields. Its forward map must allow forward-mode derivatives.
        draws: of its posterior, as ``MCMC.get_samples()`` gives them: some hundred, from a short run.
        rng_key: a key.
        model_args: the model's arguments, with the data.
        model_kwargs: its keyword arguments, likewise.
        num_simulations: runs of the model in all.
        derivatives: directions for each.
        rounds: of simulations at the surrogate's own posterior.
        width: of the network's layers.
        depth: their number.
        settings: of the last training; the others have half the epochs. Default: 120 epochs at a rate of 0.008.
        progress_bar: whether to show progress.

    Raises:
        ValueError: as :class:`Surrogate`; ``draws`` without a latent or not finite; a number out of range; simulations
            that are not finite. What training raises.

    References:
        O'Leary-Roseberry, Chen, Villa & Ghattas, J. Comput. Phys. 496 (2024) 112555 (derivative-informed training);
        Cleary, Garbuno-Inigo, Lan, Schneider & Stuart, J. Comput. Phys. 424 (2021) 109716 (emulate where one samples).
    """
    from numpyro_inverse.nn import TrainingSettings, fit_module

    derivatives, rounds = check_count(HERE, "derivatives", derivatives), check_count(HERE, "rounds", rounds, 0)
    num_simulations = check_count(HERE, "num_simulations", num_simulations)
    check_key(HERE, "rng_key", rng_key)
    check_instance(HERE, "draws", draws, Mapping, "a dictionary of draws by site")
    if settings is not None:
        check_instance(HERE, "settings", settings, TrainingSettings, "TrainingSettings")
    check_flag(HERE, "progress_bar", progress_bar)
    if settings is None:
        settings = TrainingSettings(max_epochs=120, learning_rate=8e-3, gradient_norm=100.0, patience=120)
    settings = settings._replace(progress_bar=progress_bar)
    _, args, kwargs = check_model_call(HERE, model, model_args, model_kwargs)
    key_net, key_design, key = jax.random.split(rng_key, 3)
    surrogate = Surrogate(model, model_args=args, model_kwargs=kwargs, width=width, depth=depth, key=key_net)
    known = _vectors(model, surrogate.latents, draws, args, kwargs)
    part = num_simulations // (rounds + 1)
    if settings.batch_size is not None and part < settings.batch_size * 2:
        raise ValueError(
            f"{HERE}: {num_simulations} simulations in {rounds + 1} parts are too few; each must have two batches of "
            f"{settings.batch_size} at least."
        )
    root = _covariance_root(known)
    simulate = _Simulator(model, surrogate, root, derivatives, progress_bar, args, kwargs)
    scale, usual = _likelihood_scale(model, surrogate, known, args, kwargs)

    data = simulate(_design(known, root, _prior(model, args, kwargs, surrogate.latents), part, key_design), key)
    surrogate = eqx.tree_at(
        lambda s: (s.input_location, s.input_scale, s.output_location, s.output_scale),
        surrogate,
        (known.mean(axis=0), jnp.sqrt(jnp.diag(root @ root.T)), jnp.asarray(data.theta.mean(axis=0)), scale),
    )

    @partial(jax.jit, static_argnums=4)
    def explore(surrogate: Surrogate, temperature: Array, starts: Array, key: PRNGKeyArray, draws: int) -> dict:
        mcmc = MCMC(
            NUTS(handlers.scale(emulate(model, surrogate), scale=1 / temperature)),
            num_warmup=WARMUP,
            num_samples=draws,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, *args, init_params=unravel(surrogate.latents, starts), **kwargs)
        return {name: mcmc.get_samples()[name] for name, _ in surrogate.latents}

    def fresh(count: int, temperature: float, key: PRNGKeyArray) -> Array:
        """Draws of the surrogate's posterior."""
        key_starts, key_run = jax.random.split(key)
        starts = known[jax.random.randint(key_starts, (CHAINS,), 0, len(known))]
        found = explore(surrogate, jnp.asarray(temperature), starts, key_run, -(-part // (2 * CHAINS)))
        return _vectors(model, surrogate.latents, found, args, kwargs)[:count]

    def train(surrogate: Surrogate, settings: TrainingSettings, key: PRNGKeyArray) -> Any:
        weight = 1 / (1 + (np.maximum(usual - data.log_likelihood, 0) / UNLIKELY) ** 2)
        n, m, count = known.shape[1], len(scale), len(weight)
        packed = [weight[:, None], data.x, data.theta, data.v.reshape(count, -1), data.jv.reshape(count, -1)]
        rows = np.concatenate(packed, axis=1)[np.random.default_rng(0).permutation(count)]

        def loss(surrogate: Surrogate, batch: Array, key: PRNGKeyArray) -> Array:
            one = partial(_loss, surrogate, n=n, m=m, derivatives=derivatives)
            return jnp.mean(jax.vmap(one)(batch, jax.random.split(key, len(batch))))

        return fit_module(surrogate, loss, rows, key=key, settings=settings, name=HERE)

    for r in range(rounds):
        keys = jax.random.split(jax.random.fold_in(key, r + 1), 3)
        half = settings._replace(max_epochs=max(settings.max_epochs // 2, 1), checkpoint=None)
        surrogate = train(surrogate, half, keys[0]).module
        points = [fresh(part // 2, t, jax.random.fold_in(keys[1], k)) for k, t in enumerate(TEMPERATURES)]
        data = data.joined(simulate(jnp.concatenate(points), keys[2]))
    keys = jax.random.split(jax.random.fold_in(key, rounds + 1), 3)
    fit = train(surrogate, settings, keys[0])
    surrogate = fit.module
    x = fresh(CHECKS, 1.0, keys[1])

    of_model, of_surrogate = (
        _log_likelihoods(model, surrogate.latents, args, kwargs, at)
        - _log_likelihoods(emulate(model, surrogate), surrogate.latents, args, kwargs, at)
        for at in (known, x)
    )
    acceptance = _acceptance(of_model, of_surrogate)
    if acceptance < 0.1:
        warnings.warn(
            f"{HERE}: a chain would accept {acceptance:.0%} of independent proposals. Give more `num_simulations` or "
            "epochs, or check that `draws` are of the posterior.",
            stacklevel=2,
        )
    return SurrogateFit(surrogate, float(of_model.std()), acceptance, len(data.x) + len(x), fit.held_out_loss)


class _Simulations(NamedTuple):
    x: np.ndarray  # (count, n)
    theta: np.ndarray  # (count, m)
    v: np.ndarray  # (count, derivatives, n)
    jv: np.ndarray  # (count, derivatives, m)
    log_likelihood: np.ndarray  # (count,)

    def joined(self, other: _Simulations) -> _Simulations:
        return _Simulations(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class _Simulator:
    """Runs of the model with derivatives in random directions; those that are not finite are left out."""

    def __init__(self, model: Callable, surrogate: Surrogate, root: Array, derivatives: int, shown: bool, args, kwargs):
        self.root, self.derivatives, self.shown = root, derivatives, shown

        def parameters(x: Array) -> tuple[Array, Array]:
            sites = observed_sites(unconstrained_trace(model, args, kwargs, unravel(surrogate.latents, x)))
            return _outputs(sites, surrogate.places), _log_likelihood(sites)

        def one(pair: tuple[Array, Array]) -> tuple[Array, Array, Array]:
            x, v = pair
            theta, tangent, log_likelihood = jax.linearize(parameters, x, has_aux=True)
            return theta, jax.vmap(tangent)(v), log_likelihood

        self.chunk = jax.jit(lambda x, v: jax.lax.map(one, (x, v)))

    def __call__(self, x: Array, key: PRNGKeyArray) -> _Simulations:
        from tqdm.auto import tqdm

        v = jax.random.normal(key, (len(x), self.derivatives, x.shape[1]), x.dtype) @ self.root.T
        parts = []
        with tqdm(total=len(x), desc="simulations", disable=not self.shown) as bar:
            for start in range(0, len(x), CHUNK):
                count = min(CHUNK, len(x) - start)
                at = jnp.arange(start, start + CHUNK) % len(x)  # the last chunk is filled up: one program will do
                parts.append([np.asarray(part)[:count] for part in self.chunk(x[at], v[at])])
                bar.update(count)
        theta, jv, log_likelihood = (np.concatenate(column) for column in zip(*parts, strict=True))
        good = np.all(np.isfinite(theta), axis=1) & np.all(np.isfinite(jv), axis=(1, 2)) & np.isfinite(log_likelihood)
        if good.mean() < 0.5:
            raise ValueError(
                f"{HERE}: {np.sum(~good)} of {len(good)} simulations near the posterior are not finite; check the "
                "model, or give better `draws`."
            )
        return _Simulations(np.asarray(x)[good], theta[good], np.asarray(v)[good], jv[good], log_likelihood[good])


def _loss(surrogate: Surrogate, row: Array, key: PRNGKeyArray, *, n: int, m: int, derivatives: int) -> Array:
    """Of one simulation, with one of its directions."""
    which = jax.random.randint(key, (), 0, derivatives)
    weight, x, theta = row[0], row[1 : 1 + n], row[1 + n : 1 + n + m]
    v, jv = jnp.split(row[1 + n + m :], [derivatives * n])
    found, slope = jax.jvp(surrogate, (x,), (v.reshape(derivatives, n)[which],))
    scale = jax.lax.stop_gradient(surrogate.output_scale)
    errors = jnp.concatenate([found - theta, slope - jv.reshape(derivatives, m)[which]])
    return weight * jnp.sum((errors / jnp.concatenate([scale, scale])) ** 2)


def _acceptance(of_model: Float[Array, "d"], of_surrogate: Float[Array, "k"]) -> float:
    """Mean over pairs of a posterior draw and an independent proposal, from the log likelihood ratios at either."""
    return float(jnp.mean(jnp.exp(jnp.minimum(of_surrogate - of_model[:, None], 0))))


def _design(
    draws: Float[Array, "d n"], root: Float[Array, "n n"], prior: Reference, count: int, key: PRNGKeyArray
) -> Float[Array, "count n"]:
    """Posterior draws spread by jitter; a quarter with one latent drawn anew from its prior instead."""
    keys = jax.random.split(key, 5)
    shape = (count, draws.shape[1])
    x = draws[jax.random.randint(keys[0], (count,), 0, len(draws))]
    jittered = x + JITTER * jax.random.normal(keys[1], shape, x.dtype) @ root.T
    anew = prior.value(jax.random.normal(keys[2], shape, x.dtype))
    here = jnp.arange(shape[1]) == jax.random.randint(keys[3], (count, 1), 0, shape[1])
    return jnp.where(jax.random.uniform(keys[4], (count, 1)) < PRIOR_SHARE, jnp.where(here, anew, x), jittered)


def _prior(model: Callable, args: tuple, kwargs: dict[str, Any], latents: tuple) -> Reference:
    """Of the latents, one after the other."""
    trace = trace_at(model, args, kwargs)
    parts = [prior_reference(trace, {name: jnp.zeros(shape)}) for name, shape in latents]
    return Reference(*(jnp.concatenate(column) for column in zip(*parts, strict=True)))


def _vectors(
    model: Callable, latents: tuple, draws: dict[str, Array], args: tuple, kwargs: dict[str, Any]
) -> Float[Array, "d n"]:
    """Draws of the sites, one row each, in unconstrained space."""
    trace = trace_at(model, args, kwargs)
    columns = []
    for name, _ in latents:
        if name not in draws:
            raise ValueError(f"{HERE}: `draws` lacks the latent site {name!r}; it has {', '.join(sorted(draws))}.")
        site, values = trace[name], jnp.asarray(check_real(HERE, f"draws[{name!r}]", draws[name]))
        if values.shape[1:] != jnp.shape(site["value"]):
            raise ValueError(
                f"{HERE}: `draws[{name!r}]` must have shape {('draws', *jnp.shape(site['value']))}; got {values.shape}."
            )
        columns.append(jax.vmap(biject_to(site["fn"].support).inv)(values).reshape(len(values), -1))
    counts = {name: len(column) for (name, _), column in zip(latents, columns, strict=True)}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{HERE}: `draws` must have as many of each site; got {counts}.")
    found = jnp.concatenate(columns, axis=1)
    if not jnp.all(jnp.isfinite(found)):
        raise ValueError(f"{HERE}: `draws` holds numbers that are not finite, or on the edge of a site's support.")
    if len(found) < 2:
        raise ValueError(f"{HERE}: `draws` must hold several draws; got {len(found)}.")
    return found


def _covariance_root(x: Float[Array, "d n"]) -> Float[Array, "n n"]:
    """Of the draws' covariance, mixed with its diagonal as if the latter came from n more draws."""
    count, n = x.shape
    covariance = jnp.cov(x.T).reshape(n, n)
    share = count / (count + n)
    diagonal = jnp.diag(jnp.maximum(jnp.diag(covariance), 1e-12))
    return jnp.linalg.cholesky(share * covariance + (1 - share) * diagonal)


def _outputs(sites: Trace, places: tuple) -> Float[Array, "m"]:
    values = {name: real_parameters(sites[name]["fn"])[0] for name in {name for name, *_ in places}}
    return jnp.concatenate([jnp.ravel(values[name][which]) for name, which, _ in places])


def _log_likelihood(sites: Trace) -> Array:
    return sum(log_probs(sites).values(), jnp.zeros(()))


def _log_likelihoods(
    model: Callable, latents: tuple, args: tuple, kwargs: dict[str, Any], x: Float[Array, "d n"]
) -> Float[Array, "d"]:
    """Of the data, at each row; one at a time, as memory may not hold many runs of a model."""

    def one(x: Array) -> Array:
        return _log_likelihood(observed_sites(unconstrained_trace(model, args, kwargs, unravel(latents, x))))

    return jax.jit(partial(jax.lax.map, one))(x)


def _likelihood_scale(
    model: Callable, surrogate: Surrogate, draws: Float[Array, "d n"], args: tuple, kwargs: dict[str, Any]
) -> tuple[Float[Array, "m"], float]:
    r"""The standard deviations with which data inform the outputs, :math:`(E (\partial_i \log p)^2)^{-1/2}`, and a low
    log likelihood of the posterior (its 5 % quantile).
    """

    @jax.jit
    @jax.vmap
    def squared_scores(x: Array, key: PRNGKeyArray) -> Array:
        sites = observed_sites(unconstrained_trace(model, args, kwargs, unravel(surrogate.latents, x)))
        values = {name: real_parameters(site["fn"]) for name, site in sites.items()}
        data = simulated_data(sites, key, FISHER_DATA)

        def log_prob(theta: dict[str, list[Array]], k: Array) -> Array:
            fresh = {
                name: site | {"fn": values[name][1](theta[name]), "value": data[name][k % len(data[name])]}
                for name, site in sites.items()
            }
            return _log_likelihood(fresh)

        theta = {name: found for name, (found, _) in values.items()}
        scores = jax.vmap(lambda k: jax.grad(log_prob)(theta, k))(jnp.arange(FISHER_DATA))
        wanted = [jnp.mean(scores[name][which] ** 2, axis=0).ravel() for name, which, _ in surrogate.places]
        return jnp.concatenate(wanted)

    some = draws[np.linspace(0, len(draws) - 1, FISHER_DRAWS).astype(int)]
    information = jnp.mean(squared_scores(some, jax.random.split(jax.random.key(0), FISHER_DRAWS)), axis=0)
    informed = jnp.isfinite(information) & (information > 0)
    weakest = jnp.min(jnp.where(informed, information, jnp.inf))
    information = jnp.where(informed, information, jnp.where(jnp.isfinite(weakest), weakest, 1.0))
    usual = _log_likelihoods(model, surrogate.latents, args, kwargs, draws)
    return 1 / jnp.sqrt(information), float(jnp.quantile(usual, 0.05))
