"""Trains a denoiser of gray photographs that ships with the package; minutes on a GPU.

    python -m training.denoisers gradient_step
    python -m training.denoisers firmly_nonexpansive

Run from the root of a checkout. The photographs are scikit-image's, with values in [0, 1]; three are held out. Noise
levels are uniform in [0.01, 0.2]; the loss is the mean square error divided by the noise level, which is about the same
at all of them. The gradient-step denoiser D has a symmetric Jacobian J by construction; a penalty keeps ``|2 gamma J -
I|`` at most 1 (D is gamma-cocoercive) where a Lanczos iteration finds it larger, at noisy photographs. With
``--relax`` what is left is taken out afterwards: the residual x - D(x) is shortened until no negative eigenvalue of J
is found at larger photographs of the training set.
"""

import argparse
import hashlib
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from numpyro_inverse.denoisers import ConvolutionalNetwork, FirmlyNonexpansiveDenoiser, GradientStepDenoiser
from numpyro_inverse.nn._fit_module import fit_module
from numpyro_inverse.nn._persistence import load, load_metadata, save
from numpyro_inverse.nn._training import TrainingSettings

SEED = 0
PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "clock",
    "coffee",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
    "stereo_motorcycle",
    "text",
)
HELD_OUT = ("camera", "coins", "chelsea")
SCALES = (1.0, 0.7, 0.5, 0.35)  # photographs are trained on in these sizes
CROP = 64
LEVELS = (0.01, 0.2)
SCORED = (0.02, 0.06, 0.1, 0.2)
EPOCHS = 10
SETTINGS = {"batch_size": 64, "learning_rate": 2e-3, "gradient_norm": 1.0, "held_out": 0.02, "patience": EPOCHS}
LOSS_SCALE = 100.0  # makes losses numbers of order one
PENALTY = {"gamma": 0.25, "margin": 0.02, "weight": 300.0, "iterations": 16, "crops": 16}
RELAXATION = {"crop": 128, "number": 48, "iterations": 60}
FLOOR = 0.03  # of the eigenvalues of J that --relax leaves
OUT = Path(__file__).parents[1] / "numpyro_inverse" / "nn" / "pretrained"


def photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image, gray, in [0, 1]."""
    from skimage import color, data

    image = getattr(data, name)()
    image = image[0] if isinstance(image, tuple) else image
    return (color.rgb2gray(image) if image.ndim == 3 else image / 255.0).astype(np.float32)


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """By scikit-image's ``resize``, linear interpolation after a Gaussian filter against aliasing."""
    from skimage import transform

    return transform.resize(image, shape, anti_aliasing=True).astype(np.float32)


def training_images() -> list[np.ndarray]:
    """All photographs in all sizes in which a crop fits."""
    images = [photograph(name) for name in PHOTOGRAPHS]
    scaled = [
        image if scale == 1 else resized(image, (round(scale * image.shape[0]), round(scale * image.shape[1])))
        for image in images
        for scale in SCALES
    ]
    return [image for image in scaled if min(image.shape) >= CROP]


def crops(images: list[np.ndarray], number: int, rng: np.random.Generator, side: int = CROP) -> np.ndarray:
    """Rows of a crop's first pixel among the pixels of all images, its image's width, and which of the square's eight
    symmetries turns it; more of a larger image, in proportion to its side."""
    sides = np.array([np.sqrt(image.size) for image in images])
    which = rng.choice(len(images), number, p=sides / sides.sum())
    starts = np.cumsum([0] + [image.size for image in images])
    heights, widths = (np.array([image.shape[axis] for image in images])[which] for axis in (0, 1))
    row, column = (np.floor(rng.random(number) * (n - side + 1)).astype(int) for n in (heights, widths))
    turn = rng.integers(0, 8, number)
    return np.stack([starts[which] + row * widths + column, widths, turn], axis=1).astype(np.int32)


