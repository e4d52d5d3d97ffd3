r"""Small images of clothes: deblurring, inpainting and compressed sensing under learned priors.

:What: :math:`y = A u + \sigma \xi` with u an image of Fashion-MNIST and A a Gaussian blur (:func:`blur`), a quarter of
    the pixels at random (:func:`inpainting`), or 196 random sums of pixels (:func:`compressed_sensing`).
:Dimension: 28 x 28; lengths are in pixels.
:Prior: any NumPyro distribution over images: :func:`matern`, :func:`flow`, :func:`vae`, :func:`vae_plus_residual`.
:Data: a test image with noise; pixels are ``(integer + U) / 256``, U uniform on [0, 1].
:Likelihood: independent normal of standard deviation 0.05.
:Reference posterior: Gaussian in closed form for :func:`matern`; none for the others, whose posteriors are judged by
    the truths of held-out images (``benchmarks/learned_priors.py``).
:Source: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, 2017 (MIT licence). The first 400 test images come with
    ``models``; :func:`load` reads the whole set.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import UInt8

from numpyro_inverse.distributions import Flow, Matern, Pushforward
from numpyro_inverse.domains import Grid
from numpyro_inverse.nn import dequantize
from numpyro_inverse.nn.pretrained import load_pretrained
from numpyro_inverse.operators import Convolution, Mask, Matrix

FILES = {"train": ("train-images-idx3-ubyte.gz", 60_000), "test": ("t10k-images-idx3-ubyte.gz", 10_000)}
HOW = (
    "They come with Debian's package dataset-fashion-mnist (`apt-get install dataset-fashion-mnist` puts them in "
    "/usr/share/datasets/fashion-mnist; without root, `apt-get download dataset-fashion-mnist` and `dpkg -x`)."
)
SHIPPED = Path(__file__).parent / "data" / "fashion_mnist_test.npz"

SHAPE = (28, 28)
GRID = Grid(SHAPE, extent=(28.0, 28.0))
NOISE = 0.05
# Maximum likelihood over the first 1,000 training images; lengths in pixels.
MATERN = {"range": 4.97, "scale": 0.291, "smoothness": 1.02, "mean": 0.284}
# The same, with this smoothness, for what the autoencoder's reconstructions leave of these images.
RESIDUAL = {"range": 1.23, "scale": 0.0778, "smoothness": 1.5}


def model(data=None, *, prior, forward, noise=NOISE):
    """The NumPyro model: sites ``image`` and ``data``."""
    image = numpyro.sample("image", prior)
    mean = forward @ image
    numpyro.sample("data", dist.Normal(mean, noise).to_event(mean.ndim), obs=data)


def simulate(key, *, image, forward, noise=NOISE):
    """A truth, one image of integers dequantized as for the priors, and its data."""
    key_truth, key_noise = jax.random.split(key)
    truth = dequantize(image, key_truth)
    mean = forward @ truth
    return truth, mean + noise * jax.random.normal(key_noise, mean.shape)


def blur(width=1.5):
    """A Gaussian of standard deviation ``width`` pixels."""
    return Convolution.gaussian(GRID, width)


def inpainting(fraction=0.25, seed=0):
    """That fraction of the pixels, at random."""
    kept = np.random.default_rng(seed).permutation(784) < round(fraction * 784)
    return Mask(kept.reshape(SHAPE))


def compressed_sensing(number=196, seed=0):
    """Sums of all pixels with independent normal weights of variance 1/784."""
    weights = np.random.default_rng(seed).normal(size=(number, 784)) / 28
    return Matrix(weights, in_shape=SHAPE)


def matern():
    """A Matérn field with the parameters of greatest likelihood over training images."""
    return Matern(GRID, **MATERN)


def flow():
    """The normalizing flow that ships with the package."""
    return Flow(load_pretrained("fashion_mnist_flow"))


def vae():
    """The decoder that ships with the package: images outside its range have no probability."""
    decoder = load_pretrained("fashion_mnist_vae")
    return Pushforward(decoder.decode, dist.Normal(0, 1).expand([decoder.latent_size]).to_event(1))


def vae_plus_residual():
    """The decoder and a Matérn field like what it leaves of training images."""
    decoder = load_pretrained("fashion_mnist_vae")
    residual = Matern(GRID, **RESIDUAL)
    return Pushforward(decoder.decode, dist.Normal(0, 1).expand([decoder.latent_size]).to_event(1), residual=residual)


class FashionMNIST(NamedTuple):
    """Images, 0 black to 255 white."""

    train: UInt8[np.ndarray, "60000 28 28"]
    test: UInt8[np.ndarray, "10000 28 28"]


def load(folder: str | Path) -> FashionMNIST:
    """All images.

    Args:
        folder: where the files of the original distribution are.

    Raises:
        FileNotFoundError: they are not there; says how to get them.
        ValueError: a file is damaged.
    """
    return FashionMNIST(*(_read(Path(folder) / name, count) for name, count in FILES.values()))


def test_images() -> UInt8[np.ndarray, "400 28 28"]:
    """The first 400 test images, which come with this package."""
    with np.load(SHIPPED) as file:
        return file["images"]


def digest(images: UInt8[np.ndarray, "..."]) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()


def _read(path: Path, count: int) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"fashion_mnist.load: there is no {path.name} in {path.parent}. {HOW}")
    try:
        with gzip.open(path) as file:
            content = file.read()
        header = np.frombuffer(content[:16], ">i4")
        if tuple(header) != (2051, count, 28, 28):
            raise ValueError(f"its header is {tuple(header)}, not {(2051, count, 28, 28)}")
        return np.frombuffer(content[16:], np.uint8).reshape(count, 28, 28)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"fashion_mnist.load: {path.name} is damaged: {error}. {HOW}") from error
