"""Exact posterior means: Tweedie's formula, closed forms, quadrature, draws; and potentials where none is known."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from numpyro_inverse.denoisers import (
    DeclaredPotential,
    EmpiricalDenoiser,
    FieldDenoiser,
    GaussianDenoiser,
    GaussianMixtureDenoiser,
    LinearDenoiser,
    LineIntegral,
)
from numpyro_inverse.distributions import SpectralField
from numpyro_inverse.domains import Grid

RNG = np.random.default_rng(0)
N = 5
MEAN = RNG.normal(size=N)
ROOT = RNG.normal(size=(N, N))
COVARIANCE = ROOT @ ROOT.T / N + 0.05 * np.eye(N)
WEIGHTS, MEANS = np.array([1.0, 3.0]), np.stack([MEAN, -MEAN])
COVARIANCES = np.stack([COVARIANCE, 0.3 * np.eye(N)])
DATA = RNG.normal(size=(20, N))
X = RNG.normal(size=N)
ALARM = 1e-5


def field():
    grid = Grid((4, 3), boundary=("periodic", "neumann"))
    return SpectralField(grid, 0.2 * (1.0 + grid.eigenvalues / 30) ** -2.0, mean=0.4)


MAKE = {
    "Gaussian": lambda: GaussianDenoiser(MEAN, COVARIANCE),
    "mixture": lambda: GaussianMixtureDenoiser(WEIGHTS, MEANS, COVARIANCES),
    "empirical": lambda: EmpiricalDenoiser(DATA),
    "field": lambda: FieldDenoiser(field()),
}


def log_density(name, x, sigma):
    """Of the prior with white noise, by SciPy."""
    noise = sigma**2 * np.eye(x.size)
    if name == "Gaussian":
        return stats.multivariate_normal(MEAN, COVARIANCE + noise).logpdf(x)
    if name == "field":
        return stats.multivariate_normal(np.full(12, 0.4), np.asarray(field().covariance_matrix, float) + noise).logpdf(
            x.ravel()
        )
    if name == "mixture":
        parts = [stats.multivariate_normal(m, c + noise).logpdf(x) for m, c in zip(MEANS, COVARIANCES, strict=True)]
        return np.logaddexp.reduce(np.log(WEIGHTS / WEIGHTS.sum()) + np.array(parts))
    return np.logaddexp.reduce([stats.multivariate_normal(d, noise).logpdf(x) - np.log(len(DATA)) for d in DATA])


def signal(name):
    return np.random.default_rng(3).normal(size=(4, 3)) if name == "field" else X


@pytest.mark.parametrize("name", MAKE)
def test_tweedie(name, x64):
    """The field is the gradient of the potential, and the potential SciPy's density, for noise from 1e-3 to 1e2."""
    denoiser, x = MAKE[name](), jnp.asarray(signal(name))
    gradient = jax.jit(jax.grad(denoiser.potential))
    denoise, potential = eqx.filter_jit(denoiser), eqx.filter_jit(denoiser.potential)
    for sigma in (1e-3, 0.05, 1.0, 1e2):
        away = x - denoise(x, sigma)
        np.testing.assert_allclose(gradient(x, sigma) * sigma**2, away, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(potential(x, sigma), -log_density(name, np.asarray(x), sigma), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_single_precision(name):
    """The noise levels of images, with x within the prior's spread of the truth: errors of a few roundings."""
    x = jnp.asarray(signal(name), jnp.float32)
    with jax.enable_x64(True):
        exact = [
            np.asarray(eqx.filter_jit(MAKE[name]())(jnp.asarray(x, jnp.float64), sigma)) for sigma in (0.02, 0.3, 5.0)
        ]
    denoise = eqx.filter_jit(MAKE[name]())
    for sigma, value in zip((0.02, 0.3, 5.0), exact, strict=True):
        found = denoise(x, sigma)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, value, atol=1e-4)


def test_mixture_by_quadrature(x64):
    """One number, skewed: the mean and the density by a sum over the prior, which knows nothing of the formula."""
    weights, means, spreads = np.array([0.2, 0.8]), np.array([-1.0, 1.5]), np.array([0.3, 0.7])
    denoiser = GaussianMixtureDenoiser(weights, means[:, None], (spreads**2)[:, None, None])
    grid = np.linspace(-12, 12, 40001)
    prior = (weights * stats.norm.pdf(grid[:, None], means, spreads)).sum(axis=1)
    mean_and_potential = jax.jit(lambda x, sigma: (denoiser(x, sigma)[0], denoiser.potential(x, sigma)))
    for x, sigma in ((0.1, 0.5), (-0.7, 1.3), (3.0, 0.2)):
        joint = prior * stats.norm.pdf(x, grid, sigma)
        mean, potential = mean_and_potential(np.array([x]), sigma)
        np.testing.assert_allclose(mean, joint @ grid / joint.sum(), rtol=1e-9)
        np.testing.assert_allclose(potential, -np.log(joint.sum() * (grid[1] - grid[0])), rtol=1e-9)


def test_field_is_the_dense_gaussian(x64):
    prior = field()
    dense = GaussianDenoiser(np.full(12, 0.4), prior.covariance_matrix)
    fast, x = FieldDenoiser(prior), jnp.asarray(signal("field"))
    np.testing.assert_allclose(fast(x, 0.3).ravel(), dense(x.ravel(), 0.3), rtol=1e-9)
    for name, certificate in fast.certificates(0.3).items():
        assert certificate.certified
        np.testing.assert_allclose(certificate.bound, dense.certificates(0.3)[name].bound, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["mixture", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Gaussian", "empirical", "field"))]
)
def test_draws_given_the_noisy_signal(name):
    """Their mean is D and their covariance sigma^2 times its Jacobian (Tweedie). False-alarm rate 1e-5."""
    denoiser, sigma, count = MAKE[name](), 0.6, 40_000
    x = jnp.asarray(signal(name), jnp.float32)
    keys = jax.random.split(jax.random.key(1), count)
    draws = np.asarray(jax.jit(jax.vmap(partial(denoiser.sample, x=x, sigma=sigma)))(keys), float).reshape(count, -1)
    with jax.enable_x64(True):
        exact, x = MAKE[name](), jnp.asarray(x, jnp.float64)
        found = jax.jit(lambda x: (exact(x, sigma).ravel(), jax.jacobian(exact)(x, sigma)))(x)
        mean, slope = map(np.asarray, found)
        covariance = sigma**2 * slope.reshape(x.size, x.size)
    away = draws - mean
    products = np.einsum("ci,cj->cij", away, away)[:, *np.triu_indices(x.size)]
    limit = stats.norm.isf(ALARM / 2 / (x.size + products.shape[1]))
    z = np.sqrt(count) * away.mean(axis=0) / away.std(axis=0)
    z2 = np.sqrt(count) * (products.mean(axis=0) - covariance[np.triu_indices(x.size)]) / products.std(axis=0)
    assert np.all(np.abs(z) < limit), z
    assert np.all(np.abs(z2) < limit), z2


def test_linear_denoiser(x64):
    symmetric, skew = LinearDenoiser(COVARIANCE / 3), LinearDenoiser(ROOT)
    x = jnp.asarray(X)
    np.testing.assert_allclose(jax.grad(symmetric.potential)(x, 0.3), (x - symmetric(x, 0.3)) / 0.09, rtol=1e-9)
    assert skew.potential is None
    np.testing.assert_allclose(skew(x, 0.3), ROOT @ X, rtol=1e-12)
    for name, matrix in (("lipschitz", ROOT), ("residual", np.eye(N) - ROOT), ("firm", 2 * ROOT - np.eye(N))):
        np.testing.assert_allclose(skew.certificates(0.3)[name].bound, np.linalg.norm(matrix, 2), rtol=1e-12)


def test_line_integral(x64):
    """The potential up to a constant, its gradient and Hessian, and the derivative in the noise level."""
    mixture, x = GaussianMixtureDenoiser(WEIGHTS, MEANS, COVARIANCES), jnp.asarray(X)
    found = LineIntegral(lambda x, sigma: mixture(x, sigma), nodes=40)

    def exact(x, sigma):
        return mixture.potential(x, sigma) - mixture.potential(jnp.zeros(N), sigma)

    @partial(jax.jit, static_argnums=0)
    def all_of(potential, x, sigma):
        return (
            potential(x, sigma),
            *jax.grad(potential, (0, 1))(x, sigma),
            jax.jacfwd(jax.grad(potential))(x, sigma),
        )

    for one, other in zip(
        *(all_of(p, x, jnp.asarray(0.8)) for p in (lambda *a: found.potential(*a), exact)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-12)


def test_line_integral_of_a_field_that_is_no_gradient(x64):
    """Its value belongs to the symmetric part, its gradient does not: two things that a sampler must not mix."""
    denoiser, x = LineIntegral(LinearDenoiser(ROOT)), jnp.asarray(X)
    symmetric = (ROOT + ROOT.T) / 2
    np.testing.assert_allclose(denoiser.potential(x, 1.0), 0.5 * X @ (X - symmetric @ X), rtol=1e-10)
    np.testing.assert_allclose(jax.grad(denoiser.potential)(x, 1.0), X - ROOT @ X, rtol=1e-10)


def test_declared_potential(x64):
    declared, x = DeclaredPotential(LinearDenoiser(ROOT), lambda x, sigma: jnp.sum(x**4) / sigma), jnp.asarray(X)
    np.testing.assert_allclose(declared.potential(x, 0.5), np.sum(X**4) / 0.5)
    np.testing.assert_allclose(jax.grad(declared.potential)(x, 0.5), (X - ROOT @ X) / 0.25, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(declared.potential, 1)(x, jnp.asarray(0.5)), -np.sum(X**4) / 0.25)


def test_batches_and_jit():
    """vmap over signals and noise levels, within jit, is the loop."""
    denoiser = MAKE["mixture"]()
    x, sigma = jnp.asarray(RNG.normal(size=(3, N)), jnp.float32), jnp.array([0.1, 1.0, 3.0])
    found = jax.jit(jax.vmap(denoiser))(x, sigma)
    np.testing.assert_allclose(found, [denoiser(a, b) for a, b in zip(x, sigma, strict=True)], rtol=2e-5, atol=1e-6)


BAD = [
    (
        lambda: GaussianDenoiser(MEAN, COVARIANCE[:2]),
        ValueError,
        r"`covariance` must have shape \(5, 5\); got \(2, 5\)",
    ),
    (lambda: GaussianDenoiser(MEAN, ROOT), ValueError, "`covariance` must be symmetric"),
    (lambda: GaussianDenoiser(MEAN, -COVARIANCE), ValueError, "`covariance` must not be negative; its smallest"),
    (lambda: GaussianDenoiser("mean", COVARIANCE), TypeError, "`mean` must be real numbers"),
    (lambda: GaussianDenoiser(MEAN, COVARIANCE)(X, 0.0), ValueError, "`sigma` must be positive and finite; got 0.0"),
    (lambda: GaussianDenoiser(MEAN, COVARIANCE)(X, -1.0), ValueError, "`sigma` must be positive"),
    (lambda: GaussianDenoiser(MEAN, COVARIANCE)(X, [0.1, 0.2]), ValueError, "`sigma` must be one number"),
    (
        lambda: GaussianDenoiser(MEAN, COVARIANCE)(DATA, 1.0),
        ValueError,
        r"one signal of shape \(5,\); got shape \(20, 5",
    ),
    (lambda: GaussianMixtureDenoiser([1, -1], MEANS, COVARIANCES), ValueError, "`weights` must be positive"),
    (lambda: GaussianMixtureDenoiser([1], MEANS, COVARIANCES), ValueError, r"`weights` must have shape \(2,\)"),
    (
        lambda: GaussianMixtureDenoiser(WEIGHTS, MEANS, COVARIANCE),
        ValueError,
        r"`covariances` must have shape \(2, 5, 5",
    ),
    (lambda: EmpiricalDenoiser(np.zeros((0, 3))), ValueError, "`data` must be one signal or more"),
    (lambda: EmpiricalDenoiser(np.full((2, 3), np.nan)), ValueError, "`data` must be finite"),
    (lambda: EmpiricalDenoiser(DATA).sample(0, X, 1.0), TypeError, "`key` must be a random key"),
    (lambda: FieldDenoiser(Grid(4)), TypeError, "`field` must be a field with `amplitudes`"),
    (lambda: LinearDenoiser(np.ones((2, 3))), ValueError, r"`matrix` must be square; got shape \(2, 3\)"),
    (lambda: LinearDenoiser(ROOT)(X[:3], 1.0), ValueError, r"`x` must have 5 numbers.*got shape \(3,\)"),
    (lambda: LineIntegral(None), TypeError, "`denoiser` must be a denoiser, a function"),
    (lambda: LineIntegral(lambda x, s: x, nodes=0), ValueError, "`nodes` must be a positive integer"),
    (
        lambda: LineIntegral(lambda x, s: x[:2]).potential(X, 1.0),
        ValueError,
        r"<lambda> must return an array of the shape",
    ),
    (lambda: DeclaredPotential(lambda x, s: x, 3), TypeError, "`potential` must be a function"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