def cut(pixels: jax.Array, row: jax.Array, side: int = CROP) -> jax.Array:
    """The crop of one row."""
    start, width, turn = row
    at = jnp.arange(side)
    crop = pixels[start + at[:, None] * width + at[None, :]].astype(jnp.float32)
    crop = jnp.where(turn % 2 == 1, crop.T, crop)
    crop = jnp.where(turn // 2 % 2 == 1, crop[::-1], crop)
    return jnp.where(turn // 4 == 1, crop[:, ::-1], crop)


def unit(v: jax.Array) -> jax.Array:
    return v / jnp.linalg.norm(v)


def extremes(denoiser, x: jax.Array, sigma: jax.Array, key: jax.Array, iterations: int) -> jax.Array:
    """The smallest and the largest eigenvalue of J at ``x``, J being symmetric, from within: Rayleigh quotients of the
    extreme Ritz vectors of a Lanczos iteration, which are held fixed when this is differentiated."""

    def product(v):
        return jax.jvp(lambda x: denoiser(x, sigma), (x,), (v.reshape(x.shape),))[1].ravel()

    def step(carry, i):
        basis, v = carry
        basis = basis.at[i].set(v)
        w = product(v)
        rest = w - basis.T @ (basis @ w)
        return (basis, unit(rest - basis.T @ (basis @ rest))), w

    start = unit(jax.random.normal(key, (x.size,), x.dtype))
    (basis, _), images = jax.lax.scan(step, (jnp.zeros((iterations, x.size), x.dtype), start), jnp.arange(iterations))
    small = basis @ images.T
    _, vectors = jnp.linalg.eigh((small + small.T) / 2)
    ends = jax.lax.stop_gradient(vectors[:, jnp.array([0, -1])].T @ basis)
    ends = ends / jnp.linalg.norm(ends, axis=1, keepdims=True)
    return jax.vmap(lambda v: v @ product(v))(ends)


def make_loss(pixels: jax.Array, penalized: bool):
    def loss(denoiser, rows, key):
        clean = jax.vmap(cut, (None, 0))(pixels, rows)
        levels, noise, start = jax.random.split(key, 3)
        sigma = jax.random.uniform(levels, (len(rows),), minval=LEVELS[0], maxval=LEVELS[1])
        noisy = clean + sigma[:, None, None] * jax.random.normal(noise, clean.shape)
        error = jnp.mean((jax.vmap(denoiser)(noisy, sigma) - clean) ** 2, axis=(1, 2))
        value = LOSS_SCALE * jnp.mean(error / sigma)
        if penalized:
            n = min(PENALTY["crops"], len(rows))
            ends = jax.vmap(extremes, (None, 0, 0, 0, None))(
                denoiser, noisy[:n], sigma[:n], jax.random.split(start, n), PENALTY["iterations"]
            )
            outside = jnp.abs(2 * PENALTY["gamma"] * ends - 1) - 1 + PENALTY["margin"]
            value += PENALTY["weight"] * jnp.mean(jax.nn.relu(outside) ** 2)
        return value

    return loss


def relaxed(
    denoiser: GradientStepDenoiser,
    images: list[np.ndarray],
    rng: np.random.Generator,
    key: jax.Array,
    floor: float = FLOOR,
) -> tuple[GradientStepDenoiser, float]:
    """The denoiser x - t (x - D(x)) with the largest t, at most 1, that leaves no eigenvalue of its Jacobian below
    ``floor`` at noisy photographs, and t. The network's last layer is scaled by the root of t."""
    side = RELAXATION["crop"]
    images = [image for image in images if min(image.shape) >= side]
    pixels, smallest = jnp.asarray(np.concatenate([image.ravel() for image in images])), []
    for row in crops(images, RELAXATION["number"], rng, side):
        key, level, noise, start = jax.random.split(key, 4)
        clean = cut(pixels, jnp.asarray(row), side)
        sigma = jax.random.uniform(level, minval=LEVELS[0], maxval=LEVELS[1])
        noisy = clean + sigma * jax.random.normal(noise, clean.shape)
        smallest.append(float(eqx.filter_jit(extremes)(denoiser, noisy, sigma, start, RELAXATION["iterations"])[0]))
    t = min(1.0, (1 - floor) / (1 - min(smallest)))

    def last(denoiser):
        return denoiser.network.kernels[-1], denoiser.network.biases[-1]

    return eqx.tree_at(last, denoiser, tuple(leaf * np.sqrt(t) for leaf in last(denoiser))), t


def psnr(denoiser, image: np.ndarray, sigma: float, key: jax.Array) -> float:
    """Peak signal-to-noise ratio in dB, of one realization of the noise; nothing is clipped."""
    noisy = image + sigma * jax.random.normal(key, image.shape)
    return float(-10 * jnp.log10(jnp.mean((eqx.filter_jit(denoiser)(noisy, jnp.asarray(sigma)) - image) ** 2)))


@eqx.filter_jit
def norms_at(denoiser, x, sigma, start, probe, iterations: int = 300):
    """Of J, I - J and 2 gamma J - I by power iteration, from below; and the relative asymmetry of J."""

    def jvp(v):
        return jax.jvp(lambda x: denoiser(x, sigma), (x,), (v,))[1]

    def vjp(v):
        return jax.vjp(lambda x: denoiser(x, sigma), x)[1](v)[0]

    def norm(a, b):
        """Of a J + b I."""

        def grow(_, v):
            image = a * jvp(v) + b * v
            return unit(a * vjp(image) + b * image)

        v = jax.lax.fori_loop(0, iterations, grow, unit(start))
        return jnp.linalg.norm(a * jvp(v) + b * v)

    forward, backward = jvp(probe), vjp(probe)
    asymmetry = jnp.linalg.norm(forward - backward) / jnp.linalg.norm(forward)
    return norm(1.0, 0.0), norm(1.0, -1.0), norm(2 * PENALTY["gamma"], -1.0), asymmetry


def norms(denoiser, image: np.ndarray, sigma: float, key: jax.Array) -> dict[str, float]:
    """Of the Jacobian at a noisy image."""
    noise, start, probe = jax.random.split(key, 3)
    x = image + sigma * jax.random.normal(noise, image.shape)
    probes = jax.random.normal(start, x.shape), jax.random.normal(probe, x.shape)
    names = ("norm_J", "norm_I_minus_J", "norm_2_gamma_J_minus_I", "asymmetry")
    found = norms_at(denoiser, x, jnp.asarray(sigma), *probes)
    return {name: float(f"{value:.5g}") for name, value in zip(names, found, strict=True)}


def scores(denoiser, key: jax.Array) -> dict:
    """On the held-out photographs: the central 256 x 256 pixels of the camera, and all its 512 x 512 resized."""
    camera = photograph("camera")
    images = {
        "camera_256_center": camera[128:384, 128:384],
        "camera_256_resized": resized(camera, (256, 256)),
        "camera_128_resized": resized(camera, (128, 128)),
        "coins": photograph("coins"),
        "chelsea": photograph("chelsea"),
    }
    with jax.default_matmul_precision("highest"):
        decibels = {
            name: {str(sigma): round(psnr(denoiser, image, sigma, key), 3) for sigma in SCORED}
            for name, image in images.items()
        }
        jacobians = {str(sigma): norms(denoiser, images["camera_128_resized"], sigma, key) for sigma in SCORED}
    return {"held_out_psnr_db": decibels, "jacobian_norm_estimates_camera_128_resized": jacobians}


def made(name: str, arguments: argparse.Namespace, key: jax.Array):
    """The denoiser before training."""
    if name == "gradient_step":
        return GradientStepDenoiser(ConvolutionalNetwork(arguments.width, arguments.depth, key=key))
    return FirmlyNonexpansiveDenoiser(arguments.copies, arguments.width, arguments.depth, key=key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("gradient_step", "firmly_nonexpansive"))
    parser.add_argument("--steps", type=int, default=10_000, help="of the optimizer")
    parser.add_argument("--batch-size", type=int, default=SETTINGS["batch_size"])
    parser.add_argument("--learning-rate", type=float, default=SETTINGS["learning_rate"])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, help="5 for gradient_step, 8 for firmly_nonexpansive unless told")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--penalty", type=float, default=PENALTY["weight"], help="weight; 0: none")
    parser.add_argument("--margin", type=float, default=PENALTY["margin"], help="by which the norm is to stay below 1")
    parser.add_argument("--penalized-crops", type=int, default=PENALTY["crops"], help="crops of a batch with a penalty")
    parser.add_argument("--relax", action="store_true", help="shorten the residual of a gradient_step denoiser")
    parser.add_argument("--start", help="a file of weights to go on from, with the same architecture")
    parser.add_argument("--out", help="the file of the weights")
    arguments = parser.parse_args()
    if arguments.relax and arguments.name != "gradient_step":
        parser.error("--relax is for gradient_step")
    PENALTY.update(weight=arguments.penalty, margin=arguments.margin, crops=arguments.penalized_crops)
    arguments.depth = arguments.depth or {"gradient_step": 5, "firmly_nonexpansive": 8}[arguments.name]
    penalized = arguments.name == "gradient_step" and arguments.penalty > 0

    rng = np.random.default_rng(SEED)
    images = training_images()
    flat = np.concatenate([image.ravel() for image in images])
    pixels = jnp.asarray(flat, jnp.float16)  # more precise than their 8 bits
    print(f"{jax.devices()[0].device_kind}; {len(images)} images, {flat.size / 1e6:.1f} million pixels", flush=True)
    key, trained, scored = jax.random.split(jax.random.key(SEED), 3)
    relaxing = jax.random.key(SEED + 1)
    denoiser = made(arguments.name, arguments, key)
    denoiser = load(arguments.start, denoiser) if arguments.start else denoiser
    parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(denoiser, eqx.is_inexact_array)))
    loss = make_loss(pixels, penalized)

    epochs = min(EPOCHS, arguments.steps)
    settings = {
        **SETTINGS,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "max_epochs": epochs,
    }
    number = round(-(-arguments.steps // epochs) * arguments.batch_size / (1 - SETTINGS["held_out"])) + 1
    rows = crops(images, number, rng)
    started = time.monotonic()
    found = fit_module(
        denoiser, loss, rows, key=trained, settings=TrainingSettings(**settings), name="training/denoisers.py"
    )
    trained_denoiser, relaxation = found.module, None
    if arguments.relax:
        trained_denoiser, relaxation = relaxed(found.module, images, rng, relaxing)
    seconds = time.monotonic() - started
    print(f"{found.stopped}; {seconds:.0f} s; losses {found.training_loss}, {found.held_out_loss}")
    about = {
        "name": f"{arguments.name}_denoiser",
        "seed": SEED,
        "parameters": parameters,
        "steps": arguments.steps,
        "seconds": round(seconds),
        "device": jax.devices()[0].device_kind,
        "settings": settings,
        "architecture": {"width": arguments.width, "depth": arguments.depth, "copies": arguments.copies},
        "penalty": PENALTY if penalized else None,
        "relaxation": RELAXATION | {"floor": FLOOR, "t": relaxation} if arguments.relax else None,
        "started_from": load_metadata(arguments.start) if arguments.start else None,
        "noise_levels": LEVELS,
        "crop": CROP,
        "photographs": PHOTOGRAPHS,
        "scales": SCALES,
        "held_out_photographs": HELD_OUT,
        "training_pixels_sha256": hashlib.sha256(flat.tobytes()).hexdigest(),
        "held_out_loss": found.held_out_loss,
        **scores(trained_denoiser, scored),
    }
    out = Path(arguments.out or OUT / f"{arguments.name}_denoiser.safetensors")
    save(out, trained_denoiser, **about)
    print(about["held_out_psnr_db"])
    print(about["jacobian_norm_estimates_camera_128_resized"])
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
