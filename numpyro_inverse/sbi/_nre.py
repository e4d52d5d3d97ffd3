"""Neural ratio estimation: a simulator's likelihood relative to its evidence, learned by telling pairs apart."""

from __future__ import annotations

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from numpyro_inverse._checks import check_count, check_nonnegative_number, check_positive_number
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._event import Event
from numpyro_inverse.sbi._members import check_settings
from numpyro_inverse.sbi._neural_likelihood import NeuralLikelihood
from numpyro_inverse.sbi._simulate import Simulations
from numpyro_inverse.sbi._site_estimator import SiteEstimator

TRAINING = {"max_epochs": 200, "patience": 20, "batch_size": 256}


class LearnedRatio(eqx.Module):
    r"""A ratio :math:`\log p(x \mid a) - \log p(x)` as a function of event and arguments.

    Attributes:
        network: of coordinates and contexts.
        features: from arguments to contexts.
        event: from events to coordinates.
    """

    network: Any
    features: Features
    event: Event

    def log_prob(self, value: Array, *args: Array) -> Float[Array, ""]:
        """The log ratio of one event; minus infinity outside of the support."""
        inside, z, _ = self.event.safe_vector(value)
        return jnp.where(inside, self.network(z, self.features(*args)), -jnp.inf)


class NeuralRatio(NeuralLikelihood):
    r"""A site whose log probability is :math:`\log r(x, \theta) \approx \log p(x \mid \theta) - \log p(x)`.

    As a function of :math:`\theta` it is a likelihood, and the evidence of a model with it is that of the data relative
    to the simulations' :math:`p(x)`. It is not normalized in x, and drawn from by the simulator.

    Args:
        law: what was learned.
        simulator: whose arguments are taken, and which draws.
    """

    pytree_data_fields = ("simulator",)

    def __init__(self, law: LearnedRatio, simulator: Simulator, *, validate_args: bool | None = None):
        self.simulator = simulator
        super().__init__(law, simulator, validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """By the simulator: a ratio has no draws."""
        return self.simulator.sample(key, sample_shape)


class NRE(SiteEstimator):
    r"""Learns a simulator's ratio :math:`r(x, \theta) \approx p(x \mid \theta) / p(x)`, by telling which of several
    arguments an event was simulated with, if any of them: so its constant is right as well, and evidences can be
    compared.

    :math:`p(x)` is the law of the training simulations. ``nre.model`` is the model with the ratio as the law of the
    site: repetitions, plates and other sites as with :class:`NLE`, draws of the site by the simulator.

    >>> nre = NRE(simulator_model).fit(jax.random.key(0), num_simulations=512, max_epochs=2, progress_bar=False)
    >>> mcmc = MCMC(NUTS(nre.model), num_warmup=100, num_samples=100, progress_bar=False)
    >>> mcmc.run(jax.random.key(1), x=observed)

    Args:
        model: a NumPyro model in which one site's law is a :class:`~numpyro_inverse.distributions.Simulator`.
        site: its name; needed where there are several.
        model_args: the model's arguments, without the site's data.
        model_kwargs: its keyword arguments, likewise.

    Raises:
        TypeError, ValueError: as :class:`NLE`.

    References:
        Miller, Weniger & Forré, NeurIPS 2022, equations 6-10; Delaunoy, Hermans, Rozet, Wehenkel & Louppe, NeurIPS 2022
        (balance).
    """

    OPTIONS = ("width", "depth")

    def fit(
        self,
        rng_key: PRNGKeyArray,
        *,
        num_simulations: int = 10_000,
        simulations: Simulations | None = None,
        observation: Any = None,
        rounds: int = 1,
        contrasts: int = 10,
        gamma: float = 1.0,
        balance: float = 0.0,
        width: int = 64,
        depth: int = 2,
        **settings: Any,
    ) -> Self:
        """Simulates and learns, in one round, or in several near one observation (sequential neural ratios).

        The evidence to which a ratio is relative is that of all simulations: after several rounds it is no longer the
        prior's.

        Args:
            rng_key: a JAX random key.
            num_simulations: rows in all, the same number in each round; those of the first come from the model's prior.
            simulations: of the first round, those that there are, of :func:`simulate`.
            observation: y, or data by site, for ``rounds`` beyond one.
            rounds: of simulation and training. After the first, latents come from the posterior of ``observation``
                learned so far (as ``sample`` draws it), and all simulations are learned from.
            contrasts: arguments of other simulations that each event is compared with.
            gamma: odds that an event's own arguments are among those compared.
            balance: weight of the penalty that makes a ratio conservative; 100 in the paper that proposes it.
            width: of the network.
            depth: its residual blocks.
            **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`. Of a ``checkpoint`` each round has a
                file of its own: ``nre-round-2.safetensors`` beside ``nre.safetensors``.

        Returns:
            A fitted copy.

        Raises:
            TypeError, ValueError: arguments that make no sense; simulations of another model; fewer than 100 that are
                usable; ``rounds`` without ``observation``; what training raises.
        """
        contrast = {
            "contrasts": check_count("NRE", "contrasts", contrasts),
            "gamma": check_positive_number("NRE", "gamma", gamma),
            "balance": check_nonnegative_number("NRE", "balance", balance),
        }
        check_settings("NRE", TRAINING | settings)
        options = {"width": check_count("NRE", "width", width), "depth": check_count("NRE", "depth", depth)}
        settings = settings | {"contrast": contrast}
        return self._fitted(rng_key, num_simulations, simulations, observation, rounds, options, settings)

    def _start(
        self, features: Features, pairs: tuple[np.ndarray, np.ndarray] | None, key: Array, options: dict
    ) -> LearnedRatio:
        from numpyro_inverse import nn

        seen = nn.ContextEmbedding((features.size,), data=None if pairs is None else pairs[1])
        network = nn.RatioNetwork(self._event.size, seen, data=pairs, key=key, **options)
        return LearnedRatio(network, features, self._event)

    def _train(
        self, surrogate: LearnedRatio, pairs: tuple[np.ndarray, np.ndarray], key: Array, settings: dict
    ) -> LearnedRatio:
        from numpyro_inverse import nn

        settings = dict(settings)
        contrast = settings.pop("contrast")

        def loss(network: Any, batch: tuple[Array, Array], key: Array) -> Float[Array, ""]:
            fewer = min(contrast["contrasts"], len(batch[0]) - 1)  # the last of the held-out batches may be short
            return nn.contrastive_ratio_loss(network, *batch, key, **contrast | {"contrasts": fewer})

        chosen = nn.TrainingSettings(**TRAINING | settings)
        rows = _without_single_rows(len(pairs[0]), chosen)
        fit = nn.fit_module(
            surrogate.network, loss, jax.tree.map(lambda v: v[:rows], pairs), key=key, settings=chosen, name="NRE.fit"
        )
        self.training = (fit,)
        return eqx.tree_at(lambda ratio: ratio.network, surrogate, fit.module)

    def _law(self, simulator: Simulator) -> NeuralRatio:
        return NeuralRatio(self.learned.surrogate, simulator)


def _without_single_rows(rows: int, settings: Any) -> int:
    """So many rows, or a few less, that no batch of held-out ones has a single row, which has no contrast."""
    while settings.batch_size and max(round(settings.held_out * rows), 1) % settings.batch_size == 1 and rows > 2:
        rows -= 1
    return rows
