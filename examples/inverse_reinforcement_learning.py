# %% [markdown]
# # What do they want? Values from choices
#
# Inverse reinforcement learning is an inverse problem: the reward is unknown, and what is observed are decisions. First
# 900 households that decided once, on a heating system; then an agent that walks through a grid.

# %%
import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from numpyro.infer import MCMC, NUTS

import numpyro_inverse as ni
from models import grid_world, heating_choice

parser = argparse.ArgumentParser(description="Inverse reinforcement learning with exact references.")
parser.add_argument("--draws", type=int, default=500, help="of each of four chains")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
options = {"num_warmup": 300, "num_samples": args.draws, "num_chains": 4, "chain_method": "vectorized"}

# %% [markdown]
# ## One step: heating systems
# The reward is linear in installation and operating cost, and choices follow the maximum-entropy policy: a conditional
# logit.

# %%
costs, choice = heating_choice.costs(), heating_choice.choices()
mcmc = MCMC(NUTS(heating_choice.model), **options)
mcmc.run(jax.random.key(0), choice, costs=costs)
heating = ni.to_arviz(mcmc, posterior_predictive=False)
theta = heating.posterior["coefficients"].stack(sample=("chain", "draw")).values
mean, covariance, _ = heating_choice.exact_posterior(
    choice, costs, center=heating_choice.PUBLISHED_MAXIMUM, spread=theta.std(axis=1)
)
print("coefficients per 100 dollars:", theta.mean(axis=1), "+-", theta.std(axis=1))
print("by quadrature:               ", mean, "+-", np.sqrt(np.diagonal(covariance)))

# %% [markdown]
# ## Many steps: a grid world
# The agent likes the goal and dislikes the swamp; it slips in one step of five.

# %%
truth = [2.0, -1.5]
states, actions = grid_world.simulate(jax.random.key(1), truth)
mcmc = MCMC(NUTS(grid_world.model), **options)
mcmc.run(jax.random.key(2), states, actions)
weights = np.asarray(mcmc.get_samples()["weights"])
features = jnp.asarray(grid_world.features())
q = jax.lax.map(lambda w: grid_world.soft_q_values(features @ w), jnp.asarray(weights[::10]))
value = np.asarray(jax.nn.logsumexp(q, axis=-1))
value = value - value.mean(axis=1, keepdims=True)  # a constant changes nothing
print("weights:", weights.mean(axis=0), "+-", weights.std(axis=0), "truth", truth)

# %%
side = grid_world.SIDE
figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
axes[0].plot(*theta, ".", ms=2, alpha=0.3, label="draws")
axes[0].plot(*heating_choice.PUBLISHED_MAXIMUM, "k+", ms=10, mew=2, label="published maximum")
axes[0].set(xlabel="installation cost (per 100 dollars)", ylabel="operating cost", title="heating: coefficients")
axes[1].plot(*weights.T, ".", ms=2, alpha=0.3, label="draws")
axes[1].plot(*truth, "k+", ms=10, mew=2, label="truth")
axes[1].set(xlabel="weight of the goal", ylabel="weight of the swamp", title="grid world: weights")
for axis in axes[:2]:
    axis.legend(frameon=False, fontsize=8)
visits = np.bincount(np.asarray(states), minlength=side**2).reshape(side, side)
arrows = grid_world.MOVES[np.asarray(q).mean(axis=0).argmax(axis=-1)].reshape(side, side, 2)
panels = [("visits", visits, "Greys"), ("value: mean, and most likely moves", value.mean(axis=0), "viridis")]
for axis, (title, shown, colors) in zip(axes[2:], panels, strict=True):
    image = axis.imshow(np.reshape(shown, (side, side)), cmap=colors)
    figure.colorbar(image, ax=axis, shrink=0.8)
    axis.set_title(title, fontsize=11)
    for place, name in ((grid_world.GOAL, "goal"), (grid_world.SWAMP, "swamp")):
        axis.text(place[1], place[0] + 0.4, name, color="C3", ha="center", fontsize=9)
    axis.axis("off")
axes[3].quiver(arrows[..., 1], -arrows[..., 0], color="w", scale=14, pivot="mid")
figure.savefig(args.output / "inverse_reinforcement_learning.png", dpi=110)
print(args.output / "inverse_reinforcement_learning.png")
