"""The first table of docs/benchmarks.md: a row for each claim, from the stored records."""

import csv
from functools import cache

import numpy as np

from benchmarks._comparison import Row, number, records, value
from benchmarks._record import RESULTS


def exact_gaussian(case, what):
    """Of benchmarks/exact_gaussian.py."""
    peers = {
        "CUQIpy": "CUQIpy LinearRTO, maxit 20",
        "NIFTy.re": "NIFTy.re wiener_filter_posterior (pairs)",
        "NumPyro": "NumPyro NUTS, white noise by hand",
    }

    def get(method, metric="smallest ESS per CPU second"):
        return value("exact_gaussian", case, method, metric)

    ratio = "sd over the exact one, mean"
    spread = ", ".join(f"{name} {number(get(m, ratio))}" for name, m in peers.items())
    best = max(get(m, "smallest ESS per CPU second without compilation") for m in peers.values())
    mine = get("ExactGaussian, 20,000 draws", "smallest ESS per CPU second without compilation")
    short = get("ExactGaussian, 2,000 draws") / max(get(m) for m in peers.values())
    return Row(
        f"{what}: smallest ESS a CPU second, compilation included",
        "10 times",
        {"ExactGaussian": get("ExactGaussian, 20,000 draws")},
        {name: get(m) for name, m in peers.items()},
        True,
        f"mean sd over the exact one: ours {number(get('ExactGaussian, 20,000 draws', ratio))}, {spread} (CUQIpy's "
        f"automatic choice {number(get('CUQIpy LinearRTO, automatic (maxit 10)', ratio))})",
        f"{number(mine / best)} times without compilation; {number(short)} times with 2,000 draws instead of 20,000",
    )


def kernels(case, what):
    """Of benchmarks/kernels.py."""
    names = [r["method"] for r in records("kernels") if r["case"] == case]
    theirs = {"NumPyro": "NumPyro NUTS", "BlackJAX": "BlackJAX NUTS", "CUQIpy": "CUQIpy NUTS"}
    mine = [name for name in dict.fromkeys(names) if name not in theirs.values()]
    speed, rate = "smallest ESS per CPU second", "smallest ESS per 1,000 gradients"
    best = max(mine, key=lambda m: value("kernels", case, m, speed))
    gain = value("kernels", case, best, rate) / max(value("kernels", case, m, rate) for m in theirs.values())
    return Row(
        f"{what}: smallest ESS a CPU second, all work included",
        "3 times",
        {best: value("kernels", case, best, speed)},
        {name: value("kernels", case, m, speed) for name, m in theirs.items()},
        True,
        "the same posterior, no bias known; ESS is the accuracy",
        f"{number(gain)} times per gradient",
    )


def two_level():
    """Of benchmarks/two_level.py."""
    case, metric = "4,225 nodes", "CPU time to an ESS of 100"
    seconds = {r["method"]: r["value"] for r in records("two_level") if r["metric"] == metric}
    ours = {method: x for method, x in seconds.items() if method.startswith("DelayedAcceptance")}
    best = min(ours, key=ours.get, default="DelayedAcceptance")
    accuracy = "not measured"
    if ours:
        alone = best.replace("DelayedAcceptance", "NUTS") + " alone"
        apart, bias = "largest error of a mean, Monte Carlo errors", "largest error of a mean, posterior sd"
        two, rate = (number(value("two_level", case, best, name)) for name in (apart, "acceptance"))
        accuracy = f"27 means within {two} Monte Carlo errors of NumPyro's at an acceptance of {rate}"
        one, sd = (value("two_level", case, alone, name) for name in (apart, bias))
        if one is not None:
            accuracy += f"; those of the coarse mesh alone within {number(one)}, {number(sd)} posterior sd"
    return Row(
        "Absorption of light, 4,225 nodes, a coarser mesh as approximation: CPU seconds to an ESS of 100, all included",
        "worth it",
        {best: seconds.get(best)},
        {"NumPyro": seconds.get("NUTS")},
        False,
        accuracy,
        "moves of up to 127 coarse steps, most of which the fine equation does not confirm",
    )


