"""Reduced potentials on the problem whose objectives, gradients and information are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

from models import bpinn
from models import diffusion_reaction as dr
from numpyro_inverse import pinn

THETAS = (-2.0, 3.0, 20.0)


@pytest.fixture(scope="module")
def spectral():
    return dr.simulate(np.random.default_rng(0), 6)


@pytest.fixture
def problem(spectral, x64):
    return dr.problem(spectral)


@pytest.mark.slow
def test_the_penalized_problem(spectral, problem):
    """Objective, gradient and minimizer: arithmetic, condition number below 1e3 squared."""
    potential = pinn.PenalizedPotential(problem)
    for theta in THETAS:
        value, grad = potential.value_and_grad(theta)
        np.testing.assert_allclose(value, spectral.penalized(theta), rtol=1e-8)
        np.testing.assert_allclose(grad, spectral.penalized_gradient(theta), rtol=1e-7)
    np.testing.assert_allclose(potential.solve(20.0).coefficients, spectral.penalized_solution(20.0), rtol=1e-8)
    np.testing.assert_allclose(potential.energy(20.0), spectral.penalized(20.0), rtol=1e-8)


def test_the_constrained_problem(spectral, problem):
    potential = pinn.PhysicsConstrainedPotential(problem)
    for theta in THETAS:
        value, grad = potential.value_and_grad(theta)
        np.testing.assert_allclose(value, spectral.constrained(theta), rtol=1e-8)
        np.testing.assert_allclose(grad, spectral.constrained_gradient(theta), rtol=1e-7)


def test_the_mismatch_of_the_joint_gradient(spectral, problem, key):
    """Away from the minimum the joint gradient is off by what the formula says."""
    theta, error = 3.0, 0.02 * jax.random.normal(key, (6,))
    phi = problem.trial.with_coefficients(spectral.penalized_solution(theta) + error)
    joint = jax.jit(jax.grad(lambda t: problem.objective(phi, t)))(theta)
    expected = spectral.penalized_gradient(theta) + spectral.mismatch(theta, np.asarray(error))
    np.testing.assert_allclose(joint, expected, rtol=1e-9)


def test_the_profiled_information(spectral, problem):
    for weight in (1e-2, 1e2, 1e6):
        other = spectral._replace(weight=weight)
        soft = problem.with_scale(np.sqrt(7 / weight))
        phi = problem.trial.with_coefficients(other.solution(3.0))
        found = pinn.profiled_information(soft, 3.0, phi)
        np.testing.assert_allclose(found, [[other.information(3.0)]], rtol=1e-6)


@pytest.mark.slow
def test_soft_constraints_tend_to_the_adjoint_gradient(spectral, problem):
    """At the rate 1 / w: a tenth of the error for ten times the weight, up to the next order, d^-2 / w sigma^2."""
    exact, errors = spectral.constrained_gradient(3.0), []
    for weight in (1e5, 1e6, 1e7):
        potential = pinn.PenalizedPotential(problem.with_scale(np.sqrt(7 / weight)))
        errors.append(potential.value_and_grad(3.0)[1] - exact)
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.01)


@pytest.mark.slow
def test_second_derivatives(spectral, problem):
    """Through the implicit function, in both modes, against central differences of the closed gradients: their error is
    of the order of step squared, 1e-6."""
    for kind, gradient in (
        (pinn.PenalizedPotential, spectral.penalized_gradient),
        (pinn.PhysicsConstrainedPotential, spectral.constrained_gradient),
    ):
        found = jax.jit(jax.hessian(kind(problem).energy))(3.0)
        np.testing.assert_allclose(found, (gradient(3.001) - gradient(2.999)) / 0.002, rtol=1e-5)


def nonlinear(trial, num_points):
    """The benchmark's equation with two parameters and data inside."""
    box = bpinn.DOMAIN

    def residual(u, x, theta):
        return theta[0] * pinn.derivative(u, 0, 0)(x) + theta[1] * jnp.tanh(u(x)) - jnp.cos(3 * x[0])

    pde = pinn.PDE(residual, box, points=box.grid(num_points), boundary=())
    data = pinn.Data(bpinn.INSIDE, [0.1, 0.3, 0.2, 0.4, 0.1, -0.1], 0.1)
    return pinn.Problem(pde, pinn.Enforced(trial, box.distance), data, scale=0.1)


