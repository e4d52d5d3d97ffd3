"""The report on gradients: the formulas of gradient descent on the residuals, and its verdicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import diffusion_reaction as dr
from numpyro_inverse import pinn

THETA = 3.0


@pytest.fixture(scope="module")
def reports():
    """After no step, 100 and 20,000 plain inner steps from zero, for six sines."""
    with jax.enable_x64(True):
        spectral = dr.simulate(np.random.default_rng(0), 6)
        problem = dr.problem(spectral)

        def reference(theta):
            solution = jnp.asarray(spectral.source) / ((jnp.arange(1, 7) * jnp.pi) ** 2 + theta)
            return 0.5 * jnp.sum(((solution - spectral.data) / spectral.noise) ** 2)

        counts = (100, 20_000)
        found = {m: pinn.gradient_report(problem, THETA, num_steps=m) for m in counts}
        found[0] = pinn.gradient_report(problem, THETA, num_steps=0, reference=reference)
    return spectral, found


@pytest.mark.slow
def test_the_gradients_are_those_of_the_formulas(reports):
    """u_m = u (1 - q^m), q = 1 - eta d^2: the joint, unrolled and implicit gradients after 100 steps."""
    spectral, found = reports
    d, u, m = spectral.d(THETA), spectral.solution(THETA), 100
    eta = 1 / np.max(d) ** 2
    q = (1 - eta * d**2) ** m
    phi = u * (1 - q)
    change = -(spectral.source / d**2) * (1 - q) + u * m * (1 - eta * d**2) ** (m - 1) * 2 * eta * d
    slope = (phi - spectral.data) / spectral.noise**2
    residual = d * phi - spectral.source
    implicit = -slope * (2 * d * phi - spectral.source) / d**2  # of R = r^2 / 2: its mixed derivative over d^2
    expected = {
        "joint": spectral.weight * residual @ phi,
        "unrolled": slope @ change,
        "implicit": np.sum(implicit),
        "converged": spectral.constrained_gradient(THETA),
    }
    for kind, value in expected.items():
        np.testing.assert_allclose(found[100].gradients[kind], [value], rtol=1e-7)


@pytest.mark.slow
def test_the_verdicts(reports):
    _, found = reports
    few, many = found[100], found[20_000]
    assert all(bool(few.wrong_signs[kind][0]) for kind in ("joint", "unrolled", "implicit"))
    assert not few.trusted("unrolled")
    assert few.ratios["implicit"] < -1
    assert str(few).count("wrong sign") == 3
    assert many.trusted("unrolled")
    assert many.trusted("implicit")
    np.testing.assert_allclose([many.ratios["unrolled"], many.ratios["implicit"]], 1, rtol=1e-6)
    assert few.inner_residual > 1 > many.inner_residual


def test_a_reference_and_no_gradient_at_all(reports):
    """At u = 0 the equation's residual does not see theta, and the joint gradient is zero."""
    spectral, found = reports
    report = found[0]
    assert report.exact == "reference"
    np.testing.assert_allclose(report.gradients["reference"], spectral.constrained_gradient(THETA), rtol=1e-9)
    np.testing.assert_allclose(report.ratios["converged"], 1, rtol=1e-6)
    assert report.gradients["joint"] == 0
    assert not report.trusted("joint")
    assert "no gradient at all" in str(report)


def test_steps_that_diverge(reports, x64):
    spectral, _ = reports
    with pytest.raises(ValueError, match="Lower `step_size`"):
        pinn.gradient_report(dr.problem(spectral), THETA, num_steps=100, step_size=1e3)
