"""Simulation-based calibration, coverage and TARP: ranks of the truth over many simulated data sets."""

from numpyro_inverse.calibration.ranks._coverage import Coverage as Coverage
from numpyro_inverse.calibration.ranks._coverage import coverage as coverage
from numpyro_inverse.calibration.ranks._rank_study import RankStudy as RankStudy
from numpyro_inverse.calibration.ranks._sbc import sbc as sbc
from numpyro_inverse.calibration.ranks._tarp import tarp as tarp
