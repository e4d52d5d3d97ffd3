"""Trains the variational autoencoder of Fashion-MNIST images that ships with the package; ten minutes on two cores.

    python -m training.fashion_mnist_vae FOLDER_OF_THE_IMAGES

Run from the root of a checkout, for the reader of the images is in ``models``.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from models import fashion_mnist
from numpyro_inverse.nn import VAE, dequantize, fit_vae, pretrained, save

SEED = 0
SETTINGS = {"learning_rate": 2e-3, "max_epochs": 14, "batch_size": 64, "gradient_norm": 100.0}
NAME = "fashion_mnist_vae"


def scores(vae: VAE, images: np.ndarray, key: jax.Array) -> dict[str, float]:
    """Means over dequantized images: the lower bound in nats, and how far an image is from its reconstruction (the
    decoded mean of its latent): root mean square over all pixels, and peak signal-to-noise ratio in dB per image."""
    levels, drawn = jax.random.split(key)
    x = dequantize(images, levels)

    @eqx.filter_jit
    def of(vae: VAE, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        error = x - vae.decode(vae.encode(x)[0])
        return vae.elbo(x, key), jnp.mean(error**2)

    elbo, square = jax.lax.map(lambda pair: of(vae, *pair), (x, jax.random.split(drawn, len(x))), batch_size=500)
    return {
        "test_elbo_nats": float(jnp.mean(elbo)),
        "test_reconstruction_rms": float(jnp.sqrt(jnp.mean(square))),
        "test_reconstruction_psnr_db": float(jnp.mean(-10 * jnp.log10(square))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where the files of Fashion-MNIST are")
    parser.add_argument("--checkpoint", default=f"{NAME}.checkpoint", help="where an interrupted training goes on")
    parser.add_argument("--out", default=str(Path(pretrained.__file__).parent / f"{NAME}.safetensors"))
    arguments = parser.parse_args()
    images = fashion_mnist.load(arguments.folder)
    made, trained, scored = jax.random.split(jax.random.key(SEED), 3)
    fit = fit_vae(
        pretrained.fashion_mnist_vae(made),
        images.train,
        key=trained,
        prepare=dequantize,
        checkpoint=arguments.checkpoint,
        **SETTINGS,
    )
    print(f"{fit.stopped}; held-out losses {fit.held_out_loss}")
    found = scores(fit.module, images.test, scored)
    save(
        arguments.out,
        fit.module,
        name=NAME,
        seed=SEED,
        latent_size=fit.module.latent_size,
        settings=SETTINGS,
        epochs=len(fit.held_out_loss),
        training_images_sha256=fashion_mnist.digest(images.train),
        test_images_sha256=fashion_mnist.digest(images.test),
        scale=float(fit.module.scale),
        **found,
    )
    print(found)


if __name__ == "__main__":
    main()