@pytest.fixture(scope="module")
def nonlinear_potentials():
    with jax.enable_x64(True):
        polynomials = pinn.ChebyshevBasis(bpinn.DOMAIN, 7)
        network = pinn.MLP(bpinn.DOMAIN, width=16, depth=1, key=jax.random.key(1))
        return {
            "more residuals": pinn.PhysicsConstrainedPotential(nonlinear(polynomials, 12)),
            "more parameters": pinn.PhysicsConstrainedPotential(nonlinear(network, 6), tolerance=1e-7),
        }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["more residuals", "more parameters"])
def test_the_implicit_gradient_against_differences(kind, nonlinear_potentials, x64):
    """To 1e-4, the error of a central difference and of the inner tolerance."""
    potential, theta = nonlinear_potentials[kind], jnp.array([0.3, 0.7])
    potential = potential.started(potential.solve(theta))  # many solutions of the network: stay with one
    _, grad = potential.value_and_grad(theta)
    for i, step in enumerate(1e-3 * jnp.eye(2)):
        up, down = (potential.value_and_grad(theta + s * step)[0] for s in (1, -1))
        np.testing.assert_allclose(grad[i], (up - down) / 2e-3, rtol=1e-4)


@pytest.mark.slow
def test_an_inner_solve_that_does_not_converge(nonlinear_potentials, x64):
    """An error with the residual outside, NaN inside, never a gradient."""
    stopped = pinn.PhysicsConstrainedPotential(nonlinear_potentials["more residuals"].problem, max_steps=1)
    theta = jnp.array([0.3, 0.7])
    for call in (stopped.energy, stopped.solve, stopped.value_and_grad):
        with pytest.raises(pinn.InnerSolveError, match="can still fall by"):
            call(theta)
    value, grad = jax.jit(jax.value_and_grad(stopped.energy))(theta)
    assert np.isnan(value)
    assert np.all(np.isnan(grad))


@pytest.mark.slow
def test_reduced_and_joint_minimization(spectral, problem):
    """The penalized minimizer both ways, the constrained one by reduction, each where its gradient vanishes.

    To 0.1 % of a posterior standard deviation, the tolerances.
    """
    sd = spectral.information(1.0) ** -0.5
    joint = pinn.joint(problem, 0.0, tolerance=1e-4, progress_bar=False)
    penalized = pinn.reduced(pinn.PenalizedPotential(problem), 0.0, progress_bar=False)
    constrained = pinn.reduced(pinn.PhysicsConstrainedPotential(problem), 0.0, progress_bar=False)
    assert joint.converged
    assert penalized.converged
    assert constrained.converged
    np.testing.assert_allclose(joint.theta, penalized.theta, atol=1e-3 * sd)
    assert abs(spectral.penalized_gradient(float(penalized.theta))) < 1e-3 / sd
    assert abs(spectral.constrained_gradient(float(constrained.theta))) < 1e-3 / sd
    np.testing.assert_allclose(joint.loss, spectral.penalized(float(joint.theta)), rtol=1e-6)


def test_as_a_factor_of_a_model(spectral, problem):
    potential = pinn.PhysicsConstrainedPotential(problem)

    @jax.jit
    def density(theta):
        return log_density(dr.model, (spectral, potential), {}, {"theta": theta})[0]

    found = jnp.stack([density(t) for t in THETAS])
    prior = dist.Uniform(dr.LOW, dr.HIGH).log_prob(0.0)
    np.testing.assert_allclose(found, prior - spectral.constrained(np.array(THETAS)), rtol=1e-8)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(dr.model, 0)).get_trace(spectral, potential)
    assert trace["likelihood"]["infer"]["is_auxiliary"]
