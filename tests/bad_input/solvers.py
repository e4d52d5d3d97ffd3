"""Bad input to data terms, solvers and their report: every error is ours and names the argument."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse import solvers
from numpyro_inverse.denoisers import Median
from numpyro_inverse.operators import Mask, Matrix
from numpyro_inverse.solvers import LeastSquares, SmoothDataTerm, model_data_term, unrolled
from tests.bad_input.corpus import (
    COUNTS,
    FUNCTIONS,
    INF,
    KEYS,
    MODEL_ARGS,
    MODEL_KWARGS,
    NAMES,
    NAN,
    NONNEGATIVE_NUMBERS,
    OBJECTS,
    PARAMETERS,
    POSITIVE_NUMBERS,
    REAL,
    cases,
    given,
)

KEY, ONES = jax.random.key(0), np.ones(2)
TERM = LeastSquares(Matrix(np.eye(2)), ONES, 1.0)
PLAIN = SmoothDataTerm(lambda x: jnp.sum(x**2) / 2, lipschitz=1.0, strong_convexity=1.0)
Y = np.array([0.3, -0.2], np.float32)


def half(x, sigma):
    return x / 2


def model(y=None):
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
    count = numpyro.sample("count", dist.Poisson(1.0))
    x = numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x + count, noise).to_event(1), obs=y)


FINITE = [*REAL, NAN, INF, [1.0, NAN], 1e60]
SCALARS = [*PARAMETERS, ONES, [1.0]]  # for one positive number, which may be traced
SIGNALS = [*REAL, 1.0, np.ones(3), np.ones((2, 2)), []]
STARTS = [*SIGNALS, ONES * NAN]
DENOISERS = [*FUNCTIONS, Median]
TERMS = [*OBJECTS, len, TERM.operator, LeastSquares]
SOLVERS = [  # each with its map
    (solvers.pnp_pgd, solvers.ProximalGradientMap),
    (solvers.pnp_fista, None),
    (solvers.pnp_hqs, solvers.HalfQuadraticMap),
    (solvers.pnp_admm, solvers.ADMMMap),
    (solvers.pnp_drs, solvers.DouglasRachfordMap),
    (solvers.red_gradient_descent, solvers.REDGradientMap),
    (solvers.red_proximal_gradient, solvers.REDProximalMap),
]
NEED_PROX = ("pnp_hqs", "pnp_admm", "pnp_drs", "red_proximal_gradient")
SETTING = {"data_term": TERM, "denoiser": half, "sigma": 1.0, "step": 0.5}
VALUES = {"noise": 1.0, "count": 2}


def of_a_solver(solver, map_):
    terms = [*TERMS, PLAIN] if solver.__name__ in NEED_PROX else TERMS
    shared = {"data_term": terms, "denoiser": DENOISERS, "sigma": SCALARS, "step": SCALARS}
    if "red" in solver.__name__:
        shared["strength"] = SCALARS
    long = {} if solver.__name__ in NEED_PROX else {"step": [*SCALARS, 2.1]}
    base = SETTING | {"x0": ONES}
    found = cases(solver, base, **shared | long, x0=STARTS, max_steps=COUNTS, tolerance=given(POSITIVE_NUMBERS))
    if map_ is not None:
        found |= cases(map_, SETTING, **shared)
        found[f"{map_.__name__} z"] = ("z", map_(**SETTING), SIGNALS)
    return found


def of_a_site(name):
    def call(value):
        return model_data_term(model, "x", model_args=(Y,), values=VALUES | {name: value})

    return call


CASES = (
    cases(
        LeastSquares,
        {"operator": Mask(ONES > 0), "data": ONES, "scale": 1.0},
        operator=[*OBJECTS, len, np.eye(2), Matrix],
        data=[*["a", {}, object(), None, True, [1.0, "2"], [None]], NAN, [1.0, NAN], [1j, NAN], 1.0, np.ones(3), []],
        scale=SCALARS,
        tolerance=given(POSITIVE_NUMBERS),
    )
    | cases(TERM.with_data, {}, data=["a", {}, None, True, [1.0, NAN], [1j, INF], 1.0, np.ones(3), []])
    | cases(
        SmoothDataTerm,
        {"function": jnp.sum},
        function=FUNCTIONS,
        lipschitz=given(POSITIVE_NUMBERS),
        strong_convexity=given(NONNEGATIVE_NUMBERS),
    )
    | {
        "too convex": ("strong_convexity", lambda v: SmoothDataTerm(jnp.sum, lipschitz=1.0, strong_convexity=v), [1.1]),
        "LeastSquares.value": ("x", TERM.value, SIGNALS),
        "LeastSquares.gradient": ("x", TERM.gradient, SIGNALS),
        "LeastSquares.prox": ("x", lambda v: TERM.prox(v, 1.0), SIGNALS),
        "LeastSquares.prox step": ("step", lambda v: TERM.prox(ONES, v), SCALARS),
        "SmoothDataTerm.value": ("x", PLAIN.value, REAL),
        "SmoothDataTerm.gradient": ("x", PLAIN.gradient, REAL),
    }
    | {name: case for pair in SOLVERS for name, case in of_a_solver(*pair).items()}
    | cases(
        solvers.krasnoselskii_mann,
        {"operator": jnp.cos, "x0": ONES},
        operator=FUNCTIONS,
        x0=[*REAL, NAN, ONES * NAN, []],
        relaxation=[v for v in SCALARS if v is not len] + [2.0, 3],
        max_steps=COUNTS,
        tolerance=given(POSITIVE_NUMBERS),
    )
    | {
        "a map's x0": (
            "x0",
            lambda v: solvers.krasnoselskii_mann(solvers.ADMMMap(**SETTING), v),
            [*STARTS, np.ones((1, 2))],
        )
    }
    | cases(
        solvers.convergence_report,
        SETTING | {"solver": solvers.pnp_pgd, "points": [ONES], "rng_key": KEY},
        solver=[*FUNCTIONS, len, solvers.krasnoselskii_mann, LeastSquares],
        data_term=TERMS,
        denoiser=DENOISERS,
        sigma=SCALARS,
        step=SCALARS,
        points=[*FINITE, 1.0, [], ONES, np.ones((0, 2)), np.ones((1, 3)), np.ones((1, 1, 2))],
        rng_key=KEYS,
        strength=POSITIVE_NUMBERS,
    )
    | cases(
        model_data_term,
        {"model": model, "site": "x", "model_args": (Y,), "values": VALUES},
        model=FUNCTIONS,
        site=[*NAMES, "w", "y", "count"],
        model_args=MODEL_ARGS,
        model_kwargs=MODEL_KWARGS,
        values=["noise", 3, 1.0, [1.0], ["noise"], ONES, {}, {"noise": 1.0}, VALUES | {"w": 1.0}, VALUES | {3: 1.0}],
        observed=["y", 3, ONES, {"y": 1.0}, [], ["x"], [3], [None]],
    )
    | {
        "values noise": (
            "values['noise']",
            of_a_site("noise"),
            ["a", None, {}, True, object(), [1.0, "2"], NAN, INF, ONES, [1.0, NAN], 0.0, -1.0],
        ),
        "values count": ("values['count']", of_a_site("count"), ["a", True, NAN, -1, ONES]),
    }
)

MATRICES = [*FINITE, 1.0, ONES, np.ones((0, 2)), np.ones((2, 2, 2))]
NETWORKS = ["a", 3, {}, None, ONES, [], [3], [jnp.sin, "a"]]
MATRIX = np.array([[1.0, 0.2, 0.1], [0.1, 1.0, 0.9]])
LISTA = unrolled.CoupledLISTA(MATRIX, 1, threshold=0.1)
NETWORK = unrolled.NonexpansiveNetwork(2, 2, 1, key=KEY)
DEEP = unrolled.DeepEquilibrium(NETWORK, lipschitz=1.0)
LEARNED = unrolled.LearnedProximalGradient([NETWORK], lipschitz=1.0)
MODL = unrolled.MoDL(NETWORK, step=1.0)
PAIRS = unrolled.LearnedPrimalDual(dual=[lambda h: h[0]], primal=[lambda x: x[0]])
COMPLEX = LeastSquares(Matrix(np.eye(2)), 1j * ONES, 1.0)
STARTED = {"data_term": TERM, "x0": ONES}

CASES |= (
    cases(
        unrolled.soft_threshold,
        {"x": ONES, "threshold": 1.0},
        x=REAL,
        threshold=[*FINITE, -1.0, [1.0, -1.0], np.ones(3)],
    )
    | cases(unrolled.analytic_weights, {}, matrix=[*MATRICES, np.ones((2, 3))])
    | cases(
        unrolled.coherence,
        {"weights": np.eye(2), "matrix": np.eye(2)},
        weights=[*MATRICES, np.ones((2, 3))],
        matrix=MATRICES,
    )
    | cases(
        unrolled.CoupledLISTA,
        {"matrix": MATRIX, "num_layers": 1, "threshold": 0.1},
        matrix=MATRICES,
        num_layers=COUNTS,
        threshold=POSITIVE_NUMBERS,
    )
    | cases(
        unrolled.AnalyticLISTA,
        {"matrix": MATRIX, "num_layers": 1, "sparsity": 1, "largest": 1.0},
        matrix=MATRICES,
        num_layers=COUNTS,
        sparsity=[*COUNTS, 99],
        largest=POSITIVE_NUMBERS,
    )
    | {"LISTA y": ("y", LISTA, SIGNALS), "LISTA.iterates y": ("y", LISTA.iterates, SIGNALS)}
    | cases(
        unrolled.NonexpansiveNetwork,
        {"size": 2, "width": 2, "key": KEY},
        size=COUNTS,
        width=COUNTS,
        depth=COUNTS,
        lipschitz=[*POSITIVE_NUMBERS, 1.1],
        key=KEYS,
    )
    | {"network x": ("x", NETWORK, [*REAL, 1.0, np.ones(3), np.ones((2, 2)), []])}
    | cases(
        unrolled.DeepEquilibrium,
        {"network": NETWORK, "lipschitz": 1.0},
        network=FUNCTIONS,
        lipschitz=POSITIVE_NUMBERS,
        max_steps=COUNTS,
        tolerance=given(POSITIVE_NUMBERS),
    )
    | cases(
        unrolled.LearnedProximalGradient,
        {"networks": [NETWORK], "lipschitz": 1.0},
        networks=NETWORKS,
        lipschitz=POSITIVE_NUMBERS,
    )
    | cases(
        unrolled.LearnedPrimalDual,
        {"dual": [NETWORK], "primal": [NETWORK]},
        dual=[*NETWORKS, [NETWORK] * 2],
        primal=[*NETWORKS, [NETWORK] * 2],
    )
    | cases(
        unrolled.MoDL, {"network": NETWORK, "step": 1.0}, network=FUNCTIONS, step=POSITIVE_NUMBERS, num_steps=COUNTS
    )
    | cases(DEEP.solve, STARTED, data_term=TERMS, x0=given(STARTS))
    | cases(DEEP.certificate, {}, data_term=TERMS)
    | cases(LEARNED.certificate, {}, data_term=TERMS)
    | {
        f"{type(net).__name__}.__call__ {argument}": (
            argument,
            lambda v, net=net, argument=argument: net(**STARTED | {argument: v}),
            bad,
        )
        for net, terms in ((DEEP, TERMS), (LEARNED, TERMS), (MODL, [*TERMS, PLAIN]), (PAIRS, [*TERMS, PLAIN, COMPLEX]))
        for argument, bad in (("data_term", terms), ("x0", given(STARTS)))
    }
    | {"no shape": ("x0", lambda v: LEARNED(PLAIN, v), [None])}
)


class Stated:
    """A denoiser with certificates that are none."""

    def __call__(self, x, sigma):
        return x / 2

    def certificates(self, sigma):
        return {"lipschitz": 0.5}


def pgd(denoiser):
    return solvers.pnp_pgd(TERM, denoiser, ONES, sigma=1.0, step=0.5, max_steps=2)


def report(denoiser):
    return solvers.convergence_report(solvers.pnp_pgd, **SETTING | {"denoiser": denoiser}, points=[ONES], rng_key=KEY)


RETURNED = {
    "denoiser": (lambda: pgd(lambda x, sigma: "a"), "pnp_pgd: `what the denoiser returns` must be real numbers"),
    "no denoiser": (lambda: pgd(lambda x, sigma: None), "pnp_pgd: `what the denoiser returns` must be real numbers"),
    "shape": (lambda: pgd(lambda x, sigma: x[:1]), "pnp_pgd: the denoiser <lambda> must return an array of the shape"),
    "report": (lambda: report(lambda x, sigma: 1j * x), "convergence_report: `what the denoiser returns` must be real"),
    "certificates": (lambda: report(Stated()), "convergence_report: `denoiser.certificates` must return a dictionary"),
    "function": (
        lambda: SmoothDataTerm(lambda x: "a").value(ONES),
        "SmoothDataTerm: `what the function returns` must be real numbers; got the string 'a'",
    ),
    "gradient": (lambda: SmoothDataTerm(jnp.sin).gradient(ONES), "SmoothDataTerm: `function` must return one number"),
    "complex": (
        lambda: SmoothDataTerm(lambda x: 1j * jnp.sum(x)).gradient(ONES),
        "SmoothDataTerm: `what the function returns` must be real numbers",
    ),
    "operator": (
        lambda: solvers.krasnoselskii_mann(lambda x: None, ONES),
        "krasnoselskii_mann: `what the operator returns` must be real numbers; got None",
    ),
    "relaxation": (
        lambda: solvers.krasnoselskii_mann(jnp.cos, ONES, relaxation=lambda k: "a"),
        "krasnoselskii_mann: `what the relaxation returns` must be real numbers; got the string 'a'",
    ),
    "relaxations": (
        lambda: solvers.krasnoselskii_mann(jnp.cos, ONES, relaxation=lambda k: ONES),
        r"krasnoselskii_mann: `what the relaxation returns` must be one number; got shape \(2,\)",
    ),
    "network": (
        lambda: unrolled.LearnedProximalGradient([lambda x: None], lipschitz=1.0)(TERM),
        "LearnedProximalGradient: `what networks returns` must be real numbers; got None",
    ),
    "shorter": (
        lambda: unrolled.MoDL(lambda x: x[:1], step=1.0)(TERM),
        r"MoDL: `network` must return an array of shape \(2,\); got \(1,\)",
    ),
    "equilibrium": (
        lambda: unrolled.DeepEquilibrium(lambda x: "a", lipschitz=1.0)(TERM),
        "DeepEquilibrium: `what network returns` must be real numbers",
    ),
    "dual": (
        lambda: unrolled.LearnedPrimalDual(dual=[lambda h: h], primal=[NETWORK])(TERM),
        r"LearnedPrimalDual: `dual` must return an array of shape \(2,\); got \(3, 2\)",
    ),
}


REPORT = SETTING | {"solver": solvers.pnp_pgd, "points": np.ones((1, 2)), "rng_key": KEY}
STATIC = {
    "sigma": ("sigma", lambda v: solvers.convergence_report(**REPORT | {"sigma": v})),
    "step": ("step", lambda v: solvers.convergence_report(**REPORT | {"step": v})),
    "points": ("points", lambda v: solvers.convergence_report(**REPORT | {"points": v * np.ones((1, 2))})),
    "data_term": (
        "data_term",
        lambda v: solvers.convergence_report(**REPORT | {"data_term": TERM.with_data(v * ONES)}),
    ),
    "tolerance": ("tolerance", lambda v: LeastSquares(Matrix(np.eye(2)), ONES, 1.0, tolerance=v)),
    "max_steps": ("max_steps", lambda v: solvers.pnp_pgd(TERM, half, ONES, sigma=1.0, step=0.5, max_steps=v)),
    "lipschitz": ("lipschitz", lambda v: SmoothDataTerm(jnp.sum, lipschitz=v)),
}
