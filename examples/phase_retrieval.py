# %% [markdown]
# # A photograph from the amplitudes of its diffraction patterns
#
# A detector in the far field counts photons and does not see phases: u and -u give the same data. The posterior has two
# copies of everything, its mean is zero, and R-hat of a pixel says nothing. One `Symmetry` makes chains jump between
# the copies, and the pictures and diagnostics true.

# %%
import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from numpyro.infer import MCMC, NUTS, init_to_median
from skimage.data import camera

import numpyro_inverse as ni
from models import phase_retrieval
from numpyro_inverse.symmetry import SignFlip, Symmetry, check_invariance

parser = argparse.ArgumentParser(description="Phase retrieval from coded diffraction patterns.")
parser.add_argument("--size", type=int, default=32, help="pixels a side, a divisor of 512")
parser.add_argument("--draws", type=int, default=1000, help="of each of four chains")
parser.add_argument("--noise", type=float, default=0.3, help="in standard deviations of the image")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
shape = (args.size, args.size)

# %% [markdown]
# ## The problem
# Four masks of random phases in front of the object, and noise of 30 % of the signal.

# %%
block = 512 // args.size
truth = camera().reshape(args.size, block, args.size, block).mean(axis=(1, 3))
truth = jnp.asarray((truth - truth.mean()) / truth.std())
forward = phase_retrieval.coded_diffraction(jax.random.key(0), shape)
data = phase_retrieval.simulate(jax.random.key(1), truth, forward=forward, noise=args.noise)
prior = ni.distributions.Matern(ni.domains.Grid(shape), range=0.3, scale=1.0, smoothness=0.5)
problem = {"forward": forward, "prior": prior, "noise": args.noise}

sign = Symmetry(SignFlip(), "image")
print(check_invariance(phase_retrieval.model, sign, model_args=(data,), model_kwargs=problem))

# %% [markdown]
# ## The posterior
# NUTS on the whitened model, and after each draw a move along its orbit. The sampled site is `image_latent`, and as the
# field has mean zero its sign is that of the image.

# %%
moves = Symmetry(SignFlip(), "image_latent")
kernel = NUTS(ni.whiten(phase_retrieval.model), max_tree_depth=6, init_strategy=init_to_median(num_samples=10))
options = {"num_warmup": min(300, args.draws), "num_samples": args.draws, "num_chains": 4, "chain_method": "vectorized"}
mcmc = MCMC(ni.infer.OrbitMoves(kernel, moves), **options)
mcmc.run(jax.random.key(2), data, extra_fields=("orbit_accept_prob", "diverging"), **problem)
print(ni.infer.orbit_diagnostics(mcmc, moves).verdict())

# %% [markdown]
# ## Draws brought to one copy
# The nearest sign to an estimate that knows the data alone: the first eigenvector of a matrix of them.

# %%
draws = {"image": mcmc.get_samples()["image"]}
raw = np.asarray(draws["image"])
estimate = phase_retrieval.spectral_estimate(data, forward, shape)
image = np.asarray(ni.symmetry.canonicalize(draws, sign, {"image": estimate})["image"])
mean, sd = image.mean(axis=0), image.std(axis=0)
flipped = np.sign(np.vdot(mean, truth))
low, high = np.quantile(flipped * image, [0.05, 0.95], axis=0)
covered = np.mean((low <= truth) & (truth <= high))
error = np.sqrt(np.mean((flipped * mean - truth) ** 2))
print(f"error {error:.3f}, mean standard deviation {sd.mean():.3f}; nominal 90 % intervals cover {covered:.0%}")

# %%
figure, axes = plt.subplots(1, 5, figsize=(13, 3), layout="constrained")
gray = {"cmap": "gray", "vmin": float(truth.min()), "vmax": float(truth.max())}
panels = [
    ("photograph", truth, gray),
    ("one of four patterns (log)", np.log10(np.fft.fftshift(np.maximum(data[0], args.noise))), {"cmap": "magma"}),
    ("mean of all draws", raw.mean(axis=0), gray),
    ("mean of one copy", flipped * mean, gray),
    ("standard deviation", sd, {"cmap": "viridis"}),
]
for axis, (title, values, how) in zip(axes, panels, strict=True):
    shown = axis.imshow(values, **how)
    axis.set_title(title, fontsize=10)
    axis.axis("off")
    if how is not gray:
        figure.colorbar(shown, ax=axis, shrink=0.75)
figure.savefig(args.output / "phase_retrieval.png", dpi=110)
print(args.output / "phase_retrieval.png")
