# %% [markdown]
# # Chains in many processes
#
# On one machine or on many: each process keeps its own chains, and the first one joins them.

# %%
"""Chains in many processes, on one machine or on many: each keeps its own, the first one joins them.

    python examples/many_machines.py [--processes 2] [--quick]     starts the processes here
    srun python examples/many_machines.py --cluster                one process a task of a cluster

The model is a deblurring in one dimension with unknown range and noise. Every process runs its chains from a key of its
own into a store of its own, so that one that is killed goes on, and waits for the others at a barrier; the first
process then compares all chains.
"""

# %%
import argparse
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jax.experimental import multihost_utils
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Predictive

import numpyro_inverse as ni
from numpyro_inverse.infer import read_run, run_to_disk

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--processes", type=int, default=2, help="processes to start on this machine")
parser.add_argument("--cluster", action="store_true", help="the cluster has started the processes")
parser.add_argument("--output", type=Path, default=Path("output/many_machines"), help="a folder that all processes see")
parser.add_argument("--quick", action="store_true", help="few draws, to see it work")
parser.add_argument("--worker", nargs=2, metavar=("ADDRESS", "NUMBER"), help=argparse.SUPPRESS)
CHAINS = 2  # a process


# %% The model, made when the processes know each other: whatever computes must wait for `jax.distributed.initialize`
def problem() -> tuple[Callable, jax.Array]:
    """Model and data, the same in every process."""
    grid = ni.domains.Grid(64, extent=1.0)
    blur = ni.operators.Convolution.gaussian(grid, width=0.05)

    def model(y=None):
        range = numpyro.sample("range", dist.LogNormal(np.log(0.2), 0.5))
        noise = numpyro.sample("noise", dist.HalfNormal(0.3))
        field = numpyro.sample("field", ni.distributions.Matern(grid, range=range, scale=1.0, smoothness=1.5))
        numpyro.sample("y", dist.Normal(blur(field), noise).to_event(1), obs=y)

    truth = handlers.condition(model, {"range": 0.2, "noise": 0.1})
    return model, Predictive(truth, num_samples=1)(jax.random.key(1))["y"][0]


# %% One process
def work(output: Path, quick: bool) -> None:
    """Runs this process's chains; the first process looks at all of them."""
    number, (model, y) = jax.process_index(), problem()
    length = 100 if quick else 1000
    mcmc = MCMC(
        NUTS(ni.whiten(model)),
        num_warmup=length // 2,
        num_samples=length,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=number == 0,
    )
    key = jax.random.fold_in(jax.random.key(0), number)
    run_to_disk(mcmc, output / f"process_{number}.zarr", key, model_kwargs={"y": y}, block_size=length // 2)
    multihost_utils.sync_global_devices("all chains are there")
    if number == 0:
        look(output, jax.process_count())


def look(output: Path, processes: int) -> None:
    """All chains side by side."""
    runs = [read_run(output / f"process_{number}.zarr").posterior.to_dataset() for number in range(processes)]
    posterior = xr.concat(
        [run.assign_coords(chain=run.chain + CHAINS * number) for number, run in enumerate(runs)], dim="chain"
    )
    print(az.summary(xr.DataTree.from_dict({"posterior": posterior}), var_names=["range", "noise"]))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for chain in posterior.chain.values:
        for axis, name in zip(axes, ("range", "noise"), strict=True):
            axis.ecdf(posterior[name].sel(chain=chain).values, color=f"C{chain // CHAINS}", lw=1)
            axis.set(xlabel=name, ylabel="share of draws below")
    for number in range(processes):
        axes[0].plot([], [], color=f"C{number}", label=f"process {number}")
    axes[0].legend(loc="lower right", frameon=False)
    figure.savefig(output / "chains.png", dpi=120)
    print(f"Picture: {output / 'chains.png'}")


# %% Starting them
def start(processes: int, arguments: list[str]) -> None:
    """Starts all processes on this machine; the first one's port is a free one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    workers = [
        subprocess.Popen([sys.executable, __file__, *arguments, "--worker", address, str(number)])
        for number in range(processes)
    ]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise SystemExit("A process failed; what it says is above. The same call goes on from what is kept.")


if __name__ == "__main__":
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.cluster:
        jax.distributed.initialize()
        work(options.output, options.quick)
    elif options.worker:
        address, number = options.worker
        jax.distributed.initialize(address, options.processes, int(number))
        work(options.output, options.quick)
    else:
        start(options.processes, sys.argv[1:])
