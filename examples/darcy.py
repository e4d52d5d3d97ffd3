# %% [markdown]
# # The transmissivity of an aquifer from hydraulic heads
#
# Groundwater flows through a square kilometer, from a river in the west to one in the east, and two wells pump. How
# well the ground conducts differs from place to place by orders of magnitude, and is seen through the heads of forty
# boreholes only: the gradient of the posterior runs through the solution of Darcy's equation, and twenty more
# boreholes are predicted.
#
# The head h obeys -div(T grad h) = q, with T the transmissivity, q the wells, 10 m in the west, 0 m in the east and no
# flow through the north and the south. log T is a Matérn field of known range and scale. The aquifer is a draw from
# that field, and its heads are simulated.

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
import scipy.sparse as sp
from numpyro.infer import MCMC

import numpyro_inverse as ni
from numpyro_inverse import sparse

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description="Transmissivity of an aquifer from heads, through Darcy's equation.")
parser.add_argument("--draws", type=int, default=250, help="of each of two chains")
parser.add_argument("--warmup", type=int, default=150)
parser.add_argument("--cells", type=int, default=16, help="of the grid, along each side")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
start = time.perf_counter()
numpyro.enable_x64()

# %% [markdown]
# ## The equation
# Finite volumes: water flows between neighboring cells in proportion to the difference of their heads and the harmonic
# mean of their T, and from a river through half a cell. The matrix is symmetric and sparse, with a value for each face
# and each cell; its places are analyzed once. A solve by sparse Cholesky has its derivatives, by one more solve with
# the same factor.

# %%
n = args.cells
grid = ni.domains.Grid((n, n), extent=1000.0)  # m; axis 0 is north, axis 1 east
WEST, EAST = 10.0, 0.0  # m
PUMPED = {(0.3, 0.6): 15.0, (0.75, 0.35): 10.0}  # (north, east) in km: m^3 a day
pumping = np.zeros((n, n))
for place, rate in PUMPED.items():
    pumping[tuple(int(x * n) for x in place)] -= rate

cell = np.arange(n * n).reshape(n, n)
one = np.concatenate([cell[:, :-1].ravel(), cell[:-1].ravel()])  # the cells of each face, in order
other = np.concatenate([cell[:, 1:].ravel(), cell[1:].ravel()])
links = sp.coo_array((-np.ones(len(one)), (other, one)), shape=(n * n, n * n))
pattern = sparse.analyze((sp.eye_array(n * n) * 5 + links + links.T).tocsc(), grid.points.reshape(-1, 2))
place = np.full((n * n, n * n), -1)  # of an entry among the values
place[pattern.rows, pattern.cols] = place[pattern.cols, pattern.rows] = np.arange(len(pattern.rows))
on_face, on_cell = place[other, one], place[cell.ravel(), cell.ravel()]


@jax.jit
def heads(pattern, log_t):
    """The head of every cell, in m, given the logarithm of T in m^2 a day."""
    t = jnp.exp(log_t).ravel()
    flow = 2 * t[one] * t[other] / (t[one] + t[other])  # through a face, for a difference of one meter
    west, east = (jnp.zeros(n * n).at[cell[:, k]].set(2 * t[cell[:, k]]) for k in (0, -1))  # from the rivers
    total = (west + east).at[one].add(flow).at[other].add(flow)
    values = jnp.zeros(len(pattern.rows)).at[on_cell].set(total).at[on_face].set(-flow)
    return sparse.solve(pattern, values, west * WEST + east * EAST + pumping.ravel()).reshape(n, n)


# %% [markdown]
# ## Model and data

# %%
NOISE = 0.15  # m
law = ni.distributions.Matern(grid, range=300.0, scale=1.0, smoothness=1.5, mean=float(np.log(10.0)))


def model(pattern, at, data=None):
    log_t = numpyro.sample("log_t", law)
    head = numpyro.deterministic("head", heads(pattern, log_t))
    numpyro.sample("data", dist.Normal(head.ravel()[at], NOISE).to_event(1), obs=data)


truth = np.asarray(law.sample(jax.random.key(5)))
ni.operators.check_gradient(partial(heads, pattern), jnp.asarray(truth)).require("the adjoint of Darcy's equation")
rng = np.random.default_rng(0)
boreholes = rng.choice(n * n, size=60, replace=False)
measured = np.asarray(heads(pattern, truth)).ravel()[boreholes] + NOISE * rng.normal(size=60)
at, data, held_out, unseen = boreholes[:40], measured[:40], boreholes[40:], measured[40:]
print(f"T from {np.exp(truth.min()):.1f} to {np.exp(truth.max()):.0f} m²/day")

