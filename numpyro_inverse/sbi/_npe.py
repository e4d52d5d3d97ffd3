"""Neural posterior estimation: the posterior as a function of the data, learned from simulations of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions import Delta, biject_to
from numpyro.infer import init_to_value

from numpyro_inverse._checks import check_callable, check_count, check_fraction, check_instance, check_key
from numpyro_inverse._model import abstract_trace, data_sites, log_probs, sample_sites, trace_at
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._event import Event
from numpyro_inverse.sbi._marked import checked_model, simulator_in
from numpyro_inverse.sbi._neural_posterior import ConditionalLaw, DataContext, Latents, NeuralPosterior
from numpyro_inverse.sbi._region import OTHERS, POINTS, Region
from numpyro_inverse.sbi._simulate import Simulations, data_names, simulate

FEWEST = 100  # usable simulations
CALIBRATION_DRAWS = 256
HPR_DRAWS = 10_000  # of a posterior, for the threshold of its highest density region
OVERSAMPLED = 10_000  # draws from the prior at a time
LARGEST_SHARE = 10_000  # draws from the prior for one that is accepted, beyond which truncation is given up


class NPE:
    r"""Learns the posterior of a model, :math:`q(\theta \mid y) \approx p(\theta \mid y)`, for all data at once, by

    .. math:: \min_q\; -\mathbb E_{p(\theta)\, p(y \mid \theta)} \log q(\theta \mid y),

    :math:`\theta` the latents of the model, each unconstrained by its own ``biject_to``, so that no draw is ever
    outside the prior's support. Data are all simulators and all sites that have data, and those in ``observed``.

    >>> npe = NPE(simulator_model).fit(jax.random.key(0), num_simulations=512, max_epochs=2, progress_bar=False)
    >>> draws = npe.sample(jax.random.key(1), observed, num_samples=100)
    >>> tree = ni.to_arviz(draws)

    Args:
        model: a NumPyro model with the priors and the simulator, or any model that can be simulated.
        observed: further sites that are data.
        model_args: the model's arguments, without data.
        model_kwargs: its keyword arguments, likewise.

    Raises:
        TypeError: ``model`` is not callable, ``model_args`` no tuple, ``model_kwargs`` no dictionary.
        ValueError: no data site, no latent; a discrete latent, a ``numpyro.factor``, a subsampling plate: named.

    References:
        Papamakarios & Murray, NeurIPS 2016, equation 3; Greenberg, Nonnenmacher & Macke, ICML 2019; Deistler, Gonçalves
        & Macke, NeurIPS 2022 (truncated proposals, equation 5).
    """

    def __init__(
        self,
        model: Callable,
        observed: str | tuple[str, ...] = (),
        *,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ):
        trace, args, kwargs = checked_model("NPE", model, model_args, model_kwargs)
        self.original, self.model_args, self.model_kwargs = model, args, kwargs
        self.observed = data_names("NPE", trace, observed)
        self.observation: dict[str, Array] | None = None
        self._events = tuple((name, _event(trace[name])) for name in self.observed)
        self.simulations: Simulations | None = None
        self._density: Any = None
        self._region: Region | None = None

    # Training.

    def fit(
        self,
        rng_key: PRNGKeyArray,
        *,
        num_simulations: int = 10_000,
        simulations: Simulations | None = None,
        observation: Any = None,
        rounds: int = 1,
        quantile: float = 1e-4,
        density: Callable[..., Any] | None = None,
        embedding: Callable[[Array], Array] | None = None,
        **settings: Any,
    ) -> Self:
        r"""Simulates and learns, in one round for all data, or in several for one observation.

        After the first round of a sequential fit, latents come from the prior truncated to the region that has all but
        ``quantile`` of the posterior learned so far; the loss stays the same, for within that region the proposal is
        the prior. The result holds for that observation alone, and refuses others.

        Args:
            rng_key: a JAX random key.
            num_simulations: rows in all, the same number in each round.
            simulations: of the first round, those that there are, of :func:`simulate` with latents from the prior.
            observation: y, for ``rounds`` beyond one.
            rounds: of simulation and training.
            quantile: posterior mass that a truncation may lose.
            density: from ``(size, *, context, data, key)`` to a conditional density, such as ``functools.partial(
                nn.CouplingFlow, layers=8)``. Default: ``nn.MixtureAutoregressive``.
            embedding: a network from the data of the only data site, as it is but standardized, to a vector. Default:
                the numbers themselves.
            **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`.

        Returns:
            A fitted copy.

        Raises:
            TypeError, ValueError: arguments that make no sense; too few usable simulations; ``embedding`` with several
                data sites; ``rounds`` without ``observation``; a posterior so narrow that the prior does not reach it.
        """
        check_key("NPE", "rng_key", rng_key)
        rounds = check_count("NPE", "rounds", rounds)
        check_fraction("NPE", "quantile", quantile)
        if rounds > 1 and observation is None:
            raise ValueError("NPE: `rounds` beyond one are for one data set; give it as `observation`.")
        y = None if observation is None else self.checked_data(observation)
        keys = jax.random.split(rng_key, (rounds, 3))
        fitted = copy.copy(self)
        for i in range(rounds):
            if i == 0:
                new = simulations if simulations is not None else self.simulate(keys[0, 0], num_simulations // rounds)
                check_instance("NPE", "simulations", new, Simulations, "what `sbi.simulate` returns")
                fitted.simulations = new
            else:
                assert y is not None
                assert fitted.simulations is not None
                proposed = fitted._truncated_prior(keys[i, 1], y, num_simulations // rounds, quantile)
                new = self.simulate(keys[i, 0], num_simulations // rounds, latents=proposed)
                fitted.simulations = _both(fitted.simulations, new)
                fitted.observation = y
            fitted._learn(keys[i, 2], density, embedding, settings)
        return fitted

    def simulate(self, rng_key: PRNGKeyArray, num: int, **options: Any) -> Simulations:
        """Simulations of the model, as :func:`simulate` makes them."""
        return simulate(
            self.original,
            rng_key,
            num,
            model_args=self.model_args,
            model_kwargs=self.model_kwargs,
            observed=self.observed,
            **options,
        )

    def _learn(self, rng_key: Array, density: Any, embedding: Any, settings: dict[str, Any]) -> None:
        from numpyro_inverse import nn

        simulations, (key_make, key_fit) = self.simulations, jax.random.split(rng_key)
        assert simulations is not None
        if tuple(simulations.data) != self.observed:
            raise ValueError(
                f"NPE: `simulations` have the data sites {', '.join(simulations.data)}; those of the model are "
                f"{', '.join(self.observed)}."
            )
        good = simulations.rows()
        if good.sum() < FEWEST:
            raise ValueError(f"NPE: {good.sum()} usable simulations are too few; {FEWEST} at least.")
        shapes = tuple((name, v.shape[1:]) for name, v in simulations.unconstrained.items())
        self.latents = Latents(self.original, self.model_args, self.model_kwargs, shapes)
        z = np.concatenate([v[good].reshape(good.sum(), -1) for v in simulations.unconstrained.values()], axis=1)
        data = {name: v[good] for name, v in simulations.data.items()}
        if embedding is None:
            rows = [event.vectors(data[name]) for name, event in self._events]
            self._context = DataContext(self._events, Features(rows))
        elif len(self._events) > 1:
            raise ValueError(f"NPE: `embedding` takes the data of one site; the model has {', '.join(self.observed)}.")
        else:
            check_callable("NPE", "embedding", embedding, "a network from an array to a vector")
            self._context = DataContext(self._events, None)
        contexts = np.asarray(jax.jit(jax.vmap(self._context))(data))
        seen = nn.ContextEmbedding(contexts.shape[1:], embedding, data=contexts)
        if density is None:
            start = z if embedding is not None else (z, contexts)
            module = nn.MixtureAutoregressive(self.latents.size, context=seen, data=start, key=key_make)
        else:
            check_callable("NPE", "density", density, "a function of size, context, data and key")
            module = density(self.latents.size, context=seen, data=z, key=key_make)

        def loss(module: Any, batch: tuple[Array, Array], key: Array) -> Float[Array, ""]:
            return -jnp.mean(jax.vmap(module.log_prob)(*batch))

        settings = nn.TrainingSettings(**{"max_epochs": 200, "patience": 20, **settings})
        self.training = nn.fit_module(module, loss, (z, contexts), key=key_fit, settings=settings, name="NPE.fit")
        self._density = self.training.module
        self._region = Region(contexts[: OTHERS + POINTS].reshape(len(contexts[: OTHERS + POINTS]), -1))

    @property
    def density(self) -> Any:
        """The conditional density of unconstrained latents given what it sees of the data.

        Raises:
            ValueError: not fitted yet.
        """
        if self._density is None:
            raise ValueError("NPE: not fitted yet; `.fit(rng_key)` returns what is.")
        return self._density

    def _truncated_prior(
        self, rng_key: Array, y: Mapping[str, Array], num: int, quantile: float
    ) -> dict[str, np.ndarray]:
        """Draws from the prior where the posterior learned so far has all but ``quantile`` of its mass."""
        law = self.posterior(y).unconstrained
        key, rng_key = jax.random.split(rng_key)
        threshold = jnp.quantile(law.log_prob(law.sample(key, (HPR_DRAWS,))), quantile)

        @jax.jit
        def propose(key: Array) -> tuple[dict[str, Array], Array]:
            draws = jax.vmap(self.latents.prior)(jax.random.split(key, OVERSAMPLED))
            z = jax.vmap(lambda values: self.latents.unconstrained(values)[0])(draws)
            return draws, law.log_prob(z) > threshold

        found: list[dict[str, np.ndarray]] = []
        accepted = tried = 0
        while accepted < num:
            draws, inside = propose(jax.random.fold_in(rng_key, tried))
            found.append({name: np.asarray(v)[np.asarray(inside)] for name, v in draws.items()})
            accepted, tried = accepted + int(inside.sum()), tried + OVERSAMPLED
            if tried > LARGEST_SHARE * max(accepted, 10):
                raise ValueError(
                    f"NPE: {accepted} of {tried} draws from the prior are where the posterior is; truncation cannot "
                    "propose from so narrow a region. Take fewer `rounds`, or `NLE`, which takes any proposal."
                )
        return {name: np.concatenate([part[name] for part in found])[:num] for name in found[0]}

    # Inference.

    @property
    def amortized(self) -> bool:
        """Whether the posterior holds for all data, not for one observation alone."""
        return self.observation is None

    def posterior(self, y: Any) -> NeuralPosterior:
        """The posterior at data: of the only data site, or by site name.

        Raises:
            ValueError: not fitted; data of another shape, not finite or outside a declared support; other data than
                those of a sequential fit.
        """
        density, data = self.density, self.checked_data(y)
        if not self.amortized and not _same(data, self.observation):
            raise ValueError(
                "NPE: fitted in rounds for one observation, the posterior holds for that one alone; fit in one round "
                "for other data."
            )
        return NeuralPosterior(ConditionalLaw(density, self._context(data)), self.latents)

    def sample(
        self, rng_key: PRNGKeyArray, y: Any, *, num_samples: int = 1000, num_chains: int = 4
    ) -> dict[str, Float[Array, "chains samples *site"]]:
        """Independent draws of the posterior at data, in the shape of chains, as ``to_arviz`` takes them."""
        shape = (check_count("NPE", "num_chains", num_chains), check_count("NPE", "num_samples", num_samples))
        return self.posterior(y).sample(rng_key, shape)

    def __call__(self, rng_key: PRNGKeyArray, y: Any) -> dict[str, Array]:
        """Draws: an ``inference`` of :mod:`numpyro_inverse.calibration`."""
        return self.posterior(y).sample(rng_key, (CALIBRATION_DRAWS,))

    def checked_data(self, y: Any) -> dict[str, Array]:
        """Data by site.

        Raises:
            ValueError: a missing site; a shape that is not the site's; numbers that are not finite or outside the
                declared support.
        """
        if not isinstance(y, Mapping) and len(self.observed) > 1:
            raise ValueError(f"NPE: `y` must be a dictionary of the data of {', '.join(self.observed)}.")
        data = dict(y) if isinstance(y, Mapping) else {self.observed[0]: y}
        for name, event in self._events:
            if name not in data:
                raise ValueError(f"NPE: `y` has no data of site {name!r}, only of {', '.join(data) or 'none'}.")
            value = data[name] = jnp.asarray(data[name])
            if value.shape != event.shape:
                raise ValueError(f"NPE: `y` of site {name!r} must have shape {event.shape}; got {value.shape}.")
            if isinstance(value, jax.core.Tracer):
                continue
            if not np.all(np.isfinite(value)):
                raise ValueError(f"NPE: `y` of site {name!r} is not finite.")
            if not np.all(event.support(value)):
                raise ValueError(f"NPE: `y` is outside the support of site {name!r}, {event.support}.")
        found = {name: data[name] for name in self.observed}
        if self._region is not None and not any(isinstance(v, jax.core.Tracer) for v in found.values()):
            self._region.tell("NPE", "`y`", np.ravel(self._context(found)))
        return found

    def init_strategy(self, rng_key: PRNGKeyArray, y: Any) -> Callable:
        """Where a NumPyro kernel starts, ``NUTS(model, init_strategy=...)``: at a draw of the posterior."""
        return init_to_value(values=self.posterior(y).sample(rng_key))

    def importance(
        self, rng_key: PRNGKeyArray, y: Any, *, model: Callable | None = None, num_samples: int = 4000
    ) -> Importance:
        r"""Correct the draws by :math:`w \propto p(\theta)\, p(y \mid \theta) / q(\theta \mid y)`, smoothed.

        Args:
            rng_key: a JAX random key.
            y: data.
            model: a model with the same latents whose likelihood can be evaluated: default the model itself, if it
                has no simulator; ``nle.model`` is another.
            num_samples: draws.

        Returns:
            Draws, their weights and Pareto's k: above 0.7 the weights are not to be trusted.

        Raises:
            NotImplementedError: the model has a simulator.

        References:
            Vehtari, Simpson, Gelman, Yao & Gabry, JMLR 25 (2024) 72, equations 5-12.
        """
        from arviz_stats.base import array_stats

        model, data = self.original if model is None else model, self.checked_data(y)
        posterior = self.posterior(y)
        draws = posterior.sample(rng_key, (check_count("NPE", "num_samples", num_samples),))

        @jax.jit
        def log_joint(values: dict[str, Array]) -> Array:
            def one(values: dict[str, Array]) -> Array:
                sites = sample_sites(trace_at(model, self.model_args, self.model_kwargs, values | data))
                return sum(log_probs(sites).values(), jnp.zeros(()))

            return jax.vmap(one)(values)

        log_weights = np.asarray(log_joint(draws) - posterior.log_prob(draws), float)
        smoothed, k = array_stats.psislw(log_weights)
        return Importance(draws, np.asarray(smoothed), float(k))

    def guide(self, *args: Any, **kwargs: Any) -> None:
        """An SVI guide for the model: the posterior at the data that the model is called with.

        Its parameters start as they were learned; SVI on one observation adapts them to it. Needs a density that is a
        bijection of noise, whose draws have gradients.

        Raises:
            TypeError: the density is none.
        """
        density = self.density
        if not hasattr(density, "forward_and_log_det"):
            raise TypeError(
                f"NPE.guide: draws of {type(density).__name__} have no gradient; fit with a flow: "
                "`density=nn.CouplingFlow`."
            )
        trace = abstract_trace(self.original, args, kwargs)
        data = self.checked_data({name: site["value"] for name, site in data_sites(trace).items()})
        import equinox as eqx

        arrays, rest = eqx.partition(density, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(arrays)
        names = [f"npe_{i}" for i in range(len(leaves))]
        leaves = [numpyro.param(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
        density = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
        law = ConditionalLaw(density, self._context(data))
        z = self.latents.named(numpyro.sample("npe_latent", law, infer={"is_auxiliary": True}))
        with handlers.block():
            sites = trace_at(self.original, args, kwargs, substitute_fn=lambda site: _constrained(site, z))
        for name, value in z.items():
            transform = biject_to(sites[name]["fn"].support)
            change = transform.log_abs_det_jacobian(value, sites[name]["value"])
            event = jnp.ndim(sites[name]["value"])
            numpyro.sample(name, Delta(sites[name]["value"], log_density=-jnp.sum(change), event_dim=event))


class Importance(NamedTuple):
    """Draws with weights.

    Attributes:
        draws: by site, draws first.
        log_weights: normalized.
        pareto_k: the shape of the weights' tail: below 0.7 they can be used.
    """

    draws: dict[str, Array]
    log_weights: Float[np.ndarray, " draws"]
    pareto_k: float

    @property
    def ess(self) -> float:
        """The effective number of draws, :math:`1 / \\sum w^2`."""
        return float(1 / np.sum(np.exp(2 * self.log_weights)))

    def resampled(self, rng_key: PRNGKeyArray, num: int) -> dict[str, Array]:
        """Draws taken anew with these weights."""
        chosen = jax.random.choice(rng_key, len(self.log_weights), (num,), p=np.exp(self.log_weights))
        return {name: v[chosen] for name, v in self.draws.items()}


def _constrained(site: dict[str, Any], z: dict[str, Array]) -> Any:
    """The value of a latent site at unconstrained latents; None for others."""
    return biject_to(site["fn"].support)(z[site["name"]]) if site["name"] in z else None


def _event(site: dict[str, Any]) -> Event:
    """All data of a site as one event."""
    simulator = simulator_in(site["fn"])
    shape = jnp.shape(site["value"]) if site["is_observed"] else site["fn"].shape()
    return Event(tuple(shape), site["fn"].support if simulator is None else simulator.support)


def _both(one: Simulations, two: Simulations) -> Simulations:
    joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), one._replace(failures={}), two._replace(failures={}))
    reasons = {name: one.failures.get(name, 0) + two.failures.get(name, 0) for name in one.failures | two.failures}
    return joined._replace(failures=reasons)


def _same(data: Mapping[str, Array], other: Mapping[str, Array] | None) -> bool:
    if other is None or any(isinstance(v, jax.core.Tracer) for v in data.values()):
        return False
    return all(np.array_equal(data[name], other[name]) for name in other)
