"""The reference problems with symmetries: their symmetries, and their exact answers by another road."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from models import blind_deconvolution, phase_retrieval, sign_ambiguous
from numpyro_inverse.calibration.exact import SignSymmetric
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.symmetry import CyclicShift, GlobalPhase, SignFlip, Symmetry, check_invariance

SHAPE = (16, 16)


def test_the_moments_of_a_square():
    exact = SignSymmetric(1.0, 0.1)
    expected = [0, exact.absolute_moment(2), exact.absolute_moment(1), 0.5]
    np.testing.assert_allclose(sign_ambiguous.exact_moments(1.0), expected, atol=1e-5)
    u, y = sign_ambiguous.simulate(jax.random.key(0), noise=1e-6)
    np.testing.assert_allclose(y, u**2, atol=1e-4)


@pytest.mark.parametrize("unit", [1.0, 1j])
def test_the_outer_product_of_two_unknowns(unit):
    """Against importance sampling from the prior, within five standard errors (false-alarm rate 4e-6)."""
    rows = np.array([[1.0, 0.3 * unit], [0.2, 1.0], [0.8, -0.7 * unit]])
    data, noise = np.abs(rows @ np.array([1.0, 0.5])), 0.5
    rng = np.random.default_rng(0)
    u = rng.standard_normal((2, 400_000)) + (1j * rng.standard_normal((2, 400_000)) if unit == 1j else 0)
    weights = np.exp(-np.sum((data[:, None] - np.abs(rows @ u)) ** 2, axis=0) / (2 * noise**2))
    exact = phase_retrieval.exact_outer_product(data, rows, noise=noise, cells=81)
    deviations = u[:, None] * u[None].conj() - exact[:, :, None]
    for part in (deviations.real, deviations.imag):
        error = np.sqrt(np.sum((weights * part) ** 2, axis=-1)) / weights.sum()
        assert np.all(np.abs(np.sum(weights * part, axis=-1)) / weights.sum() <= 5 * error + 1e-12)


def diffraction():
    return phase_retrieval.coded_diffraction(jax.random.key(0), SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "symmetry"),
    [
        (phase_retrieval.model, Symmetry(SignFlip(), "image")),
        (phase_retrieval.complex_model, Symmetry(GlobalPhase(axis=0), "wave")),
    ],
    ids=["real", "complex"],
)
def test_diffraction_loses_the_sign_or_phase_and_nothing_else(model, symmetry):
    prior = Matern(Grid(SHAPE), range=0.3, scale=1.0, smoothness=0.5)
    problem = {"forward": diffraction(), "prior": prior}
    data = jnp.ones((4, *SHAPE))
    assert check_invariance(model, symmetry, model_args=(data,), model_kwargs=problem).holds
    sites = symmetry.sites
    shift = Symmetry(CyclicShift(SHAPE), sites)
    found = check_invariance(model, shift, model_args=(data,), model_kwargs=problem)
    assert "data" in str(found)
    assert not found.holds


def test_the_spectral_estimate_points_to_the_signal():
    """Its correlation with a signal of 256 pixels is about 0.7 with four masks; a random direction has 0.06."""
    forward = diffraction()
    truth = dist.Normal().sample(jax.random.key(1), SHAPE)
    data = phase_retrieval.simulate(jax.random.key(2), truth, forward=forward)
    estimate = phase_retrieval.spectral_estimate(data, forward, SHAPE)
    assert estimate.shape == SHAPE
    cosine = jnp.vdot(estimate, truth) / jnp.linalg.norm(estimate) / jnp.linalg.norm(truth)
    assert abs(cosine) > 0.5
    np.testing.assert_allclose(jnp.linalg.norm(estimate), jnp.linalg.norm(truth), rtol=0.05)


@pytest.mark.slow
def test_a_blind_deconvolution_has_its_shifts():
    symmetry = Symmetry(CyclicShift((blind_deconvolution.SIZE,)), {"image": 1, "kernel": -1})
    (image, kernel), data = blind_deconvolution.simulate(jax.random.key(0), noise=1e-6)
    np.testing.assert_allclose(blind_deconvolution.convolve(kernel, image), data, atol=1e-4)
    moved = symmetry.action(symmetry.group.elements()[1], {"image": image, "kernel": kernel})
    np.testing.assert_allclose(blind_deconvolution.convolve(moved["kernel"], moved["image"]), data, atol=1e-4)
    assert blind_deconvolution.place(moved["kernel"]) != blind_deconvolution.place(kernel)
    same = {"places": np.full(4, 0.25, np.float32)}
    assert check_invariance(blind_deconvolution.model, symmetry, model_args=(data,), model_kwargs=same).holds
    broken = check_invariance(blind_deconvolution.model, symmetry, model_args=(data,))
    assert not broken.holds
    assert "kernel" in str(broken)
