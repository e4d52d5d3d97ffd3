"""deepinv's side of restoration.py, run by it in the peers' environment: ``INPUT.npz OUTPUT.json``.

On the same image, blur and data as ours, on one thread, CPU milliseconds as what many more iterations take:

- an iteration of plug-and-play ADMM, its data term solved exactly, with the denoiser 0.98 x;
- a draw of plug-and-play Langevin (ULA), with the same;
- the PSNR of ADMM with total variation, the best of the denoisers that it has without a download.
"""

import json
import sys
import time

import deepinv
import numpy as np
import torch
from _record import package
from _timing import milliseconds
from deepinv.optim import L2, PnP, ScorePrior, optim_builder
from deepinv.sampling import ULA

LEVELS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3)
MAX_STEPS = 100


class Shrink(torch.nn.Module):
    """A denoiser that costs nothing."""

    def forward(self, x, sigma=None):
        return 0.98 * x


def image(array):
    """As a batch of one with one channel."""
    return torch.as_tensor(array, dtype=torch.float32)[None, None]


def admm(y, physics, noise, denoiser, sigma, steps):
    """With gamma = sigma^2, as ours."""
    model = optim_builder(
        iteration="ADMM",
        prior=PnP(denoiser=denoiser),
        data_fidelity=L2(),
        max_iter=steps,
        early_stop=False,
        params_algo={"stepsize": sigma**2 / noise**2, "g_param": sigma, "lambda": 1.0},
    )
    with torch.no_grad():
        return model(y, physics)


def langevin(y, physics, noise, draws):
    """Step and level of the kind that ours has; the cost depends on neither."""
    sampler = ULA(
        prior=ScorePrior(Shrink()),
        data_fidelity=L2(sigma=noise),
        step_size=1e-6,
        sigma=0.05,
        max_iter=draws,
        thinning=1,
        burnin_ratio=0.0,
        thresh_conv=0.0,
    )
    return sampler(y, physics, x_init=y)


def main(source, output):
    """Run, and keep what there is after each row."""
    torch.set_num_threads(1)
    with np.load(source) as stored:
        arrays = dict(stored)
    y, truth, noise = image(arrays["y"]), image(arrays["truth"]), float(arrays["noise"])
    physics = deepinv.physics.BlurFFT(img_size=tuple(y.shape[1:]), filter=image(arrays["kernel"]))
    rows = []

    def add(**row):
        rows.append(row | {"package": package("deepinv")})
        print(rows[-1], flush=True)
        with open(output, "w") as file:
            json.dump(rows, file)

    shrink = milliseconds(lambda n: admm(y, physics, noise, Shrink(), 0.05, n), 20, 220)
    draw = milliseconds(lambda n: langevin(y, physics, noise, n), 100, 500)
    add(kind="cost", shrink=shrink, draw=draw)
    denoiser = deepinv.models.TVDenoiser(n_it_max=200)
    for sigma in LEVELS:
        start = time.process_time()
        found = admm(y, physics, noise, denoiser, sigma, MAX_STEPS)
        psnr = -10 * float(torch.log10(torch.mean((found - truth) ** 2)))
        seconds = time.process_time() - start
        add(kind="quality", sigma=sigma, psnr=psnr, seconds=seconds, steps=MAX_STEPS)


if __name__ == "__main__":
    main(*sys.argv[1:])
