# %% [markdown]
# # Electron tomography of a needle, from tilts within ±76°
#
# A real tilt series (77 projections of one slice of a needle, 6.7 nm bins). Ten tilts are held out and predicted. The
# missing wedge of 28° leaves directions that no datum informs, and the posterior says where.
#
# Data: the aligned HAADF series of etspy 1.3.0 (NIST), of which `models/data/needle.npz` has one slice, cropped and
# binned; the notice is in `models/data/needle.LICENSE`.

# %%
import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC
from scipy.optimize import minimize

import models
import numpyro_inverse as ni
from numpyro_inverse.denoisers import TotalVariation
from numpyro_inverse.operators import Matrix, Radon
from numpyro_inverse.solvers import LeastSquares, pnp_fista

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Limited-angle electron tomography with held-out tilts.")
parser.add_argument("--draws", type=int, default=400, help="independent draws of the posterior")
parser.add_argument("--coarser", type=int, default=2, choices=[1, 2, 4], help="joins so many bins and pixels")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
start = time.perf_counter()
numpyro.enable_x64()

# %% [markdown]
# ## Data
# Intensities over the background, in thousands. The errors of such data are no counting noise alone. Diffraction and
# drift of the beam make errors in proportion to the signal y, errors of alignment in proportion to its slope y', so
# that the standard deviation is the root of a² + (b y)² + (c y')², all three inferred; a is at least a two-thousandth
# of the peak, for pixels represent no image better. The signal in it is the mean of the neighboring tilts, so that no
# datum sets its own weight.

# %%
with np.load(Path(models.__file__).parent / "data" / "needle.npz") as file:
    tilts, background, bin_nm = file["tilt_degrees"], float(file["background"]), float(file["bin_nm"])
    y = (file["sinogram"] - background) / 1000
y = y.reshape(len(tilts), -1, args.coarser).mean(axis=2)
n, width = y.shape[1], bin_nm * args.coarser
near = (np.roll(y, 1, axis=0) + np.roll(y, -1, axis=0)) / 2
near[[0, -1]] = y[[1, -2]]
held_out = np.zeros(len(tilts), bool)
held_out[np.linspace(4, len(tilts) - 5, 10).round().astype(int)] = True
train = ~held_out
grid = ni.domains.Grid((n, n), extent=n * width)  # nm
angles = np.deg2rad(tilts)


def scanner(which):
    return Radon(grid, angles[which], num_bins=n, bin_width=width)


def noise_sd(which, a, b, c):
    signal, slope = near[which], np.gradient(near[which], width, axis=1)
    return jnp.sqrt(a**2 + (b * signal) ** 2 + (c * slope) ** 2)


# %% [markdown]
# ## Hyperparameters by the evidence
# In the space of the data, with gradients.

# %%
some = np.flatnonzero(train)
rows = jnp.asarray(scanner(some).as_matrix())
modes = jax.vmap(lambda row: grid.transform(row.reshape(grid.shape)).ravel())(rows)  # A in the field's own basis


@jax.jit
@jax.value_and_grad
def loss(log_parameters):
    range_, scale, *noise = jnp.exp(log_parameters)
    spread = ni.distributions.Matern(grid, range=range_, scale=scale, smoothness=1.0).amplitudes.ravel()
    covariance = (modes * spread**2) @ modes.T + jnp.diag(noise_sd(some, *noise).ravel() ** 2)
    law = dist.MultivariateNormal(jnp.zeros(len(modes)), covariance_matrix=covariance)
    return -law.log_prob(jnp.asarray(y[some]).ravel())


first = np.log([5 * width, y.max() / (n * width / 2), 0.1, 0.02, 1.0])
bounds = [(None, None)] * 2 + [(np.log(y.max() / 2000), None)] + [(None, None)] * 2
best = minimize(lambda p: tuple(np.asarray(v) for v in loss(p)), first, jac=True, method="L-BFGS-B", bounds=bounds)
range_, scale, *noise = np.exp(best.x)
print(
    f"by evidence: range {range_:.0f} nm, scale {scale:.4f}, noise {noise[0]:.3f}, {noise[1]:.1%} of "
    f"the signal, {noise[2]:.2f} nm of its slope"
)


