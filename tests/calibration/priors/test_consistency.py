"""The check of projective consistency: laws that are exact, approach one law, or do not, each known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.scipy.signal import convolve
from scipy.stats import kstest

from numpyro_inverse.calibration import check_projective_consistency
from numpyro_inverse.calibration.priors._projective_consistency import _paired
from numpyro_inverse.distributions import Matern, Pushforward, SpectralField
from numpyro_inverse.domains import Grid, l2_projection, point_values
from numpyro_inverse.domains._prolongation import prolongation_matrix
from tests.distributions.mesh_reference import k_matrix
from tests.domains.meshes import interval, square

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
CIRCLES = [Grid(n, boundary="periodic") for n in (8, 24, 72)]


def _normal(grid, scale=1.0):
    return dist.Normal(0.0, scale).expand(grid.shape).to_event(len(grid.shape))


def _white(grid):
    """Averages over cells of white noise."""
    return _normal(grid, grid.cell_volume**-0.5)


def _galerkin(mesh):
    return Matern(mesh, range=0.8, scale=1.3, smoothness=0.5, mean=0.0)


def _ritz(coarse, fine):
    return _galerkin(fine).ritz_projection(coarse)


def _series(grid):
    """A series cut off at the grid's wavenumbers, of variances that fall like k^-3: what is cut off falls like h^2."""
    return SpectralField(grid, (20.0 + grid.eigenvalues) ** -1.5)


def _folded(grid):
    return Matern(grid, range=0.5, scale=1.0, smoothness=1.0)


CASES = {
    "i.i.d. values by averages": (_normal, [Grid(n) for n in (8, 16, 32)], {}, "inconsistent", 0.0),
    "white noise by averages": (_white, [Grid(n) for n in (8, 16, 32)], {}, "exact", None),
    "two levels tell no order": (_normal, [Grid(n) for n in (8, 16)], {}, "inexact", None),
    "i.i.d. values on a mesh": (_normal, [interval(9), interval(17), interval(33)], {}, "inconsistent", 0.0),
    "series cut off at the grid": (_series, CIRCLES, {"projection": point_values}, "asymptotic", 2.0),
    "folded spectrum": (_folded, CIRCLES, {"projection": point_values, "tolerance": 1e-8}, "exact", None),
    "Galerkin field, Ritz": (
        _galerkin,
        [interval(3), interval(5)],
        {"projection": _ritz, "tolerance": 1e-12},
        "exact",
        None,
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "Galerkin field, Ritz")) for name in CASES]
)
def test_labels_of_gaussian_laws(name):
    prior, domains, options, label, order = CASES[name]
    found = check_projective_consistency(prior, *domains, rng_key=KEY, **options)
    assert (found.evidence, found.label) == ("covariance", label)
    assert (found.order is None) == (order is None)
    if order is not None:
        assert abs(found.order - order) < 0.1


def _lumped(mesh, nu=1.5, range_=0.8):
    """The field with K = kappa^2 C + G of a lumped mass matrix C, at alpha = 2; and K."""
    lumped = np.diag(np.asarray(mesh.mass_matrix.sum(axis=1)).ravel())
    k = k_matrix(mesh, nu, range_).toarray() + 8 * nu / range_**2 * (lumped - mesh.mass_matrix.toarray())
    inverse = np.linalg.inv(k)
    covariance = inverse @ lumped @ inverse
    return dist.MultivariateNormal(0.0, (covariance + covariance.T) / 2), k


@pytest.mark.slow
def test_a_lumped_mass_matrix_is_consistent_in_the_limit_only():
    """By the Ritz projection, by which the consistent one is exact: an order of 2."""
    coarse = interval(9)
    meshes = [coarse, coarse.refined(), coarse.refined().refined()]

    def project(coarse, fine):
        down = prolongation_matrix("test", coarse, fine).T
        matrix = jnp.asarray(np.linalg.solve(_lumped(coarse)[1], down @ _lumped(fine)[1]))
        return lambda u: matrix @ u

    found = check_projective_consistency(lambda m: _lumped(m)[0], *meshes, rng_key=KEY, projection=project)
    assert found.label == "asymptotic"
    assert abs(found.order - 2) < 0.1


