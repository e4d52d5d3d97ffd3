"""Denoisers: maps that take noise off an array, and what each is known to be."""

from numpyro_inverse.denoisers._certificate import Certificate as Certificate
from numpyro_inverse.denoisers._denoiser import Denoiser as Denoiser
from numpyro_inverse.denoisers._increments import IncrementsDenoiser as IncrementsDenoiser
