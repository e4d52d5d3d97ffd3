# %% [markdown]
# # One photograph, three priors
#
# A blurred photograph with noise under total variation, a Gaussian field and a denoiser that was trained on other
# photographs: three posteriors of the same data, and how many of the true pixels their 90 % intervals hold.

# %%
import argparse
from pathlib import Path

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import numpyro_inverse as ni
from models import restoration
from numpyro_inverse import denoisers, factors, nn

parser = argparse.ArgumentParser(description="A photograph under total variation, a Gaussian field and a denoiser.")
parser.add_argument("--draws", type=int, default=70, help="of each of two chains")
parser.add_argument("--size", type=int, default=48, help="side of the picture, in pixels")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the figure goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The problem
# A part of the camera, which the denoiser has not seen, blurred over 5 x 5 pixels.

# %%
NOISE = 0.03
shape = (args.size, args.size)
truth = restoration.photograph()[8 : 8 + args.size, 40 : 40 + args.size]
blur = restoration.blur(shape, side=5)
_, data = restoration.simulate(jax.random.key(0), image=truth, forward=blur, noise=NOISE)

# %% [markdown]
# ## Three posteriors
# Two priors are potentials, the law of the site; the Gaussian field has exact draws. The denoiser is of the
# gradient-step kind, so that its prior has a density and NUTS may sample it, on values in [0, 1]: it has seen no
# others, and says nothing of use about them.

# %%
denoiser = nn.load_pretrained("gradient_step_denoiser")
priors = {
    "total variation": factors.RED(denoisers.TotalVariation(weight=25.0, iterations=50), sigma=0.02),
    "denoiser": factors.GradientStep(denoiser, sigma=0.07),
}


def gaussian(data=None):
    image = numpyro.sample("image", restoration.gaussian_field(shape))
    numpyro.sample("data", dist.Normal(blur @ image, NOISE).to_event(2), obs=data)


chains = {"num_chains": 2, "chain_method": "vectorized", "num_samples": args.draws}
exact = MCMC(ni.infer.ExactGaussian(gaussian), num_warmup=0, **chains)
exact.run(jax.random.key(1), data=data)
runs = {"Gaussian field": exact}
for name, prior in priors.items():
    mcmc = MCMC(NUTS(restoration.model, max_tree_depth=5), num_warmup=args.draws, **chains)
    options = {"prior": prior, "support": restoration.UNIT, "forward": blur, "shape": shape, "noise": NOISE}
    start = np.stack([data, 0.5 * data + 0.25]).clip(0.02, 0.98)
    mcmc.run(jax.random.key(2), data=data, init_params={"image": np.log(start / (1 - start))}, **options)
    runs[name] = mcmc

# %% [markdown]
# ## What they say

# %%
figure, axes = plt.subplots(3, 4, figsize=(9, 7), layout="constrained")
gray = {"cmap": "gray", "vmin": 0, "vmax": 1}
axes[0, 0].imshow(truth, **gray)
axes[0, 0].set_title("truth")
axes[1, 0].imshow(data, **gray)
axes[1, 0].set_title(f"data, {restoration.decibels(data, truth):.1f} dB")
axes[2, 0].axis("off")
for column, name in enumerate(("Gaussian field", "total variation", "denoiser"), start=1):
    draws = np.asarray(runs[name].get_samples(group_by_chain=True)["image"])
    flat = draws.reshape(-1, *shape)
    mean, sd = flat.mean(axis=0), flat.std(axis=0)
    low, high = np.quantile(flat, (0.05, 0.95), axis=0)
    outside = np.where(truth < low, -1.0, np.where(truth > high, 1.0, 0.0))
    inside = np.mean(outside == 0)
    ess = np.median(az.ess(draws.reshape(*draws.shape[:2], -1)[..., ::97]))
    quality = restoration.decibels(mean, truth)
    print(f"{name:16s} mean {quality:.2f} dB, 90 % intervals hold {inside:.1%} of the pixels, median ESS {ess:.0f}")
    axes[0, column].imshow(mean, **gray)
    axes[0, column].set_title(f"{name}\nmean, {quality:.1f} dB")
    shown = axes[1, column].imshow(sd, cmap="viridis", vmin=0, vmax=0.15)
    axes[1, column].set_title("standard deviation")
    axes[2, column].imshow(outside, cmap="coolwarm", vmin=-1.5, vmax=1.5)
    axes[2, column].set_title(f"{inside:.0%} inside 90 %")
figure.colorbar(shown, ax=axes[1, 1:], shrink=0.8)
for axis in axes.ravel():
    axis.set_xticks([])
    axis.set_yticks([])
figure.savefig(args.output / "photograph.png", dpi=120)
print(args.output / "photograph.png")
