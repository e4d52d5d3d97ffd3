"""Darcy's equation: polynomials and finite elements find one pressure and one gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy.stats import norm

from models import darcy
from numpyro_inverse import pinn


@pytest.mark.slow
def test_reference_solutions_converge():
    """Quadratic elements: errors of the third order of the edges or better, so that they fall by more than six."""
    theta, places = np.random.default_rng(0).normal(size=12), np.array([[0.31, 0.42], [0.66, 0.58]])
    coarse, middle, fine = (darcy.reference(theta, places, cells) for cells in (6, 12, 24))
    assert np.all(np.abs(fine - middle) < np.abs(middle - coarse) / 6)


@pytest.mark.slow
def test_the_physics_constrained_solution(x64):
    """Pressures to 1e-3 of the largest; the model's log density and a derivative of the misfit to 2 %."""
    rng = np.random.default_rng(0)
    theta, values = darcy.simulate(rng)
    potential = pinn.PhysicsConstrainedPotential(darcy.problem(values))
    found = jax.jit(jax.vmap(potential.solve(jnp.asarray(theta))))(jnp.asarray(darcy.PLACES))
    exact = darcy.reference(theta, darcy.PLACES)
    np.testing.assert_allclose(found, exact, atol=1e-3 * exact.max())

    direction, h = rng.normal(size=12), 1e-3
    away = theta + 0.1 * rng.normal(size=12)
    slope = jax.jit(jax.grad(potential.energy))(jnp.asarray(away)) @ direction
    sides = np.array([np.sum((darcy.reference(away + s * direction, darcy.PLACES) - values) ** 2) for s in (h, -h)])
    likelihood, _ = log_density(darcy.model, (potential,), {}, {"theta": jnp.asarray(away)})
    exact = norm.logpdf(away).sum() - sides.mean() / (2 * darcy.NOISE**2)
    np.testing.assert_allclose(likelihood, exact, rtol=0.02)
    np.testing.assert_allclose(slope, (sides[0] - sides[1]) / (4 * h * darcy.NOISE**2), rtol=0.02)
