# %% [markdown]
# # A quarter of k-space: MRI with a learned prior
#
# A slice of a head, of which every fourth line of k-space was measured, most of them at low frequencies. Zero filling,
# a Matérn field and a denoiser that was trained on photographs: what each says of the rest, and how many of the true
# pixels lie in its 90 % intervals.
#
# Data: the slice that matplotlib ships (`s1045.ima.gz`, 256 x 256, a magnitude image, its air cut to zero). So k-space
# is simulated, of a real image: the phase of a real scan, its coils and its motion are not in it.

# %%
import argparse
import time
from functools import partial
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib import cbook
from numpyro.infer import MCMC, NUTS

import numpyro_inverse as ni
from numpyro_inverse import factors, nn

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Undersampled MRI under a Matérn field and a learned denoiser.")
parser.add_argument("--draws", type=int, default=80, help="of each of two chains under the denoiser")
parser.add_argument("--coarser", type=int, default=3, choices=[2, 3, 4, 6], help="joins so many pixels a side")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
start = time.perf_counter()

# %% [markdown]
# ## Data
# Complex k-space with noise of 0.02 a part, where the image is in [0, 1] and the transform is orthonormal. The mask
# keeps whole lines: the eighth around frequency zero, then lines at random, rarer at high frequencies.

# %%
NOISE = 0.02
PIXEL = 1.0 * args.coarser  # mm, if those of the slice have 1 mm
with cbook.get_sample_data("s1045.ima.gz") as file:
    slice_ = np.frombuffer(file.read(), np.uint16).reshape(256, 256)[4:256, 16:208]
rows, columns = (side // args.coarser for side in slice_.shape)
truth = slice_.reshape(rows, args.coarser, columns, args.coarser).mean(axis=(1, 3)).astype(np.float32)
truth /= truth.max()

frequency = np.abs(np.fft.fftfreq(rows))
chance = np.where(frequency <= 1 / 16, 1e6, (1 + (frequency / 0.08) ** 2) ** -1.0)
lines = np.random.default_rng(3).choice(rows, rows // 4, replace=False, p=chance / chance.sum())
mask = np.zeros(truth.shape, bool)
mask[lines] = True
scanner = ni.operators.Fourier(mask)
data = scanner @ truth + NOISE * jax.random.normal(jax.random.key(0), scanner.out_shape)


def decibels(image):
    return float(-10 * np.log10(np.mean((np.asarray(image) - truth) ** 2)))


# Of a real image k-space says at -k what it says at k, so that the normal matrix A^T A is diagonal in the real Fourier
# modes of the grid: its diagonal is what it makes of ones.
grid = ni.domains.Grid(truth.shape, extent=(rows * PIXEL, columns * PIXEL), boundary="periodic")  # mm
measured = grid.transform(scanner.T @ (scanner @ grid.inverse_transform(jnp.ones(grid.shape))))
known = measured > 1e-3
filled = grid.inverse_transform(jnp.where(known, grid.transform(scanner.T @ data) / jnp.where(known, measured, 1), 0))
print(f"{len(lines)} of {rows} lines, with their mirror images {float(known.mean()):.0%} of k-space")

# %% [markdown]
# ## A Matérn field
# Its range and scale by NUTS on their own posterior, the image integrated out; the image given them by exact draws.

# %%


def matern(data=None):
    range_ = numpyro.sample("range", dist.LogNormal(jnp.log(20.0), 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(jnp.log(0.3), 0.5))
    image = numpyro.sample("image", ni.distributions.Matern(grid, range=range_, scale=scale, smoothness=1.0, mean=0.3))
    numpyro.sample("data", dist.Normal(scanner @ image, NOISE).to_event(2), obs=data)


chains = {"num_chains": 2, "chain_method": "vectorized", "progress_bar": False}
hyper = partial(NUTS, dense_mass=True, max_tree_depth=4)
gaussian = MCMC(ni.infer.ExactGibbs(matern, hyper), num_warmup=100, num_samples=100, **chains)
gaussian.run(jax.random.key(1), data=data)
found = gaussian.get_samples()
range_, scale = (float(found[name].mean()) for name in ("range", "scale"))
print(f"Matérn: range {range_:.0f} mm, scale {scale:.2f}")

# %% [markdown]
# ## A learned prior
# The gradient-step denoiser that ships with the package, trained on gray photographs, none of them medical. It has a
# potential, so that its prior has a density and NUTS may sample it. Far from [0, 1], where it was trained, that says
# nothing of use: a smooth wall, the Moreau envelope of the box's indicator, keeps the values near it.
#
# The coordinates z are those in which the posterior under white noise of 0.07 would be white: what was measured is
# known to the noise's standard deviation, what was not to something like 0.07. NUTS needs no mass matrix then.

# %%
prior = factors.GradientStep(nn.load_pretrained("gradient_step_denoiser"), sigma=0.05)
wall = factors.MoreauEnvelope(lambda x, _: jnp.clip(x, 0.0, 1.0), lambda _: 0.0, smoothing=0.05**2)
spread = 1 / jnp.sqrt(1 / 0.07**2 + measured / NOISE**2)


def learned(data=None):
    z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), truth.shape))
    image = numpyro.deterministic("image", grid.inverse_transform(spread * z))
    prior("denoiser", image)
    wall("wall", image)
    numpyro.sample("data", dist.Normal(scanner @ image, NOISE).to_event(2), obs=data)


