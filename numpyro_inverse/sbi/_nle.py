"""Neural likelihood estimation: a simulator's law learned by maximum likelihood from simulations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable
from numpyro_inverse.distributions import Simulator
from numpyro_inverse.sbi._arguments import Features
from numpyro_inverse.sbi._neural_likelihood import LearnedLaw, NeuralLikelihood
from numpyro_inverse.sbi._site_estimator import SiteEstimator


class NLE(SiteEstimator):
    r"""Learns the law of a simulator, :math:`q(x \mid \theta) \approx p(x \mid \theta)`, by

    .. math:: \min_q\; -\mathbb E_{\tilde p(\theta)\, p(x \mid \theta)} \log q(x \mid \theta)

    for :math:`\theta` the *arguments* of the simulator. ``nle.model`` is the model with that law in the simulator's
    place, so everything that NumPyro does with a model it does with this one: any prior, plates with any number of
    repetitions, hierarchies, other sites, NUTS, SVI, ``Predictive``, ``log_likelihood``, leave-one-out.

    >>> nle = NLE(simulator_model).fit(jax.random.key(0), num_simulations=512, max_epochs=2, progress_bar=False)
    >>> mcmc = MCMC(NUTS(nle.model), num_warmup=100, num_samples=100, progress_bar=False)
    >>> mcmc.run(jax.random.key(1), x=observed)

    The proposal :math:`\tilde p` need not be the prior, but where it has no mass nothing is learned: look at
    :func:`~numpyro_inverse.sbi.check_observation`.

    References:
        Papamakarios, Sterratt & Murray, AISTATS 2019, equation 5; Boelts, Lueckmann, Gao & Macke, eLife 11 (2022)
        e77220, for laws of numbers and counts together.
    """

    def _learn(
        self,
        rng_key: Array,
        features: Features,
        args: tuple[np.ndarray, ...],
        values: np.ndarray,
        density: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> LearnedLaw:
        from numpyro_inverse import nn

        key_make, key_fit = jax.random.split(rng_key)
        contexts = np.asarray(jax.jit(jax.vmap(features))(*args))
        z = self._event.vectors(values)
        embedding = nn.ContextEmbedding((features.size,), data=contexts)
        kinds = {"kinds": self._event.kinds} if self._event.has_integers else {}
        if density is None:
            module = nn.MixtureAutoregressive(
                self._event.size, context=embedding, data=(z, contexts), key=key_make, **kinds
            )
        else:
            check_callable("NLE", "density", density)
            module = density(self._event.size, context=embedding, data=z, key=key_make, **kinds)

        def loss(module: Any, batch: tuple[Array, Array], key: Array) -> Float[Array, ""]:
            return -jnp.mean(jax.vmap(module.log_prob)(*batch))

        settings = nn.TrainingSettings(**{"max_epochs": 200, "patience": 20, **settings})
        self.training = nn.fit_module(module, loss, (z, contexts), key=key_fit, settings=settings, name="NLE.fit")
        return LearnedLaw(self.training.module, features, self._event)

    def _law(self, simulator: Simulator) -> NeuralLikelihood:
        return NeuralLikelihood(self.learned, simulator)
