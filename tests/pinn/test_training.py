"""Training: which block moves which parameter, batches, and a network's fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import diffusion_reaction as dr
from numpyro_inverse import pinn
from numpyro_inverse.pinn import _damped_least_squares as damped


@pytest.fixture
def problem(x64):
    return dr.problem(dr.simulate(np.random.default_rng(0), 6), num_points=12)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_a_step_and_its_decrement(shape, x64):
    """By the normal equations, though the smaller Gram matrix is solved; the decrement by an orthonormal basis."""
    rng = np.random.default_rng(0)
    jacobian, r = rng.normal(size=shape), rng.normal(size=shape[0])
    normal = jacobian.T @ jacobian
    shift = 0.3 * np.trace(normal) / min(shape)
    expected = -np.linalg.solve(normal + shift * np.eye(shape[1]), jacobian.T @ r)
    found = damped.damped_step(jnp.asarray(jacobian), jnp.asarray(r), jnp.asarray(0.3))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    state = damped.at(jnp.zeros(shape[1]), jnp.asarray(r), jnp.asarray(jacobian), jnp.asarray(0.3))
    basis = np.linalg.qr(jacobian)[0]
    np.testing.assert_allclose(state.decrement, np.linalg.norm(basis.T @ r), rtol=1e-10)


@pytest.mark.slow
def test_which_block_moves_which_parameter(problem, key):
    phi = problem.trial.with_coefficients(jax.random.normal(key, (6,)))
    moves = problem.gradients(phi, 3.0)
    assert list(moves) == ["data", "pde"]
    assert moves["data"]["theta"] == 0
    assert min(moves["data"]["phi"], moves["pde"]["phi"], moves["pde"]["theta"]) > 0
    rows = problem.residuals(phi, 3.0)["pde"] * problem.scale
    values = jax.vmap(phi)(problem.pde.points)
    np.testing.assert_allclose(moves["pde"]["theta"], abs(rows @ values) / problem.scale**2, rtol=1e-9)


@pytest.mark.slow
def test_adam_moves_theta_by_the_blocks_that_are_named(problem):
    still = pinn.adam(problem, 3.0, num_steps=20, learning_rate=0.01, theta_from=("data",), progress_bar=False)
    moved = pinn.adam(problem, 3.0, num_steps=20, learning_rate=0.01, progress_bar=False)
    assert still.theta == 3.0
    assert moved.theta != 3.0
    assert moved.loss < moved.losses[0]
    assert len(moved.losses) == 21


@pytest.mark.slow
def test_batches_with_momentum(problem, key):
    """Half of the points a step reach the minimum of all of them, where residuals and data agree (noise 0.01)."""
    best = pinn.joint(problem, 1.0, progress_bar=False)
    fit = pinn.spring(problem, 1.0, key=key, batch_size=8, num_steps=60, progress_bar=False)
    start = float(problem.objective(problem.trial, 1.0))
    assert best.converged
    assert best.loss <= fit.loss < 1e-2 * start


@pytest.mark.slow
def test_a_network(key):
    """In single precision: the equation's solution for theta = 3 within 1e-2 of its largest value."""
    box = dr.DOMAIN

    def residual(u, x, theta):
        return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - 10.0

    pde = pinn.PDE(residual, box, points=box.grid(24), boundary=pinn.dirichlet(0.0, box.boundary()))
    network = pinn.MLP(box, width=12, depth=1, key=jax.random.key(0))
    points = jnp.array([[0.1], [0.3], [0.6], [0.8]])
    root = np.sqrt(3.0)
    exact = lambda x: 10 / 3 * (1 - np.cosh(root * (x - 0.5)) / np.cosh(root / 2))  # noqa: E731
    data = pinn.Data(points, exact(np.asarray(points[:, 0])), 1e-3)
    problem = pinn.Problem(pde, network, data, scale=0.05, boundary_scale=1e-3)
    fit = pinn.levenberg_marquardt(problem, 1.0, max_steps=60, tolerance=0.1, progress_bar=False)
    assert fit.phi.layers[0].weight.dtype == jnp.float32
    assert np.all(np.diff(fit.losses) <= 0)
    x = np.linspace(0, 1, 11)
    found = jax.vmap(fit.phi)(jnp.asarray(x)[:, None])
    np.testing.assert_allclose(found, exact(x), atol=1e-2 * exact(0.5))
    np.testing.assert_allclose(fit.theta, 3.0, atol=0.15)


@pytest.mark.slow
def test_levenberg_marquardt_is_compiled_once_for_all_its_steps(problem):
    """Ten steps at a time, to a maximum that differs: a further call traces the equation once, to check the shapes."""
    traced = []

    def residual(u, x, theta):
        traced.append(1)
        return problem.pde.residual(u, x, theta)

    pde = pinn.PDE(residual, dr.DOMAIN, points=problem.pde.points, boundary=())
    again = pinn.Problem(pde, problem.trial, problem.data, scale=problem.scale)
    counts = []
    for most in (3, 15, 35):
        fit = pinn.levenberg_marquardt(again, 30.0, max_steps=most, tolerance=0.0, progress_bar=False)
        counts.append(len(traced))
    assert fit.num_steps == 35
    assert np.diff(counts).tolist() == [1, 1]
