"""simuk's simulation-based calibration of the benchmark's model, in a process of its own.

python benchmarks/_calibration_peer.py NUM_DATASETS NUM_WARMUP NUM_SAMPLES
"""

import json
import sys
import time

import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS

DESIGN = np.random.default_rng(0).normal(size=(40, 7))


def model(data=None):
    """Linear regression with an unknown noise level: eight parameters."""
    slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand([7]).to_event(1))
    noise = numpyro.sample("noise", dist.LogNormal(-0.5, 0.5))
    numpyro.sample("data", dist.Normal(DESIGN @ slopes, noise).to_event(1), obs=data)


def main():
    """Print the wall seconds of one study as JSON."""
    import simuk

    datasets, warmup, samples = (int(a) for a in sys.argv[1:4])
    start = time.perf_counter()
    study = simuk.SBC(
        NUTS(model),
        num_simulations=datasets,
        sample_kwargs={"num_warmup": warmup, "num_samples": samples, "num_chains": 1, "progress_bar": False},
        data_dir={"data": np.zeros(40)},
        seed=1,
        progress_bar=False,
    )
    study.run_simulations()
    print(json.dumps({"wall seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