# %% [markdown]
# ## Posterior
# By NUTS in the directions that the data inform, with an integrator that is exact on Gaussians.

# %%
kernel = ni.infer.LowRankNUTS(ni.whiten(model), rank=24, max_tree_depth=4)
mcmc = MCMC(
    kernel, num_warmup=args.warmup, num_samples=args.draws, num_chains=2, chain_method="vectorized", progress_bar=False
)
mcmc.run(jax.random.key(1), pattern, at, data=data, extra_fields=("num_grads", "diverging"))
tree = ni.to_arviz(mcmc, length_unit="m", model_args=(pattern, at), model_kwargs={"data": data}, log_likelihood=False)
extra = mcmc.get_extra_fields()
field = tree.posterior["log_t"]
some = field.values.reshape(*field.shape[:2], -1)[..., :: max(1, n * n // 64)]
print(
    f"{np.mean(extra['num_grads']):.1f} gradients a draw, {int(np.sum(extra['diverging']))} divergences; log T: "
    f"smallest ESS {np.min(az.ess(some)):.0f} of {2 * args.draws}, largest R-hat {np.max(az.rhat(some)):.2f}"
)

# %% [markdown]
# ## What it knows
# The held-out heads, and log T itself.

# %%
draws = field.values.reshape(-1, n, n) / np.log(10)
true = truth / np.log(10)
low, high = np.quantile(draws, (0.05, 0.95), axis=0)
there = tree.posterior["head"].values.reshape(-1, n * n)[:, held_out]
predicted = there + NOISE * rng.normal(size=there.shape)
bottom, top = np.quantile(predicted, (0.05, 0.95), axis=0)
inside = (bottom <= unseen) & (unseen <= top)
off = np.sqrt(np.mean((there.mean(axis=0) - unseen) ** 2))
print(
    f"held-out heads: {inside.sum()} of {inside.size} in their 90 % intervals, error {off:.2f} m (rms); "
    f"90 % intervals hold {np.mean((low <= true) & (true <= high)):.0%} of the cells' log T"
)

figure, axes = plt.subplots(1, 4, figsize=(17, 4.6), layout="constrained")
km = {"origin": "lower", "extent": (0, 1, 0, 1)}
ticks = [0.0, 0.5, 1.0]
shared = {"cmap": "viridis", "vmin": true.min(), "vmax": true.max()}
for axis, image, title in zip(axes, (true, draws.mean(axis=0)), ("truth", "posterior mean"), strict=False):
    shown = axis.imshow(image, **km, **shared)
    axis.set_title(title)
figure.colorbar(shown, ax=axes[:2], label="log10 T, T in m²/day", shrink=0.9)
shown = axes[2].imshow(draws.std(axis=0), **km, cmap="magma", vmin=0)
axes[2].set_title("standard deviation")
figure.colorbar(shown, ax=axes[2], label="of log10 T", shrink=0.9)
for axis in axes[:3]:
    north, east = np.divmod(at, n)
    axis.plot((east + 0.5) / n, (north + 0.5) / n, "o", ms=4, color="white", mec="black", label="borehole")
    north, east = np.divmod(held_out, n)
    axis.plot((east + 0.5) / n, (north + 0.5) / n, "X", ms=6, color="C1", mec="black", label="held out")
    north, east = np.transpose(list(PUMPED))
    axis.plot(east, north, "v", ms=9, color="C3", mec="white", label="pumping well")
    axis.set(xlabel="east (km)", xticks=ticks, yticks=ticks)
axes[0].set_ylabel("north (km)")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False)
middle = predicted.mean(axis=0)
axes[3].errorbar(unseen, middle, [middle - bottom, top - middle], fmt="o", ms=4, capsize=2, color="C0")
ends = [min(unseen.min(), bottom.min()), max(unseen.max(), top.max())]
axes[3].plot(ends, ends, "k", lw=0.7)
axes[3].set(xlabel="measured head (m)", ylabel="predicted head (m)")
axes[3].set_title(f"held out: {inside.sum()} of {inside.size} in 90 % intervals")
figure.savefig(args.output / "darcy.png", dpi=110)
print(f"{args.output / 'darcy.png'}; {time.perf_counter() - start:.0f} seconds")