def test_means_count():
    found = check_projective_consistency(
        lambda grid: dist.Normal(1.0 / grid.size, grid.cell_volume**-0.5).expand(grid.shape).to_event(1),
        *[Grid(n) for n in (8, 16, 32)],
        rng_key=KEY,
    )
    assert found.label == "asymptotic"


def _convolutional(grid, variance=1.0):
    """A generator on pixels: its features are some pixels wide, whatever a pixel is."""
    kernel = jnp.asarray([0.3, 0.7, 1.0, 0.7, 0.3])
    return Pushforward(
        lambda z: jnp.tanh(convolve(z, kernel, mode="same")), dist.Normal(0, variance).expand(grid.shape).to_event(1)
    )


def _finite(grid):
    """Numbers that are the same on every grid, in functions: no Gaussian law."""
    x = grid.points[:, 0]
    basis = jnp.stack([jnp.cos(np.pi * k * x) for k in range(4)])
    return Pushforward(lambda z: jnp.sin(z @ basis), dist.Normal(0, 1).expand([4]).to_event(1))


@pytest.mark.slow
def test_labels_of_generators():
    grids = [Grid(n) for n in (8, 16, 32)]
    found = check_projective_consistency(_convolutional, *grids, rng_key=KEY)
    assert (found.label, found.evidence) == ("inconsistent", "two-sample")
    # By averages a law of point values differs by the square of the cell; at shared points by nothing.
    finer = [Grid(n) for n in (32, 64, 128)]
    found = check_projective_consistency(_finite, *finer, rng_key=KEY, num_draws=100)
    assert (found.label, found.evidence) == ("asymptotic", "pathwise")
    assert abs(found.order - 2) < 0.1
    thirds = [Grid(n) for n in (8, 24, 72)]
    found = check_projective_consistency(_finite, *thirds, rng_key=KEY, projection=point_values, num_draws=100)
    assert (found.label, found.evidence) == ("exact", "pathwise")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["scale", "corner", "range", "scale of a constant"])
def test_a_law_that_is_off_by_a_few_percent_from_grid_to_grid(what):
    """No Gaussian law, whose draws of two grids with one latent differ by as much at each refinement: 5 % of the
    scale, in one corner alone, or of the range. The largest of some hundred statistics is compared at a level of
    1e-3."""

    def prior(grid):
        x, off = grid.points[:, 0], 1.05 ** round(np.log(grid.size / 8) / np.log(3))
        factor = {"corner": jnp.where(x < 0.2, off, 1.0), "range": 1.0}.get(what, off)
        places = x * off if what == "range" else x
        waves = [0] * 4 if what == "scale of a constant" else range(4)
        basis = jnp.stack([jnp.cos(np.pi * k * places) for k in waves])
        return Pushforward(lambda z: factor * jnp.sin(z @ basis), dist.Normal(0, 1).expand([4]).to_event(1))

    thirds = [Grid(n) for n in (8, 24, 72)]
    found = check_projective_consistency(prior, *thirds, rng_key=KEY, projection=point_values)
    assert (found.label, found.evidence) == ("inconsistent", "two-sample")


@pytest.mark.statistical
def test_the_size_of_the_test_of_pairs():
    """Equal laws of values that are no pairs of equals: 400 p-values are uniform (false alarm 1e-4)."""
    rng, p_values = np.random.default_rng(0), []
    for _ in range(400):
        root = np.linalg.cholesky(np.exp(-0.3 * np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))))
        shared, one, two = rng.normal(size=(3, 400, 6))
        a, b = (np.tanh((0.8 * shared + 0.6 * own) @ root.T) for own in (one, two))
        p_values.append(_paired(a, b, rng))
    assert kstest(p_values, "uniform").pvalue > 1e-4


