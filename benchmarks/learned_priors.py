"""Learned priors on held-out images: densities, and reconstructions from a quarter of the pixels.

- density: bits per dimension of the 10,000 test images under the flow, beside a full-covariance Gaussian and a mixture
  of 100 Gaussians (scikit-learn, extra ``benchmarks``) fitted to training images;
- inpainting: test images (``--images``, 50) from 25 % of their pixels with noise 0.05, under the Matérn field (closed
  form), the flow, the VAE and the VAE with a residual field (NUTS on the whitened model): peak signal-to-noise ratio of
  the posterior mean, and coverage of the central 90 % intervals. A flow's image takes a minute; what is done is kept in
  output/, where an interrupted run goes on.

    python benchmarks/learned_priors.py FOLDER_OF_FASHION_MNIST [density] [inpainting]
"""

import argparse
import json
import time
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS, init_to_value
from tqdm import tqdm

import numpyro_inverse as ni
from benchmarks._record import keep, machine, measured, package
from models import fashion_mnist
from models._bits_per_dimension import bits_per_dimension
from numpyro_inverse.infer import LowRankNUTS
from numpyro_inverse.nn import dequantize
from numpyro_inverse.nn.pretrained import load_pretrained

HERE = Path(__file__).parent
OURS = package("numpyro_inverse")
# Warm-up iterations, draws, chains.
LENGTHS = {"vae": (150, 100, 2), "vae_plus_residual": (150, 100, 2), "flow": (70, 100, 1)}
LEVEL = 0.9
OUTPUT = HERE.parent / "output" / "learned_priors"


def bits(log_prob):
    """Mean negative log density in bits per pixel of the 256 grey values."""
    return float(8 - np.mean(log_prob) / 784 / np.log(2))


def density(images):
    """The flow beside Gaussians, all on the same dequantised test images."""
    training = np.asarray(dequantize(images.train, jax.random.key(1)), np.float64).reshape(-1, 784)
    test = np.asarray(dequantize(images.test, jax.random.key(2)), np.float64).reshape(-1, 784)
    values = {
        "flow": bits_per_dimension(load_pretrained("fashion_mnist_flow"), images.test, jax.random.key(2)),
        "full-covariance Gaussian": bits(gaussian(training, test)),
        "mixture of 100 Gaussians": bits(mixture(training, test)),
    }
    return [
        record
        for method, value in values.items()
        for record in measured(
            "density", method, OURS if method == "flow" else package("scikit-learn"), {"density [bits a pixel]": value}
        )
    ]


def gaussian(training, test):
    """Log densities under the Gaussian with the training rows' mean and covariance."""
    root = np.linalg.cholesky(np.cov(training, rowvar=False))
    z = np.linalg.solve(root, (test - training.mean(axis=0)).T)
    return -0.5 * np.sum(z**2, axis=0) - np.log(np.diag(root)).sum() - 0.5 * len(root) * np.log(2 * np.pi)


def mixture(training, test, components=100, rounds=3):
    """100 full covariances: k-means, then classification EM (Celeux and Govaert 1992), each covariance shrunk to its
    diagonal by Ledoit and Wolf's rule, for a component has about 600 images and 784 directions."""
    from scipy.linalg import solve_triangular
    from scipy.special import logsumexp
    from sklearn.cluster import KMeans
    from sklearn.covariance import ledoit_wolf

    def fitted(rows):
        mean, sd = rows.mean(axis=0), rows.std(axis=0)
        return mean, np.linalg.cholesky(sd[:, None] * ledoit_wolf((rows - mean) / sd)[0] * sd), len(rows)

    def log_joint(parts, rows):
        out = []
        for mean, root, count in parts:
            z = solve_triangular(root, (rows - mean).T, lower=True)
            log_volume = np.log(np.diag(root)).sum() + 0.5 * len(root) * np.log(2 * np.pi)
            out.append(np.log(count / len(training)) - 0.5 * np.sum(z**2, axis=0) - log_volume)
        return np.stack(out)

    labels = KMeans(components, n_init=1, max_iter=50, random_state=0).fit(training).labels_
    for i in range(rounds):
        numbers = np.bincount(labels, minlength=components)
        parts = [fitted(training[labels == k]) for k in np.flatnonzero(numbers > 20)]
        if i < rounds - 1:
            labels = np.argmax(log_joint(parts, training), axis=0)
    return logsumexp(log_joint(parts, test), axis=0)


def exact_matern(forward, data):
    """Posterior mean and standard deviation of all images at once, in closed form."""
    prior = fashion_mnist.matern()
    with jax.enable_x64(True):
        root = np.asarray(jax.jacobian(prior.from_base)(jnp.zeros(fashion_mnist.SHAPE)), float).reshape(784, 784)
        matrix = np.asarray(jax.vmap(forward.mv)(jnp.eye(784).reshape(784, 28, 28)), float).reshape(784, -1).T
    covariance = root @ root.T
    gain = covariance @ matrix.T
    gain = gain @ np.linalg.inv(matrix @ gain + fashion_mnist.NOISE**2 * np.eye(len(matrix)))
    level = fashion_mnist.MATERN["mean"]
    mean = level + (np.asarray(data, float) - level * matrix.sum(axis=1)) @ gain.T
    sd = np.sqrt(np.diag(covariance - gain @ matrix @ covariance))
    return mean.reshape(-1, 28, 28), np.broadcast_to(sd.reshape(28, 28), mean.reshape(-1, 28, 28).shape)


