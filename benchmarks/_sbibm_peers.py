"""The peers' side of sbibm.py, run by it in each peer's environment: ``PEER INPUT.npz OUTPUT.json``.

Neural posterior estimation of sbijax and of sbi, with a masked autoregressive and a spline flow, their own training,
draws outside of a uniform prior refused; neural likelihood estimation of setu, with NumPyro's NUTS, 20 chains from the
prior: CPU seconds of training, compilation included, of the draws, and the score for each observation.
"""

import json
import sys
import time

import numpy as np
from _c2st import c2st
from _record import package

DRAWS = 10_000
DISTRIBUTIONS = {"setu": "setu-sbi"}  # where it is called otherwise


def of_sbijax(arrays, seed):
    """Title, training seconds, epochs, and how to draw for observation k, of each network."""
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

        def draw(k, observation, keys=keys, estimator=estimator, params=params):
            draws, _ = sbijax.sample(keys[k + 1], estimator, params, observation, prior=prior, n_samples=DRAWS)
            return np.asarray(draws["theta"], float).reshape(-1, num)[:DRAWS]

        yield title, trained, len(info.losses), draw


def of_sbi(arrays, seed):
    """As :func:`of_sbijax`."""
    import torch
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    torch.set_num_threads(1)
    theta, x, low, high = (torch.as_tensor(arrays[k], dtype=torch.float32) for k in ("theta", "x", "low", "high"))
    prior = BoxUniform(low, high)
    for title, network in {"sbi NPE, masked autoregressive": "maf", "sbi NPE, splines": "nsf"}.items():
        torch.manual_seed(seed)
        start = time.process_time()
        inference = NPE(prior, density_estimator=network, show_progress_bars=False)
        estimate = inference.append_simulations(theta, x).train()
        trained = time.process_time() - start
        posterior = inference.build_posterior(estimate)

        def draw(_, observation, posterior=posterior):
            seen = torch.as_tensor(observation, dtype=torch.float32)
            return posterior.sample((DRAWS,), x=seen, show_progress_bars=False).numpy().astype(float)

        yield title, trained, int(inference.summary["epochs_trained"][-1]), draw


def of_setu(arrays, seed):
    """As :func:`of_sbijax`."""
    import jax
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS
    from numpyro.infer.initialization import init_to_sample
    from setu.data import SimulationDataset
    from setu.nle import create_nle, fit_nle

    theta, x, low, high = (np.asarray(arrays[k], np.float32) for k in ("theta", "x", "low", "high"))
    num = theta.shape[1]
    for title, flow in {"setu NLE, masked autoregressive": "maf", "setu NLE, splines": "nsf"}.items():
        first, second, *keys = jax.random.split(jax.random.key(seed), 2 + len(arrays["observations"]))
        start = time.process_time()
        untrained = create_nle(x_dim=x.shape[1], theta_dim=num, flow_type=flow, key=first)
        result = fit_nle(untrained, SimulationDataset(theta, x), show_progress=False, key=second)
        trained = time.process_time() - start

        def model(observation, nle=result.nle):
            draw = numpyro.sample("theta", dist.Uniform(low, high).to_event(1))
            nle.to_numpyro(draw, observation)

        kernel = NUTS(model, init_strategy=init_to_sample)
        mcmc = MCMC(
            kernel,
            num_warmup=200,
            num_samples=DRAWS // 20,
            num_chains=20,
            chain_method="vectorized",
            progress_bar=False,
            jit_model_args=True,
        )

        def draw(k, observation, mcmc=mcmc, keys=keys):
            mcmc.run(keys[k], np.asarray(observation, np.float32))
            return np.asarray(mcmc.get_samples()["theta"], float)

        yield title, trained, len(result.losses), draw


PEERS = {"sbijax": of_sbijax, "sbi": of_sbi, "setu": of_setu}


def main(peer, source, output):
    """Run, and keep what there is after each row."""
    with np.load(source) as stored:
        arrays = dict(stored)
    rows, version = [], package(DISTRIBUTIONS.get(peer, peer))
    for title, trained, epochs, draw in PEERS[peer](arrays, int(arrays["seed"])):
        for k, observation in enumerate(arrays["observations"]):
            start = time.process_time()
            draws = draw(k, observation)
            row = {"title": title, "package": version, "observation": k + 1, "training": trained}
            row |= {"epochs": epochs, "sampling": time.process_time() - start}
            rows.append(row | {"c2st": c2st(draws, arrays["reference"][k])})
            print(rows[-1], flush=True)
            with open(output, "w") as file:
                json.dump(rows, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
