"""Data as they come: replicates, complex numbers, fewer of them than latents. Against dense algebra in NumPy.

The fields have a rational spectrum: a Matérn field's Bessel functions would be compiled anew with every program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import potential_energy
from scipy import stats

from numpyro_inverse.distributions import ComplexNormal, SpectralField
from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import ExactGaussian, ExactGibbs
from numpyro_inverse.infer.exact._affine import AffineModel
from numpyro_inverse.infer.exact._gaussian_posterior import DataRoot, DenseRoot
from numpyro_inverse.infer.whitening import whiten
from numpyro_inverse.operators import Fourier, Matrix

REPLICATES, CELLS, NOISE = 5, 6, 0.7


def smooth(grid, range_, scale=1.0):
    """A field of about that range, and standard deviation of the order of ``scale``."""
    cells = range_**grid.ndim / np.prod(grid.spacing)
    return SpectralField(grid, scale**2 * cells * (1 + range_**2 * grid.eigenvalues) ** -2)


def prior():
    return smooth(Grid((CELLS,), 1.0), 0.4)


def covariance():
    return np.asarray(prior().covariance_matrix, float)


def dense(a, c, noise, y):
    """Mean, covariance and evidence of u ~ N(0, c) under y = a u + noise."""
    total = a @ c @ a.T + noise**2 * np.eye(len(a))
    gain = np.linalg.solve(total, a @ c).T
    return gain @ y, c - gain @ a @ c, stats.multivariate_normal(np.zeros(len(a)), total).logpdf(y)


def assert_dense(kernel, args, expected, rtol=1e-8):
    mean, cov, evidence = expected
    np.testing.assert_allclose(np.ravel(kernel.posterior_mean(*args)["u"]), mean, rtol=rtol, atol=rtol)
    found = np.asarray(kernel.posterior_covariance(*args)["u"]).reshape(cov.shape)
    np.testing.assert_allclose(found, cov, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(kernel.log_evidence(*args), evidence, rtol=rtol)


# --- replicates


def field_scans(y, noise=NOISE):
    """Scans of one profile, broadcast as NumPyro does."""
    u = numpyro.sample("u", prior())
    numpyro.sample("y", dist.Normal(u, noise), obs=y)


def vector_scans(y, noise=NOISE):
    u = numpyro.sample("u", prior())
    numpyro.sample("y", dist.Normal(u, noise).to_event(1), obs=y)


def correlated_scans(y, noise=NOISE):
    u = numpyro.sample("u", prior())
    numpyro.sample("y", dist.MultivariateNormal(u, noise**2 * jnp.eye(CELLS)), obs=y)


def plate_of_scans(y, noise=NOISE):
    u = numpyro.sample("u", prior())
    with numpyro.plate("scans", REPLICATES):
        numpyro.sample("y", dist.Normal(u, noise).to_event(1), obs=y)


def repeated_means(y, noise=NOISE):
    """The other way round: NumPyro counts a datum once for each mean."""
    u = numpyro.sample("u", prior())
    means = jnp.broadcast_to(u, (REPLICATES, CELLS))
    numpyro.sample("y", dist.Normal(means, noise), obs=y[0])


def missing_in_scans(y, noise=NOISE):
    u = numpyro.sample("u", prior())
    with handlers.mask(mask=jnp.arange(CELLS) != 2):
        numpyro.sample("y", dist.Normal(u, noise), obs=y)


SCANS = np.random.default_rng(1).standard_normal((REPLICATES, CELLS))
ALL_SCANS = np.tile(np.eye(CELLS), (REPLICATES, 1))


@pytest.mark.slow
def test_every_replicate_counts(x64):
    expected = dense(ALL_SCANS, covariance(), NOISE, SCANS.ravel())
    assert_dense(ExactGaussian(field_scans), (jnp.asarray(SCANS),), expected)


@pytest.mark.parametrize(
    "model",
    [
        field_scans,
        vector_scans,
        pytest.param(correlated_scans, marks=pytest.mark.slow),
        plate_of_scans,
        pytest.param(repeated_means, marks=pytest.mark.slow),
        missing_in_scans,
    ],
)
def test_what_is_counted(model, x64):
    """The evidence from the affine map as a matrix: residuals, numbers and scales, however the shapes came about."""
    keep = np.arange(CELLS) != 2 if model is missing_in_scans else np.full(CELLS, True)
    seen = np.tile(SCANS[0], (REPLICATES, 1)) if model is repeated_means else SCANS
    expected = dense(np.tile(np.eye(CELLS)[keep], (REPLICATES, 1)), covariance(), NOISE, seen[:, keep].ravel())[2]
    found = AffineModel(whiten(model), (jnp.asarray(SCANS),), {})
    affine = found.affine()
    matrix = np.asarray(jax.vmap(affine.forward, out_axes=1)(jnp.eye(CELLS)))
    law = stats.multivariate_normal(np.zeros(len(matrix)), np.eye(len(matrix)) + matrix @ matrix.T)
    log_two_pi = 0.5 * len(matrix) * np.log(2 * np.pi)
    np.testing.assert_allclose(law.logpdf(affine.offset) + log_two_pi + found.log_normalizer(), expected, rtol=1e-8)


@pytest.mark.slow
def test_the_evidence_of_replicates_in_gibbs(x64):
    """The potential of the noise against its closed form, so that its posterior is right at every value."""

    def model(y):
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        field_scans(y, noise)

    y = jnp.asarray(SCANS)
    kernel = ExactGibbs(model)
    kernel.init(jax.random.key(0), 10, None, (y,), {})
    potential = jax.jit(kernel._kernel._potential_fn_gen(y))
    for noise in (0.3, 0.7, 2.0):
        _, _, evidence = dense(ALL_SCANS, covariance(), noise, SCANS.ravel())
        expected = evidence + stats.halfnorm.logpdf(noise) + np.log(noise)
        np.testing.assert_allclose(potential({"noise": jnp.log(noise)}), -expected, rtol=1e-8)


# --- complex data


def complex_scans(y, noise=0.1):
    rows = Matrix(np.fft.fft(np.eye(CELLS), norm="ortho")[1:4])
    u = numpyro.sample("u", prior())
    numpyro.sample("y", ComplexNormal(rows @ u, noise).to_event(1), obs=y)


def complex_problem():
    f = np.fft.fft(np.eye(CELLS), norm="ortho")[1:4]
    rng = np.random.default_rng(2)
    y = rng.standard_normal(3) + 1j * rng.standard_normal(3)
    return np.concatenate([f.real, f.imag]), y


@pytest.mark.slow
def test_both_parts_of_complex_data_count(x64):
    a, y = complex_problem()
    expected = dense(a, covariance(), 0.1, np.concatenate([y.real, y.imag]))
    assert_dense(ExactGaussian(complex_scans), (jnp.asarray(y),), expected)


@pytest.mark.slow
def test_complex_data_in_gibbs_and_nuts(x64):
    """Potentials against closed forms: the marginal one of the noise, and NUTS's of everything."""

    def model(y):
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        complex_scans(y, noise)

    a, y = complex_problem()
    seen = np.concatenate([y.real, y.imag])
    kernel = ExactGibbs(model)
    kernel.init(jax.random.key(0), 10, None, (jnp.asarray(y),), {})
    prior_of_noise = stats.halfnorm.logpdf(0.4) + np.log(0.4)
    expected = dense(a, covariance(), 0.4, seen)[2] + prior_of_noise
    found = jax.jit(kernel._kernel._potential_fn_gen(jnp.asarray(y)))({"noise": jnp.log(0.4)})
    np.testing.assert_allclose(found, -expected, rtol=1e-8)
    u = jnp.linspace(-1, 1, CELLS)
    expected = stats.norm.logpdf(seen, a @ u, 0.4).sum() + prior_of_noise + float(prior().log_prob(u))
    z = {"noise": jnp.log(0.4), "u": u}
    found, grad = jax.jit(jax.value_and_grad(lambda z: potential_energy(model, (jnp.asarray(y),), {}, z)))(z)
    np.testing.assert_allclose(found, -expected, rtol=1e-8)
    assert all(np.all(np.isfinite(g)) for g in grad.values())


