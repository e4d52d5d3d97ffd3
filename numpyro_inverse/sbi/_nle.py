"""Neural likelihood estimation: a simulator's law learned by maximum likelihood from simulations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from numpyro_inverse._checks import check_callable, check_count
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._members import check_settings, started, trained
from numpyro_inverse.sbi._neural_likelihood import LearnedLaw, NeuralLikelihood
from numpyro_inverse.sbi._simulate import Simulations
from numpyro_inverse.sbi._site_estimator import SiteEstimator

TRAINING = {"max_epochs": 200, "patience": 20}


class NLE(SiteEstimator):
    r"""Learns the law of a simulator, :math:`q(x \mid \theta) \approx p(x \mid \theta)`, by

    .. math:: \min_q\; -\mathbb E_{\tilde p(\theta)\, p(x \mid \theta)} \log q(x \mid \theta)

    for :math:`\theta` the *arguments* of the simulator. ``nle.model`` is the model with that law in the simulator's
    place, so everything that NumPyro does with a model it does with this one: any prior, plates with any number of
    repetitions, hierarchies, other sites, NUTS, SVI, ``Predictive``, ``log_likelihood``, leave-one-out.

    >>> nle = NLE(simulator_model).fit(jax.random.key(0), num_simulations=512, max_epochs=2, progress_bar=False)
    >>> mcmc = MCMC(NUTS(nle.model), num_warmup=100, num_samples=100, progress_bar=False)
    >>> mcmc.run(jax.random.key(1), x=observed)

    The proposal :math:`\tilde p` need not be the prior, but where it has no mass nothing is learned:
    :func:`~numpyro_inverse.calibration.surrogate_check` looks where the posterior went.

    Args:
        model: a NumPyro model in which one site's law is a :class:`~numpyro_inverse.distributions.Simulator`.
        site: its name; needed where there are several. The surrogate of one gives a model in which the next is learned.
        model_args: the model's arguments, without the site's data.
        model_kwargs: its keyword arguments, likewise.

    Raises:
        TypeError: ``model`` is not callable, ``model_args`` no tuple, ``model_kwargs`` no dictionary.
        ValueError: no simulator, or several and no ``site``; ``site`` is none; a simulator without arguments; a
            discrete latent, a ``numpyro.factor``, a subsampling plate: named.

    References:
        Papamakarios, Sterratt & Murray, AISTATS 2019, equation 5 and algorithm 1; Boelts, Lueckmann, Gao & Macke,
        eLife 11 (2022) e77220, for laws of numbers and counts together.
    """

    OPTIONS = ("density", "members")

    def fit(
        self,
        rng_key: PRNGKeyArray,
        *,
        num_simulations: int = 10_000,
        simulations: Simulations | None = None,
        observation: Any = None,
        rounds: int = 1,
        density: Callable[..., Any] | None = None,
        members: int = 1,
        **settings: Any,
    ) -> Self:
        """Simulates and learns, in one round, or in several near one observation (sequential neural likelihood).

        What is learned is the law given the arguments whatever proposed them, so that after several rounds, too, it
        holds for other data and priors, where their posteriors reach what was simulated.

        Args:
            rng_key: a JAX random key.
            num_simulations: rows in all, the same number in each round; those of the first come from the model's prior.
            simulations: of the first round, those that there are, of :func:`simulate`. Latents may come from any
                proposal.
            observation: y, or data by site, for ``rounds`` beyond one.
            rounds: of simulation and training. After the first, latents come from the posterior of ``observation``
                learned so far (as ``sample`` draws it), and all simulations are learned from.
            density: from ``(size, *, context, data, key)``, and ``kinds`` where there are integers, to a conditional
                density, such as ``functools.partial(nn.CouplingFlow, layers=8)``. Default:
                ``nn.MixtureAutoregressive``.
            members: densities that are trained one after the other, from other weights, on the same simulations; the
                law is their mixture (``nn.Ensemble``).
            **settings: of :class:`~numpyro_inverse.nn.TrainingSettings`. Of a ``checkpoint`` each round and each member
                has a file of its own: ``nle-round-2-member-3.safetensors`` beside ``nle.safetensors``.

        Returns:
            A fitted copy.

        Raises:
            TypeError, ValueError: arguments that make no sense; simulations of another model; fewer than 100 that are
                usable; ``rounds`` without ``observation``; what training raises.
        """
        _check_density(density)
        check_settings("NLE", TRAINING | settings)
        options = {"density": density, "members": check_count("NLE", "members", members)}
        return self._fitted(rng_key, num_simulations, simulations, observation, rounds, options, settings)

    def _start(
        self, features: Features, pairs: tuple[np.ndarray, np.ndarray] | None, key: Array, options: dict
    ) -> LearnedLaw:
        from numpyro_inverse import nn

        density = options.get("density")
        kinds: dict[str, Any] = {"kinds": self._event.kinds} if self._event.has_integers else {}
        rows, contexts = (None, None) if pairs is None else pairs
        seen = nn.ContextEmbedding((features.size,), data=contexts)
        _check_density(density)

        def make(key: Array) -> Any:
            if density is None:
                return nn.MixtureAutoregressive(self._event.size, context=seen, data=pairs, key=key, **kinds)
            return density(self._event.size, context=seen, data=rows, key=key, **kinds)

        members = check_count("NLE", "members", options.get("members", 1))
        return LearnedLaw(started(make, key, members), features, self._event)

    def _train(
        self, surrogate: LearnedLaw, pairs: tuple[np.ndarray, np.ndarray], key: Array, settings: dict
    ) -> LearnedLaw:
        density, self.training = trained(surrogate.density, pairs, key, TRAINING | settings)
        return eqx.tree_at(lambda law: law.density, surrogate, density)

    def _law(self, simulator: Simulator) -> NeuralLikelihood:
        return NeuralLikelihood(self.learned.surrogate, simulator)


def _check_density(density: Any) -> None:
    if density is not None:
        check_callable("NLE", "density", density, "a function of size, context, data and key")
