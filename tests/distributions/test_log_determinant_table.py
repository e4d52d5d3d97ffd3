"""Densities by a table of the log determinant: against dense algebra, and every error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.distributions import BarrierMatern, Matern
from numpyro_inverse.distributions._log_determinant_table import chebyshev_coefficients
from numpyro_inverse.domains import Barrier
from tests.distributions.mesh_reference import precision
from tests.domains.meshes import square

NU, SCALE, SHORTEST, LONGEST = 1.0, 1.3, 0.15, 8.0


def law(mesh, range_, boundary, **options):
    return Matern(mesh, range=range_, scale=SCALE, smoothness=NU, boundary=boundary, **options)


@jax.jit
def tabulated(mesh, table, ranges, x):
    def density(range_):
        boundary = "neumann" if table.robin_coefficient == 0 else "robin"
        return law(mesh, range_, boundary, log_determinant=table).log_prob(x)

    return jax.vmap(jax.value_and_grad(density))(ranges)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["neumann", "robin"])
def test_densities_and_slopes_against_dense_algebra(boundary, x64):
    """To the tolerance of the table, 1e-8, over almost two decades; slopes by differences. NaN outside."""
    mesh = square(6)
    table = law(mesh, 1.0, boundary).tabulate_log_determinant(SHORTEST, LONGEST, tolerance=1e-8)
    x = np.cos(3 * mesh.points[:, 0]) + 0.3 * np.sin(5 * mesh.points[:, -1])

    def dense(range_):
        q = precision(mesh, NU, range_, SCALE, boundary == "robin")
        return 0.5 * (np.linalg.slogdet(q)[1] - x @ q @ x - len(x) * np.log(2 * np.pi))

    ranges = np.array([SHORTEST, 0.3, 0.7, 2.5, LONGEST])
    values, slopes = tabulated(mesh, table, jnp.asarray(ranges), x)
    expected = [dense(r) for r in ranges]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=2e-8)
    for r, slope in zip(ranges, slopes, strict=True):
        far, near, below, further = (dense(r * (1 + k * 1e-4)) for k in (2, 1, -1, -2))
        np.testing.assert_allclose(slope * r, (8 * (near - below) - (far - further)) / 12e-4, rtol=1e-6, atol=1e-5)
    outside = tabulated(mesh, table, jnp.asarray([0.9 * SHORTEST, 1.1 * LONGEST]), x)[0]
    assert np.all(np.isnan(outside))


def test_the_degree_follows_from_the_tolerance():
    """That of exp has coefficients below 1e-14; those of 1 / (1 + 100 s^2) fall like 0.905^k, to 3e-6 at 128."""
    coefficients, error = chebyshev_coefficients(np.exp, 0.0, 1.0, 1e-10)
    assert len(coefficients) == 17
    assert error < 1e-13
    last = chebyshev_coefficients(lambda t: np.cos(16 * np.arccos(t)), -1.0, 1.0, 2.0)[0]
    np.testing.assert_allclose(last, np.eye(17)[16], atol=1e-12)
    with pytest.raises(ValueError, match="degree 128 has an error above `tolerance` = 1e-10"):
        chebyshev_coefficients(lambda t: 1 / (1 + 100 * t**2), -1.0, 1.0, 1e-10)


def test_errors():
    mesh = square(4)
    field = law(mesh, 1.0, "neumann")
    table = field.tabulate_log_determinant(0.5, 2.0)
    with pytest.raises(ValueError, match="another mesh"):
        law(square(5), 1.0, "neumann", log_determinant=table)
    with pytest.raises(ValueError, match="another boundary condition"):
        law(mesh, 1.0, "robin", log_determinant=table)
    with pytest.raises(ValueError, match=r"`range` 3\.0 is beyond the table `log_determinant`, from 0.5 to 2"):
        law(mesh, 3.0, "neumann", log_determinant=table)
    with pytest.raises(TypeError, match="`log_determinant`"):
        law(mesh, 1.0, "neumann", log_determinant=1.0)
    with pytest.raises(ValueError, match="`shortest` must be below `longest`"):
        field.tabulate_log_determinant(2.0, 1.0)
    with pytest.raises(ValueError, match="degree 128 has an error above `tolerance`"):  # K is singular but for rounding
        field.tabulate_log_determinant(1.0, 1e12)
    barrier = BarrierMatern(Barrier(mesh, np.arange(len(mesh.simplices)) < 3), range=1.0, scale=1.0)
    with pytest.raises(TypeError, match="BarrierMatern"):
        barrier.tabulate_log_determinant(0.5, 2.0)
