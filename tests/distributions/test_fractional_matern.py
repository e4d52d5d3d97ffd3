"""Any smoothness on meshes: against the dense fractional power of the finite elements, and Matérn's covariance."""

from math import gamma, pi

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import eigh

from numpyro_inverse.distributions import FractionalMatern, Matern, NonstationaryMatern
from numpyro_inverse.distributions._rational_power import rational_power
from numpyro_inverse.domains import ElementMatrices
from tests.distributions.mesh_reference import k_matrix, kappa, matern
from tests.domains.meshes import interval, square

pytest.importorskip("baryrat")
RANGE, SCALE = 0.5, 1.3


def _eigenpairs(mesh, nu):
    return eigh(k_matrix(mesh, nu, RANGE).toarray(), mesh.mass_matrix.toarray())


def _dense(mesh, nu, range_=RANGE):
    """tau^-2 times the generalized power: V diag(lambda^-alpha) V^T of K v = lambda C v."""
    d = mesh.manifold_dim
    values, vectors = _eigenpairs(mesh, nu)
    alpha = nu + d / 2
    tau2 = gamma(nu) / (gamma(alpha) * (4 * pi) ** (d / 2) * kappa(nu, range_) ** (2 * nu) * SCALE**2)
    return (vectors * values**-alpha) @ vectors.T / tau2


@pytest.mark.parametrize("nu", [0.3, 0.5, 1.5])
def test_the_covariance_in_the_plane(nu):
    """Within a few tolerances of the finite elements' own power, and no further from Matérn's inside than that power is
    (the mesh error): by the eigenvalues of a mesh, to which the field applies the same numbers (next test)."""
    mesh = square(13, low=-0.6, high=0.6)
    field = Matern(mesh, range=RANGE, scale=SCALE, smoothness=nu)
    assert isinstance(field, FractionalMatern)
    k, residues, poles = field._rational
    exact, (values, vectors) = _dense(mesh, nu), _eigenpairs(mesh, nu)
    lam = values / kappa(nu, RANGE) ** 2
    power = lam**-field._whole * (k + sum(r / (lam - p) for r, p in zip(residues, poles, strict=True)))
    front = np.sum(exact) / np.sum((vectors * lam ** -(nu + 1)) @ vectors.T)
    found = front * (vectors * power**2) @ vectors.T
    assert np.abs(found - exact).max() < 0.01 * exact.max()
    inside = np.flatnonzero(np.abs(mesh.points).max(axis=1) < 0.25)
    distance = np.linalg.norm(mesh.points[inside][:, None] - mesh.points[inside], axis=-1)
    analytic = SCALE**2 * matern(distance, nu, RANGE)
    errors = [np.sqrt(np.mean((c[np.ix_(inside, inside)] - analytic) ** 2)) for c in (found, exact)]
    assert errors[0] < errors[1] + 0.002 * SCALE**2


@pytest.mark.slow
@pytest.mark.parametrize(("nu", "tolerance"), [(0.3, 2e-3), (3.2, 1e-4)])
def test_fields_on_a_line(nu, tolerance, x64):
    """An error as small as is asked for; alpha/2 of 0.4, and of 1.85, of which one is a whole power. The derivative
    with respect to the range by central differences."""
    line, z = interval(6), jnp.cos(jnp.arange(6.0))

    def field(range_):
        return Matern(line, range=range_, scale=SCALE, smoothness=nu, tolerance=tolerance)

    def total(range_):
        return jnp.sum(field(range_).from_base(z) ** 2)

    covariance = jax.jit(lambda r: field(r).covariance_matrix)(RANGE)
    exact = _dense(line, nu)
    assert np.abs(covariance - exact).max() < 20 * tolerance * exact.max()
    if nu > 1:
        both = jax.jit(jax.value_and_grad(total))
        up, down = (both(RANGE + h)[0] for h in (1e-4, -1e-4))
        np.testing.assert_allclose(both(RANGE)[1], (up - down) / 2e-4, rtol=1e-6)


def test_rational_powers():
    """The error on [1, infinity) is what is asked for, with real poles below one, and no more of them than needed."""
    lam = np.concatenate([np.linspace(1, 10, 999), np.logspace(1, 12, 999)])
    for exponent, tolerance, most in ((0.65, 1e-3, 3), (0.75, 1e-3, 3), (1.25, 1e-3, 2)):
        k, residues, poles = rational_power(exponent, tolerance)
        assert len(poles) <= most
        assert max(poles) < 1
        found = k + sum(r / (lam - p) for r, p in zip(residues, poles, strict=True))
        assert np.max(np.abs(found - lam**-exponent)) <= 1.001 * tolerance


def test_bad_input():
    line = interval(5)
    with pytest.raises(NotImplementedError, match="alpha is no integer, and the field has no density"):
        Matern(line, range=1.0, scale=1.0, smoothness=0.3).log_prob(jnp.zeros(5))
    with pytest.raises(ValueError, match="`tolerance` 1e-14 is not reached"):
        rational_power(0.05, 1e-14)
    with pytest.raises(ValueError, match="`smoothness` must be one of"):
        NonstationaryMatern(ElementMatrices(line), range=1.0, scale=1.0, smoothness=0.3)
