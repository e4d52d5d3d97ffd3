"""Images of clothes: the reader, the three problems under the four priors, and the shipped weights."""

import gzip
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density

import numpyro_inverse as ni
from models import fashion_mnist
from numpyro_inverse.distributions import Flow
from numpyro_inverse.nn import dequantize, load_metadata
from numpyro_inverse.nn.pretrained import load_pretrained, pretrained_about
from training import patch_flow

PROBLEMS = (fashion_mnist.blur, fashion_mnist.inpainting, fashion_mnist.compressed_sensing)


@pytest.fixture(scope="module")
def priors():
    return [fashion_mnist.matern(), fashion_mnist.flow(), fashion_mnist.vae(), fashion_mnist.vae_plus_residual()]


@pytest.mark.slow
def test_the_problems_under_the_priors(key, priors):
    """A finite density of every whitened model, at a draw of the base."""
    image = fashion_mnist.test_images()[0]
    for problem in PROBLEMS:
        forward = problem()
        truth, data = fashion_mnist.simulate(key, image=image, forward=forward)
        np.testing.assert_array_equal(np.floor(np.asarray(truth) * 256), image)
        assert abs(np.std(data - forward @ truth) / fashion_mnist.NOISE - 1) < 5 / (2 * data.size) ** 0.5
    for prior in priors:
        model = ni.whiten(fashion_mnist.model)
        base = prior.base_dist if hasattr(prior, "base_dist") else prior

        def potential(z, prior=prior, model=model):
            arguments = {"data": data, "prior": prior, "forward": forward}
            return log_density(model, (), arguments, {"image_latent": z})[0]

        assert np.isfinite(jax.jit(potential)(base.sample(key)))


@pytest.mark.slow
def test_the_shipped_flow_has_its_score(key):
    """Bits per dimension of 100 of the test images, against the score of all; 5 standard errors."""
    flow = Flow(load_pretrained("fashion_mnist_flow"))
    x = dequantize(fashion_mnist.test_images()[:100], key)
    bits = 8 - np.asarray(jax.jit(flow.log_prob)(x), float) / 784 / np.log(2)
    score = pretrained_about("fashion_mnist_flow")["test_bits_per_dimension"]
    assert abs(bits.mean() - score) < 5 * bits.std() / 10
    assert score < 3.2


def test_the_shipped_autoencoder_has_its_score(key):
    """Mean square error of reconstructions of 100 test images, against that of all; 5 standard errors."""
    vae = load_pretrained("fashion_mnist_vae")
    x = dequantize(fashion_mnist.test_images()[:100], key)
    error = np.asarray(jax.jit(jax.vmap(lambda x: jnp.mean((x - vae.decode(vae.encode(x)[0])) ** 2)))(x), float)
    about = pretrained_about("fashion_mnist_vae")
    assert abs(error.mean() - about["test_reconstruction_rms"] ** 2) < 5 * error.std() / 10


@pytest.mark.slow
def test_the_shipped_patch_flow_has_its_score(key):
    """Bits per dimension of 1,000 patches of the held-out photograph, against the score of 20,000 others; 5 standard
    errors. No Gaussian can do as well: not even the one with the mean and covariance of those very patches.
    """
    drawn = np.random.default_rng(zlib.crc32(b"patches"))
    patches = patch_flow.patches(patch_flow.HELD_OUT, 1000, drawn)
    x = np.asarray(dequantize(patches, key), float)
    flow = Flow(load_pretrained("patch_flow"))
    bits = 8 - np.asarray(jax.jit(flow.log_prob)(jnp.asarray(x, jnp.float32)), float) / 64 / np.log(2)
    error = bits.std() * (1 / 1000 + 1 / 20_000) ** 0.5
    assert abs(bits.mean() - pretrained_about("patch_flow")["test_bits_per_dimension"]) < 5 * error
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(x, rowvar=False, bias=True))[1]
    assert bits.mean() + 5 * error < 8 + entropy / 64 / np.log(2)


def test_names_that_are_not_there():
    assert ni.nn.load_pretrained is load_pretrained
    with pytest.raises(ValueError, match=r"no weights 'clothes'.*fashion_mnist_flow"):
        load_pretrained("clothes")
    with pytest.raises(FileNotFoundError):
        load_metadata("clothes.safetensors")


def test_the_reader(tmp_path):
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        fashion_mnist.load(tmp_path)
    for name, count in fashion_mnist.FILES.values():
        header = np.array([2051, count, 28, 28], ">i4").tobytes()
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
            file.write(header + bytes(count * 784))
    images = fashion_mnist.load(tmp_path)
    assert images.train.shape == (60_000, 28, 28)
    assert images.test.shape == (10_000, 28, 28)
    path = tmp_path / fashion_mnist.FILES["test"][0]
    for damaged in (path.read_bytes()[:100], b"no gzip", gzip.compress(b"short")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            fashion_mnist.load(tmp_path)
