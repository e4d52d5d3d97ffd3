r"""The mean of a normal law with a uniform prior: a posterior cut off by the box.

:What: :math:`x = \theta + \epsilon`.
:Dimension: 10 unknowns, 10 data.
:Prior: uniform on :math:`[-1, 1]^{10}`.
:Likelihood: :math:`x \mid \theta \sim N(\theta, 0.1\, I)`; 0.1 is a variance (sbibm calls it a scale).
:Data: :func:`observation`, :func:`true_parameters`, k = 1, ..., 5.
:Reference posterior: independent normal laws of mean :math:`x_i` and variance 0.1, truncated to [-1, 1].
:Source: J.-M. Lueckmann et al., AISTATS 2021, T.2; sbibm 1.1.0 (MIT, ``models/data/README.md``).
"""

import numpyro
import numpyro.distributions as dist

from models.sbibm import _published
from models.sbibm.gaussian_linear import DIMENSION
from models.sbibm.gaussian_linear import log_likelihood as log_likelihood
from models.sbibm.gaussian_linear import simulate as simulate
from numpyro_inverse.distributions import Simulator


def model(x=None):
    """The NumPyro model: sites ``theta`` and ``x``, shape (10,)."""
    theta = numpyro.sample("theta", dist.Uniform(-1.0, 1.0).expand((DIMENSION,)).to_event(1))
    numpyro.sample("x", Simulator(simulate, theta, event_dims=1), obs=x)


def observation(k=1):
    """Observation k of the benchmark."""
    return _published.published("gaussian_linear_uniform", "observations", k)


def true_parameters(k=1):
    """The parameters behind observation k."""
    return _published.published("gaussian_linear_uniform", "true_parameters", k)
