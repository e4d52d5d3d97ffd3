"""Learned priors on held-out images: densities, and reconstructions from a quarter of the pixels.

- density: bits per dimension of the 10,000 test images under the flow, beside a full-covariance Gaussian and a mixture
  of 100 Gaussians (scikit-learn, extra ``benchmarks``) fitted to training images;
- inpainting: test images (``--images``, 50) from 25 % of their pixels with noise 0.05, under the Matérn field (closed
  form), the flow, the VAE and the VAE with a residual field (NUTS on the whitened model): peak signal-to-noise ratio of
  the posterior mean, and coverage of the central 90 % intervals.

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
from models import fashion_mnist
from numpyro_inverse.infer import LowRankNUTS
from numpyro_inverse.nn import dequantize
from numpyro_inverse.nn.pretrained import load_pretrained
from numpyro_inverse.nn.pretrained.train_fashion_mnist_flow import bits_per_dimension

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "learned_priors.json"
# Warm-up iterations, draws, chains.
LENGTHS = {"vae": (150, 100, 2), "vae_plus_residual": (150, 100, 2), "flow": (60, 80, 1)}
LEVEL = 0.9


def bits(log_prob):
    """Mean negative log density in bits per pixel of the 256 grey values."""
    return float(8 - np.mean(log_prob) / 784 / np.log(2))


def density(images):
    """The flow beside Gaussians, all on the same dequantised test images."""
    training = np.asarray(dequantize(images.train, jax.random.key(1)), np.float64).reshape(-1, 784)
    test = np.asarray(dequantize(images.test, jax.random.key(2)), np.float64).reshape(-1, 784)
    return {
        "flow": bits_per_dimension(load_pretrained("fashion_mnist_flow"), images.test, jax.random.key(2)),
        "full-covariance Gaussian": bits(gaussian(training, test)),
        "mixture of 100 Gaussians": bits(mixture(training, test)),
    }


def gaussian(training, test):
    """Log densities under the Gaussian with the training rows' mean and covariance."""
    root = np.linalg.cholesky(np.cov(training, rowvar=False))
    z = np.linalg.solve(root, (test - training.mean(axis=0)).T)
    return -0.5 * np.sum(z**2, axis=0) - np.log(np.diag(root)).sum() - 0.5 * len(root) * np.log(2 * np.pi)


def mixture(training, test, components=100, directions=100):
    """100 full covariances in the 100 leading principal components, times one Gaussian for the other 684 directions.

    In all 784 directions they would have 31 million parameters, 600 images for each matrix of 784 x 784.
    """
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    axes = PCA().fit(training)
    training, test = axes.transform(training), axes.transform(test)
    model = GaussianMixture(components, max_iter=40, random_state=0).fit(training[:, :directions])
    return model.score_samples(test[:, :directions]) + gaussian(training[:, directions:], test[:, directions:])


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
    """NUTS; for the flow's 784 latents with the low-rank metric, started at the centre of the base."""
    if name != "flow":
        return NUTS(model, max_tree_depth=6)
    centre = init_to_value(values={"image_latent": jnp.zeros(fashion_mnist.SHAPE)})
    return LowRankNUTS(model, rank=150, max_tree_depth=5, init_strategy=centre)


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


def summary(truth, mean, low, high):
    """Figures of one prior over all images."""
    error = np.mean((mean - truth) ** 2, axis=(1, 2))
    inside = (truth >= low) & (truth <= high)
    seen = {"all": truth >= 0, "brighter than 1/256": truth >= 1 / 256}
    return {
        "mean PSNR, dB": float(np.mean(-10 * np.log10(error))),
        "standard error of it": float(np.std(-10 * np.log10(error)) / len(error) ** 0.5),
        "coverage of 90 % intervals": {k: float(inside[where].mean()) for k, where in seen.items()},
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
    out = {f"matern, {number} images": summary(truth, mean, mean - width, mean + width)}
    priors = {
        "flow": fashion_mnist.flow,
        "vae": fashion_mnist.vae,
        "vae_plus_residual": fashion_mnist.vae_plus_residual,
    }
    for name in names:
        draw = sampler(name, priors[name](), forward)
        start, parts, rhat, ess = time.perf_counter(), [], [], []
        for key, one in tqdm(list(zip(keys, data, strict=True)), desc=name):
            found = np.asarray(draw(jax.random.fold_in(key, 1), jnp.asarray(one, jnp.float32)), float)
            flat = found.reshape(*found.shape[:2], -1)
            tree = az.from_dict({"posterior": {"image": flat}})
            if len(found) > 1:
                rhat.append(np.nanquantile(az.rhat(tree)["image"], 0.95))
            ess.append(np.nanmedian(az.ess(tree)["image"]))
            flat = flat.reshape(-1, 784)
            tail = (1 - LEVEL) / 2
            parts.append([a.reshape(28, 28) for a in (flat.mean(0), *np.quantile(flat, [tail, 1 - tail], axis=0))])
        mean, low, high = (np.stack(v) for v in zip(*parts, strict=True))
        label = f"{name}, {number} images"
        out[label] = summary(truth, mean, low, high) | {
            "wall seconds per image": (time.perf_counter() - start) / number,
            "warm-up, draws, chains": LENGTHS[name],
            "ESS, median pixel: median and smallest of the images": [np.median(ess), np.min(ess)],
        }
        if rhat:
            rhat_label = "R-hat, 95 % quantile of pixels: median and largest of the images"
            out[label][rhat_label] = [np.median(rhat), np.max(rhat)]
        print(json.dumps({label: out[label]}, indent=2), flush=True)
        keep(inpainting=out)
    return out


def keep(**results):
    """Adds results to the file."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part, values in results.items():
        before[part] = before.get(part, {}) | values
    RESULTS.write_text(json.dumps(before, indent=2, default=float) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the files of Fashion-MNIST are; without it no density")
    parser.add_argument("parts", nargs="*", default=["density", "inpainting"])
    parser.add_argument("--priors", nargs="*", default=["vae", "vae_plus_residual", "flow"])
    parser.add_argument("--images", type=int, default=50, help="of the inpainting, 50 at most")
    arguments = parser.parse_args()
    if "density" in arguments.parts and arguments.folder:
        keep(density=density(fashion_mnist.load(arguments.folder)))
    if "inpainting" in arguments.parts:
        keep(inpainting=inpainting(arguments.priors, arguments.images))
    print(RESULTS.read_text())