def latent_gaussian():
    """Of benchmarks/latent_gaussian.py."""
    grid, chain, laplace = "LatentGaussian, grid", "LatentGaussian, NUTS", "blackjax.laplace_hmc"

    def get(method, metric="CPU time to an ESS of 400"):
        return value("latent_gaussian", "144 nodes", method, metric)

    def off(method):
        mean, sd = get(method, "largest error of a mean"), get(method, "largest relative error of an sd")
        return f"{number(mean)} and {number(sd)}"

    return Row(
        "Counts over a Matérn field, 144 nodes: CPU seconds to an ESS of 400 of range and scale, compilation apart",
        "10 times NUTS, within 5 %",
        {chain: get(chain)},
        {"NumPyro": get("NUTS, whole model"), laplace: get(laplace)},
        False,
        f"errors against NumPyro of means (in sd) and sds (relative): ours {off(chain)}, laplace_hmc {off(laplace)}, "
        f"grid {off(grid)}; the range has a heavy tail, so that this run shows no agreement within 5 %",
        "with so few nodes a gradient of the whole model is cheap. The grid instead of a chain takes "
        f"{number(get(grid, 'CPU time'))} s",
    )


def sparse_cholesky(name, asked, why, *also):
    """Of benchmarks/sparse_cholesky.py."""
    what = {"whitened": "solves as for a whitened field", "centered": "log-determinant as for a density"}[name]

    def get(method):
        return value("sparse_cholesky", "2-D 1e5", method, name)

    return Row(
        f"Mesh of 99,856 nodes, {what}: CPU ms of value and gradient",
        asked,
        {method: get(method) for method in ("numpyro_inverse.sparse", *also)},
        {"sparsax (CHOLMOD)": get("sparsax")},
        False,
        "values and slopes agree to 1e-8",
        why,
    )


def pinn_training(case, mine, what, metric):
    """Of benchmarks/pinn.py equal and peers."""
    theirs = ("jinns, SSBroyden", "jinns, natural gradient", "jinns, Adam", "DeepXDE, Adam")
    seconds = {m: value("pinn", case, m, "CPU time") for m in (mine, *theirs)}
    errors = [value("pinn", case, m, metric) for m in (mine, *theirs)]
    adam = [seconds[m] for m in theirs if m.endswith("Adam") and seconds[m] is not None]
    why = ""
    if seconds[mine] is not None and adam:
        why = f"{number(min(adam) / seconds[mine])} times ahead of the faster Adam of the two"
    return Row(
        f"PINN, θ and field of {what}, compilation apart",
        "5 times",
        {mine: seconds[mine]},
        {m: seconds[m] for m in theirs},
        False,
        "errors " + ", ".join(f"{number(x)}" for x in errors) + ", in this order",
        why,
    )


def pinn_reduced():
    """Of benchmarks/pinn.py reduced."""
    mine, theirs = "NUTS, reduced", "NUTS, all coefficients"

    def get(method, metric="ESS of theta per CPU second"):
        return value("pinn", "reduced", method, metric)

    def moments(method):
        mean, sd, rhat = (number(get(method, metric)) for metric in ("mean of theta", "sd of theta", "R-hat"))
        return f"θ = {mean} ± {sd}, R-hat {rhat}"

    late = (get(theirs, "R-hat") or 0) > 1.05
    return Row(
        "PINN, posterior of θ: ESS a CPU second, compilation and warm-up apart",
        "10 times",
        {"reduced posterior": get(mine)},
        {} if late else {"NumPyro": get(theirs)},
        True,
        f"ours {moments(mine)}; NumPyro on all coefficients {moments(theirs)}",
        f"no factor: NumPyro's chain has not converged, its {number(get(theirs))} mean nothing" if late else "",
    )


def pinn_published():
    """Of benchmarks/pinn.py published."""
    found = [r for r in records("pinn") if r["case"].startswith("published")]

    def of(metric, noise="", method="NUTS, 20 terms"):
        kept = [r for r in found if r["metric"] == metric and noise in r["case"]]
        return [r["value"] for r in kept if r["method"] == method]

    cells, spread = {}, []
    for noise in ("noise 0.01,", "noise 0.1,"):
        ratios = of("sd of k over the published", noise)
        cells[f"{noise} mean of {len(ratios)} draws of it"] = float(np.mean(ratios)) if ratios else None
        if ratios:
            spread.append(f"{min(ratios):.2f} to {max(ratios):.2f}")
    accuracy = ""
    if spread:
        accuracy = f"single draws {' and '.join(spread)}; largest R-hat {max(of('R-hat')):.4f}; every mean within "
        accuracy += f"{max(map(abs, of('error of the mean'))):.1f} sd of the truth"
    network = of("sd of k over the published", method="HMC, network of 2,701 weights")
    if network:
        accuracy += f"; with a network, one draw of each noise, {' and '.join(number(x) for x in network)} (10 % asked)"
    return Row(
        "PINN, published Bayesian benchmark: posterior sd of k over the published one",
        "within 5 % and 8 %",
        cells,
        {},
        False,
        accuracy,
        "a check of accuracy, not of speed",
    )