@pytest.mark.slow
def test_undersampled_k_space(x64):
    """An image from part of its Fourier coefficients, as two real parts and as complex numbers."""
    grid = Grid((4, 5), (1.0, 1.25))
    field = smooth(grid, 0.4)
    keep = np.zeros(grid.shape, bool)
    keep[[0, 1, 3, 2], [0, 1, 1, 4]] = True
    fourier = Fourier(jnp.asarray(keep))
    a = np.asarray(fourier.as_matrix(), float)
    y = np.random.default_rng(3).standard_normal(fourier.out_shape)

    def parts(y):
        u = numpyro.sample("u", field)
        numpyro.sample("y", dist.Normal(fourier(u), 0.2).to_event(2), obs=y)

    def complex_numbers(y):
        u = numpyro.sample("u", field)
        kspace = fourier(u)
        numpyro.sample("y", ComplexNormal(kspace[0] + 1j * kspace[1], 0.2).to_event(1), obs=y)

    c = np.asarray(field.covariance_matrix, float).reshape(grid.size, grid.size)
    mean, _, evidence = dense(a, c, 0.2, y.ravel())
    for model, data in ((parts, y), (complex_numbers, y[0] + 1j * y[1])):
        kernel, args = ExactGaussian(model), (jnp.asarray(data),)
        np.testing.assert_allclose(np.ravel(kernel.posterior_mean(*args)["u"]), mean, atol=1e-8)
        np.testing.assert_allclose(kernel.log_evidence(*args), evidence, rtol=1e-8)


