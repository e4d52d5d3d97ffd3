# %% [markdown]
# # Data assimilation: where does a chaotic atmosphere begin?
#
# Lorenz's model of 1996 on a circle of 40 places. Every second place is measured every 0.1 time units (half a
# day of weather) for six days, with errors; the state at the beginning and the forcing are inferred, and the
# next six days forecast. The window is short: over long ones the exact likelihood of a chaotic path is a needle
# (`sbi.shattering`).

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
from numpyro.infer import MCMC, NUTS

import numpyro_inverse as ni
from models import lorenz96

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Lorenz-96: initial state and forcing from partial observations.")
parser.add_argument("--draws", type=int, default=300, help="of each of four chains")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
begin = time.perf_counter()

# %% [markdown]
# ## A path of the attractor, and data

# %%
WINDOW, FORECAST, EVERY, NOISE = 12, 12, 2, 1.0  # observation times of 0.1; places
key_start, key_noise, key_run = jax.random.split(jax.random.key(0), 3)
spun_up = lorenz96.trajectory(8.0 + jax.random.normal(key_start, (lorenz96.PLACES,)), 8.0, 100, 4)
truth = {"forcing": jnp.asarray(8.0), "start": spun_up[-1]}
path = lorenz96.trajectory(truth["start"], truth["forcing"], WINDOW + FORECAST, 4)
data = path[:WINDOW, ::EVERY] + NOISE * jax.random.normal(key_noise, (WINDOW, lorenz96.PLACES // EVERY))


def model(y=None):
    forcing = numpyro.sample("forcing", dist.Normal(8.0, 0.5))
    prior = dist.Normal(lorenz96.CENTER, lorenz96.SPREAD).expand((lorenz96.PLACES,))
    start = numpyro.sample("start", prior.to_event(1))
    states = lorenz96.trajectory(start, forcing, WINDOW, 4)
    numpyro.sample("y", dist.Normal(states[:, ::EVERY], NOISE).to_event(2), obs=y)


print(ni.operators.check_gradient(lambda z: lorenz96.trajectory(z["start"], z["forcing"], WINDOW, 4), truth))

# %% [markdown]
# ## Inference
# From four different states: draws of the prior.

# %%
kernel = NUTS(model, target_accept_prob=0.85, max_tree_depth=7)
mcmc = MCMC(
    kernel,
    num_warmup=args.draws,
    num_samples=args.draws,
    num_chains=4,
    chain_method="vectorized",
    progress_bar=False,
)
mcmc.run(key_run, data, extra_fields=("diverging", "num_steps"))
tree = ni.to_arviz(mcmc, model_args=(data,), log_likelihood=False, posterior_predictive=False)
import arviz as az  # noqa: E402

table = az.summary(tree, var_names=["forcing", "start"])
print(table.head(4).to_string())
print(f"largest R-hat {table['r_hat'].astype(float).max():.3f}")
draws = {name: np.asarray(x) for name, x in mcmc.get_samples().items()}

# %% [markdown]
# ## Held against the truth

# %%
paths = jax.jit(jax.vmap(lambda s, f: lorenz96.trajectory(s, f, WINDOW + FORECAST, 4)))(
    draws["start"], draws["forcing"]
)
paths = np.asarray(paths)
low, high = np.quantile(paths, [0.05, 0.95], axis=0)
inside = (low <= path) & (path <= high)
rmse = np.sqrt(np.mean((paths.mean(axis=0) - path) ** 2, axis=1))
start_low, start_high = np.quantile(draws["start"], [0.05, 0.95], axis=0)
covered = (start_low <= truth["start"]) & (truth["start"] <= start_high)
error = np.sqrt(np.mean((draws["start"].mean(axis=0) - truth["start"]) ** 2))
print(f"forcing {draws['forcing'].mean():.2f} +- {draws['forcing'].std():.2f}, truth {truth['forcing']:.2f}")
print(f"initial state: rms error {error:.2f} (prior {lorenz96.SPREAD}), {np.mean(covered):.0%} in 90 % intervals")
print(
    f"end of the window: rms error {rmse[WINDOW - 1]:.2f} (of the data {NOISE}), {inside[:WINDOW].mean():.0%} covered"
)
print(
    f"forecast: rms error {rmse[WINDOW]:.2f} at its beginning, {rmse[-1]:.2f} at its end, "
    f"{inside[WINDOW:].mean():.0%} covered"
)

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
times = lorenz96.INTERVAL * np.arange(1, WINDOW + FORECAST + 1)
box = {"aspect": "auto", "origin": "lower", "extent": (0, 40, times[0], times[-1])}
mean, spread = paths.mean(axis=0), paths.std(axis=0)
shown = axes[0].imshow(mean, cmap="RdBu_r", vmin=-10, vmax=14, **box)
axes[0].set(title="posterior mean", xlabel="place", ylabel="time")
figure.colorbar(shown, ax=axes[0])
shown = axes[1].imshow(spread, cmap="viridis", **box)
axes[1].set(title="standard deviation", xlabel="place")
figure.colorbar(shown, ax=axes[1])
for axis in axes[:2]:
    axis.axhline(lorenz96.INTERVAL * WINDOW, color="k", lw=1, ls="--")
place = 13  # never measured
axes[2].fill_between(times, low[:, place], high[:, place], alpha=0.4, label="90 %")
axes[2].plot(times, path[:, place], "k", label="truth")
axes[2].axvline(lorenz96.INTERVAL * WINDOW, color="k", lw=1, ls="--")
axes[2].set(title=f"place {place}, which is not measured", xlabel="time (dashed: end of the data)")
axes[2].legend(frameon=False, fontsize=8)
figure.savefig(args.output / "data_assimilation.png", dpi=110)
print(f"{args.output / 'data_assimilation.png'}; {time.perf_counter() - begin:.0f} seconds")