first = jnp.clip(found["image"][jnp.array([0, -1])], 0.0, 1.0)  # of either chain of the Matérn field
kernel = NUTS(learned, max_tree_depth=4, adapt_mass_matrix=False, step_size=0.15, target_accept_prob=0.65)
denoiser = MCMC(kernel, num_warmup=min(50, args.draws), num_samples=args.draws, **chains)
denoiser.run(jax.random.key(2), data=data, init_params={"z": grid.transform(first) / spread})

# %% [markdown]
# ## What they say
# A stationary field cannot guess what k-space lacks: its mean is no nearer than zero filling, and its intervals are
# right on average and equally wide everywhere. The denoiser is 3 dB nearer, and doubts where there is much to see.
# Coverage is counted in the head alone, for the air is easy.

# %%
head = truth > 0.05
panels = {"zero filling": (np.asarray(filled), None, None)}
print(f"zero filling    {decibels(filled):.2f} dB")
for name, run in {"Matérn field": gaussian, "learned prior": denoiser}.items():
    draws = np.asarray(run.get_samples(group_by_chain=True)["image"])
    flat = draws.reshape(-1, *truth.shape)
    mean, sd = flat.mean(axis=0), flat.std(axis=0)
    low, high = np.quantile(flat, (0.05, 0.95), axis=0)
    outside = np.where(truth < low, -1.0, np.where(truth > high, 1.0, 0.0))
    some = draws.reshape(*draws.shape[:2], -1)[..., ::29]
    print(
        f"{name:15s} {decibels(mean):.2f} dB, mean sd {sd[head].mean():.3f}, 90 % intervals hold "
        f"{np.mean(outside[head] == 0):.1%} of the head's pixels; median ESS {np.median(az.ess(some)):.0f} "
        f"of {len(flat)}, largest R-hat of {some.shape[-1]} pixels {np.max(az.rhat(some)):.2f}"
    )
    panels[name] = mean, sd, outside

figure, axes = plt.subplots(3, 4, figsize=(10, 9.6), layout="constrained")
gray = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0}
axes[0, 0].imshow(truth, **gray)
axes[0, 0].set_title(f"truth\npixels of {PIXEL:g} mm")
axes[1, 0].imshow(np.fft.fftshift(mask), cmap="gray", interpolation="nearest")
axes[1, 0].set_title(f"{len(lines)} of {rows} lines of k-space")
axes[2, 0].axis("off")
for column, (name, (mean, sd, outside)) in enumerate(panels.items(), start=1):
    axes[0, column].imshow(mean, **gray)
    axes[0, column].set_title(f"{name}\n{decibels(mean):.1f} dB")
    error = axes[1, column].imshow(mean - truth, cmap="RdBu_r", vmin=-0.3, vmax=0.3)
    axes[1, column].set_title("error")
    if sd is None:
        axes[2, column].axis("off")
        continue
    spread_shown = axes[2, column].imshow(sd, cmap="viridis", vmin=0.0, vmax=0.12)
    axes[2, column].set_title(f"standard deviation\n{np.mean(outside[head] == 0):.0%} in 90 % intervals")
figure.colorbar(error, ax=axes[1, 1:], shrink=0.8, label="error, largest value 1")
figure.colorbar(spread_shown, ax=axes[2, 2:], shrink=0.8, label="largest value 1")
for axis in axes.ravel():
    axis.set_xticks([])
    axis.set_yticks([])
figure.savefig(args.output / "mri.png", dpi=110)
print(f"{args.output / 'mri.png'}; {time.perf_counter() - start:.0f} seconds")
