"""The peers' side of sbibm.py, run by it in the peers' environment: ``INPUT.npz OUTPUT.json``.

sbijax's neural posterior estimation with its masked autoregressive and its spline flow, its own training, draws outside
of a uniform prior refused: CPU seconds of training, compilation included, of the draws, and the score for each
observation.
"""

import json
import sys
import time

import numpy as np
from _c2st import c2st
from _record import package


def estimates(arrays, seed):
    """A row for each network and observation."""
    import jax
    import sbijax
    import sbijax.nn
    from tensorflow_probability.substrates.jax import distributions as tfd

    theta, x = arrays["theta"], arrays["x"]
    num = theta.shape[1]
    low, high = (arrays[name].astype(np.float32) for name in ("low", "high"))
    prior = tfd.JointDistributionNamed({"theta": tfd.Independent(tfd.Uniform(low, high), 1)}, batch_ndims=0)
    networks = {
        "sbijax NPE, masked autoregressive": sbijax.nn.make_maf(num),
        "sbijax NPE, splines": sbijax.nn.make_spf(num, float(low.min()) - 1, float(high.max()) + 1),
    }
    for title, network in networks.items():
        keys = jax.random.split(jax.random.key(seed), 1 + len(arrays["observations"]))
        start = time.process_time()
        estimator = sbijax.npe(network)
        params, info = sbijax.train(keys[0], estimator, {"theta": {"theta": theta}, "y": x})
        jax.block_until_ready(params)
        trained = time.process_time() - start
        for k, observation in enumerate(arrays["observations"]):
            start = time.process_time()
            draws, _ = sbijax.sample(keys[k + 1], estimator, params, observation, prior=prior, n_samples=10_000)
            draws = np.asarray(draws["theta"], float).reshape(-1, num)[:10_000]
            sampled = time.process_time() - start
            yield {
                "title": title,
                "observation": k + 1,
                "c2st": c2st(draws, arrays["reference"][k]),
                "training": trained,
                "epochs": len(info.losses),
                "sampling": sampled,
            }


def main(source, output):
    """Run, and keep what there is after each row."""
    with np.load(source) as stored:
        arrays = dict(stored)
    rows = []
    for row in estimates(arrays, int(arrays["seed"])):
        rows.append(row | {"package": package("sbijax")})
        print(rows[-1], flush=True)
        with open(output, "w") as file:
            json.dump(rows, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
