"""Trial spaces that cannot satisfy the equation are reported, others are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from models import diffusion_reaction as dr
from numpyro_inverse import pinn

SENSORS = np.array([0.12, 0.15, 0.18, 0.21, 0.24, 0.28, 0.32, 0.36])
NOISE = 0.005


def source(x):
    return 20 * np.exp(-((x - 0.3) ** 2) / 0.02)


def residual(u, x, theta):
    return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - 20 * jnp.exp(-((x[0] - 0.3) ** 2) / 0.02)


def problem(trial, weight):
    """Clustered sensors without noise, the source inside them, theta = 3."""
    values = dr.reference(source, 3.0, SENSORS)
    pde = pinn.PDE(residual, dr.DOMAIN, points=dr.DOMAIN.grid(50), boundary=())
    return pinn.Problem(pde, trial, pinn.Data(SENSORS[:, None], values, NOISE), scale=weight**-0.5)


@pytest.mark.slow
def test_clustered_sensors(x64):
    """One and two sines are confidently wrong, by many of their standard deviations; sixteen are right and silent."""
    sines = [problem(pinn.SineBasis(dr.DOMAIN, k), 1e2) for k in (1, 2, 16)]
    with pytest.warns(pinn.IdentifiabilityWarning, match="confidence without information"):
        report = pinn.identifiability_report(sines, 3.0, reference_information=1 / 0.05**2)
    one, two, many = report.rows
    x = np.asarray(sines[0].pde.points)[:, 0]
    for row, num in zip(report.rows, (1, 2, 16), strict=True):  # the operator of sines in closed form
        k = np.arange(1, num + 1)
        images = np.sqrt(2) * ((k * np.pi) ** 2 + row.theta[0]) * np.sin(np.pi * k * x[:, None])
        left = source(x) - images @ np.linalg.lstsq(images, source(x))[0]
        np.testing.assert_allclose(row.distance, 1e2 * left @ left, rtol=1e-8)
        np.testing.assert_allclose(row.level, chi2.isf(1e-3, 50 - num))
    for row in (one, two):
        assert not row.expressive
        assert len(row.warnings) == 2
        assert abs(row.theta[0] - 3) > 5 * row.sd[0]
        assert row.stiffer_sd[0] < row.sd[0]
        assert row.sd[0] < many.sd[0]
    assert many.expressive
    assert not many.warnings
    np.testing.assert_allclose(many.theta, 3, atol=0.01 * many.sd[0])
    assert many.degrees == 50 - 16
    assert "sd by the reference: [0.05]" in str(report)


@pytest.mark.slow
def test_a_stiff_polynomial(x64):
    """Eight powers at the weight 1e4: the estimate leaves for where the source is easiest to represent."""
    powers = pinn.Enforced(pinn.PolynomialBasis(dr.DOMAIN, 8), dr.DOMAIN.distance)
    for weight in (1e4, 1e6):
        with pytest.warns(pinn.IdentifiabilityWarning, match="cannot satisfy the equation"):
            report = pinn.identifiability_report(problem(powers, weight), 3.0, max_steps=30)
        assert not report.rows[0].expressive


def test_more_parameters_than_residuals_say_nothing(x64):
    wide = problem(pinn.SineBasis(dr.DOMAIN, 80), 1e2)
    phi = wide.trial.with_coefficients(jax.random.normal(jax.random.key(0), (80,)) / jnp.arange(1, 81) ** 2)
    np.testing.assert_array_equal(pinn.profiled_information(wide, 3.0, phi), [[0.0]])