# --- fewer data than latents


def few_data(y, a=None):
    grid = Grid((7, 8), (1.0, 1.1))
    u = numpyro.sample("u", smooth(grid, 0.3, 1.2))
    numpyro.sample("y", dist.Normal(a @ u.ravel(), 0.05).to_event(1), obs=y)


def few_data_problem(m=9):
    rng = np.random.default_rng(4)
    grid = Grid((7, 8), (1.0, 1.1))
    field = smooth(grid, 0.3, 1.2)
    c = np.asarray(field.covariance_matrix, float).reshape(grid.size, grid.size)
    return rng.standard_normal((m, grid.size)) / 7, c, rng.standard_normal(m)


def root(kernel, *args):
    return kernel.init(jax.random.key(0), 0, None, args, {}).posterior.root


@pytest.mark.slow
def test_few_data_are_solved_in_their_own_space(x64):
    a, c, y = few_data_problem()
    args = jnp.asarray(y), jnp.asarray(a)
    kernel = ExactGaussian(few_data)
    found = root(kernel, *args)
    assert isinstance(found, DataRoot)
    assert max(leaf.size for leaf in jax.tree.leaves(found)) == a.size  # nothing of latents times latents
    assert_dense(kernel, args, dense(a, c, 0.05, y))
    many = jnp.asarray(np.random.default_rng(5).standard_normal((12, 11)))
    assert isinstance(root(ExactGaussian(linear_in_white), jnp.zeros(12), many), DenseRoot)


@pytest.mark.slow
def test_the_root_of_few_data_is_one(x64):
    """G G^T = H^{-1}, G^T is its transpose, and the determinant is H's; with the sign of each pivot made positive."""
    a = 10 * np.random.default_rng(6).standard_normal((4, 11))
    model = AffineModel(linear_in_white, (jnp.zeros(4), jnp.asarray(a)), {})
    found = DataRoot(model.affine())
    g = np.asarray(jax.vmap(found, out_axes=1)(jnp.eye(11)))
    np.testing.assert_allclose(np.asarray(jax.vmap(found.transpose, out_axes=1)(jnp.eye(11))), g.T, atol=1e-12)
    h = np.eye(11) + a.T @ a
    np.testing.assert_allclose(g @ g.T, np.linalg.inv(h), atol=1e-12)
    np.testing.assert_allclose(found.log_det, -0.5 * np.linalg.slogdet(h)[1], rtol=1e-12)


