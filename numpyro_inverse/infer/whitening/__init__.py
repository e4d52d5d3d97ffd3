"""White coordinates for fields: the effect handler, and coordinates fitted to data."""

from numpyro_inverse.infer.whitening._coordinates import Coordinates as Coordinates
from numpyro_inverse.infer.whitening._fit_coordinates import fit_coordinates as fit_coordinates
from numpyro_inverse.infer.whitening._point_estimate import point_estimate as point_estimate
from numpyro_inverse.infer.whitening._reparam import LATENT as LATENT
from numpyro_inverse.infer.whitening._reparam import BaseReparam as BaseReparam
from numpyro_inverse.infer.whitening._whiten import whiten as whiten
