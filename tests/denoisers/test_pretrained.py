"""The denoisers that ship: they score what their files say, and are what they claim to be."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from numpyro_inverse.denoisers import audit_denoiser, jacobian_norm
from numpyro_inverse.nn import load_pretrained, pretrained

LEAST = {  # dB on the held-out photograph at noise 0.1
    "firmly_nonexpansive_denoiser": 27.9,
    "gradient_step_denoiser": 28.9,
    "cocoercive_denoiser": 28.7,
}
SIDE, SIGMA = 256, 0.1


@pytest.fixture(scope="module")
def photograph():
    """The center of the photograph that was held out."""
    return jnp.asarray(data.camera()[128:384, 128:384] / 255.0, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAST)
def test_the_score_on_the_held_out_photograph(name, photograph):
    """With other noise than the file's. Two draws of the noise differ in patches of 16 x 16 pixels, taken for
    independent, by as much as gives the standard error of a score; six of the difference of two scores: a false alarm
    in 10^8."""
    noise = jax.random.normal(jax.random.key(7), (2, SIDE, SIDE))
    denoised = eqx.filter_jit(eqx.filter_vmap(load_pretrained(name), in_axes=(0, None)))(
        photograph + SIGMA * noise, SIGMA
    )
    error = (denoised - photograph) ** 2
    patches = jnp.mean(error.reshape(2, 16, 16, 16, 16), (2, 4)).reshape(2, -1)
    decibels = 10 / np.log(10) / float(jnp.mean(error[0]))
    spread = decibels * float(jnp.std(patches[0] - patches[1])) / np.sqrt(2) / 16
    score = float(-10 * jnp.log10(jnp.mean(error[0])))
    told = pretrained.pretrained_about(name)["held_out_psnr_db"]["camera_256_center"][str(SIGMA)]
    assert abs(score - told) < 6 * np.sqrt(2) * spread
    assert spread < 0.06
    assert score > LEAST[name]


@pytest.fixture(scope="module")
def noisy(photograph):
    crop = photograph[40:56, 90:106]
    return crop + SIGMA * jax.random.normal(jax.random.key(8), crop.shape)


@pytest.mark.slow
def test_what_the_audit_says_of_the_gradient_step_denoiser(noisy):
    denoiser = load_pretrained("gradient_step_denoiser")
    report = audit_denoiser(denoiser, noisy, SIGMA, rng_key=jax.random.key(9), num_probes=2, num_iterations=4)
    assert report.asymmetry.value < 1e-5
    assert report.potential.value < 1e-3
    assert "NUTS, HMC and MALA with the potential" in report.recommendation.samplers


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_the_cocoercive_denoiser_is_found_to_be_so(photograph, sigma):
    """At two crops of the held-out photograph, where |J / 2 - I| of the gradient-step denoiser is above 1 for more
    noise."""
    crops = [photograph[r : r + 32, c : c + 32] for r, c in ((40, 90), (150, 20))]
    points = [crop + sigma * jax.random.normal(jax.random.key(11), crop.shape) for crop in crops]
    options = {"rng_key": jax.random.key(12), "num_probes": 2, "num_iterations": 40}
    report = audit_denoiser(load_pretrained("cocoercive_denoiser"), points, sigma, **options)
    assert report.cocoercive.value < 1
    assert any("steps below 1.25 / L" in solver for solver in report.recommendation.solvers)
    if sigma == 0.2:
        assert audit_denoiser(load_pretrained("gradient_step_denoiser"), points, sigma, **options).cocoercive.value > 1


@pytest.mark.slow
def test_the_certificate_of_the_firmly_nonexpansive_denoiser_is_not_refuted(noisy):
    denoiser = load_pretrained("firmly_nonexpansive_denoiser")
    found = jacobian_norm(lambda x: 2 * denoiser(x, SIGMA) - x, noisy, rng_key=jax.random.key(9), num_iterations=8)
    assert 0.9 < found.bound <= denoiser.certificates(SIGMA)["firm"].bound * (1 + 1e-5)


def test_they_are_small():
    folder = Path(pretrained.__file__).parent
    assert sum((folder / f"{name}.safetensors").stat().st_size for name in LEAST) < 2e6
