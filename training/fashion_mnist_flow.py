"""Trains the flow of Fashion-MNIST images that ships with the package; about an hour on two cores.

    python -m training.fashion_mnist_flow FOLDER_OF_THE_IMAGES

Run from the root of a checkout, for the reader of the images is in ``models``.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from models import fashion_mnist
from models._bits_per_dimension import bits_per_dimension
from numpyro_inverse.nn import dequantize, fit_flow, pretrained, save

SEED = 0
SETTINGS = {"learning_rate": 2e-3, "max_epochs": 10, "batch_size": 128}
NAME = "fashion_mnist_flow"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where the files of Fashion-MNIST are")
    parser.add_argument("--checkpoint", default=f"{NAME}.checkpoint", help="where an interrupted training goes on")
    parser.add_argument("--out", default=str(Path(pretrained.__file__).parent / f"{NAME}.safetensors"))
    arguments = parser.parse_args()
    images = fashion_mnist.load(arguments.folder)
    made, trained, scored, levels = jax.random.split(jax.random.key(SEED), 4)
    flow = pretrained.fashion_mnist_flow(made, np.asarray(dequantize(images.train[:20_000], levels)))
    fit = fit_flow(flow, images.train, key=trained, prepare=dequantize, checkpoint=arguments.checkpoint, **SETTINGS)
    print(f"{fit.stopped}; held-out losses {fit.held_out_loss}")
    score = bits_per_dimension(fit.module, images.test, scored)
    save(
        arguments.out,
        fit.module,
        name=NAME,
        seed=SEED,
        settings=SETTINGS,
        epochs=len(fit.held_out_loss),
        training_images_sha256=fashion_mnist.digest(images.train),
        test_images_sha256=fashion_mnist.digest(images.test),
        test_bits_per_dimension=score,
    )
    print(f"test images: {score:.3f} bits per dimension")


if __name__ == "__main__":
    main()
