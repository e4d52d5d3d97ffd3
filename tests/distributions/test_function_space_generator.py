"""Generators of functions: the same function at all resolutions, in every door of a learned prior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import numpyro_inverse as ni
from numpyro_inverse.calibration import check_projective_consistency
from numpyro_inverse.distributions import FunctionSpaceGenerator, Matern
from numpyro_inverse.domains import Eigenbasis, Grid, point_values
from tests.domains.meshes import interval, square

INNER = Grid((4, 3), (1.0, 0.75))
WEIGHTS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


def _decode(z):
    return jnp.tanh(WEIGHTS @ z).reshape(INNER.shape)


def _white(n):
    return dist.Normal(0, 1).expand([n]).to_event(1)


def _law(domain, **options):
    return FunctionSpaceGenerator(_decode, _white(5), INNER, domain, **options)


@pytest.mark.usefixtures("x64")
def test_one_function_everywhere():
    """Values on a grid, on a mesh and at scattered points, by the cosine series of the inner grid written out."""
    z = jax.random.normal(jax.random.key(0), (3, 5))
    w = np.asarray(INNER.transform(jax.vmap(_decode)(z)))

    def exact(points):
        modes = [
            np.where(np.arange(n) > 0, np.sqrt(2 / n), np.sqrt(1 / n)) * np.cos(np.pi * np.outer(x / e, np.arange(n)))
            for x, n, e in zip(points.T, INNER.shape, INNER.extent, strict=True)
        ]
        return np.exp(np.einsum("bij,mi,mj->bm", w, *modes))

    grid, mesh = Grid((6, 4), (1.0, 0.75)), square(3, high=0.75)
    points = np.random.default_rng(1).uniform(0, 0.75, (7, 2))
    law = _law(grid, link=jnp.exp)
    for domain, at in ((grid, np.asarray(grid.points).reshape(-1, 2)), (mesh, mesh.points), (points, points)):
        seen = law.on(domain)
        np.testing.assert_allclose(seen.from_base(z).reshape(3, -1), exact(at), rtol=1e-12)
        assert seen.domain == (None if domain is points else domain)
    assert jax.jit(lambda law, key: law.sample(key, (2,)))(law, jax.random.key(1)).shape == (2, 6, 4)


@pytest.mark.usefixtures("x64")
def test_the_law_does_not_know_the_grid():
    """1e-12 of the field's standard deviation, pathwise."""
    grids = [Grid((n, n), 0.75) for n in (3, 9, 27)]
    found = check_projective_consistency(_law, *grids, rng_key=jax.random.key(0), projection=point_values)
    assert (found.label, found.evidence) == ("exact", "pathwise")
    assert np.max(found.gaps) < 1e-12


@pytest.mark.slow
def test_other_latents_and_other_functions():
    """A field as a latent is sampled by its white noise; coefficients of a mesh's eigenfunctions."""
    inner = Grid(5)
    field = Matern(inner, range=0.5, scale=1.0, smoothness=1.0)
    law = FunctionSpaceGenerator(jnp.tanh, field, inner, inner)
    z = jnp.linspace(-1.0, 1.0, 5)
    assert law.base_dist.event_shape == (5,)
    np.testing.assert_allclose(law.from_base(z), jnp.tanh(field.from_base(z)), atol=1e-5)
    np.testing.assert_allclose(law.on(Grid(15)).from_base(z)[1::3], law.from_base(z), atol=1e-5)
    basis = Eigenbasis(interval(9), 3)
    law = FunctionSpaceGenerator(lambda z: z**3, _white(3), basis, np.array([0.25, 0.3125]))
    values = basis.modes @ jnp.arange(3.0) ** 3
    np.testing.assert_allclose(law.from_base(jnp.arange(3.0)), [values[2], (values[2] + values[3]) / 2], rtol=1e-5)


@pytest.mark.slow
def test_several_fields_as_a_latent():
    """Their noise is that of each, and the generator gets them all; on another domain, too."""
    inner = Grid(4)
    field = Matern(inner, range=0.5, scale=1.0, smoothness=1.0)
    z = jax.random.normal(jax.random.key(0), (3, 4))

    def mean(u):
        return u.reshape(-1, 4).mean(axis=0)

    for latent in (field.expand([3]).to_event(1), Matern(inner, range=jnp.full(3, 0.5), scale=1.0, smoothness=1.0)):
        law = (
            FunctionSpaceGenerator(mean, latent.to_event(len(latent.batch_shape)), inner, inner).on(Grid(12)).on(inner)
        )
        assert law.base_dist.event_shape == (3, 4)
        np.testing.assert_allclose(law.from_base(z), mean(field.from_base(z)), atol=1e-6)


def test_whitened_in_a_model():
    grid = Grid((4, 3), (1.0, 0.75))

    def model():
        numpyro.sample("u", _law(grid))

    trace = numpyro.handlers.trace(numpyro.handlers.seed(ni.whiten(model), 0)).get_trace()
    assert trace["u"]["type"] == "deterministic"
    np.testing.assert_allclose(trace["u"]["value"], _law(grid).from_base(trace["u_latent"]["value"]), rtol=1e-6)
    assert trace["u"]["infer"]["domain"] == grid
    with pytest.raises(NotImplementedError, match="singular"):
        _law(grid).log_prob(jnp.zeros((4, 3)))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((1.0, _white(5), INNER, INNER), TypeError, "`generator` must be"),
        ((_decode, 1.0, INNER, INNER), TypeError, "`latent` must be a NumPyro distribution"),
        ((_decode, _white(5), 3, INNER), TypeError, "`inner` must have a `shape`"),
        ((_decode, _white(5), INNER, 3), TypeError, "`domain` must be a domain, or points"),
        ((_decode, _white(5), INNER, Grid((3, 3))), ValueError, "lie outside the domain"),
        ((_decode, _white(4), INNER, INNER), ValueError, "does not take a latent"),
        ((lambda z: z, _white(5), INNER, INNER), ValueError, "shape of `inner`"),
        ((_decode, dist.Normal(jnp.zeros(5), 1.0), INNER, INNER), ValueError, "without a batch shape"),
    ],
    ids=["generator", "latent", "inner", "domain", "outside", "size", "shape", "batch"],
)
def test_bad_input(arguments, error, match):
    with pytest.raises(error, match=match):
        FunctionSpaceGenerator(*arguments)


def test_a_link_is_a_function():
    with pytest.raises(TypeError, match="`link` must be"):
        _law(INNER, link=2.0)
    with pytest.raises(ValueError, match=r"`link` must act on each value; it takes \(4, 3\) of them to \(\)"):
        _law(INNER, link=jnp.sum)