# %% [markdown]
# ## The posterior
# Gaussian, by independent draws. Beside it the most probable image under total variation, with two weights: points
# without error bars.
# %%
def model(sd, forward, data=None):
    image = numpyro.sample("image", ni.distributions.Matern(grid, range=range_, scale=scale, smoothness=1.0))
    numpyro.sample("data", dist.Normal(forward(image), sd).to_event(2), obs=data)


sd = noise_sd(train, *noise)
mcmc = MCMC(ni.infer.ExactGaussian(model), num_warmup=0, num_samples=args.draws, progress_bar=False)
mcmc.run(jax.random.key(0), sd, scanner(train), data=jnp.asarray(y[train]))
draws = np.asarray(mcmc.get_samples()["image"])

out = scanner(held_out)
clean = np.asarray(out(draws))
spread_out = np.asarray(noise_sd(held_out, *noise))
predicted = clean + spread_out * np.random.default_rng(1).normal(size=clean.shape)
low, high = np.quantile(predicted, [0.05, 0.95], axis=0)
inside = (low <= y[held_out]) & (y[held_out] <= high)
print(
    f"{held_out.sum()} held-out tilts, {inside.size} data: {inside.mean():.1%} in their 90 % intervals; "
    f"of those with a tenth of the peak {inside[y[held_out] > 0.1 * y.max()].mean():.1%}"
)
print("by tilt:", ", ".join(f"{t:.0f}°: {share:.0%}" for t, share in zip(tilts[held_out], inside.mean(1), strict=True)))

weighted = Matrix(
    jnp.asarray(scanner(train).as_matrix()) / sd.ravel()[:, None], in_shape=grid.shape, out_shape=(sd.size,)
)
term = LeastSquares(weighted, jnp.asarray(y[train]).ravel() / sd.ravel(), 1.0)
step = 1 / float(weighted.norm_bound()) ** 2
errors = {"Matérn": np.sqrt(np.mean(((clean.mean(0) - y[held_out]) / spread_out) ** 2))}
sharp = {}
for weight in (0.3, 1.0):
    name = f"TV, weight {weight:g}"
    denoiser = TotalVariation(weight / scale, iterations=30)
    found = pnp_fista(term, denoiser, jnp.zeros(grid.shape), sigma=step**0.5, step=step, max_steps=500, tolerance=1e-5)
    sharp[name] = np.asarray(found.x)
    errors[name] = np.sqrt(np.mean(((np.asarray(out(found.x)) - y[held_out]) / spread_out) ** 2))
print("held-out misfit in noise standard deviations:", ", ".join(f"{k}: {v:.2f}" for k, v in errors.items()))

# %%
figure, axes = plt.subplots(1, 5, figsize=(16, 3.4), layout="constrained")
box = {"extent": (0, n * width, n * width, 0), "cmap": "gray"}
axes[0].imshow(y, aspect="auto", cmap="gray", extent=(0, n * width, tilts[-1], tilts[0]))
for tilt in tilts[held_out]:
    axes[0].axhline(tilt, color="C1", lw=0.7)
axes[0].set(title="tilt series (orange: held out)", xlabel="nm", ylabel="tilt (degrees)")
mean, spread = draws.mean(axis=0), draws.std(axis=0)
shared = {"vmin": 0.0, "vmax": float(np.quantile(mean, 0.999))}
for axis, (title, image) in zip(
    axes[1:3], {"Matérn, mean": mean, "TV, weight 1": sharp["TV, weight 1"]}.items(), strict=True
):
    axis.imshow(image, **box, **shared)
    axis.set(title=title, xlabel="nm")
shown = axes[3].imshow(spread, **(box | {"cmap": "viridis"}))
axes[3].set(title="Matérn, standard deviation", xlabel="nm")
figure.colorbar(shown, ax=axes[3], shrink=0.8)
row = held_out.sum() // 2
place = (np.arange(n) + 0.5) * width
axes[4].fill_between(place, low[row], high[row], alpha=0.4, label="predicted, 90 %")
axes[4].plot(place, y[held_out][row], "k.", ms=4, label="measured")
axes[4].set(title=f"held-out tilt, {tilts[held_out][row]:.0f}°", xlabel="nm", ylabel="intensity")
axes[4].legend(frameon=False, fontsize=8)
figure.savefig(args.output / "electron_tomography.png", dpi=110)
print(f"{args.output / 'electron_tomography.png'}; {time.perf_counter() - start:.0f} seconds")
