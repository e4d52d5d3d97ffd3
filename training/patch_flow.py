"""Trains the flow of 8 x 8 patches of photographs that ships with the package; ten minutes on two cores.

    python -m training.patch_flow

The photographs are scikit-image's; the cameraman is held out.
"""

import argparse
import hashlib
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse.nn._coupling_flow import CouplingFlow
from numpyro_inverse.nn._fit_flow import dequantize, fit_flow, flow_log_prob
from numpyro_inverse.nn._persistence import save
from numpyro_inverse.nn.pretrained import PATCH, patch_flow

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


def bits_per_dimension(flow: CouplingFlow, rows: np.ndarray, key: jax.Array) -> float:
    """Mean negative log density of dequantised patches, in bits per pixel of the 256 grey values."""
    log_prob = eqx.filter_jit(eqx.filter_vmap(flow_log_prob, in_axes=(None, 0)))
    x = np.array_split(np.asarray(dequantize(rows, key)), max(len(rows) // 2000, 1))
    total = sum(float(jnp.sum(log_prob(flow, part))) for part in x)
    return 8 - total / rows.size / np.log(2)


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
    parser.add_argument("--out", default=str(Path(__file__).parent / f"{NAME}.safetensors"))
    arguments = parser.parse_args()
    rng = np.random.default_rng(SEED)
    rows = np.concatenate([patches(name, PATCHES // len(PHOTOGRAPHS), rng) for name in PHOTOGRAPHS])
    rows = rows[rng.permutation(len(rows))]
    test = patches(HELD_OUT, 20_000, rng)
    made, trained, scored = jax.random.split(jax.random.key(SEED), 3)
    fit = fit_flow(
        patch_flow(made, rows[:50_000] / 256),
        rows,
        key=trained,
        prepare=dequantize,
        checkpoint=arguments.checkpoint,
        **SETTINGS,
    )
    print(f"{fit.stopped}; held-out losses {fit.held_out_loss}")
    score = bits_per_dimension(fit.module, test, scored)
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
