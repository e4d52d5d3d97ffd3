# %% [markdown]
# # A rate of reaction by a physics-informed network, and when to distrust it
#
# -u'' + theta u = f on (0, 1), u = 0 at the ends; theta is 3. Eight sensors around the source see u with noise. A
# network and theta are fitted together by least squares; then two reports: which gradient has the right sign, and which
# trial spaces promise a precision that the data do not have. The reference is a solver by second
# differences.

# %%
import argparse
import os
import warnings
from pathlib import Path

os.environ["JAX_ENABLE_X64"] = "1"  # before JAX is imported

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from numpyro_inverse import pinn

parser = argparse.ArgumentParser(description="Invert a reaction-diffusion equation with a physics-informed network.")
parser.add_argument("--width", type=int, default=16, help="of the network's hidden layers")
parser.add_argument("--output", type=Path, default=Path("output"), help="where the figure goes")
args = parser.parse_args()

# %% [markdown]
# ## Data


# %%
def source(x):
    return 20 * jnp.exp(-((x - 0.3) ** 2) / 0.02)


def solve(theta, num=400):
    """u at the nodes of a fine grid, by second differences: the reference, which JAX can differentiate."""
    h = 1 / num
    nodes = jnp.linspace(0, 1, num + 1)[1:-1]
    matrix = jnp.diag(jnp.full(num - 1, 2 / h**2 + theta)) - (jnp.eye(num - 1, k=1) + jnp.eye(num - 1, k=-1)) / h**2
    return jnp.pad(jnp.linalg.solve(matrix, source(nodes)), 1)


THETA, NOISE = 3.0, 0.005
grid = np.linspace(0, 1, 401)
sensors = np.array([0.12, 0.15, 0.18, 0.21, 0.24, 0.28, 0.32, 0.36])
places = np.round(sensors * 400).astype(int)
truth = np.asarray(solve(THETA))
values = truth[places] + NOISE * np.random.default_rng(1).normal(size=8)

# %% [markdown]
# ## The equation and the network
# The boundary conditions are built into the trial space. The residual's standard deviation, 0.1, is what the equation
# is allowed to be wrong by at a point; f is 20 at its largest.


# %%
def residual(u, x, theta):
    return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - source(x[0])


box = pinn.Box(0.0, 1.0)
pde = pinn.PDE(residual, box, points=box.grid(60), boundary=())
data = pinn.Data(sensors[:, None], values, NOISE)
network = pinn.Enforced(pinn.MLP(box, width=args.width, depth=2, key=jax.random.key(0)), box.distance)
problem = pinn.Problem(pde, network, data, scale=0.1)
fit = pinn.joint(problem, 1.0, max_steps=80, tolerance=0.01, progress_bar=False)
field = np.asarray(jax.vmap(fit.phi)(jnp.asarray(grid)[:, None]))
print(f"network: theta = {float(fit.theta):.3f}, objective {fit.loss:.3g} after {fit.num_steps} steps")
print(f"largest error of the field {np.abs(field - truth).max():.2e}, of {truth.max():.2f}")

# %% [markdown]
# ## Which gradient?
# Twelve sines and plain gradient steps on the residual, as an inner solver: the derivative through the steps and the
# implicit one have the wrong sign for long.

# %%
sines = pinn.Problem(pde, pinn.SineBasis(box, 12), data, scale=0.1)
seen = jnp.asarray(values)
misfit = lambda theta: 0.5 * jnp.sum(((solve(theta)[places] - seen) / NOISE) ** 2)  # noqa: E731
counts = (1, 10, 100, 1000, 10_000, 40_000)
reports = [pinn.gradient_report(sines, 4.0, num_steps=m, reference=misfit) for m in counts]
for m, report in zip(counts[::2], reports[::2], strict=True):
    print(f"\nafter {m} inner steps\n{report}")

# %% [markdown]
# ## Which trial space?

# %%
spaces = [pinn.Problem(pde, pinn.SineBasis(box, k), data, scale=0.1) for k in (1, 2, 4, 16)]
information = jax.jacfwd(solve)(THETA)[places]
with warnings.catch_warnings():
    warnings.simplefilter("ignore", pinn.IdentifiabilityWarning)  # it is printed
    spread = pinn.identifiability_report(
        spaces, THETA, reference_information=float(information @ information) / NOISE**2
    )
print(f"\n{spread}")

# %% [markdown]
# ## Picture

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
left.plot(grid, truth, color="0.6", lw=4, label="reference")
left.plot(grid, field, color="C0", lw=1.5, label="network")
left.errorbar(sensors, values, NOISE, fmt="o", ms=4, color="C3", label="data")
left.set(xlabel="x", ylabel="u", title=f"fit: theta = {float(fit.theta):.2f}, truth {THETA:g}")
left.legend(frameon=False)
for kind, style in (("unrolled", "o-"), ("implicit", "s-")):
    middle.semilogx(counts, [r.ratios[kind] for r in reports], style, label=kind)
middle.axhline(1, color="0.6")
middle.axhspan(-100, 0, color="C3", alpha=0.12, lw=0)
low = min(min(r.ratios["unrolled"], r.ratios["implicit"]) for r in reports)
middle.set(ylim=(1.1 * min(low, -1), 3), xlabel="inner steps", ylabel="gradient / exact", title="red: wrong sign")
middle.legend(frameon=False)
sizes = [str(row.size) for row in spread.rows]
right.errorbar(sizes, [row.theta[0] for row in spread.rows], [2 * row.sd[0] for row in spread.rows], fmt="o", capsize=4)
for size, row in zip(sizes, spread.rows, strict=True):
    if row.warnings:
        right.plot(size, row.theta[0], "o", ms=12, mfc="none", mec="C3")
right.axhline(THETA, color="0.6")
right.set(xlabel="sines", ylabel="theta, 2 sd", title="circled: the report warns")
args.output.mkdir(parents=True, exist_ok=True)
figure.savefig(args.output / "pinn.png", dpi=110)
print(f"wrote {args.output}/pinn.png")
