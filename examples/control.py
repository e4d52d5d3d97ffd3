# %% [markdown]
# # Control: what is the system, and what did the regulator want?
#
# System identification with the exact likelihood of a Kalman filter, and inverse optimal control through a Riccati
# equation: two inverse problems of one oscillator.

# %%
import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from numpyro.infer import MCMC, NUTS

from models import linear_quadratic
from numpyro_inverse.symmetry import Scaling, Symmetry, check_invariance

parser = argparse.ArgumentParser(description="System identification and inverse optimal control.")
parser.add_argument("--draws", type=int, default=500, help="of each of four chains")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the picture goes")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)
options = {"num_warmup": 300, "num_samples": args.draws, "num_chains": 4, "chain_method": "vectorized"}

# %% [markdown]
# ## The system from its output
# 20 seconds of noisy positions. States are integrated out exactly, so two unknowns remain.

# %%
frequency, damping = 1.0, 0.1
output = linear_quadratic.simulate_output(jax.random.key(0), frequency=frequency, damping=damping)
mcmc = MCMC(NUTS(linear_quadratic.identification_model), **options)
mcmc.run(jax.random.key(1), output)
system = {name: np.asarray(v) for name, v in mcmc.get_samples().items()}

# %% [markdown]
# ## The cost from the controls
# An expert holds the oscillator at zero. A multiple of its cost has the same optimum, so the likelihood knows the
# weights up to a factor; the check says that what breaks the symmetry is the prior alone.

# %%
weights = {"position": 2.0, "velocity": 0.5, "effort": 0.7}
states, controls = linear_quadratic.simulate_expert(jax.random.key(2), list(weights.values()))
scale = Symmetry(Scaling(), list(weights))
print(check_invariance(linear_quadratic.inverse_model, scale, model_args=(states, controls)))
mcmc = MCMC(NUTS(linear_quadratic.inverse_model), **options)
mcmc.run(jax.random.key(3), states, controls)
cost = {name: np.asarray(v) for name, v in mcmc.get_samples().items()}
for name in ("position", "velocity"):
    ratio = cost[name] / cost["effort"]
    low, high = np.quantile(ratio, [0.05, 0.95])
    print(f"{name} / effort: {np.median(ratio):.2f} (90 %: {low:.2f} to {high:.2f}), truth {weights[name] / 0.7:.2f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
time = np.arange(len(output)) * linear_quadratic.STEP
axes[0].plot(time, output, ".-", color="0.4", ms=3)
axes[0].set(xlabel="time (s)", ylabel="position", title="free oscillator: data")
axes[1].plot(system["frequency"], system["damping"], ".", ms=2, alpha=0.3)
axes[1].plot(frequency, damping, "k+", ms=10, mew=2)
axes[1].set(xlabel="frequency (rad/s)", ylabel="damping ratio", title="posterior (+: truth)")
time = np.arange(len(controls)) * linear_quadratic.STEP
axes[2].plot(time, states[:, 0], label="position")
axes[2].plot(time, controls, ".", color="C3", ms=4, label="control")
axes[2].set(xlabel="time (s)", title="regulated: data")
axes[2].legend(frameon=False, fontsize=8)
axes[3].plot(np.log10(cost["position"]), np.log10(cost["effort"]), ".", ms=2, alpha=0.3)
axes[3].plot(np.log10(2.0), np.log10(0.7), "k+", ms=10, mew=2)
axes[3].axline((np.log10(2.0), np.log10(0.7)), slope=1, color="k", lw=0.7, ls=":")
axes[3].set(xlabel="log10 weight of position", ylabel="log10 weight of effort", title="cost: known up to a factor")
figure.savefig(args.output / "control.png", dpi=110)
print(args.output / "control.png")
