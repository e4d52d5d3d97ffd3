"""Trains the flow of 8 x 8 patches of photographs that ships with the package; ten minutes on two cores.

    python -m training.patch_flow

Run from the root of a checkout. The photographs are scikit-image's; the cameraman is held out.
"""

import argparse
import hashlib
from pathlib import Path

import jax
import numpy as np

from models._bits_per_dimension import bits_per_dimension
from numpyro_inverse.nn import dequantize, fit_flow, pretrained, save
from numpyro_inverse.nn.pretrained import PATCH

SEED = 0
PATCHES = 200_000
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "brick", "grass", "gravel", "coins")
HELD_OUT = "camera"
SETTINGS = {"learning_rate": 2e-3, "max_epochs": 6, "batch_size": 512, "held_out": 0.05}
NAME = "patch_flow"


def patches(name: str, number: int, rng: np.random.Generator) -> np.ndarray:
    """Patches of one photograph, grey, at random places, turned and mirrored at random; rows of 64 integers."""
    from skimage import color, data

    image = getattr(data, name)()
    if image.ndim == 3:
        image = np.round(255 * color.rgb2gray(image)).astype(np.uint8)
    rows, columns = (rng.integers(0, n - PATCH + 1, number) for n in image.shape)
    cut = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH))[rows, columns]
    turned = np.where(rng.random(number)[:, None, None] < 0.5, cut, cut.transpose(0, 2, 1))
    turned = np.where(rng.random(number)[:, None, None] < 0.5, turned, turned[:, ::-1])
    return np.where(rng.random(number)[:, None, None] < 0.5, turned, turned[:, :, ::-1]).reshape(number, -1)


def gaussian_bits_per_dimension(training: np.ndarray, rows: np.ndarray) -> float:
    """The same score of the Gaussian with the mean and covariance of the training rows."""
    mean, covariance = (
        (training / 256).mean(axis=0),
        np.cov(training / 256, rowvar=False) + np.eye(PATCH**2) / 12 / 256**2,
    )
    root = np.linalg.cholesky(covariance)
    z = np.linalg.solve(root, ((rows + 0.5) / 256 - mean).T)
    log_prob = -0.5 * np.sum(z**2, axis=0) - np.log(np.diag(root)).sum() - 0.5 * PATCH**2 * np.log(2 * np.pi)
    return 8 - np.mean(log_prob) / PATCH**2 / np.log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=f"{NAME}.checkpoint", help="where an interrupted training goes on")
    parser.add_argument("--out", default=str(Path(pretrained.__file__).parent / f"{NAME}.safetensors"))
    arguments = parser.parse_args()
    rng = np.random.default_rng(SEED)
    rows = np.concatenate([patches(name, PATCHES // len(PHOTOGRAPHS), rng) for name in PHOTOGRAPHS])
    rows = rows[rng.permutation(len(rows))]
    test = patches(HELD_OUT, 20_000, rng)
    made, trained, scored = jax.random.split(jax.random.key(SEED), 3)
    fit = fit_flow(
        pretrained.patch_flow(made, rows[:50_000] / 256),
        rows,
        key=trained,
        prepare=dequantize,
        checkpoint=arguments.checkpoint,
        **SETTINGS,
    )
    print(f"{fit.stopped}; held-out losses {fit.held_out_loss}")
    score = bits_per_dimension(fit.module, test, scored, batch=2000)
    save(
        arguments.out,
        fit.module,
        name=NAME,
        seed=SEED,
        settings=SETTINGS,
        epochs=len(fit.held_out_loss),
        photographs=PHOTOGRAPHS,
        held_out_photograph=HELD_OUT,
        training_patches_sha256=hashlib.sha256(rows.tobytes()).hexdigest(),
        test_bits_per_dimension=score,
        gaussian_test_bits_per_dimension=gaussian_bits_per_dimension(rows, test),
    )
    print(f"held-out photograph: {score:.3f} bits per dimension")


if __name__ == "__main__":
    main()
