"""Neural posterior estimation: the posterior as a function of the data, learned from simulations of the model."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer import init_to_value

from numpyro_inverse._checks import (
    check_callable,
    check_count,
    check_fraction,
    check_instance,
    check_key,
    check_real,
    is_traced,
)
from numpyro_inverse._model import abstract_trace, data_sites
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._files import check_options, checked_path, read_metadata, read_module, write_module
from numpyro_inverse.sbi._guide import sample_guide
from numpyro_inverse.sbi._importance import Importance, weighted
from numpyro_inverse.sbi._marked import checked_model
from numpyro_inverse.sbi._members import as_observation, check_settings, numbered, started, trained
from numpyro_inverse.sbi._neural_posterior import (
    ConditionalLaw,
    DataContext,
    Latents,
    NeuralPosterior,
    data_event,
    latent_shapes,
)
from numpyro_inverse.sbi._region import Region
from numpyro_inverse.sbi._simulate import Simulations, data_names, simulate
from numpyro_inverse.sbi._truncated_prior import truncated_prior

FEWEST = 100  # usable simulations
TRAINING = {"max_epochs": 200, "patience": 20}
CALIBRATION_DRAWS = 256


class Learned(NamedTuple):
    """What an estimator knows once it is fitted.

    Attributes:
        density: of unconstrained latents given a context.
        context: what it sees of data.
        region: of the simulated data, as it sees them.
    """

    density: Any
    context: DataContext
    region: Region


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
        & Macke, NeurIPS 2022 (truncated proposals, equation 5); Hermans, Delaunoy, Rozet, Wehenkel, Begy & Louppe, TMLR
        2022 (ensembles).
    """

    def __init__(
        self,
        model: Callable,
        observed: str | tuple[str, ...] = (),
        *,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ):
        trace, args, kwargs = checked_model("NPE", model, model_args, model_kwargs, observed)
        self.original, self.model_args, self.model_kwargs = model, args, kwargs
        self.observed = data_names("NPE", trace, observed)
        self.observation: dict[str, Array] | None = None
        self._events = tuple((name, data_event(trace[name])) for name in self.observed)
        self.simulations: Simulations | None = None
        self.latents = Latents(model, args, kwargs, latent_shapes(trace, self.observed))
        self._learned: Learned | None = None

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
        members: int = 1,
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
            members: densities that are trained one after the other, from other weights (an ``embedding``'s excepted),
                on the same simulations; the posterior is their mixture (``nn.Ensemble``), whose log density is no worse
                than theirs on average, and which is wider where they disagree.
            **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`. Of a ``checkpoint`` each round and each member
                has a file of its own: ``npe-round-2-member-3.safetensors`` beside ``npe.safetensors``.

        Returns:
            A fitted copy.

        Raises:
            TypeError, ValueError: arguments that make no sense; too few usable simulations; ``embedding`` with several
                data sites; ``rounds`` without ``observation``; a posterior so narrow that the prior does not reach it.
        """
        check_key("NPE", "rng_key", rng_key)
        rounds = check_count("NPE", "rounds", rounds)
        check_fraction("NPE", "quantile", quantile)
        members = check_count("NPE", "members", members)
        if rounds > 1 and observation is None:
            raise ValueError("NPE: `rounds` beyond one are for one data set; give it as `observation`.")
        share = check_count("NPE", "num_simulations", num_simulations) // rounds
        if share == 0:
            raise ValueError(f"NPE: `num_simulations` is {num_simulations}, less than one for each of {rounds} rounds.")
        if simulations is not None:
            check_instance("NPE", "simulations", simulations, Simulations, "what `sbi.simulate` returns")
        self._check_networks(density, embedding)
        check_settings("NPE", TRAINING | settings)
        with as_observation("NPE"):
            y = None if observation is None else self.checked_data(observation)
        keys = jax.random.split(rng_key, (rounds, 3))
        shown = {"progress_bar": settings.get("progress_bar", True)}
        fitted = copy.copy(self)
        fitted.observation = None
        for i in range(rounds):
            if i == 0:
                new = simulations
                if new is None:
                    new = self.simulate(keys[0, 0], share, **shown)
                if new.proposed:
                    raise ValueError(
                        f"NPE: `simulations` have proposed values of {', '.join(new.proposed)}, and a posterior is "
                        "learned from latents of the prior; `NLE` takes any proposal, `rounds` make their own."
                    )
                fitted.simulations = new
            else:
                assert y is not None
                assert fitted.simulations is not None
                proposed = truncated_prior(fitted.posterior(y), keys[i, 1], share, quantile)
                new = self.simulate(keys[i, 0], share, latents=proposed, **shown)
                fitted.simulations = fitted.simulations.followed_by(new)
                fitted.observation = y
            made_of = {"density": density, "embedding": embedding, "members": members}
            fitted._learn(keys[i, 2], made_of, numbered(settings, "round", i))
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

    def _learn(self, rng_key: Array, options: dict[str, Any], settings: dict[str, Any]) -> None:
        simulations, (key_start, key_train) = self.simulations, jax.random.split(rng_key)
        assert simulations is not None
        if set(simulations.data) != set(self.observed):
            raise ValueError(
                f"NPE: `simulations` have the data sites {', '.join(simulations.data)}; those of the model are "
                f"{', '.join(self.observed)}."
            )
        good = simulations.rows()
        if good.sum() < FEWEST:
            raise ValueError(f"NPE: {good.sum()} usable simulations are too few; {FEWEST} at least.")
        if set(simulations.unconstrained) != {name for name, _ in self.latents.shapes}:
            raise ValueError(f"NPE: `simulations` are of other latents, {', '.join(simulations.unconstrained)}.")
        z = [simulations.unconstrained[name][good].reshape(good.sum(), -1) for name, _ in self.latents.shapes]
        z = np.concatenate(z, axis=1)
        data = {name: v[good] for name, v in simulations.data.items()}
        features = None
        if options.get("embedding") is None:
            features = Features.of([event.vectors(data[name]) for name, event in self._events])
        context = DataContext(self._events, features)
        contexts = np.asarray(jax.jit(jax.vmap(context))(data))
        start = self._start(contexts.shape[1:], (z, contexts), key_start, options)
        density, self.training = trained(start, (z, contexts), key_train, TRAINING | settings)
        self._learned = Learned(density, context, Region.of(contexts.reshape(len(contexts), -1)))

    def _start(
        self, shape: tuple[int, ...], pairs: tuple[np.ndarray, np.ndarray] | None, key: Array, options: dict[str, Any]
    ) -> Any:
        """The density before training, from pairs of latents and contexts, or from none."""
        from numpyro_inverse import nn

        density, embedding = options.get("density"), options.get("embedding")
        rows, contexts = (None, None) if pairs is None else pairs
        self._check_networks(density, embedding)
        seen = nn.ContextEmbedding(shape, embedding, data=contexts)

        def make(key: Array) -> Any:
            if density is None:
                return nn.MixtureAutoregressive(self.latents.size, context=seen, data=pairs, key=key)
            return density(self.latents.size, context=seen, data=rows, key=key)

        return started(make, key, check_count("NPE", "members", options.get("members", 1)))

    def _check_networks(self, density: Any, embedding: Any) -> None:
        if embedding is not None:
            check_callable("NPE", "embedding", embedding, "a network from an array to a vector")
            if len(self._events) > 1:
                raise ValueError(
                    f"NPE: `embedding` takes the data of one site; the model has {', '.join(self.observed)}."
                )
        if density is not None:
            check_callable("NPE", "density", density, "a function of size, context, data and key")

    @property
    def learned(self) -> Learned:
        """What was learned.

        Raises:
            ValueError: nothing yet.
        """
        if self._learned is None:
            raise ValueError("NPE: not fitted yet; `.fit(rng_key)` returns what is.")
        return self._learned

    # Files.

    def _schema(self) -> dict[str, Any]:
        return {
            "estimator": "NPE",
            "latents": [[name, list(shape)] for name, shape in self.latents.shapes],
            "data": [[name, list(event.shape), str(event.support)] for name, event in self._events],
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write what was learned, whole or not at all; simulations are not kept.

        Raises:
            ValueError: nothing was learned yet, or for one observation alone.
            OSError: the file cannot be written.
        """
        path, region = checked_path("NPE", path), self.learned.region
        if not self.amortized:
            raise ValueError("NPE: fitted in rounds for one observation; keep its draws instead.")
        write_module(path, self.learned, self._schema(), [[region.num, len(region.mean)]])

    def load(self, path: str | os.PathLike, **options: Any) -> Self:
        """A copy that knows what :meth:`save` wrote.

        Args:
            path: the file.
            **options: those of ``fit`` that say what the posterior is made of: ``density``, ``embedding``, ``members``.

        Raises:
            ValueError: the file is of an estimator of another kind, or of another model: other latents, data, shapes or
                supports, named; or it is damaged.
            FileNotFoundError: there is none.
        """
        path = checked_path("NPE", path)
        check_options("NPE", options, ("density", "embedding", "members"))
        (region,) = read_metadata(path, self._schema(), "NPE")
        bare = Features.empty([(event.size,) for _, event in self._events])
        array = options.get("embedding") is not None
        context = DataContext(self._events, None if array else bare)
        density = self._start(self._events[0][1].shape if array else (bare.size,), None, jax.random.key(0), options)
        loaded = copy.copy(self)
        loaded._learned = read_module(path, Learned(density, context, Region.empty(*region)))
        return loaded

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
        learned, data = self.learned, self.checked_data(y)
        if not self.amortized and not _same(data, self.observation):
            raise ValueError(
                "NPE: fitted in rounds for one observation, the posterior holds for that one alone; fit in one round "
                "for other data."
            )
        return NeuralPosterior(ConditionalLaw(learned.density, learned.context(data)), self.latents)

    def sample(
        self, rng_key: PRNGKeyArray, y: Any, *, num_samples: int = 1000, num_chains: int = 4
    ) -> dict[str, Float[Array, "chains samples *site"]]:
        """Independent draws of the posterior at data, in the shape of chains, as ``to_arviz`` takes them."""
        check_key("NPE", "rng_key", rng_key)
        shape = (check_count("NPE", "num_chains", num_chains), check_count("NPE", "num_samples", num_samples))
        return self.posterior(y).sample(rng_key, shape)

    def __call__(self, rng_key: PRNGKeyArray, y: Any) -> dict[str, Array]:
        """Draws: an ``inference`` of :mod:`numpyro_inverse.calibration`."""
        check_key("NPE", "rng_key", rng_key)
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
        for name in data:
            if name not in self.observed:
                raise ValueError(
                    f"NPE: `y` has data of {name!r}; the data of the model are those of {', '.join(self.observed)}."
                )
        for name, event in self._events:
            if name not in data:
                raise ValueError(f"NPE: `y` has no data of site {name!r}, only of {', '.join(data) or 'none'}.")
            if not (hasattr(data[name], "dtype") and jnp.issubdtype(data[name].dtype, jnp.bool_)):
                check_real("NPE", f"y[{name!r}]" if isinstance(y, Mapping) else "y", data[name])
            value = data[name] = jnp.asarray(data[name])
            if value.shape != event.shape:
                raise ValueError(f"NPE: `y` of site {name!r} must have shape {event.shape}; got {value.shape}.")
            if not is_traced(value):
                event.check("NPE", name, value)
        found = {name: data[name] for name in self.observed}
        if self._learned is not None and not is_traced(found):
            with jax.ensure_compile_time_eval():
                seen = np.ravel(self._learned.context(found))
            self._learned.region.tell("NPE", "`y`", seen[None])
        return found

    def summaries(self, y: Any) -> Float[Array, " k"]:
        """What the posterior sees of data: the vector of ``embedding``, or the standardized numbers.

        A statistic that was learned for the latents. A simulator that ends in it has data for :class:`NLE`, and
        ``jax.vmap`` takes many data sets.

        Raises:
            TypeError: a density of one's own without an ``embedding``, or several ``members``, which have one each.
            ValueError: as :meth:`posterior`.
        """
        learned = self.learned
        embedding = getattr(learned.density, "embedding", None)
        if embedding is None:
            raise TypeError(
                f"NPE: the density, {type(learned.density).__name__}, has no `embedding`, the network that it got as "
                "`context`; keep it there."
            )
        return embedding(learned.context(self.checked_data(y)))

    def init_strategy(self, rng_key: PRNGKeyArray, y: Any) -> Callable:
        """Where a NumPyro kernel starts, ``NUTS(model, init_strategy=...)``: at a draw of the posterior."""
        check_key("NPE", "rng_key", rng_key)
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
        check_key("NPE", "rng_key", rng_key)
        if model is not None:
            check_callable("NPE", "model", model, "a NumPyro model")
        posterior, data = self.posterior(y), self.checked_data(y)
        count = check_count("NPE", "num_samples", num_samples)
        return weighted(posterior, self.original if model is None else model, data, rng_key, count)

    def guide(self, *args: Any, **kwargs: Any) -> None:
        """An SVI guide for the model: the posterior at the data that the model is called with.

        Its parameters start as they were learned; SVI on one observation adapts them to it. Needs a density that is a
        bijection of noise, whose draws have gradients.

        Raises:
            TypeError: the density is none.
        """
        trace = abstract_trace(self.original, args, kwargs)
        data = self.checked_data({name: site["value"] for name, site in data_sites(trace).items()})
        sample_guide(self.learned.density, self.learned.context(data), self.latents, args, kwargs)


def _same(data: Mapping[str, Array], other: Mapping[str, Array] | None) -> bool:
    if other is None or is_traced(data):
        return False
    return all(np.array_equal(np.asarray(data[name]), np.asarray(other[name])) for name in other)
