# %% [markdown]
# # What does the prior know?
#
# A held-out image of clothes, seen in a quarter of its pixels with noise, under four priors in the same model: a
# Matérn field, a normalizing flow, the decoder of a variational autoencoder, and that decoder with a residual field.

# %%
import argparse
from pathlib import Path

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, init_to_median

import numpyro_inverse as ni
from models import fashion_mnist
from numpyro_inverse.calibration import manifold_distance

parser = argparse.ArgumentParser(description="One inverse problem under four priors, three of them learned.")
parser.add_argument("--image", type=int, default=12, help="which of the 400 test images")
parser.add_argument("--draws", type=int, default=40, help="of the Markov chains")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the figure goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The problem

# %%
forward = fashion_mnist.inpainting(fraction=0.25)
image = fashion_mnist.test_images()[args.image]
truth, data = fashion_mnist.simulate(jax.random.key(1), image=image, forward=forward)


def model(data=None, prior=None):
    image = numpyro.sample("image", prior)
    numpyro.sample("data", dist.Normal(forward @ image, fashion_mnist.NOISE).to_event(1), obs=data)


# %% [markdown]
# ## Four posteriors
# All by NUTS on the whitened model.

# %%
priors = {
    "Matérn": fashion_mnist.matern(),
    "flow": fashion_mnist.flow(),
    "VAE": fashion_mnist.vae(),
    "VAE + residual": fashion_mnist.vae_plus_residual(),
}
trees = {}
for name, prior in priors.items():
    kernel = NUTS(ni.whiten(model), max_tree_depth=5, init_strategy=init_to_median(num_samples=5))
    options = {"num_chains": 2, "chain_method": "vectorized"}
    mcmc = MCMC(kernel, num_warmup=args.draws, num_samples=args.draws, **options)
    mcmc.run(jax.random.key(2), data=data, prior=prior)
    trees[name] = ni.to_arviz(mcmc, keep_latent=True, posterior_predictive=False, log_likelihood=False)

# %% [markdown]
# ## What they say

# %%
figure, axes = plt.subplots(3, 5, figsize=(10, 6.2), layout="constrained")
seen = np.full(fashion_mnist.SHAPE, np.nan)
seen.ravel()[np.asarray(forward.index)] = data
gray = {"cmap": "gray", "vmin": 0, "vmax": 1}
axes[0, 0].imshow(truth, **gray)
axes[0, 0].set_title("truth")
axes[1, 0].imshow(seen, **gray)
axes[1, 0].set_title("data")
axes[2, 0].axis("off")
rows = {}
for column, (name, tree) in zip(axes[:, 1:].T, trees.items(), strict=True):
    draws = tree["posterior"]["image"].values.reshape(-1, *fashion_mnist.SHAPE)
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = (truth >= low) & (truth <= high)
    psnr = -10 * np.log10(np.mean((mean - truth) ** 2))
    column[0].imshow(mean, **gray)
    column[0].set_title(f"{name}\n{psnr:.1f} dB")
    spread = column[1].imshow(sd, cmap="viridis", vmin=0, vmax=0.3)
    column[2].imshow(np.where(inside, np.nan, 1.0), cmap="autumn", vmin=0, vmax=1)
    column[2].set_title(f"{inside.mean():.0%} inside", fontsize="medium")
    diagnostics = az.summary(tree, var_names=["image"], kind="diagnostics")
    rows[name] = {
        "PSNR of the mean, dB": psnr,
        "coverage of 90 % intervals": inside.mean(),
        "mean sd": sd.mean(),
        "median bulk ESS": np.nanmedian(diagnostics["ess_bulk"].astype(float)),
        "95 % quantile of R-hat": np.nanquantile(diagnostics["r_hat"].astype(float), 0.95),
    }
for label, axis in zip(
    ("posterior mean", "standard deviation", "outside their\n90 % interval"), axes[:, 1], strict=True
):
    axis.set_ylabel(label)
for axis in axes.ravel():
    axis.set(xticks=[], yticks=[])
figure.colorbar(spread, ax=axes[1, 1:], shrink=0.8)
path = args.output / "learned_prior.png"
figure.savefig(path, dpi=150)

columns = list(next(iter(rows.values())))
print("prior".ljust(16) + "".join(c.rjust(len(c) + 3) for c in columns))
for name, row in rows.items():
    print(name.ljust(16) + "".join(f"{row[c]:.3g}".rjust(len(c) + 3) for c in columns))
print(az.summary(trees["VAE"], var_names=["image_latent"]).head(8))

# %% [markdown]
# ## Is the truth within the decoder's range?

# %%
held_out = (fashion_mnist.test_images()[100:112] + 0.5) / 256
search = {"num_starts": 4, "num_steps": 20}
distance = manifold_distance(priors["VAE"], truth[None], held_out=held_out, rng_key=jax.random.key(3), **search)
print(distance.verdict())
print(path)
