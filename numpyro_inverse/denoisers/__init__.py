"""Denoisers: maps that take noise off an array, and what each is known to be."""

from numpyro_inverse.denoisers._certificate import Certificate as Certificate
from numpyro_inverse.denoisers._denoiser import Denoiser as Denoiser
from numpyro_inverse.denoisers._gaussian import FieldDenoiser as FieldDenoiser
from numpyro_inverse.denoisers._gaussian import GaussianDenoiser as GaussianDenoiser
from numpyro_inverse.denoisers._gaussian import LinearDenoiser as LinearDenoiser
from numpyro_inverse.denoisers._increments import IncrementsDenoiser as IncrementsDenoiser
from numpyro_inverse.denoisers._mixture import EmpiricalDenoiser as EmpiricalDenoiser
from numpyro_inverse.denoisers._mixture import GaussianMixtureDenoiser as GaussianMixtureDenoiser
from numpyro_inverse.denoisers._potentials import DeclaredPotential as DeclaredPotential
from numpyro_inverse.denoisers._potentials import LineIntegral as LineIntegral
