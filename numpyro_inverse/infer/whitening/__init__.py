"""White coordinates for fields: the effect handler, and coordinates fitted to data."""

from numpyro_inverse.infer.whitening._nuts_settings import nuts_settings as nuts_settings
from numpyro_inverse.infer.whitening._reparam import BaseReparam as BaseReparam
from numpyro_inverse.infer.whitening._whiten import whiten as whiten
