"""Reference problems of physics-informed inversion: their solvers, and the estimates of `pinn` beside them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

from models import bpinn, burgers, oscillator
from models import diffusion_reaction as dr
from numpyro_inverse import pinn


def test_the_diffusion_reaction_reference():
    """Against the closed form for a constant source."""
    x = np.linspace(0, 1, 9)
    exact = (1 - np.cosh(np.sqrt(3) * (x - 0.5)) / np.cosh(np.sqrt(3) / 2)) / 3
    np.testing.assert_allclose(dr.reference(lambda x: np.ones_like(x), 3.0, x), exact, atol=1e-9)


def test_burgers_reference(x64):
    """It satisfies the equation, the initial value and the boundary's; the rule's error at t = 1 is below 1e-6."""
    u = lambda x: burgers.exact(x[None], burgers.VISCOSITY)[0]  # noqa: E731
    points = jnp.array([[0.2, 0.3], [-0.6, 0.9], [0.9, 0.5]])
    found = jax.jit(jax.vmap(lambda x: burgers.residual(u, x, jnp.log(burgers.VISCOSITY))))(points)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    at_start = burgers.exact(np.array([[0.3, 1e-12], [-0.8, 1e-12]]), burgers.VISCOSITY)
    np.testing.assert_allclose(at_start, -np.sin(np.pi * np.array([0.3, -0.8])), atol=1e-6)
    np.testing.assert_allclose(burgers.exact(np.array([[1.0, 0.4], [-1.0, 0.8]]), burgers.VISCOSITY), 0, atol=1e-6)


@pytest.mark.slow
def test_a_system_of_ordinary_equations(x64):
    """Four rates from both populations: within 5 standard deviations of the truth, and 1 % of one of the minimum of the
    misfit by diffrax, which the penalized estimate has up to what the residual is allowed."""
    values = oscillator.simulate(np.random.default_rng(0))
    problem = oscillator.problem(pinn.ChebyshevBasis(oscillator.DOMAIN, 16, outputs=2), values, 30, scale=1e-3)
    fit = pinn.joint(problem, jnp.zeros(4), progress_bar=False)
    assert fit.converged
    sd = np.sqrt(np.diagonal(np.linalg.inv(pinn.profiled_information(problem, fit.theta, fit.phi))))
    error = np.asarray(fit.theta) - np.log(oscillator.RATES)
    assert np.all(np.abs(error) < 5 * sd)
    slope = jax.jit(jax.grad(oscillator.misfit(values)))(fit.theta)
    assert np.all(np.abs(slope) * sd < 0.1)


@pytest.mark.slow
def test_the_published_benchmark_s_model(x64):
    """The factor of the equation is the noise of the measured source: at the truth each residual is its error."""
    f, inside, ends = bpinn.simulate(np.random.default_rng(0))
    pde = bpinn.equation(f)
    exact = bpinn.equation(np.asarray(jax.vmap(lambda x: bpinn.operator(bpinn.solution, x, 0.7))(bpinn.SOURCES)))
    np.testing.assert_allclose(exact.at(bpinn.solution, 0.7), 0, atol=1e-12)
    assert np.std(np.asarray(pde.at(bpinn.solution, 0.7))) < 0.02
    assert (f.shape, inside.shape, ends.shape) == ((32,), (6,), (2,))


@pytest.mark.slow
def test_the_published_benchmark_s_network(x64):
    """Its density is that of standard normal weights, of the equation at the sources and of the data."""
    data = bpinn.simulate(np.random.default_rng(0), 0.1)
    network = pinn.MLP(bpinn.WIDE, width=3, depth=2, key=jax.random.key(1))
    arrays = eqx.filter(network, eqx.is_inexact_array)
    named = {f"u/{jax.tree_util.keystr(path)[1:]}": x for path, x in jax.tree_util.tree_leaves_with_path(arrays)}
    found, trace = log_density(bpinn.network_model, (*data, 0.1, 3), {}, {"k": jnp.asarray(0.7), **named})
    assert {name for name, site in trace.items() if not site.get("is_observed")} >= {"k", *named}
    u = jax.vmap(network)
    normal = jax.scipy.stats.norm.logpdf
    expected = sum(normal(x).sum() for x in (0.7, *named.values()))
    expected += normal(jax.vmap(lambda x: bpinn.operator(network, x, 0.7))(bpinn.SOURCES), data[0], 0.1).sum()
    expected += normal(u(bpinn.INSIDE), data[1], 0.1).sum() + normal(u(bpinn.ENDS), data[2], 0.01).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_plane_s_source(x64):
    """Its solution leaves no residual with k = 1, and u squared times the difference with another."""
    x = jnp.array([0.3, -0.6])
    np.testing.assert_allclose(bpinn.plane_residual(bpinn.plane_solution, x, 1.0), 0, atol=1e-14)
    off = bpinn.plane_residual(bpinn.plane_solution, x, 3.0)
    np.testing.assert_allclose(off, 2 * bpinn.plane_solution(x) ** 2, rtol=1e-12)


@pytest.mark.statistical
def test_the_plane_and_the_viscosity(x64):
    """Within 5 standard deviations of the truth, each of which the trial space's truncation leaves alone."""
    box, rng = bpinn.SQUARE, np.random.default_rng(0)
    plane = bpinn.plane_problem(pinn.Enforced(pinn.ChebyshevBasis(box, (10, 10)), box.distance), rng)
    fit = pinn.joint(plane, 0.3, progress_bar=False)
    assert abs(fit.theta - 1) < 5 * pinn.profiled_information(plane, fit.theta, fit.phi)[0, 0] ** -0.5
    points, values = burgers.simulate(rng)
    space = pinn.ChebyshevBasis(burgers.DOMAIN, (24, 10))
    moving = burgers.problem(space, points, values, num_points=(40, 16))
    fit = pinn.joint(moving, jnp.log(0.3), progress_bar=False)
    sd = pinn.profiled_information(moving, fit.theta, fit.phi)[0, 0] ** -0.5
    assert abs(fit.theta - np.log(0.1)) < 5 * sd
