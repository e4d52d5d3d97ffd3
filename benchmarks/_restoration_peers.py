"""scico's side of restoration.py, run by it in the peers' environment: ``INPUT.npz OUTPUT.json``.

Plug-and-play ADMM with the data term solved exactly in the Fourier domain, on the same image, blur and data as ours.

- quality: with the DnCNN networks that it ships and that are told the noise level, of 6 and 17 layers; the penalty as
  ours, gamma = sigma^2.
- cost: an iteration with the denoiser 0.98 x, and with a network, beside a call of that network; what 40 more of them
  take, in CPU milliseconds.
"""

import json
import sys
import time

import jax
import numpy as np
import scico.numpy as snp
from _record import package
from _timing import milliseconds
from scico import functional, linop, loss
from scico.optimize import ADMM
from scico.optimize.admm import CircularConvolveSolver

LEVELS = {"6N": (0.015, 0.03, 0.05, 0.08, 0.12), "17N": (0.05, 0.08, 0.12)}  # by network
MAX_STEPS = 40


class Shrink(functional.Functional):
    """A denoiser that costs nothing."""

    has_eval, has_prox = False, True

    def prox(self, v, lam=1.0, **_):
        return 0.98 * v


def solver(arrays, prior, sigma, level_as_parameter, steps):
    """ADMM with gamma = sigma^2; the prior's proximal operator is given 1 / rho, so rho = 1 / sigma tells it sigma."""
    y = snp.array(arrays["y"])
    kernel = snp.array(arrays["kernel"])
    blur = linop.CircularConvolve(kernel, y.shape, h_center=np.array(kernel.shape) // 2)
    rho = 1 / sigma if level_as_parameter else 1.0
    data = loss.SquaredL2Loss(y=y, A=blur, scale=rho * sigma**2 / (2 * float(arrays["noise"]) ** 2))
    return ADMM(
        f=data,
        g_list=[prior],
        C_list=[linop.Identity(y.shape)],
        rho_list=[rho],
        x0=y,
        maxiter=steps,
        subproblem_solver=CircularConvolveSolver(),
        itstat_options={"display": False},
    )


def cost(arrays, prior, level_as_parameter=False):
    """CPU milliseconds of an iteration."""
    return milliseconds(lambda n: jax.block_until_ready(solver(arrays, prior, 0.05, level_as_parameter, n).solve()))


def main(source, output):
    """Run, and keep what there is after each row."""
    with np.load(source) as stored:
        arrays = dict(stored)
    rows = []

    def add(**row):
        rows.append(row | {"package": package("scico")})
        print(rows[-1], flush=True)
        with open(output, "w") as file:
            json.dump(rows, file)

    network = functional.DnCNN("6N")
    call = network._denoise

    def calls(count):
        x = snp.array(arrays["y"])
        for _ in range(count):
            x = call(x, 0.05)
        jax.block_until_ready(x)

    add(kind="cost", shrink=cost(arrays, Shrink()), network=cost(arrays, network, True), call=milliseconds(calls))
    for name, levels in LEVELS.items():
        prior = functional.DnCNN(name)
        for sigma in levels:
            start = time.process_time()
            # What has been denoised: the last argument of the prior.
            admm = solver(arrays, prior, sigma, True, MAX_STEPS)
            admm.solve()
            found = np.asarray(admm.z_list[0], float)
            psnr = -10 * np.log10(np.mean((found - arrays["truth"]) ** 2))
            seconds = time.process_time() - start
            add(kind="quality", network_name=name, sigma=sigma, psnr=float(psnr), seconds=seconds, steps=MAX_STEPS)


if __name__ == "__main__":
    main(*sys.argv[1:])
