"""What learning a law and learning a ratio share: a marked site, simulations, a model with the surrogate in place."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.infer import MCMC

from numpyro_inverse._checks import check_count, check_instance, check_key, check_real, is_traced
from numpyro_inverse._model import latent_sites
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._event import Event
from numpyro_inverse.sbi._files import check_options, checked_path, read_metadata, read_module, write_module
from numpyro_inverse.sbi._marked import checked_model, only_marked, simulator_in
from numpyro_inverse.sbi._members import as_observation, numbered
from numpyro_inverse.sbi._region import Region
from numpyro_inverse.sbi._replace import replace_law
from numpyro_inverse.sbi._simulate import Simulations, simulate

FEWEST = 100  # usable simulations
POPULATIONS = 4  # that propose latents of a further round
RHAT = 1.05  # of the particle populations, above which they are said to disagree


class Learned(NamedTuple):
    """What an estimator knows once it is fitted.

    Attributes:
        surrogate: of the site's law.
        region: of the simulated values.
        trained_at: of the arguments, as the network sees them.
    """

    surrogate: Any
    region: Region
    trained_at: Region


class SiteEstimator:
    """A surrogate for one simulator of a model. Arguments and errors are those of its subclasses."""

    OPTIONS: tuple[str, ...] = ()  # of ``fit``, which say what the surrogate is made of

    def __init__(
        self,
        model: Callable,
        site: str | None = None,
        *,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ):
        name = type(self).__name__
        trace, args, kwargs = checked_model(name, model, model_args, model_kwargs)
        self.site = only_marked(name, trace, site)
        simulator = simulator_in(trace[self.site]["fn"])
        assert simulator is not None
        if not simulator.args:
            raise ValueError(
                f"{name}: the simulator of site {self.site!r} has no arguments, so its law depends on no latent; give "
                "what it depends on: `Simulator(fn, theta)`."
            )
        if is_traced(simulator.support):
            raise ValueError(
                f"{name}: the support of site {self.site!r} depends on latents, and a law is learned on one support; "
                "declare a wider one, or simulate in coordinates whose support is fixed."
            )
        self.original, self.model_args, self.model_kwargs = model, args, kwargs
        self.latents = tuple(latent for latent in latent_sites(trace) if latent != self.site)
        self.simulations: Simulations | None = None
        self._sites = tuple(trace)
        self._batch = trace[self.site]["fn"].shape()[: len(trace[self.site]["fn"].shape()) - simulator.event_dim]
        self._event = Event(simulator.event_shape, simulator.support)
        self._shapes = tuple(
            tuple(arg.shape[arg.ndim - n :]) for arg, n in zip(simulator.args, simulator.event_dims, strict=True)
        )
        self._learned: Learned | None = None

    # Subclasses say what is learned, and which law it makes.

    def _start(self, features: Features, pairs: tuple[np.ndarray, np.ndarray] | None, key: Array, options: dict) -> Any:
        """The surrogate before training, from pairs of coordinates and contexts, or from none."""
        raise NotImplementedError

    def _train(self, surrogate: Any, pairs: tuple[np.ndarray, np.ndarray], key: Array, settings: dict) -> Any:
        """The surrogate after training."""
        raise NotImplementedError

    def _law(self, simulator: Simulator) -> Distribution:
        raise NotImplementedError

    # Training.

    def _fitted(
        self,
        rng_key: PRNGKeyArray,
        num_simulations: int,
        simulations: Simulations | None,
        observation: Any,
        rounds: int,
        options: dict,
        settings: dict,
    ) -> Self:
        """A fitted copy; after the first round latents come from the posterior learned so far."""
        name = type(self).__name__
        check_key(name, "rng_key", rng_key)
        rounds = check_count(name, "rounds", rounds)
        if rounds > 1 and observation is None:
            raise ValueError(f"{name}: `rounds` beyond one are for one data set; give it as `observation`.")
        if observation is not None:
            with as_observation(name):
                self._shaped_data(observation)
        share = check_count(name, "num_simulations", num_simulations) // rounds
        if share == 0:
            raise ValueError(
                f"{name}: `num_simulations` is {num_simulations}, less than one for each of {rounds} rounds."
            )
        if simulations is not None:
            check_instance(name, "simulations", simulations, Simulations, "what `sbi.simulate` returns")
        key_simulate, *keys = jax.random.split(rng_key, 3)
        shown = {"progress_bar": settings.get("progress_bar", True)}
        if simulations is None:
            simulations = self.simulate(key_simulate, share, **shown)
        fitted = self._learned_from(simulations, keys, options, settings)
        for i in range(1, rounds):
            key_propose, key_simulate, *keys = jax.random.split(jax.random.fold_in(rng_key, i), 4)
            proposed = fitted._proposal(key_propose, observation, share)
            simulations = simulations.followed_by(self.simulate(key_simulate, share, latents=proposed, **shown))
            fitted = self._learned_from(simulations, keys, options, numbered(settings, "round", i))
        return fitted

    def _proposal(self, rng_key: Array, y: Any, num: int) -> dict[str, np.ndarray]:
        """Latents from the posterior learned so far, the populations' draws in turn."""
        draws = self.sample(rng_key, y, num_samples=-(-num // POPULATIONS), num_chains=POPULATIONS)
        return {site: np.swapaxes(v, 0, 1).reshape(-1, *v.shape[2:])[:num] for site, v in draws.items()}

    def _learned_from(self, simulations: Simulations, keys: list[Array], options: dict, settings: dict) -> Self:
        name, (key_start, key_train) = type(self).__name__, keys
        if self.site not in simulations.arguments:
            raise ValueError(f"{name}: `simulations` have no site {self.site!r}; they are of another model.")
        args, values = simulations.pairs(self.site)
        if len(values) < FEWEST:
            raise ValueError(
                f"{name}: {len(values)} usable simulations of {self.site!r} are too few; {FEWEST} at least."
            )
        features = Features.of(args)
        pairs = self._event.vectors(values), np.asarray(jax.jit(jax.vmap(features))(*args))
        fitted = copy.copy(self)
        surrogate = fitted._train(fitted._start(features, pairs, key_start, options), pairs, key_train, settings)
        fitted._learned = Learned(surrogate, Region.of(pairs[0]), Region.of(pairs[1]))
        fitted.simulations = simulations
        return fitted

    def simulate(self, rng_key: PRNGKeyArray, num: int, **options: Any) -> Simulations:
        """Simulations of the model, as :func:`simulate` makes them."""
        return simulate(
            self.original, rng_key, num, model_args=self.model_args, model_kwargs=self.model_kwargs, **options
        )

    @property
    def learned(self) -> Learned:
        """What was learned.

        Raises:
            ValueError: nothing yet.
        """
        if self._learned is None:
            raise ValueError(f"{type(self).__name__}: not fitted yet; `.fit(rng_key)` returns what is.")
        return self._learned

    # Files.

    def _schema(self) -> dict[str, Any]:
        return {
            "estimator": type(self).__name__,
            "site": self.site,
            "event shape": list(self._event.shape),
            "support": str(self._event.support),
            "arguments": [list(shape) for shape in self._shapes],
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write what was learned, whole or not at all; simulations are not kept.

        Raises:
            ValueError: nothing was learned yet.
            OSError: the file cannot be written.
        """
        path = checked_path(type(self).__name__, path)
        regions = [[region.num, len(region.mean)] for region in self.learned[1:]]
        write_module(path, self.learned, self._schema(), regions)

    def load(self, path: str | os.PathLike, **options: Any) -> Self:
        """A copy that knows what :meth:`save` wrote.

        Args:
            path: the file.
            **options: those of ``fit`` that say what the surrogate is made of.

        Raises:
            ValueError: the file is of an estimator of another kind, or for another site, shape or support: named; or it
                is damaged.
            FileNotFoundError: there is none.
        """
        path = checked_path(type(self).__name__, path)
        check_options(type(self).__name__, options, self.OPTIONS)
        regions = read_metadata(path, self._schema(), type(self).__name__)
        bare = self._start(Features.empty(self._shapes), None, jax.random.key(0), options)
        like = Learned(bare, Region.empty(*regions[0]), Region.empty(*regions[1]))
        loaded = copy.copy(self)
        loaded._learned = read_module(path, like)
        return loaded

    # Inference.

    @property
    def model(self) -> Callable:
        """The model with the surrogate as the law of the site: same sites, plates, priors and arguments."""
        _ = self.learned
        return replace_law(self.original, site=self.site, law=self._law)

    def sample(
        self,
        rng_key: PRNGKeyArray,
        y: Any,
        *,
        num_samples: int = 1000,
        num_chains: int = 4,
        num_particles: int | None = None,
        num_temperatures: int = 200,
        **options: Any,
    ) -> dict[str, Float[Array, "chains samples *site"]]:
        """Draws of the posterior given data, by tempered SMC, which finds separate modes where a chain stays in one.

        For posteriors with one mode, ``MCMC(NUTS(estimator.model), ...)`` costs less. ``to_arviz`` takes the draws.

        Args:
            rng_key: a JAX random key.
            y: data of the site, or by site name.
            num_samples: draws of each population.
            num_chains: populations, each from the prior; where their means disagree a warning says so.
            num_particles: in each; default: as many as draws.
            num_temperatures: at most.
            **options: of :class:`~numpyro_inverse.infer.BlackJAX` for ``blackjax.adaptive_tempered_smc``.

        Raises:
            ValueError: not fitted; data of another shape, not finite or outside the declared support.
        """
        import blackjax

        from numpyro_inverse.infer import BlackJAX

        name = type(self).__name__
        check_key(name, "rng_key", rng_key)
        num_samples = check_count(name, "num_samples", num_samples)
        num_particles = num_samples if num_particles is None else num_particles
        kernel = BlackJAX(
            handlers.condition(self.model, self.checked_data(y)),
            algorithm=blackjax.adaptive_tempered_smc,
            num_particles=check_count(name, "num_particles", num_particles),
            **options,
        )
        mcmc = MCMC(
            kernel,
            num_warmup=check_count(name, "num_temperatures", num_temperatures),
            num_samples=num_samples,
            num_chains=check_count(name, "num_chains", num_chains),
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(rng_key, *self.model_args, **self.model_kwargs)
        draws = {site: v for site, v in mcmc.get_samples(group_by_chain=True).items() if site in self.latents}
        _tell_disagreement(name, draws)
        return draws

    def __call__(self, rng_key: PRNGKeyArray, y: Any) -> dict[str, Array]:
        """Draws of one population: an ``inference`` of :mod:`numpyro_inverse.calibration`."""
        return {site: v[0] for site, v in self.sample(rng_key, y, num_samples=256, num_chains=1).items()}

    def checked_data(self, y: Any) -> dict[str, Array]:
        """Data by site; a warning tells if they are far from all that was simulated.

        Raises:
            ValueError: a shape that is not the site's; numbers that are not finite or outside the declared support.
        """
        data = self._shaped_data(y)
        value = data[self.site]
        if not is_traced(value):
            events = self._event.vectors(np.asarray(value).reshape((-1, *self._event.shape)))
            self.learned.region.tell(type(self).__name__, f"`y` of site {self.site!r}", events)
        return data

    def _shaped_data(self, y: Any) -> dict[str, Array]:
        """Data by site, whose shape and support are right."""
        name = type(self).__name__
        data = dict(y) if isinstance(y, Mapping) else {self.site: y}
        if self.site not in data:
            raise ValueError(f"{name}: `y` has no data of site {self.site!r}, only of {', '.join(data) or 'none'}.")
        for other in data:
            if other not in self._sites:
                raise ValueError(f"{name}: `y` has data of {other!r}, which is no site of the model.")
        value = jnp.asarray(check_real(name, "y", data[self.site]))
        ndim, whole = len(self._event.shape), self._batch + self._event.shape
        if value.shape[value.ndim - ndim :] != self._event.shape or value.ndim < ndim:
            raise ValueError(
                f"{name}: `y` must end in shape {self._event.shape}, one simulation of site {self.site!r}; got "
                f"{value.shape}."
            )
        if value.shape[max(value.ndim - len(whole), 0) :] != whole:
            raise ValueError(
                f"{name}: `y` must have shape {whole}, as site {self.site!r} of the model has, with its plates; got "
                f"{value.shape}. For another number of repetitions give the model's arguments (`model_args`) so."
            )
        if not is_traced(value):
            self._event.check(name, self.site, value)
        return data | {self.site: value}


def _tell_disagreement(name: str, draws: dict[str, Array]) -> None:
    """Warn where populations have different means."""
    if is_traced(draws):
        return
    from numpyro.diagnostics import split_gelman_rubin

    for site, value in draws.items():
        if value.shape[0] > 1:
            with np.errstate(all="ignore"):
                worst = float(np.nanmax(split_gelman_rubin(np.asarray(value))))
            if worst > RHAT:
                warnings.warn(
                    f"{name}: the populations of site {site!r} disagree (R-hat {worst:.2f}): take more particles "
                    "(`num_particles`), or more moves at each temperature (`num_mcmc_steps`).",
                    stacklevel=3,
                )