def calibration():
    """Of benchmarks/calibration.py."""
    case = "200 NUTS fits"
    return Row(
        "Simulation-based calibration, 200 NUTS fits of 8 parameters: wall seconds, compilation included",
        "20 times",
        {"sbc": value("calibration", case, "sbc", "wall time")},
        {"simuk": value("calibration", case, "simuk.SBC", "wall time")},
        False,
        "the same NUTS, warm-up, draws and number of data sets",
    )


def whitening():
    """Of benchmarks/whitening.py."""
    case, metric = "known hyperparameters, 64 x 64", "CPU time to a smallest ESS of 400"
    return Row(
        "NUTS on 64 x 64 deblurring: CPU seconds to a smallest ESS of 400, all included",
        "10 times",
        {"NUTS, whitened": value("whitening", case, "NUTS, whitened", metric)},
        {"NumPyro": value("whitening", case, "NUTS, white noise by hand", metric)},
        False,
        "the same posterior, in NumPyro as white noise filtered by hand; ESS is the accuracy",
    )


def denoising_quality():
    """Of benchmarks/restoration.py solvers."""
    psnr = {r["method"]: r["value"] for r in records("restoration") if r["case"] == "solvers" and r["metric"] == "PSNR"}
    ours = {m: x for m, x in psnr.items() if "denoiser, sigma" in m}
    best = max(ours, key=ours.get)
    peers = {p: max((x for m, x in psnr.items() if m.startswith(p)), default=None) for p in ("scico", "deepinv")}
    return Row(
        "Plug-and-play deblurring of the camera, 9 x 9 blur: dB of the best",
        "27.5 dB and above both",
        {best: ours[best]},
        peers,
        True,
        f"observed {number(psnr['data'])} dB; the best of the noise levels that were tried, by the truth, for both",
        "the same iteration with other denoisers: scico's is a DnCNN of 17 layers, stopped after 40 steps, ours has a "
        "potential and is run to its fixed point; deepinv's is total variation, for the weights of its networks are "
        "downloads",
        difference=" dB",
    )


def iteration_cost():
    """Of benchmarks/restoration.py iteration and cost."""

    def get(method, metric):
        return value("restoration", "cost, PnP-ADMM iteration", method, metric)

    free, whole, call = "iteration, denoiser 0.98 x", "iteration with a network", "call of it"
    shares = []
    for name in ("pnp_admm", "scico ADMM"):
        if get(name, whole) is not None:
            shares.append(f"{name} {number(get(name, whole) / get(name, call))}")
    draw = number(value("restoration", "cost", "PnPULA", "draw over gradient"))
    drawn = [number(value("restoration", "cost", m, "draw, denoiser 0.98 x")) for m in ("PnPULA", "deepinv ULA")]
    return Row(
        "Plug-and-play ADMM, 128 x 128: CPU ms of an iteration without its denoiser",
        "10 times deepinv",
        {"pnp_admm": get("pnp_admm", free)},
        {"scico": get("scico ADMM", free), "deepinv": get("deepinv ADMM", free)},
        False,
        "the same iteration, its data term exact"
        + (f"; with a network over its call: {', '.join(shares)}" * bool(shares)),
        f"a draw of PnPULA takes {draw} times its gradient (1.3 asked), and without its denoiser {drawn[0]} ms, "
        f"deepinv's {drawn[1]}: both do little but Fourier transforms",
    )


PUBLISHED = ("NPE", "NLE", "NRE")
OURS = ("NPE", "NPE, 5 members", "NLE", "NRE")