def kernel(name, model):
    """NUTS; for the flow's 784 latents with the low-rank metric, all 196 pixels' worth, from the base's centre."""
    if name != "flow":
        return NUTS(model, max_tree_depth=6)
    centre = init_to_value(values={"image_latent": jnp.zeros(fashion_mnist.SHAPE)})
    return LowRankNUTS(model, rank=196, adapt_mass_matrix=False, max_tree_depth=8, init_strategy=centre)


def sampler(name, prior, forward):
    """Draws of the image given data, on the whitened model; compiled once for all data."""
    model = ni.whiten(lambda data: fashion_mnist.model(data, prior=prior, forward=forward))
    warmup, draws, chains = LENGTHS[name]

    @jax.jit
    def draw(key, data):
        mcmc = MCMC(
            kernel(name, model),
            num_warmup=warmup,
            num_samples=draws,
            num_chains=chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, data=data)
        return mcmc.get_samples(group_by_chain=True)["image"]

    return draw


def reconstruction(draw, name, number, key, data):
    """Mean, quantiles, median ESS, R-hat and seconds of one image; kept in a file, from which a run goes on."""
    file = OUTPUT / f"{name}_{'_'.join(map(str, LENGTHS[name]))}_{number}.npz"
    if not file.exists():
        start = time.perf_counter()
        draws = np.asarray(draw(jax.random.fold_in(key, 1), jnp.asarray(data, jnp.float32)), float)
        tree = az.from_dict({"posterior": {"image": draws.reshape(*draws.shape[:2], -1)}})
        rhat = np.nanquantile(az.rhat(tree)["image"], 0.95) if len(draws) > 1 else np.nan
        ess = np.nanmedian(az.ess(tree)["image"])
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=(0, 1))
        OUTPUT.mkdir(parents=True, exist_ok=True)
        found = [draws.mean(axis=(0, 1)), low, high, ess, rhat, time.perf_counter() - start]
        part = file.with_suffix(".part.npz")
        np.savez(part, *found)
        part.replace(file)
    with np.load(file) as arrays:
        return list(arrays.values())


def summary(truth, mean, low, high):
    """Figures of one prior over all images."""
    error = np.mean((mean - truth) ** 2, axis=(1, 2))
    inside = (truth >= low) & (truth <= high)
    seen = {"all pixels": truth >= 0, "brighter than 1/256": truth >= 1 / 256}
    return {
        "mean PSNR [dB]": float(np.mean(-10 * np.log10(error))),
        "standard error of it [dB]": float(np.std(-10 * np.log10(error)) / len(error) ** 0.5),
        **{f"coverage of 90 % intervals, {k}": float(inside[where].mean()) for k, where in seen.items()},
    }


def inpainting(names, number):
    """The first test images from a quarter of their pixels."""
    forward = fashion_mnist.inpainting()
    keys = jax.random.split(jax.random.key(0), 50)[:number]
    images = fashion_mnist.test_images()[:number]
    pairs = [fashion_mnist.simulate(k, image=i, forward=forward) for k, i in zip(keys, images, strict=True)]
    truth, data = (np.stack([np.asarray(p[i], float) for p in pairs]) for i in (0, 1))
    mean, sd = exact_matern(forward, data)
    width = 1.6448536269514722 * sd
    case = f"inpainting, {number} images"
    keep("learned_priors", measured(case, "matern", OURS, summary(truth, mean, mean - width, mean + width)), machine())
    priors = {
        "flow": fashion_mnist.flow,
        "vae": fashion_mnist.vae,
        "vae_plus_residual": fashion_mnist.vae_plus_residual,
    }
    for name in names:
        draw = sampler(name, priors[name](), forward)
        found = [reconstruction(draw, name, i, keys[i], data[i]) for i in tqdm(range(number), desc=name)]
        mean, low, high, ess, rhat, seconds = zip(*found, strict=True)
        values = summary(truth, np.stack(mean), np.stack(low), np.stack(high)) | {
            "wall time per image, median [s]": np.median(seconds),
            "ESS of the median pixel, median image": np.median(ess),
            "ESS of the median pixel, smallest image": np.min(ess),
        }
        if LENGTHS[name][2] > 1:
            values["R-hat, 95 % quantile of pixels, median image"] = np.median(rhat)
            values["R-hat, 95 % quantile of pixels, largest image"] = np.max(rhat)
        lengths = "warm-up, draws, chains: " + ", ".join(map(str, LENGTHS[name]))
        keep("learned_priors", measured(case, name, OURS, values, note=lengths), machine())
        print(name, json.dumps(values, indent=1, default=float), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the files of Fashion-MNIST are; without it no density")
    parser.add_argument("parts", nargs="*", default=["density", "inpainting"])
    parser.add_argument("--priors", nargs="*", default=["vae", "vae_plus_residual", "flow"])
    parser.add_argument("--images", type=int, default=50, help="of the inpainting, 50 at most")
    arguments = parser.parse_args()
    if "density" in arguments.parts and arguments.folder:
        keep("learned_priors", density(fashion_mnist.load(arguments.folder)), machine())
    if "inpainting" in arguments.parts:
        inpainting(arguments.priors, arguments.images)
