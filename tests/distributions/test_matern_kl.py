"""Matérn fields in the eigenfunctions of a mesh: against dense algebra, fractional powers, Weyl's law, and
centering."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy.integrate import quad
from scipy.linalg import eigh

import numpyro_inverse as ni
from numpyro_inverse.distributions import MaternKL
from numpyro_inverse.distributions._reparametrized import has_amplitudes
from numpyro_inverse.domains import Eigenbasis
from numpyro_inverse.infer import ExactGibbs, LatentGaussian
from tests.distributions.mesh_reference import kappa, matern, precision, tau2
from tests.domains.meshes import interval, square


def _covariance(field):
    root = np.asarray(field.from_base(jnp.diag(jnp.ones(field.basis.num_modes)))) - np.asarray(field.mean)
    return root.T @ root


def test_all_modes_are_the_finite_element_field(x64):
    mesh = square(5)
    field = MaternKL(Eigenbasis(mesh, mesh.size), range=0.6, scale=1.3, smoothness=2.0, mean=0.7)
    exact = np.linalg.inv(precision(mesh, 2.0, 0.6, 1.3))
    np.testing.assert_allclose(_covariance(field), exact, atol=1e-12)
    np.testing.assert_allclose(field.variance, np.diag(exact), rtol=1e-10)
    z = jax.random.normal(jax.random.key(0), (3, 25))
    np.testing.assert_allclose(field.from_base(z), field.from_coefficients(field.amplitudes * z))
    assert has_amplitudes(field)


@pytest.mark.parametrize("nu", [0.3, 0.5, 1.5])
def test_fractional_smoothness(nu, x64):
    """The fractional power by an independent eigendecomposition, and the analytic covariance within the error of the
    mesh, which falls with the power 2 nu of the edges: below 12 % at 0.3, 4 % at 0.5 and 1 % at 1.5 on 160 intervals of
    a twentieth of the range."""
    mesh, range_ = interval(161, 0.0, 2.0), 0.25
    field = MaternKL(Eigenbasis(mesh, mesh.size), range=range_, scale=1.0, smoothness=nu)
    mass = mesh.mass_matrix.toarray()
    values, vectors = eigh(mesh.stiffness_matrix.toarray(), mass)
    exact = (vectors / (tau2(nu, 1, range_) * (kappa(nu, range_) ** 2 + values) ** (nu + 0.5))) @ vectors.T
    found = _covariance(field)
    np.testing.assert_allclose(found, exact, atol=1e-9)
    inside = np.abs(mesh.points[:, 0] - 1) < 0.5
    r = np.abs(mesh.points - mesh.points.T)[np.ix_(inside, inside)]
    worst = {0.3: 0.12, 0.5: 0.04, 1.5: 0.01}[nu]
    assert np.abs(found[np.ix_(inside, inside)] - matern(r, nu, range_)).max() < worst


def test_the_sparse_eigensolver_finds_the_same(x64):
    mesh = square(45, jitter=0.1)
    basis = Eigenbasis(mesh, 20)
    np.testing.assert_allclose(np.asarray(basis.modes).T @ (mesh.mass_matrix @ basis.modes), np.eye(20), atol=1e-9)
    k = np.sort((np.pi**2 * np.add.outer(np.arange(9) ** 2, np.arange(9) ** 2)).ravel())[:20]
    np.testing.assert_allclose(basis.eigenvalues, k, rtol=0.02, atol=1e-8)
    assert np.all(np.diff(basis.eigenvalues) >= 0)


@pytest.mark.parametrize(("nu", "m"), [(1.0, 40), (2.0, 20)])
def test_the_lost_variance(nu, m, x64):
    """Weyl's law is for many modes: to a fifth of the share that is lost, against the average over the nodes."""
    mesh = square(20, jitter=0.1)
    whole, cut = (MaternKL(Eigenbasis(mesh, k), range=0.4, scale=2.0, smoothness=nu) for k in (mesh.size, m))
    lost = np.sum(mesh.weights * (whole.variance - cut.variance)) / np.sum(mesh.weights * whole.variance)
    np.testing.assert_allclose(cut.lost_variance, lost, rtol=0.2)


def test_the_lost_variance_on_a_line(x64):
    """The tail of the spectral density, by quadrature."""
    field = MaternKL(Eigenbasis(interval(60), 20), range=0.5, scale=1.0, smoothness=0.7)
    k, last = kappa(0.7, 0.5), np.sqrt(float(field.basis.eigenvalues[-1]))
    density = lambda w: (k**2 + w**2) ** -1.2  # noqa: E731
    beyond = quad(density, last, np.inf)[0] / quad(density, 0, np.inf)[0]
    inside = np.sum(field.amplitudes**2)  # on a line of length 1
    np.testing.assert_allclose(field.lost_variance, beyond / (inside + beyond), rtol=1e-6)