def over_observations(task, metric="C2ST"):
    """Numbers of all observations by method."""
    found = {}
    for r in records("sbibm"):
        if r["case"].startswith(f"{task}, ") and r["metric"] == metric and r["value"] is not None:
            found.setdefault(r["method"], []).append(r["value"])
    return found


def medians(task, metric="C2ST"):
    """Medians over observations by method."""
    return {method: float(np.median(values)) for method, values in over_observations(task, metric).items()}


@cache
def published():
    """Published medians of the C2ST by task and method, 10,000 simulations."""
    with (RESULTS / "sbibm_published.csv").open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {(r["task"], r["algorithm"]): float(r["median"]) for r in rows if int(r["simulations"]) == 10_000}


def best_of(peer):
    """The peer's method whose C2ST is the lowest."""
    found = {m: x for m, x in medians("two_moons").items() if m.startswith(f"{peer} ")}
    return min(found, key=found.get) if found else ""


def sbi_accuracy():
    """Of benchmarks/sbibm.py, all tasks."""
    better, seen = [], 0
    for task in dict.fromkeys(task for task, _ in published()):
        ours = [x for m, x in medians(task).items() if m in OURS]
        if ours:
            seen += 1
            better.append(min(published()[task, m] for m in PUBLISHED) - min(ours))
    text = (
        f"at or below the published best on {sum(g >= 0 for g in better)} of {seen} tasks, by 0.03 or more on "
        f"{sum(g >= 0.03 for g in better)}"
    )
    return Row(
        "Simulation-based inference, 10,000 simulations: C2ST of two_moons (0.5 is best)",
        "0.53; at or below the published best on 8 of 10 tasks",
        {m: medians("two_moons").get(m) for m in OURS[:2]},
        {
            "published NPE": published()["two_moons", "NPE"],
            "sbijax": medians("two_moons").get(best_of("sbijax")),
            "sbi": medians("two_moons").get(best_of("sbi")),
        },
        False,
        f"{text}; {beside_setu()}" if seen else "not measured",
        difference=" of C2ST",
    )


def beside_setu():
    """setu, which estimates likelihoods, on the observations that it was run on."""
    found = over_observations("two_moons")
    setu = found.get(best_of("setu"), [])
    if not setu:
        return "setu not measured"
    first = len(setu)
    ours = [f"{np.median(found[method][:first]):.3f}" for method in OURS[:2]]
    return (
        f"on the first {first} observations setu has {np.median(setu):.3f}, NPE {ours[0]} and with 5 members {ours[1]}"
    )


def sbi_time():
    """Of benchmarks/sbibm.py, two_moons."""

    def get(method):
        return medians("two_moons", "training").get(method)

    return Row(
        "Simulation-based inference, two_moons, 10,000 simulations: CPU seconds of NPE's training",
        "below 180 s, faster than sbi and sbijax",
        {"NPE": get("NPE")},
        {"sbijax": get(best_of("sbijax")), "sbi": get(best_of("sbi"))},
        False,
        "C2ST in the row above; compilation included",
    )


def headline():
    """All rows."""
    return [
        exact_gaussian("d1", "Exact Gaussian, 128 pixels"),
        exact_gaussian("d2", "Exact Gaussian, 64 x 64"),
        whitening(),
        kernels("deconvolution", "Blur of exp(field), 64 x 64"),
        kernels("elliptic", "Coefficient of an elliptic equation, 64 parameters"),
        two_level(),
        sparse_cholesky("centered", "4 times", ""),
        sparse_cholesky(
            "whitened",
            "at most 3.5 times slower",
            "ours is a callback to the host, for where a matrix is not positive definite sparsax ends the run",
            "numpyro_inverse.sparse, solved by CHOLMOD",
        ),
        latent_gaussian(),
        denoising_quality(),
        iteration_cost(),
        sbi_accuracy(),
        sbi_time(),
        pinn_training(
            "training, to equal error",
            "Levenberg-Marquardt",
            "-u'' + θ u = f: CPU seconds to an error of the field of 1e-3",
            "largest error of the field",
        ),
        pinn_training(
            "training in the plane, to equal error",
            "Levenberg-Marquardt after 200 steps of Adam",
            "λ Δu + θ u² = f: CPU seconds to an error of the field of 1 %",
            "root mean square error of the field",
        ),
        pinn_reduced(),
        pinn_published(),
        calibration(),
    ]
