"""Darcy's equation: polynomials and finite elements find one pressure, one gradient and one posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS

from models import darcy
from numpyro_inverse import pinn


def test_reference_solutions_converge():
    """Quadratic elements: errors of the third order of the edges or better, so that they fall by more than six."""
    theta, places = np.random.default_rng(0).normal(size=12), np.array([[0.31, 0.42], [0.66, 0.58]])
    coarse, middle, fine = (darcy.reference(theta, places, cells) for cells in (6, 12, 24))
    assert np.all(np.abs(fine - middle) < np.abs(middle - coarse) / 6)


@pytest.mark.slow
def test_the_physics_constrained_solution(x64):
    """Pressures to 1e-3 of the largest, and a derivative of the misfit in a random direction to 2 %."""
    rng = np.random.default_rng(0)
    theta, values = darcy.simulate(rng)
    potential = pinn.PhysicsConstrainedPotential(darcy.problem(values))
    found = jax.jit(jax.vmap(potential.solve(jnp.asarray(theta))))(jnp.asarray(darcy.PLACES))
    exact = darcy.reference(theta, darcy.PLACES)
    np.testing.assert_allclose(found, exact, atol=1e-3 * exact.max())

    direction, h = rng.normal(size=12), 1e-3
    away = theta + 0.1 * rng.normal(size=12)
    slope = jax.jit(jax.grad(potential.energy))(jnp.asarray(away)) @ direction
    sides = [np.sum((darcy.reference(away + s * direction, darcy.PLACES) - values) ** 2) for s in (h, -h)]
    np.testing.assert_allclose(slope, (sides[0] - sides[1]) / (4 * h * darcy.NOISE**2), rtol=0.02)


@pytest.mark.statistical
def test_the_reduced_posterior_is_that_of_the_reference_solver(x64):
    """Draws of one weighted by the other's misfit: weights so even that nine tenths of the draws are effective. With
    eight polynomials in the place of ten they are not."""
    values = darcy.simulate(np.random.default_rng(0))[1]
    potential = pinn.PhysicsConstrainedPotential(darcy.problem(values))
    mcmc = MCMC(NUTS(darcy.model), num_warmup=150, num_samples=200, progress_bar=False)
    mcmc.run(jax.random.key(0), potential)
    theta = mcmc.get_samples()["theta"][::4]

    def effective(potential):
        log = darcy.log_weights(theta, values, jax.jit(jax.vmap(potential.energy))(theta))
        weights = np.exp(log - log.max())
        return np.sum(weights) ** 2 / np.sum(weights**2) / len(weights)

    assert effective(potential) > 0.9
    assert effective(pinn.PhysicsConstrainedPotential(darcy.problem(values, num=6, num_points=12))) < 0.9
