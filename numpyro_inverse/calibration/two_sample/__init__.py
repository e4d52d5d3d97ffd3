"""Tests between two samples, or between a sample and a known law, with calibrated p-values."""

from numpyro_inverse.calibration.two_sample._c2st import c2st as c2st
from numpyro_inverse.calibration.two_sample._ksd import ksd as ksd
from numpyro_inverse.calibration.two_sample._lc2st import lc2st as lc2st
from numpyro_inverse.calibration.two_sample._mahalanobis import Mahalanobis as Mahalanobis
from numpyro_inverse.calibration.two_sample._mahalanobis import mahalanobis as mahalanobis
from numpyro_inverse.calibration.two_sample._mmd import mmd as mmd
from numpyro_inverse.calibration.two_sample._mmd import mmd_to_gaussian as mmd_to_gaussian
from numpyro_inverse.calibration.two_sample._significance import SignificanceTest as SignificanceTest
from numpyro_inverse.calibration.two_sample._wasserstein import gaussian_wasserstein as gaussian_wasserstein
from numpyro_inverse.calibration.two_sample._wasserstein import wasserstein as wasserstein
