"""Bad input to ``calibration``: every error is ours, names the argument and says what was found."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from numpyro_inverse import calibration
from numpyro_inverse import symmetry as sy
from numpyro_inverse.calibration import exact, functionals
from numpyro_inverse.domains import Grid
from numpyro_inverse.sbi import NLE
from tests.bad_input.corpus import (
    COUNTS,
    FLAGS,
    FRACTIONS,
    FUNCTIONS,
    INF,
    KEYS,
    MODEL_ARGS,
    MODEL_KWARGS,
    NAMES,
    NAN,
    NO_NUMBERS,
    NONNEGATIVE_NUMBERS,
    NUMBERS,
    OBJECTS,
    POSITIVE_NUMBERS,
    RAGGED,
    REAL,
    cases,
    given,
)

KEY, X = jax.random.key(0), np.random.default_rng(0).normal(size=(30, 2))
BAD_KEYS = (0, None, "a", jax.random.split(KEY, 2), np.zeros(2))
BAD_COUNTS = ("a", None, 2.5, -1, 0, np.nan, True, 1j, [1])
BAD_DRAWS = (
    "a",
    None,
    np.array(["a"] * 30),
    1j * X,
    X[:3],
    np.full((30, 2), np.nan),
    1e200 * X,
    0 * X,
    [[1.0], [2.0, 3.0]],
)
BAD_POSITIVE = ("a", None, 0.0, -1.0, np.nan, np.inf, 1j)
LINEAR = calibration.LinearProblem(np.eye(3), np.eye(3), np.eye(3))


def model(data=None):
    x = numpyro.sample("x", dist.Normal())
    numpyro.sample("data", dist.Normal(x, 1.0), obs=data)


def draw(key, y):
    return {"x": y / 2 + np.sqrt(0.5) * jax.random.normal(key, (99,))}


def score(x):
    return -x


CALLS = {
    **{
        f"{name}(rng_key)": ("rng_key", BAD_KEYS, test)
        for name, test in {
            "sbc": lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=v),
            "coverage": lambda v: calibration.coverage(model, draw, num_datasets=5, rng_key=v),
            "tarp": lambda v: calibration.tarp(model, draw, num_datasets=5, rng_key=v),
            "c2st": lambda v: calibration.c2st(X, X, v),
            "mmd": lambda v: calibration.mmd(X, X, v),
            "mmd_to_gaussian": lambda v: calibration.mmd_to_gaussian(X, np.zeros(2), np.eye(2), v),
            "ksd": lambda v: calibration.ksd(X, score, v),
            "wasserstein": lambda v: calibration.wasserstein(X, X, v),
            "lc2st": lambda v: calibration.lc2st(X, X, X, X, X[0], v),
            "contraction": lambda v: calibration.contraction(calibration.SobolevFamily(1, 1, 1), [0.1, 0.01], v),
            "dropout_vs_posterior": lambda v: calibration.dropout_vs_posterior(LINEAR, np.ones(3), v),
            "mc_dropout": lambda v: calibration.mc_dropout(lambda y, key: y, jnp.ones(3), v),
            "measure_temperature": lambda v: calibration.measure_temperature(
                lambda x: x @ x, jnp.zeros(2), v, step_size=0.1, noise_scale=0.1
            ),
        }.items()
    },
    **{
        f"sbc({name})": (
            name,
            [v for v in BAD_COUNTS if not (v is None and name != "num_datasets")] if name != "num_steps" else ("a", 0),
            lambda v, name=name: calibration.sbc(
                model, draw, **{"num_datasets": 5, "rng_key": KEY, "progress_bar": False} | {name: v}
            ),
        )
        for name in ("num_datasets", "batch_size", "num_steps", "num_samples")
    },
    **{
        f"{name}(draws)": (argument, BAD_DRAWS, test)
        for name, argument, test in (
            ("c2st", "x", lambda v: calibration.c2st(v, X, KEY)),
            ("mmd", "y", lambda v: calibration.mmd(X, v, KEY)),
            ("mmd_to_gaussian", "draws", lambda v: calibration.mmd_to_gaussian(v, np.zeros(2), np.eye(2), KEY)),
            ("ksd", "draws", lambda v: calibration.ksd(v, score, KEY)),
            ("wasserstein", "x", lambda v: calibration.wasserstein(v, X, KEY)),
            ("lc2st", "truths", lambda v: calibration.lc2st(v, X, X, X, X[0], KEY)),
        )
    },
    "mmd(bandwidth)": (
        "bandwidth",
        BAD_POSITIVE[:1] + BAD_POSITIVE[2:],
        lambda v: calibration.mmd(X, X, KEY, bandwidth=v),
    ),
    "mmd(num_permutations)": ("num_permutations", BAD_COUNTS, lambda v: calibration.mmd(X, X, KEY, num_permutations=v)),
    "ksd(num_bootstrap)": ("num_bootstrap", BAD_COUNTS, lambda v: calibration.ksd(X, score, KEY, num_bootstrap=v)),
    "ksd(score)": ("score", (5, "a", None, lambda x: x[:1]), lambda v: calibration.ksd(X, v, KEY)),
    "ksd(support)": ("support", (5, "positive"), lambda v: calibration.ksd(X, score, KEY, support=v)),
    "sbc(model)": ("model", (5, "a", None), lambda v: calibration.sbc(v, draw, num_datasets=5, rng_key=KEY)),
    "sbc(inference)": ("inference", (5, "a", None), lambda v: calibration.sbc(model, v, num_datasets=5, rng_key=KEY)),
    "sbc(observed)": (
        "observed",
        (5, None, (), ("y",), [3]),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, observed=v),
    ),
    "sbc(sites)": (
        "sites",
        (5, ("x", 2)),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, sites=v),
    ),
    "sbc(model_args)": (
        "model_args",
        (5, "a"),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, model_args=v),
    ),
    "sbc(model_kwargs)": (
        "model_kwargs",
        (5, "a", (1,)),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, model_kwargs=v),
    ),
    "sbc(quantities)": (
        "quantities",
        (5, ["a"], {"a": 3}),
        lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, quantities=v),
    ),
    "sbc(store)": ("store", (5, 1.0), lambda v: calibration.sbc(model, draw, num_datasets=5, rng_key=KEY, store=v)),
    "tarp(reference)": (
        "reference",
        (5, "a"),
        lambda v: calibration.tarp(model, draw, num_datasets=5, rng_key=KEY, reference=v),
    ),
    "dropout(keep)": (
        "keep",
        ("a", None, 0.0, 1.0, np.nan),
        lambda v: calibration.dropout_vs_posterior(LINEAR, np.ones(3), KEY, keep=v),
    ),
    "contraction(noise_levels)": (
        "noise_levels",
        ("a", None, [0.1], [0.1, -1.0], [0.1, np.nan], ["a", "b"]),
        lambda v: calibration.contraction(calibration.SobolevFamily(1, 1, 1), v, KEY),
    ),
    "normal_normal(noise)": ("noise", BAD_POSITIVE, lambda v: exact.normal_normal(X, v)),
    "normal_normal(data)": ("data", (5.0, "a", None, np.array([np.nan])), lambda v: exact.normal_normal(v, 1.0)),
    "beta_binomial(successes)": ("successes", (-1, 11, "a", None), lambda v: exact.beta_binomial(v, 10)),
    "gamma_poisson(counts)": ("counts", (3, [-1], "a"), lambda v: exact.gamma_poisson(v, 1.0, 1.0)),
    "inverse_gamma_normal(b)": ("b", BAD_POSITIVE, lambda v: exact.inverse_gamma_normal(X, 1.0, v)),
    "SignSymmetric(sigma)": ("sigma", BAD_POSITIVE, lambda v: exact.SignSymmetric(1.0, v)),
    "quadrature(tolerance)": (
        "tolerance",
        BAD_POSITIVE,
        lambda v: exact.quadrature(model, model_kwargs={"data": 0.5}, tolerance=v),
    ),
    "compare(reference)": ("reference", (5, None, {}), lambda v: exact.compare({"x": X}, v)),
    "compare(posterior)": ("posterior", (5, None, X), lambda v: exact.compare(v, exact.Reference.of(x=dist.Normal()))),
    "gaussian_wasserstein(other_mean)": (
        "other_mean",
        (np.zeros(3), *REAL, np.full(2, NAN)),
        lambda v: calibration.gaussian_wasserstein(np.zeros(2), np.eye(2), v, np.eye(2)),
    ),
}


CASES = {name: (argument, call, values) for name, (argument, values, call) in CALLS.items()}

STUDY = calibration.RankStudy(
    {"x": np.arange(20) % 10}, 9, {"x": np.full(20, 9.0)}, np.zeros(20, bool), np.zeros(20, bool)
)
QUICK = {"model": model, "inference": draw, "num_datasets": 5, "rng_key": KEY, "progress_bar": False}
OPTIONS = {
    "model": FUNCTIONS,
    "model_args": (*MODEL_ARGS, None),
    "model_kwargs": MODEL_KWARGS,
    "num_draws": (*COUNTS, 8),
    "num_steps": COUNTS,
    "num_warmup": (*given(NONNEGATIVE_NUMBERS), 2.5),
    "num_samples": given(COUNTS),
    "progress_bar": FLAGS,
    "sites": (3, {}, object(), [3], ("v",), b"x"),
    "observed": (3, None, {}, [3], b"data"),
    "sharding": ("a", 3, object()),
    "inference": (*FUNCTIONS, lambda key, y: 3, lambda key, y: {"x": "a"}, lambda key, y: {"x": None}),
}
QUANTITIES = (5, ["a"], {"a": 3}, {"a": lambda values, data: "b"}, {"a": lambda values, data: None})
CASES |= cases(calibration.sbc, QUICK, **OPTIONS, log_likelihood=FLAGS, quantities=QUANTITIES)
SHARED = {name: OPTIONS[name] for name in ("model", "model_args", "num_draws", "num_steps", "sites", "observed")}
CASES |= cases(calibration.coverage, QUICK, **SHARED, joint=FLAGS, quantities=(5, ["a"], {"a": 3}))
CASES |= cases(
    calibration.tarp,
    QUICK | {"num_references": 9},
    **SHARED,
    num_references=(*COUNTS, 1),
    num_directions=(*NONNEGATIVE_NUMBERS, 2.5),
    reference=(5, "a", len, lambda data: 3, lambda data: {}, lambda data: {"x": "a"}),
)
CASES |= cases(STUDY.verdict, {}, level=FRACTIONS)
CASES |= cases(STUDY.bands, {}, coverage=FRACTIONS)
CASES |= cases(STUDY.plot, {}, coverage=FRACTIONS, quantities=(3, {"y"}, [3], ("y",), "y"))
CASES |= cases(calibration.Coverage(STUDY).empirical, {"name": "x", "level": 0.5}, name=(*NAMES, "y"), level=FRACTIONS)

# Two samples

TWO = {"x": X, "y": X + 0.1, "rng_key": KEY, "num_permutations": 19}
DRAWS = (*REAL, 1.0, X[:3], 0 * X, np.full((30, 2), NAN), np.ones((30, 0)))
PERMUTATIONS = (*COUNTS, 18)
CASES |= cases(calibration.c2st, TWO, x=(*DRAWS, X[:, :1]), y=DRAWS, rng_key=KEYS, num_permutations=PERMUTATIONS)
CASES |= cases(calibration.mmd, TWO, x=(*DRAWS, X[:, :1]), y=DRAWS, bandwidth=given(POSITIVE_NUMBERS))
CASES |= cases(calibration.wasserstein, TWO, x=(*DRAWS, X[:20]), order=(*COUNTS, 3), num_permutations=PERMUTATIONS)
CASES |= cases(
    calibration.mmd_to_gaussian,
    {"draws": X, "mean": np.zeros(2), "covariance": np.eye(2), "rng_key": KEY, "num_simulations": 19},
    draws=DRAWS,
    mean=(*REAL, np.zeros(3), np.full(2, NAN)),
    covariance=(*REAL, np.eye(3), -np.eye(2), np.full((2, 2), NAN), np.array([[1.0, 0.5], [0.0, 1.0]])),
    rng_key=KEYS,
    bandwidth=given(POSITIVE_NUMBERS),
    num_simulations=PERMUTATIONS,
)
CASES |= cases(
    calibration.ksd,
    {"draws": X, "score": score, "rng_key": KEY, "num_bootstrap": 19},
    draws=DRAWS,
    score=(*FUNCTIONS, lambda x: "a", lambda x: None, lambda x: {}, lambda x: x[:1], lambda x: x * 1j),
    rng_key=KEYS,
    support=("a", 3, {}, dist.Normal()),
    num_bootstrap=PERMUTATIONS,
)
CASES |= cases(
    calibration.lc2st,
    {"truths": X, "draws": X + 0.1, "data": X, "draws_at": X, "data_at": X[0], "rng_key": KEY, "num_permutations": 19},
    truths=(*DRAWS, X[:20], X[:, :1]),
    draws=(*DRAWS, X[:20], X[:, :1]),
    data=(*DRAWS, X[:20], X[:, :1]),
    draws_at=(*DRAWS, X[:, :1]),
    data_at=(*REAL, 1.0, X[0, :1], np.full(2, NAN)),
    rng_key=KEYS,
    num_permutations=PERMUTATIONS,
)
CASES |= cases(
    calibration.gaussian_wasserstein,
    {"mean": np.zeros(2), "covariance": np.eye(2), "other_mean": np.zeros(2), "other_covariance": np.eye(2)},
    mean=(*REAL, 1.0, np.zeros(3), np.full(2, NAN)),
    covariance=(*REAL, 1.0, np.eye(3), -np.eye(2), np.full((2, 2), NAN), np.array([[1.0, 0.5], [0.0, 1.0]])),
    other_covariance=(*REAL, 1.0, np.eye(3), -np.eye(2), np.full((2, 2), NAN)),
)
CASES |= cases(
    calibration.mahalanobis,
    {"truths": X, "means": X + 0.1, "covariances": np.eye(2)},
    truths=(*REAL, 1.0, X[:1], X[:20], np.full((30, 2), NAN)),
    means=(*REAL, 1.0, X[:1], X[:20], np.full((30, 2), NAN)),
    covariances=(*REAL, 1.0, np.eye(3), -np.eye(2), np.full((2, 2), NAN), np.ones((2, 2)), np.ones((29, 2, 2))),
)
CASES |= cases(calibration.mmd(**TWO).verdict, {}, level=FRACTIONS)
CASES |= cases(calibration.mahalanobis(X, X, np.eye(2)).verdict, {}, level=FRACTIONS)

# Exact posteriors

MIXTURE = {
    "matrix": np.ones((1, 2)),
    "noise_covariance": np.eye(1),
    "weights": np.array([0.5, 0.5]),
    "means": np.zeros((2, 2)),
    "covariances": np.stack([np.eye(2)] * 2),
    "data": np.ones(1),
}
SIGNS = exact.SignSymmetric(1.0, 0.5)
REFERENCE = exact.Reference.of(x=dist.Normal())
CASES |= cases(
    exact.gaussian_mixture,
    MIXTURE,
    matrix=(*REAL, 1.0, np.ones((1, 3)), np.full((1, 2), NAN), np.ones((0, 2))),
    noise_covariance=(*REAL, 1.0, np.eye(2), -np.eye(1), np.full((1, 1), NAN), np.zeros((1, 1))),
    weights=(*REAL, 1.0, np.ones(2), np.array([1.5, -0.5]), np.full(2, NAN)),
    means=(*REAL, 1.0, np.zeros((1, 2)), np.full((2, 2), NAN), np.zeros((0, 2))),
    covariances=(*REAL, 1.0, np.ones((2, 2)), np.ones((2, 2, 2)), np.full((2, 2, 2), NAN)),
    data=(*REAL, 1.0, np.ones(2), np.full(1, NAN)),
    site=NAMES,
)
for posterior in (exact.quadrature, exact.linear_gaussian):
    CASES |= cases(
        posterior,
        {"model": model, "model_kwargs": {"data": 0.5}},
        model=FUNCTIONS,
        model_args=(*MODEL_ARGS, None),
        model_kwargs=MODEL_KWARGS,
        tolerance=given(POSITIVE_NUMBERS),
    )
ONE = (*REAL, NAN, INF)
POSITIVE = (*ONE, 0.0, -1.0, np.ones(3))
CASES |= cases(
    exact.normal_normal,
    {"data": X, "noise": 1.0},
    data=(*REAL, 1.0, X * NAN),
    noise=POSITIVE,
    mean=(*ONE, np.ones(3)),
    scale=POSITIVE,
)
CASES |= cases(
    exact.beta_binomial,
    {"successes": [3, 4], "trials": 10},
    successes=(*ONE, -1, 11, 2.5, [-1, 2]),
    trials=(*ONE, -1, 3, 5.5, [9, 9, 9]),
    a=POSITIVE,
    b=POSITIVE,
)
CASES |= cases(
    exact.gamma_poisson,
    {"counts": [[3, 4]], "shape": 1.0, "rate": 1.0},
    counts=(*ONE, 3, [-1], [0.5], [NAN]),
    shape=POSITIVE,
    rate=POSITIVE,
)
CASES |= cases(
    exact.inverse_gamma_normal, {"residuals": X, "a": 1.0, "b": 1.0}, residuals=(*ONE, 1.0), a=POSITIVE, b=POSITIVE
)
CASES |= cases(exact.SignSymmetric, {"y": 1.0, "sigma": 0.5}, y=(*NUMBERS, 1e6), sigma=(*POSITIVE_NUMBERS, 1e-6))
CASES |= cases(SIGNS.absolute_moment, {}, p=(*NUMBERS, -1.0))
CASES |= cases(SIGNS.density, {}, u=REAL)
CASES |= cases(SIGNS.draw, {"rng_key": KEY, "number": 3}, rng_key=KEYS, number=(*NUMBERS, -1, 2.5))
CASES |= cases(exact.Reference.of, {"x": dist.Normal()}, x=OBJECTS)
MOMENTS = ("a", None, 3, [], np.ones(3), {}, {"x": "a"}, {"x": None}, {"y": 1.0}, {"x": RAGGED})
CASES |= cases(
    exact.Reference,
    {"mean": {"x": np.zeros(2)}, "sd": {"x": np.ones(2)}, "draw": lambda key, number: {}},
    mean=(*MOMENTS, {"x": np.zeros(3)}),
    sd=(*MOMENTS, {"x": np.ones(3)}),
    draw=FUNCTIONS,
    covariance=("a", None, 3, {"x": "a"}, {"x": 1.0}, {"x": np.eye(3)}, {"y": np.eye(2)}),
    log_evidence=given(NUMBERS),
)
ROWS = np.ones((20, 1))
CASES |= cases(
    exact.compare,
    {"posterior": {"x": X[:, 0]}, "reference": REFERENCE},
    posterior=(
        *OBJECTS,
        {"x": "a"},
        {"x": None},
        {"x": 1.0},
        {"y": ROWS},
        {"x": ROWS},
        {"x": ROWS[:, 0]},
        {"x": X[:3, 0]},
        {"x": np.full(20, NAN)},
        {"x": RAGGED},
        MCMC(NUTS(model), num_warmup=1, num_samples=1),
    ),
    reference=OBJECTS,
    num_chains=(*COUNTS, 7, 10),
)
CASES |= cases(exact.compare({"x": X[:, 0]}, REFERENCE).verdict, {}, level=FRACTIONS)

# Conformal sets, functionals, reports


def inference(key, data):
    return {"u": jax.random.normal(key, (30, 2))}


SETS = {"inference": inference, "truths": {"u": X}, "data": X, "rng_key": KEY}
CONFORMAL = calibration.Conformal(0.9, {"u": np.zeros(2)}, 1.0)
CASES |= cases(
    calibration.conformalize,
    SETS,
    inference=(
        *FUNCTIONS,
        lambda key, data: 3,
        lambda key, data: None,
        lambda key, data: {"v": jnp.ones(3)},
        lambda key, data: {"u": "a"},
        lambda key, data: {"u": 1.0},
        lambda key, data: {"u": jax.random.normal(key, (30, 3))},
        lambda key, data: {"u": jnp.full((30, 2), jnp.nan)},
    ),
    truths=(*OBJECTS, {"u": "a"}, {"u": None}, {"u": 1.0}, {"u": X[:19]}, {"u": X * NAN}, {"u": RAGGED}),
    data=("a", None, {}, 3, X[:20], {"y": "a"}, {"y": 3.0}, {"y": X, "z": X[:20]}, np.array(["a"] * 30)),
    rng_key=KEYS,
    level=FRACTIONS,
    log_prob=(
        *given(FUNCTIONS),
        lambda values, data: "a",
        lambda values, data: 3.0,
        lambda values, data: values["u"],
        lambda values, data: jnp.nan * values["u"][:, 0],
    ),
    batch_size=COUNTS,
)
CASES |= cases(
    CONFORMAL.interval,
    {"draws": X, "site": "u"},
    draws=(*REAL, 1.0, X[:, :1], X[:0]),
    site=(*NAMES, "v"),
)
CASES |= cases(CONFORMAL.density_threshold, {}, log_probs=(*REAL, 1.0, np.ones(0)))
SYMMETRY = sy.Symmetry(sy.SignFlip(), "u")
CASES |= cases(
    functionals.region_mean,
    {"site": "u", "region": np.ones(4, bool)},
    site=NAMES,
    region=("a", None, 3, {}, np.ones(4), np.zeros(4, bool), RAGGED, [[True], [True, False]]),
)
for functional in (functionals.maximum, functionals.minimum, functionals.energy):
    CASES |= cases(functional, {"site": "u"}, site=NAMES)
CASES |= cases(
    functionals.spectral_energy,
    {"site": "u", "domain": Grid(4), "low": 0.0, "high": 100.0},
    site=NAMES,
    domain=(*OBJECTS, Grid),
    low=(*NUMBERS, 99.0),
    high=(*NO_NUMBERS, None, NAN, np.ones(3), -1.0, 0.0),
)
for functional in (functionals.canonical, functionals.invariants):
    CASES |= cases(
        functional, {"symmetry": SYMMETRY, "site": "u"}, symmetry=(*OBJECTS, sy.SignFlip()), site=(*NAMES, "v")
    )
for name, quantity in {
    "region_mean": functionals.region_mean("u", np.ones(4, bool)),
    "maximum": functionals.maximum("u"),
    "energy": functionals.energy("u"),
    "invariants": functionals.invariants(SYMMETRY, "u"),
}.items():
    CASES[f"{name} of other sites"] = ("site", lambda v, quantity=quantity: quantity(v, {}), ({}, {"v": np.ones(4)}))
CASES["region_mean of another shape"] = (
    "site",
    lambda v: functionals.region_mean("u", np.ones(4, bool))({"u": v}, {}),
    (np.ones(3), 1.0, np.ones((4, 1))),
)
CASES |= cases(
    calibration.report,
    {"studies": {"x": STUDY}, "path": "/nowhere/report.html"},
    studies=(*OBJECTS, {"x": 3}, {3: STUDY}),
    path=(3, None, [], object()),
    title=(3, None, [], b"x"),
    level=FRACTIONS,
)
CASES |= cases(calibration.surrogate_check, {"draws": {}, "rng_key": KEY}, estimator=(*OBJECTS, NLE))
