"""Bayesian inverse problems in NumPyro.

Write the inverse problem as a NumPyro model; put a field prior from :mod:`numpyro_inverse.distributions` on a domain
from :mod:`numpyro_inverse.domains`, a forward map from :mod:`numpyro_inverse.operators`, and infer with NumPyro's own
``MCMC`` on the model made ready by :func:`whiten`.
"""

from numpyro_inverse import calibration as calibration
from numpyro_inverse import distributions as distributions
from numpyro_inverse import domains as domains
from numpyro_inverse import infer as infer
from numpyro_inverse import operators as operators
from numpyro_inverse import plots as plots
from numpyro_inverse.infer import fit_coordinates as fit_coordinates
from numpyro_inverse.infer import to_arviz as to_arviz
from numpyro_inverse.infer import whiten as whiten

__version__ = "0.1.0"
