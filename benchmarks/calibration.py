"""Simulation-based calibration beside simuk, how its cost falls with the number of data sets, and exact inference.

- nuts: 200 NUTS fits of an eight-parameter model, wall seconds with compilation, against simuk 0.3 in the same run;
- batch: wall seconds per data set against the number of data sets;
- exact: 1,000 data sets of exact linear-Gaussian inference on a 64 x 64 grid, 4,096 pixels tested one by one.

The peer comes with the extra ``benchmarks``; without it, it is reported missing.

    python benchmarks/calibration.py [nuts] [batch] [exact]
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpyro

numpyro.set_host_device_count(2)

from numpyro.infer import NUTS  # noqa: E402

from benchmarks._calibration_peer import model  # noqa: E402
from benchmarks._options import chosen_parts  # noqa: E402
from benchmarks._record import keep, machine, measured, package  # noqa: E402
from models import deconvolution  # noqa: E402
from numpyro_inverse.calibration import functionals, sbc  # noqa: E402
from numpyro_inverse.infer import ExactGaussian  # noqa: E402

HERE = Path(__file__).parent
WARMUP, SAMPLES, DATASETS = 300, 500, 200
OURS = package("numpyro_inverse")


def timed(*arguments, **options):
    """Wall seconds of a study, and the study."""
    start = time.perf_counter()
    study = sbc(*arguments, rng_key=jax.random.key(0), progress_bar=False, **options)
    return time.perf_counter() - start, study


def nuts():
    """200 fits beside simuk's 200."""
    ours, study = timed(model, NUTS(model), num_datasets=DATASETS, num_warmup=WARMUP, num_samples=SAMPLES)
    case = f"{DATASETS} NUTS fits"
    out = measured(case, "sbc", OURS, {"wall time [s]": ours, "p-value": study.p_value})
    command = [sys.executable, HERE / "_calibration_peer.py", str(DATASETS), str(WARMUP), str(SAMPLES)]
    try:
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"PEER MISSING: simuk: {error}. Install the extra `benchmarks`.", file=sys.stderr)
        return out
    theirs = json.loads(printed.splitlines()[-1])["wall seconds"]
    return out + measured(case, "simuk.SBC", package("simuk"), {"wall time [s]": theirs})


def batch():
    """Wall seconds per data set."""
    out = []
    for number in (20, 100, 500):
        seconds, _ = timed(model, NUTS(model), num_datasets=number, num_warmup=WARMUP, num_samples=SAMPLES)
        out += measured(f"batch of {number}", "sbc", OURS, {"wall time a data set [s]": seconds / number})
    return out


def exact():
    """64 x 64, 1,000 data sets."""
    seconds, study = timed(
        deconvolution.model,
        ExactGaussian(deconvolution.model),
        num_datasets=1000,
        quantities={"energy": functionals.energy("field")},
    )
    values = {"wall time [s]": seconds, "p-value": study.p_value}
    return measured("1,000 exact posteriors, 64 x 64", "sbc of ExactGaussian", OURS, values)


def main():
    """Run what was asked for and keep the rest of the results."""
    for name in chosen_parts(__doc__, ("nuts", "batch", "exact")):
        found = {"nuts": nuts, "batch": batch, "exact": exact}[name]()
        print(name, json.dumps(found, indent=1), flush=True)
        keep("calibration", found, machine())


if __name__ == "__main__":
    main()
