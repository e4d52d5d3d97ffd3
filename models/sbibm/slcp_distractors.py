r"""The data of :mod:`models.sbibm.slcp` among 92 numbers that say nothing.

:What: the 8 numbers of :mod:`models.sbibm.slcp` and 92 of a mixture of t laws, in an order that is fixed.
:Dimension: 5 unknowns, 100 data, of which those at positions 22, 33, 23, 67, 42, 21, 16, 90 depend on the unknowns.
:Prior: uniform on :math:`[-3, 3]^5`.
:Likelihood: that of :mod:`models.sbibm.slcp` at its positions. The noise is an equal mixture of 20 multivariate t laws
    of 2 degrees of freedom: it has no variance.
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: that of :mod:`models.sbibm.slcp`, whose observations are within these.
:Source: J.-M. Lueckmann et al., AISTATS 2021, T.4; sbibm 1.1.0 (MIT, ``models/data/README.md``). Its mixture is made
    from NumPy's ``RandomState(42)``, here again.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.sbibm import _published, slcp
from models.sbibm.slcp import true_parameters as true_parameters
from numpyro_inverse.distributions import Simulator

COMPONENTS, DISTRACTORS, DEGREES = 20, 92, 2


def model(x=None):
    """The NumPyro model: sites ``theta``, shape (5,), and ``x``, shape (100,)."""
    theta = numpyro.sample("theta", dist.Uniform(-3.0, 3.0).expand((5,)).to_event(1))
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1), obs=x)


def simulate(rng_key, theta):
    """Data at one parameter."""
    key_data, key_component, key_noise, key_spread = jax.random.split(rng_key, 4)
    locations, roots = noise()
    component = jax.random.randint(key_component, (), 0, COMPONENTS)
    normal = jax.random.normal(key_noise, (DISTRACTORS,))
    spread = jnp.sqrt(DEGREES / jax.random.chisquare(key_spread, DEGREES))
    mixed = (jnp.asarray(roots, normal.dtype) @ normal)[component]  # of all, for a copy of a root a draw is more memory
    distractors = jnp.asarray(locations, normal.dtype)[component] + spread * mixed
    return jnp.concatenate([slcp.simulate(key_data, theta), distractors])[permutation()]


def log_likelihood(theta, x):
    """Log density of the data at one parameter, without that of the distractors, which is the same at all."""
    return slcp.log_likelihood(theta, x[positions()])


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("slcp_distractors", "observations", k)


def permutation():
    """Which number, the 8 first, is at each of the 100 positions."""
    return np.asarray(_published.arrays()["slcp_distractors_permutation"], int)


def positions():
    """Where the 8 numbers are."""
    return np.argsort(permutation())[:8]


@cache
def noise():
    """Centers, (20, 92), and lower triangular roots, (20, 92, 92), of the t laws, float64."""
    random = np.random.RandomState(42)  # the benchmark's own numbers
    locations = np.stack([15 * random.normal(size=DISTRACTORS) for _ in range(COMPONENTS)])
    roots = []
    for _ in range(COMPONENTS):
        lower = np.tril(random.normal(size=(DISTRACTORS, DISTRACTORS)))
        roots.append(3 * (lower + np.diag(np.exp(random.normal(size=DISTRACTORS)))))
    return locations, np.stack(roots)