def _model(basis, seen, noise, y=None):
    range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.5))
    smoothness = numpyro.sample("smoothness", dist.LogNormal(0.0, 0.3))
    u = numpyro.sample("u", MaternKL(basis, range=range_, scale=1.0, smoothness=smoothness))
    numpyro.sample("y", dist.Normal(seen(u), noise).to_event(1), obs=y)


@pytest.mark.statistical
def test_centering_is_chosen_by_the_data():
    """Strong data center the coefficients, weak data do not; the first modes are centered most."""
    mesh = interval(30)
    basis, places = Eigenbasis(mesh, 12), np.linspace(0.01, 0.99, 40)
    seen = mesh.interpolation(places)
    y = jnp.asarray(np.sin(5 * places))
    centering = [ni.fit_coordinates(_model, basis, seen, noise, y).centering["u"] for noise in (3.0, 0.02)]
    assert np.mean(centering[0]) < 0.4 < 0.8 < np.mean(centering[1])
    assert np.mean(centering[1][:4]) >= np.mean(centering[1][-4:]) - 1e-3


def test_bad_arguments():
    mesh = interval(5)
    basis = Eigenbasis(mesh, 3)
    with pytest.raises(ValueError, match="`num_modes` must be at most 5"):
        Eigenbasis(mesh, 6)
    with pytest.raises(TypeError, match="`mesh` must be a Mesh"):
        Eigenbasis(np.zeros(3), 2)
    with pytest.raises(TypeError, match="an Eigenbasis"):
        MaternKL(mesh, range=1.0, scale=1.0, smoothness=1.0)
    with pytest.raises(ValueError, match="`smoothness` must be positive"):
        MaternKL(basis, range=1.0, scale=1.0, smoothness=-1.0)
    with pytest.raises(ValueError, match="`mean` must broadcast"):
        MaternKL(basis, range=1.0, scale=1.0, smoothness=1.0, mean=np.zeros(4))
    with pytest.raises(NotImplementedError, match="has no density over 5 nodes"):
        MaternKL(basis, range=1.0, scale=1.0, smoothness=1.0).log_prob(jnp.zeros(5))


PLACES = np.array([[0.21, 0.4], [0.77, 0.5], [0.5, 0.93]])


def _on_nodes(basis, seen, y):
    range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.5))
    u = numpyro.sample("u", MaternKL(basis, range=range_, scale=1.0, smoothness=1.0))
    numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", seen(u)), 0.2).to_event(1), obs=y)


def _in_coefficients(basis, seen, y):
    range_ = numpyro.sample("range", dist.LogNormal(-1.0, 0.5))
    w = numpyro.sample("w", MaternKL(basis, range=range_, scale=1.0, smoothness=1.0).coefficients)
    numpyro.sample("y", dist.Normal(numpyro.deterministic("eta", seen(w)), 0.2).to_event(1), obs=y)


@pytest.mark.parametrize("places", [PLACES, np.random.default_rng(3).uniform(0.05, 0.95, (20, 2))])
def test_coefficients_read_at_places_are_the_field_there(places, x64):
    """At fewer places than nodes, and at more."""
    mesh = square(4, jitter=0.1)
    basis = Eigenbasis(mesh, 9)
    field = MaternKL(basis, range=0.5, scale=1.2, smoothness=0.8, mean=0.3)
    w = field.coefficients.sample(jax.random.key(0))
    np.testing.assert_allclose(
        0.3 + basis.interpolation(places)(w), mesh.interpolation(places)(field.from_coefficients(w)), rtol=1e-12
    )


@pytest.mark.slow
def test_coefficients_are_integrated_out_like_the_field(x64):
    """The density of data, to 1e-9."""
    mesh, y = square(4, jitter=0.1), jnp.array([0.3, -0.4, 0.1])
    basis = Eigenbasis(mesh, 9)
    on_nodes = LatentGaussian(_on_nodes, "eta", model_args=(basis, mesh.interpolation(PLACES), y))
    in_coefficients = LatentGaussian(_in_coefficients, "eta", model_args=(basis, basis.interpolation(PLACES), y))
    hyper = {"range": jnp.array(0.6)}
    np.testing.assert_allclose(in_coefficients.log_marginal(hyper), on_nodes.log_marginal(hyper), rtol=1e-9)


@pytest.mark.slow
def test_exact_gibbs_takes_a_sequence_where_there_is_no_field():
    mesh = interval(30)
    basis, places = Eigenbasis(mesh, 12), np.linspace(0.1, 0.9, 7)
    mcmc = MCMC(ExactGibbs(_in_coefficients, NUTS), num_warmup=5, num_samples=5, progress_bar=False)
    mcmc.run(jax.random.key(0), basis, basis.interpolation(places), jnp.asarray(np.sin(5 * places)))
    assert mcmc.get_samples()["w"].shape == (5, 12)