@pytest.mark.slow
def test_laws_that_draws_cannot_tell_apart():
    """White noise as a generator's output, of which nobody knows that it is Gaussian (level 1e-3, a fixed key); and a
    latent that is shared but means another thing on each grid, of which the law is the same."""

    def generator(grid):
        scale = grid.cell_volume**-0.5
        return Pushforward(lambda z: scale * z, dist.Normal(0, 1).expand(grid.shape).to_event(1))

    found = check_projective_consistency(generator, *[Grid(n) for n in (4, 8, 16)], rng_key=KEY)
    assert (found.label, found.evidence) == ("not distinguished", "two-sample")

    def turned(grid):
        sign = 1.0 if grid.size == 8 else -1.0
        return Pushforward(lambda z: jnp.full(grid.shape, sign * z[0]), dist.Normal(0, 1).expand([2]).to_event(1))

    found = check_projective_consistency(turned, *[Grid(n) for n in (4, 8, 16)], rng_key=KEY)
    assert (found.label, found.evidence) == ("not distinguished", "two-sample")


@pytest.mark.slow
def test_several_fields_by_expand_are_compared_by_draws():
    """No noise of one field is taken for that of several."""

    def pair(grid):
        return SpectralField(grid, 1 / (1 + grid.eigenvalues) ** 2).expand([2]).to_event(1)

    def each(coarse, fine):
        return jax.vmap(l2_projection(coarse, fine).mv)

    found = check_projective_consistency(pair, Grid(4), Grid(8), rng_key=KEY, projection=each, num_draws=50)
    assert (found.label, found.evidence) == ("not distinguished", "two-sample")


def _not_a_number(grid):
    return Pushforward(
        lambda z: jnp.full(grid.shape, jnp.where(z[0] > 9, z[0], jnp.nan)), dist.Normal(0, 1).expand([2]).to_event(1)
    )


def test_the_report():
    pytest.importorskip("matplotlib")
    found = check_projective_consistency(_series, *CIRCLES, rng_key=KEY, projection=point_values)
    assert found.verdict().startswith("The priors approach one law on functions, with order 2: largest relative")
    assert list(found.table.columns) == ["spacing", "gap"]
    np.testing.assert_allclose(found.table["spacing"], [1 / 8, 1 / 24])
    assert found.plot().axes[0].get_title() == "asymptotic, order 2"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((1.0, Grid(4), Grid(8)), {}, TypeError, "`prior` must be"),
        ((lambda g: 1.0, Grid(4), Grid(8)), {}, TypeError, "`prior` must return a NumPyro distribution; got float"),
        ((lambda g: dist.Normal(0, jnp.ones(g.shape)), Grid(4), Grid(8)), {}, ValueError, "batch shape"),
        ((lambda g: dist.Poisson(jnp.ones(4)).to_event(1), Grid(4), Grid(8)), {}, ValueError, "discrete law, Poisson"),
        ((_normal, Grid(4), Grid(6)), {}, ValueError, "`fine` must be a refinement"),
        ((_normal, Grid(4), square(3)), {}, TypeError, "`fine` must be a Grid"),
        ((lambda g: _normal(Grid(4)), 3, Grid(6)), {}, TypeError, "a Grid or a Mesh"),
        ((_normal, Grid(4), Grid(8)), {"projection": point_values}, ValueError, "must be among those of `fine`"),
        ((_normal, square(3), square(4)), {}, ValueError, "must lie within one of the coarse mesh"),
        ((_normal, Grid(4), Grid(8)), {"projection": lambda c, f: lambda u: u}, ValueError, r"to fields of shape \(4,"),
        ((_normal, Grid(4), Grid(8)), {"projection": 3}, TypeError, "`projection` must be"),
        ((_normal, Grid(4), Grid(8)), {"num_draws": 3}, ValueError, "`num_draws`"),
        ((_normal, Grid(4), Grid(8)), {"tolerance": 0.0}, ValueError, "`tolerance` must be positive"),
        ((_normal, Grid(4), Grid(8)), {"rng_key": 0}, TypeError, "`rng_key`"),
        ((_not_a_number, Grid(4), Grid(8)), {}, ValueError, "not finite"),
    ],
    ids=[
        *(
            "prior",
            "returned",
            "batch",
            "discrete",
            "refinement",
            "kinds",
            "domain",
            "points",
            "mesh",
            "shape",
            "projection",
        ),
        *("draws", "tolerance", "key", "nan"),
    ],
)
def test_bad_input(arguments, options, error, match):
    with pytest.raises(error, match=match):
        check_projective_consistency(*arguments, **({"rng_key": KEY} | options))