def linear_in_white(y, a):
    z = numpyro.sample("z", dist.Normal().expand([a.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(a @ z, 1.0).to_event(1), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize("signal_to_noise", [1e1, 1e3, 1e4])
def test_few_precise_data_in_single_precision(signal_to_noise):
    """The measured error stays at rounding times signal-to-noise, not times its square."""
    a = np.float32(signal_to_noise) * np.random.default_rng(7).standard_normal((20, 200)).astype(np.float32) / 14
    state = ExactGaussian(linear_in_white).init(jax.random.key(0), 0, None, (jnp.ones(20), jnp.asarray(a)), {})
    assert isinstance(state.posterior.root, DataRoot)
    assert float(state.posterior.error) < 100 * np.finfo(np.float32).eps * signal_to_noise


@pytest.mark.slow
def test_few_data_in_gibbs(x64):
    """The evidence, its gradient and the choice of space, on more latents than a dense root is made for."""

    def model(y, a):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        grid = Grid((50, 50), 1.0)
        u = numpyro.sample("u", smooth(grid, 0.3, scale))
        numpyro.sample("y", dist.Normal(a @ u.ravel(), 0.1).to_event(1), obs=y)

    rng = np.random.default_rng(8)
    a, y = rng.standard_normal((5, 2500)) / 50, rng.standard_normal(5)
    kernel = ExactGibbs(model)
    args = jnp.asarray(y), jnp.asarray(a)
    state = kernel.init(jax.random.key(0), 10, None, args, {})
    assert isinstance(state.template.root, DataRoot)
    unit = smooth(Grid((50, 50), 1.0), 0.3)
    columns = jax.vmap(unit.from_base)(jax.vmap(jax.linear_transpose(unit.from_base, jnp.zeros((50, 50))))(
        jnp.asarray(a).reshape(5, 50, 50))[0])  # fmt: skip
    gram = a @ np.asarray(columns).reshape(5, -1).T

    def expected(log_scale):
        total = np.exp(2 * log_scale) * gram + 0.01 * np.eye(5)
        return -stats.multivariate_normal(np.zeros(5), total).logpdf(y) - stats.norm.logpdf(log_scale)

    potential = kernel._kernel._potential_fn_gen(*args)
    value, grad = jax.jit(jax.value_and_grad(lambda z: potential({"scale": z})))(0.3)
    np.testing.assert_allclose(value, expected(0.3), rtol=1e-8)
    np.testing.assert_allclose(grad, (expected(0.3 + 1e-5) - expected(0.3 - 1e-5)) / 2e-5, rtol=1e-6)


@pytest.mark.slow
def test_draws_with_few_data_have_the_posterior_law(key):
    """Chi-square tests of means and variances in the posterior's directions, two-sided at 1e-5 each."""
    a, c, y = few_data_problem()
    mcmc = numpyro.infer.MCMC(ExactGaussian(few_data), num_warmup=0, num_samples=2000, progress_bar=False)
    mcmc.run(key, jnp.asarray(y, jnp.float32), jnp.asarray(a, jnp.float32))
    draws = np.asarray(mcmc.get_samples()["u"], float).reshape(2000, -1)
    mean, cov, _ = dense(a, c, 0.05, y)
    values, vectors = np.linalg.eigh(cov)
    white = (draws - mean) @ vectors / np.sqrt(values)
    n, d = white.shape
    assert 1e-5 / 2 < stats.chi2(d).cdf(n * np.sum(white.mean(0) ** 2)) < 1 - 1e-5 / 2
    each = np.sum((white - white.mean(0)) ** 2, axis=0)
    tails = np.minimum(stats.chi2(n - 1).cdf(each), stats.chi2(n - 1).sf(each))
    assert np.all(tails > 1e-5 / (2 * d))


# --- data that would be counted otherwise than was meant


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.zeros((CELLS, 1)), r"'y' have shape \(6, 1\).*\(6,\).*broadcast to \(6, 6\)"),
        (np.zeros(CELLS + 1), r"'y' have shape \(7,\).*do not broadcast"),
        (np.zeros(CELLS) + 1j, "the data of site 'y' are complex.*ComplexNormal"),
        (np.full(CELLS, "a"), "'y' must be numbers"),
    ],
)
@pytest.mark.parametrize("kernel", [ExactGaussian, ExactGibbs])
def test_data_that_do_not_fit(kernel, y, match):
    def model(y):
        noise = numpyro.sample("noise", dist.HalfNormal(1.0)) if kernel is ExactGibbs else NOISE
        field_scans(y, noise)

    with pytest.raises(ValueError, match=f"{kernel.__name__}: .*{match}"):
        kernel(model).init(jax.random.key(0), 2, None, (y,), {})


def test_a_complex_mean_of_a_real_law():
    def model(y):
        u = numpyro.sample("u", prior())
        numpyro.sample("y", dist.Normal(u * 1j, NOISE), obs=y)

    with pytest.raises(ValueError, match=r"parameters of site 'y' are complex, but Normal.*ComplexNormal"):
        ExactGaussian(model).posterior_mean(jnp.zeros(CELLS))
