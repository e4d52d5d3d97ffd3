"""gravity, shaw and heat: operators against integrals, ill-posedness as published, posteriors by another route."""

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erfc

from models import gravity, heat, shaw
from models._linear_gaussian import informed_directions, matern_covariance
from numpyro_inverse.domains import Grid
from tests.models._checks import agrees_with_model, matches_brute_force

SITES = {gravity: "density", shaw: "source", heat: "heat"}
PROBLEMS = pytest.mark.parametrize("problem", SITES, ids=lambda m: m.__name__)


def grid_of(problem, n):
    return shaw.domain(n) if problem is shaw else Grid(n)


def test_gravity_operator():
    """A constant density has a closed form; the midpoint rule is within h^2 |K''| / 24 of it."""
    d, n = 0.25, 64
    s = (np.arange(n) + 0.5) / n
    exact = ((1 - s) / np.hypot(d, 1 - s) + s / np.hypot(d, s)) / d
    assert np.max(np.abs(gravity.matrix(n).sum(axis=1) - exact)) < 3 / d**4 / n**2 / 24
    value, _ = quad(
        lambda t: d * (d**2 + (s[10] - t) ** 2) ** -1.5 * (np.sin(np.pi * t) + np.sin(2 * np.pi * t) / 2), 0, 1
    )
    np.testing.assert_allclose((gravity.matrix(n) @ gravity.truth(n))[10], value, rtol=1e-3)


def test_shaw_operator():
    n, i = 64, 20
    s = shaw.angles(n)[i]

    def integrand(t):
        u = np.pi * (np.sin(s) + np.sin(t))
        f = 2 * np.exp(-6 * (t - 0.8) ** 2) + np.exp(-2 * (t + 0.5) ** 2)
        return (np.cos(s) + np.cos(t)) ** 2 * (np.sin(u) / u) ** 2 * f

    value, _ = quad(integrand, -np.pi / 2, np.pi / 2, points=[-s], epsabs=1e-10)
    np.testing.assert_allclose((shaw.matrix(n) @ shaw.truth(n))[i], value, rtol=1e-3)


@pytest.mark.parametrize("kappa", [1.0, 2.0])
def test_heat_operator(kappa):
    """The response to a constant heat input is erfc(1 / (2 kappa sqrt s)); second order in the cell."""
    errors = []
    for n in (64, 128):
        s = np.arange(1, n + 1) / n
        errors.append(np.max(np.abs(heat.matrix(n, kappa).sum(axis=1) - erfc(1 / (2 * kappa * np.sqrt(s))))[n // 4 :]))
    assert errors[0] < (1e-4 if kappa == 1 else 0.02)
    assert errors[1] < 0.3 * errors[0]


def test_heat_truth_is_hansens():
    """Values of Hansen's formula at t = 20 i / n by hand, n = 80: t = i / 4."""
    x = heat.truth(80)
    np.testing.assert_allclose(
        x[[3, 7, 9, 15, 39, 40]], [0.1875, 0.75, 1.0, 0.75 * np.exp(-2), 0.75 * np.exp(-14), 0.0]
    )


@pytest.mark.parametrize(("problem", "condition"), [(gravity, 1e16), (shaw, 1e16), (heat, 1e26)])
def test_condition_number(problem, condition):
    """At n = 64 singular to double precision: 3e17, 3e18 and 7e29 were measured elsewhere, by order of magnitude."""
    assert np.linalg.cond(problem.matrix(64)) > condition


@pytest.mark.parametrize(("problem", "count"), [(gravity, 8), (shaw, 7), (heat, 20)])
def test_number_of_informed_directions(problem, count):
    """As the problem cards say; and 1 % of the classical signal's size is the card's noise."""
    matrix = problem.matrix(64)
    covariance = matern_covariance(grid_of(problem, 64), **problem.PRIOR)
    assert informed_directions(matrix, problem.NOISE, covariance) == count
    size = np.sqrt(np.mean((matrix @ problem.truth(64)) ** 2))
    np.testing.assert_allclose(problem.NOISE, 0.01 * size, rtol=0.2)


@pytest.mark.slow
@PROBLEMS
def test_simulation_has_the_stated_noise(problem, key):
    """Shapes; and chi-squared of the residual, 64 degrees of freedom, within 5 standard deviations (1 in 1e5)."""
    truth, data = jax.jit(problem.simulate)(key)
    assert truth.shape == data.shape == (64,)
    residual = (data - problem.matrix(64) @ np.asarray(truth, float)) / problem.NOISE
    assert abs(np.sum(residual**2) - 64) < 5 * np.sqrt(2 * 64)


@pytest.mark.slow
@PROBLEMS
def test_exact_posterior(problem, key):
    n = 14
    _, data = problem.simulate(key, n=n)
    posterior = problem.exact_posterior(data)
    covariance = matern_covariance(grid_of(problem, n), **problem.PRIOR)
    matches_brute_force(posterior, problem.matrix(n), data, problem.NOISE, covariance)
    agrees_with_model(problem.model, SITES[problem], data, posterior, n=n)


@pytest.mark.slow
@PROBLEMS
def test_exact_posterior_takes_other_parameters(problem, key):
    n, prior = 10, {"range": 0.4, "scale": 2.0, "smoothness": 0.7}
    _, data = problem.simulate(key, n=n)
    posterior = problem.exact_posterior(data, noise=0.1, **prior)
    agrees_with_model(problem.model, SITES[problem], data, posterior, n=n, noise=0.1, **prior)
