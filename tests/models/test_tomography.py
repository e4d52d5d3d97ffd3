"""Tomography: projections of shapes with closed forms, and the posterior by another route."""

import numpy as np
import pytest
from scipy.integrate import quad

from models import tomography
from models._linear_gaussian import matern_covariance
from numpyro_inverse.domains import Grid
from tests.models._checks import agrees_with_model, matches_brute_force


def test_scanner_on_the_unit_square():
    """A constant image: chords of the square, averaged over each bin, by quadrature."""
    scanner = tomography.scanner((8, 8), 5)
    projections = np.asarray(scanner @ np.ones((8, 8)))
    assert projections.shape == (5, 12)
    for a, angle in enumerate(np.arange(5) * np.pi / 5):
        c, s = abs(np.cos(angle)), abs(np.sin(angle))
        half, top = (c + s) / 2, abs(c - s) / 2

        def chord(x, c=c, s=s, half=half, top=top):
            if min(c, s) < 1e-12:
                return float(abs(x) < 0.5)
            return np.clip((half - abs(x)) / (c * s), 0, 1 / max(c, s)) if abs(x) > top else 1 / max(c, s)

        for b, centre in enumerate((np.arange(12) - 5.5) / 8):
            expected = 8 * quad(chord, centre - 1 / 16, centre + 1 / 16, points=[-half, half, -top, top])[0]
            np.testing.assert_allclose(projections[a, b], expected, atol=2e-6)


def test_scanner_on_a_disc():
    """Chords of the disc with a hole, to the staircase error of its pixels."""
    projections = np.asarray(tomography.scanner((128, 128), 3) @ tomography.disc_phantom((128, 128)))
    bins = (np.arange(projections.shape[1]) - (projections.shape[1] - 1) / 2) / 128
    for a, angle in enumerate(np.arange(3) * np.pi / 3):
        hole = 2 * np.sqrt(np.maximum(0.1**2 - (bins - 0.15 * np.cos(angle)) ** 2, 0))
        expected = 2 * np.sqrt(np.maximum(0.4**2 - bins**2, 0)) - hole
        assert np.sqrt(np.mean((projections[a] - expected) ** 2)) < 0.015


@pytest.mark.slow
def test_exact_posterior(key):
    shape, angles = (4, 5), 6
    image, data = tomography.simulate(key, shape=shape, num_angles=angles)
    assert image.shape == shape
    assert data.shape[0] == angles
    posterior = tomography.exact_posterior(data, shape=shape)
    covariance = matern_covariance(Grid(shape), **tomography.PRIOR)
    matches_brute_force(posterior, tomography.matrix(shape, angles), data, tomography.NOISE, covariance)
    agrees_with_model(tomography.model, "attenuation", data, posterior, shape=shape, num_angles=angles)


@pytest.mark.slow
def test_full_size(key):
    """Residual chi-squared within 5 standard deviations (1 in 1e5); the error is what the posterior says.

    The squared error, weighted by the posterior precision, is chi-squared with 1024 degrees of freedom.
    """
    image, data = tomography.simulate(key)
    assert data.shape == (30, 46)
    residual = (np.asarray(data) - tomography.scanner() @ image) / tomography.NOISE
    assert abs(np.sum(residual**2) - data.size) < 5 * np.sqrt(2 * data.size)
    posterior = tomography.exact_posterior(data)
    error = np.asarray(image, float).ravel() - posterior.mean.ravel()
    chi2 = error @ np.linalg.solve(posterior.covariance, error)
    assert abs(chi2 - 1024) < 5 * np.sqrt(2 * 1024)
    signal = np.sqrt(np.mean(np.asarray(tomography.scanner() @ image) ** 2))
    assert 0.005 < tomography.NOISE / signal < 0.1
