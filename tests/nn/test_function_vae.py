"""Autoencoders of functions: what they see does not depend on the points, what they learn is a law on functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.calibration import check_projective_consistency
from numpyro_inverse.distributions import FunctionSpaceGenerator
from numpyro_inverse.domains import Grid, point_values
from numpyro_inverse.nn import FunctionVAE, fit_function_vae, load_pretrained, pad_fields
from numpyro_inverse.nn.pretrained import pretrained_about

INNER = Grid((4, 3), (1.0, 0.75))
GRIDS = [Grid((5, 4), (1.0, 0.75)), Grid((8, 6), (1.0, 0.75))]


@pytest.fixture(scope="module")
def vae():
    return FunctionVAE(INNER, 2, width=8, key=jax.random.key(0))


def _fields(grid, amplitudes):
    """Functions of the inner grid's span."""
    x, y = np.moveaxis(np.asarray(grid.points), -1, 0)
    waves = np.stack([1 + 0 * x, np.cos(np.pi * x), np.cos(np.pi * x) * np.cos(2 * np.pi * y / 0.75)])
    return np.tensordot(amplitudes, waves, 1)


@pytest.mark.slow
def test_values_at_points_are_those_of_the_inner_grid(vae):
    z = jnp.array([0.3, -1.2])
    points = np.random.default_rng(0).uniform(0, 0.75, (9, 2))
    exact = INNER.interpolation(points)(vae.decode(z))
    np.testing.assert_allclose(vae.evaluate(z, jnp.asarray(points, jnp.float32)), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(7,), (3, 4, 2)])
def test_any_dimension(shape):
    inner = Grid(shape)
    vae = FunctionVAE(inner, 2, width=4, key=jax.random.key(1))
    points = jnp.asarray(inner.points).reshape(-1, len(shape))
    z = jnp.array([0.5, 1.0])
    np.testing.assert_allclose(vae.evaluate(z, points), vae.decode(z).ravel(), rtol=1e-4, atol=1e-6)
    seen = vae.encode(vae.decode(z).ravel(), points, jnp.full(inner.size, 1 / inner.size))
    np.testing.assert_allclose(seen[0], vae.encoder(vae.coefficients(z).ravel())[:2], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_bounds_of_a_function_on_two_grids_are_the_same(vae):
    """Quadrature at cell centers is exact for these functions; rows that are filled up count as they are."""
    amplitudes = np.random.default_rng(2).normal(size=(2, 3))
    rows = pad_fields([(grid, _fields(grid, amplitudes)) for grid in GRIDS], key=jax.random.key(3))
    assert [a.shape for a in rows] == [(4, 48), (4, 48, 2), (4, 48)]
    values, points, weights = map(jnp.asarray, rows)
    bounds = np.sort(jax.vmap(vae.elbo, (0, 0, 0, None))(values, points, weights, jax.random.key(0)))
    np.testing.assert_allclose(bounds[0::2], bounds[1::2], rtol=1e-4)
    assert not np.isclose(bounds[0], bounds[2], rtol=1e-2)


@pytest.mark.slow
def test_a_fit_at_mixed_resolutions(vae):
    """Two numbers and noise-free functions of them: the latent finds them, and reconstructs on a grid never seen."""
    amplitudes = np.random.default_rng(4).normal(size=(400, 2)) @ np.array([[0.5, 1.0, 0.0], [0.0, 0.3, 1.0]])
    halves = (amplitudes[:200], amplitudes[200:])
    data = pad_fields([(g, _fields(g, a)) for g, a in zip(GRIDS, halves, strict=True)], key=jax.random.key(5))
    settings = {"batch_size": 50, "max_epochs": 30, "learning_rate": 0.02, "gradient_norm": 100.0}
    fit = fit_function_vae(vae, data, key=jax.random.key(6), patience=30, progress_bar=False, **settings)
    assert fit.held_out_loss[-1] < 0.1 * fit.held_out_loss[0]
    new = Grid((6, 5), (1.0, 0.75))
    fields = _fields(new, np.random.default_rng(7).normal(size=(50, 2)) @ np.array([[0.5, 1.0, 0.0], [0.0, 0.3, 1.0]]))
    values, points, weights = map(jnp.asarray, pad_fields([(new, fields)], key=jax.random.key(8)))
    latents = jax.vmap(fit.module.encode)(values, points, weights)[0]
    error = jax.vmap(fit.module.evaluate)(latents, points) - values
    assert np.sqrt(np.mean(error**2)) < 0.2 * np.std(values)


@pytest.mark.slow
def test_the_weights_that_ship():
    """Their law is one on functions, and near that of the family by the scores of their training."""
    vae = load_pretrained("permeability_vae")
    about = pretrained_about("permeability_vae")
    assert about["test_reconstruction_rms"] < 0.2
    assert 0.8 < about["standard_deviation_ratio"] < 1.1
    assert 0.8 < about["roughness_ratio"] < 1.25

    def prior(grid):
        return FunctionSpaceGenerator(vae.decode, vae.latent, vae.inner, grid, link=vae.link)

    grids = [Grid((n, n)) for n in (3, 9, 27)]
    found = check_projective_consistency(
        prior, *grids, rng_key=jax.random.key(0), projection=point_values, num_draws=100
    )
    assert (found.label, found.evidence) == ("exact", "pathwise")
    # It has both facies, log permeabilities of -1 and 1; of a Gaussian law of that spread 28 % were beyond 0.7.
    values = np.asarray(prior(Grid((8, 8))).sample(jax.random.key(1), (200,)))
    assert np.mean(np.abs(values) > 0.7) > 0.35
    assert abs(np.mean(values)) < 0.15


def _rows(n=20, m=4):
    return np.zeros((n, m)), np.full((n, m, 2), 0.1), np.full((n, m), 1 / m)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v, p, w: (v, p[..., :1], w), r"values \(n, m\), points \(n, m, 2\)"),
        (lambda v, p, w: (v, p, 2 * w), "the weights of each row must add up to one"),
        (lambda v, p, w: (v, p + 0.7, w), "`points` must lie in the box"),
    ],
    ids=["shape", "weights", "points"],
)
def test_bad_rows(vae, change, match):
    with pytest.raises(ValueError, match=match):
        fit_function_vae(vae, change(*_rows()), key=jax.random.key(0), batch_size=4)


def test_bad_input(vae):
    with pytest.raises(TypeError, match="`vae` must be a FunctionVAE"):
        fit_function_vae(None, _rows(), key=jax.random.key(0))
    with pytest.raises(TypeError, match="`inner` must be a Grid"):
        FunctionVAE(3, 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match='`inner` must have the boundary "neumann"'):
        FunctionVAE(Grid(4, boundary="periodic"), 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`latent_size` must be 1 or more"):
        FunctionVAE(INNER, 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`scale` must be positive"):
        FunctionVAE(INNER, 2, scale=0.0, key=jax.random.key(0))
    with pytest.raises(TypeError, match="`fields` must be pairs of a domain and fields"):
        pad_fields([(3, np.zeros((2, 3)))], key=jax.random.key(0))
    with pytest.raises(ValueError, match="fields on a domain of shape"):
        pad_fields([(INNER, np.zeros((2, 3)))], key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least one"):
        pad_fields([], key=jax.random.key(0))
    with pytest.raises(ValueError, match="domains of one dimension"):
        pad_fields([(Grid(2), np.zeros((1, 2))), (INNER, np.zeros((1, 4, 3)))], key=jax.random.key(0))
