"""Makes the cocoercive denoiser that ships from the gradient-step one; an hour and a half of two cores in all.

    python -m training.denoisers gradient_step --start SHIPPED --steps 700 --batch-size 8 --learning-rate 2e-4 \\
        --penalty 3000 --margin 0.05 --penalized-crops 4 --relax --out FIRST
    python -m training.denoisers gradient_step --start FIRST --steps 300 --batch-size 8 --learning-rate 2e-4 \\
        --penalty 3000 --margin 0.02 --penalized-crops 4 --relax --out SECOND
    python -m training.cocoercive_denoiser SECOND

SHIPPED is ``numpyro_inverse/nn/pretrained/gradient_step_denoiser.safetensors``. SECOND keeps the eigenvalues of the
Jacobian further from zero than is needed and pays for it in quality. Between its weights and SHIPPED's they cross zero;
a mean of the two, and a residual that is shortened by what is left, keeps them just above.
"""

import argparse

import jax
import numpy as np

from numpyro_inverse.nn._persistence import load, load_metadata, save
from numpyro_inverse.nn.pretrained import load_pretrained, pretrained_about
from training.denoisers import OUT, RELAXATION, SEED, relaxed, scores, training_images

SHARE = 0.7  # of the penalized weights in the mean
FLOOR = 0.04  # of the Jacobian's eigenvalues at training photographs; with 0.01 one of a held-out one was at -0.014


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("penalized", help="weights that were trained with a penalty")
    parser.add_argument("--out", default=OUT / "cocoercive_denoiser.safetensors", help="the file of the weights")
    arguments = parser.parse_args()
    shipped = load_pretrained("gradient_step_denoiser")
    penalized = load(arguments.penalized, shipped)
    mean = jax.tree.map(lambda a, b: (1 - SHARE) * a + SHARE * b, shipped, penalized)
    rng, key = np.random.default_rng(SEED), jax.random.key(SEED)
    denoiser, t = relaxed(mean, training_images(), rng, key, FLOOR)
    about = {
        "name": "cocoercive_denoiser",
        "share": SHARE,
        "relaxation": RELAXATION | {"floor": FLOOR, "t": t},
        "penalized": load_metadata(arguments.penalized),
        "architecture": pretrained_about("gradient_step_denoiser")["architecture"],
        **scores(denoiser, jax.random.key(SEED + 1)),
    }
    save(arguments.out, denoiser, **about)
    print(about)


if __name__ == "__main__":
    main()
