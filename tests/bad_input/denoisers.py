"""Bad input to denoisers, their audit and their certificates: every error is ours and names the argument."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from numpyro_inverse import denoisers as dn
from numpyro_inverse.distributions import Matern
from numpyro_inverse.domains import Grid
from numpyro_inverse.symmetry import Scaling
from tests.bad_input.corpus import (
    COUNTS,
    FUNCTIONS,
    INF,
    KEYS,
    NAN,
    OBJECTS,
    PARAMETERS,
    POSITIVE_NUMBERS,
    PROBABILITIES,
    REAL,
    cases,
    given,
)

KEY = jax.random.key(0)
EYE, ONES, IMAGE = np.eye(2), np.ones(2), np.ones((4, 4))
GRID = Grid(4)


def half(x, sigma):
    return x / 2


def function(x):
    return x / 2


DENOISERS = [*FUNCTIONS, dn.Median]
FINITE = [*REAL, NAN, INF, [1.0, NAN], 1e60]
SCALARS = [*PARAMETERS, ONES, np.ones((1, 1))]  # for one positive number, which may be traced
MATRICES = [*FINITE, 1.0, ONES, np.ones((0, 2)), np.ones((2, 2, 2))]
SQUARES = [*MATRICES, np.ones((2, 3))]
COVARIANCES = [*SQUARES, np.ones((3, 3)), -EYE, [[1.0, 0.5], [0.0, 1.0]]]
KERNELS = [*MATRICES, EYE]
SIDES = ["a", {}, object(), len, None, 3, 2.5, True, 1j, (), (4,), (4, 4, 4), np.ones(2)]
FILTER = {"kernel": np.ones((1, 1, 3, 3)), "shape": (4, 4)}
SIDE = [(v, 4) for v in COUNTS]
SIGNALS = [*REAL, 1.0, np.ones(3), np.ones((2, 2)), []]
IMAGES = [*REAL, 1.0, ONES, np.ones((2, 4, 4)), np.ones((0, 4))]
ANY = [*REAL, [], np.ones((0, 2))]

GAUSSIAN = dn.GaussianDenoiser(ONES, EYE)
FIELD = dn.FieldDenoiser(Matern(GRID, range=0.5, scale=1.0, smoothness=1.0))
LINEAR = dn.LinearDenoiser(EYE)
MIXTURE = dn.GaussianMixtureDenoiser([1.0], [ONES], [EYE])
EMPIRICAL = dn.EmpiricalDenoiser([ONES])
INCREMENTS = dn.IncrementsDenoiser(dist.Normal(), points=8)
NETWORK = dn.ConvolutionalNetwork(2, 2, key=KEY)
FIRM = dn.FirmlyNonexpansiveDenoiser(1, 2, 1, key=KEY)
STEP = dn.GradientStepDenoiser(NETWORK)
DNCNN = dn.DnCNN([np.ones((3, 3, 1, 1))], [np.ones(1)])
LINE, DECLARED = dn.LineIntegral(half, 2), dn.DeclaredPotential(half, lambda x, sigma: jnp.sum(x))
AVERAGE = dn.GroupAverage(DECLARED, [lambda x: x])
TV, WAVELETS = dn.TotalVariation(1.0, 2), dn.WaveletThreshold(1.0, levels=1)
CONVOLUTION = eqx.nn.Conv2d(1, 1, 3, padding=1, key=KEY)
LAYER = dn.LipschitzConvolution(2, 1, key=KEY)


def calls(name, call, x, bad, **base):
    """A table of a denoiser's call or method."""
    table = cases(call, base | {"x": x, "sigma": 0.5}, x=bad, sigma=SCALARS)
    return {f"{name} {row.split()[-1]}": case for row, case in table.items()}


def draws(name, denoiser, x, bad):
    return calls(name, lambda x, sigma: denoiser.sample(KEY, x, sigma), x, bad) | {
        f"{name} key": ("key", lambda v: denoiser.sample(v, x, 0.5), KEYS)
    }


def everything(name, denoiser, x, bad):
    found = calls(name, denoiser, x, bad)
    if getattr(denoiser, "potential", None) is not None:
        found |= calls(f"{name}.potential", denoiser.potential, x, bad)
    if hasattr(denoiser, "sample"):
        found |= draws(f"{name}.sample", denoiser, x, bad)
    if hasattr(denoiser, "certificates"):
        bounds = [v for v in SCALARS if not isinstance(v, jax.Array)]
        found |= {f"{name}.certificates": ("sigma", denoiser.certificates, bounds)}
    return found


CASES = (
    cases(
        dn.audit_denoiser,
        {"denoiser": half, "x": ONES, "sigma": 0.5, "rng_key": KEY},
        denoiser=DENOISERS,
        x=[*FINITE, [], np.ones((0, 2)), [ONES, np.ones(3)], [ONES, "a"], [ONES, ONES * NAN]],
        sigma=POSITIVE_NUMBERS,
        rng_key=KEYS,
        num_probes=[*COUNTS, 1],
        num_iterations=COUNTS,
        gamma=POSITIVE_NUMBERS,
    )
    | cases(
        dn.jacobian_norm,
        {"function": function, "x": ONES, "rng_key": KEY},
        function=FUNCTIONS,
        x=[*FINITE, [], np.ones((0, 2))],
        rng_key=KEYS,
        num_iterations=COUNTS,
    )
    | cases(dn.matrix_norm, {"matrix": EYE}, matrix=MATRICES)
    | cases(dn.gram_bound, {"matrix": EYE}, matrix=MATRICES, iterations=COUNTS)
    | cases(dn.circular_convolution_norm, FILTER, kernel=KERNELS, shape=SIDES)
    | cases(dn.same_convolution_norm, FILTER, kernel=KERNELS, shape=SIDES)
    | cases(dn.zero_padded_convolution_bound, FILTER, kernel=KERNELS, shape=SIDES)
    | {
        "sides": ("shape[0]", lambda v: dn.circular_convolution_norm(FILTER["kernel"], v), SIDE),
        "certificate shape": ("shape", lambda v: dn.certificate(CONVOLUTION, v), SIDES),
        "certificate sides": ("shape[0]", lambda v: dn.certificate(CONVOLUTION, v), SIDE),
        "certificate of no image": ("shape", lambda v: dn.certificate(EYE, v), given(SIDES)),
        "certificate layer": (
            "layer",
            dn.certificate,
            [EYE * NAN, [EYE, np.full((2, 2), INF)], EYE > 0, EYE * 1j, np.array([["a"]]), eqx.nn.Linear, dn.Median],
        ),
        "network sides": ("shape[0]", NETWORK.lipschitz_certificate, SIDE),
        "network shape": ("shape", NETWORK.lipschitz_certificate, SIDES),
    }
    | cases(
        dn.GaussianDenoiser,
        {"mean": ONES, "covariance": EYE},
        mean=[*FINITE, [], np.ones((0, 2))],
        covariance=COVARIANCES,
    )
    | cases(dn.LinearDenoiser, {"matrix": EYE}, matrix=SQUARES)
    | cases(dn.FieldDenoiser, {}, field=[*OBJECTS, len, Matern, GRID, dist.Normal()])
    | cases(
        dn.GaussianMixtureDenoiser,
        {"weights": [1.0], "means": [ONES], "covariances": [EYE]},
        weights=[*PARAMETERS, 1.0, [1.0, 1.0], [[1.0]]],
        means=[*FINITE, 1.0, [], np.ones((1, 0)), np.ones((0, 2))],
        covariances=[*FINITE, EYE, [-EYE], [[[1.0, 0.5], [0.0, 1.0]]], np.ones((2, 2, 2))],
    )
    | cases(dn.EmpiricalDenoiser, {}, data=[*FINITE, 1.0, [], np.ones((0, 2)), np.ones((2, 0))])
    | cases(
        dn.IncrementsDenoiser,
        {"increments": dist.Normal()},
        increments=[*OBJECTS, len, dist.Normal, dist.Poisson(1.0), dist.Normal(ONES, 1.0), dist.Dirichlet(ONES)],
        jump_probability=[*PROBABILITIES, 0.0, 0],
        points=[*COUNTS, 7],
        reach=POSITIVE_NUMBERS,
    )
    | cases(dn.ConvolutionalNetwork, {"key": KEY}, width=COUNTS, depth=[*COUNTS, 1], key=KEYS)
    | cases(dn.FirmlyNonexpansiveDenoiser, {"key": KEY}, copies=COUNTS, width=COUNTS, depth=COUNTS, key=KEYS)
    | cases(
        dn.LipschitzConvolution, {"channels": 2, "width": 1, "key": KEY}, channels=COUNTS, width=COUNTS, key=KEYS
    )
    | cases(
        LAYER.__call__,
        {"x": np.ones((4, 4, 2)), "level": 0.5},
        x=[*REAL, 1.0, IMAGE, np.ones((4, 4, 1)), np.ones((0, 4, 2))],
        level=[*REAL, ONES],
    )
    | cases(
        dn.DnCNN,
        {"kernels": [np.ones((3, 3, 1, 1))], "biases": [np.ones(1)]},
        kernels=[
            *OBJECTS, [], [1.0], ["a"], [IMAGE], [np.ones((5, 5, 1, 1))], [np.ones((3, 3, 3, 1))],
            [np.ones((3, 3, 1, 2)), np.ones((3, 3, 1, 1))], [np.full((3, 3, 1, 1), NAN)],
        ],
        biases=[*OBJECTS, [], [1.0], ["a"], [ONES], [np.ones(1), np.ones(1)], [[NAN]], [[1j]]],
    )
    | cases(dn.load_dncnn, {}, path=[None, 3, b"x", [], {}, object()])
    | cases(dn.GradientStepDenoiser, {}, network=FUNCTIONS)
    | cases(
        dn.GroupAverage,
        {"denoiser": half, "actions": [function]},
        denoiser=DENOISERS,
        actions=["a", {}, None, 3, len, IMAGE, [], [3], [function, "a"]],
    )
    | cases(dn.Median, {}, window=[*COUNTS, 2, 4])
    | cases(dn.LineIntegral, {"denoiser": half}, denoiser=DENOISERS, nodes=COUNTS)
    | cases(dn.DeclaredPotential, {"denoiser": half, "potential": half}, denoiser=DENOISERS, potential=FUNCTIONS)
    | cases(dn.TotalVariation, {"weight": 1.0}, weight=SCALARS, iterations=COUNTS)
    | cases(dn.WaveletThreshold, {"weight": 1.0}, weight=SCALARS, moments=[*COUNTS, 11], levels=COUNTS)
    | everything("GaussianDenoiser", GAUSSIAN, ONES, SIGNALS)
    | everything("FieldDenoiser", FIELD, np.ones(4), SIGNALS)
    | everything("LinearDenoiser", LINEAR, ONES, [*REAL, 1.0, np.ones(3), IMAGE, []])
    | everything("GaussianMixtureDenoiser", MIXTURE, ONES, SIGNALS)
    | everything("EmpiricalDenoiser", EMPIRICAL, ONES, SIGNALS)
    | everything("IncrementsDenoiser", INCREMENTS, ONES, [*REAL, 1.0, np.ones((2, 2)), []])
    | everything("FirmlyNonexpansiveDenoiser", FIRM, IMAGE, IMAGES)
    | calls("FirmlyNonexpansiveDenoiser.nonexpansive", FIRM.nonexpansive, IMAGE, IMAGES)
    | calls("ConvolutionalNetwork", NETWORK, IMAGE, IMAGES)
    | everything("GradientStepDenoiser", STEP, IMAGE, IMAGES)
    | everything("DnCNN", DNCNN, IMAGE, IMAGES)
    | everything("LineIntegral", LINE, ONES, REAL)
    | everything("DeclaredPotential", DECLARED, ONES, REAL)
    | everything("GroupAverage", AVERAGE, ONES, ANY)
    | everything("Median", dn.Median(), ONES, ANY)
    | everything("TotalVariation", TV, ONES, [*ANY, 1.0])
    | everything("WaveletThreshold", WAVELETS, ONES, [*ANY, 1.0, np.ones(3), np.ones((2, 3))])
    | {f"square_symmetries {i}": ("x", act, [*REAL, 1.0, ONES]) for i, act in enumerate(dn.square_symmetries())}
)  # fmt: skip


def strange(**methods):
    """A denoiser with methods that are no good."""
    return type("Strange", (), {"__call__": staticmethod(half)} | {k: staticmethod(v) for k, v in methods.items()})()


def audit(denoiser):
    return dn.audit_denoiser(denoiser, ONES, 0.5, rng_key=KEY, num_probes=2, num_iterations=1)


AVERAGED = dn.GroupAverage(half, [jnp.exp])
NO_NUMBERS = "audit_denoiser: `what the denoiser returns` must be real numbers"
NO_ARRAY = "audit_denoiser: the denoiser <lambda> must return an array of the shape of `x`"
NO_CERTIFICATES = "audit_denoiser: `denoiser.certificates` must return a dictionary of Certificate by name; got "
RETURNED = {
    "a string": (
        lambda: audit(lambda x, sigma: "a"),
        NO_NUMBERS,
    ),
    "a pair": (
        lambda: audit(lambda x, sigma: (x, x)),
        NO_ARRAY,
    ),
    "another shape": (
        lambda: audit(lambda x, sigma: x[:1]),
        NO_ARRAY,
    ),
    "complex": (
        lambda: audit(lambda x, sigma: x * 1j),
        NO_NUMBERS,
    ),
    "potential": (
        lambda: audit(strange(potential=lambda x, sigma: x)),
        r"audit_denoiser: `what the potential returns` must be one number; got shape \(2,\)",
    ),
    "no potential": (
        lambda: audit(strange(potential=lambda x, sigma: None)),
        "audit_denoiser: `what the potential returns` must be real numbers; got None",
    ),
    "certificates": (
        lambda: audit(strange(certificates=lambda sigma: {"lipschitz": 1.0})),
        NO_CERTIFICATES + "{'lipschitz': 1.0}",
    ),
    "no certificates": (
        lambda: audit(strange(certificates=lambda sigma: None)),
        NO_CERTIFICATES + "None",
    ),
    "declared": (
        lambda: dn.DeclaredPotential(half, half).potential(ONES, 0.5),
        r"DeclaredPotential.potential: `what the potential returns` must be one number; got shape \(2,\)",
    ),
    "field": (
        lambda: dn.LineIntegral(lambda x, s: x[:1])(ONES, 0.5),
        "LineIntegral: the denoiser <lambda> must return",
    ),
    "average": (lambda: AVERAGED(ONES, 0.5), "GroupAverage: `actions` must be linear.*got exp"),
    "action": (lambda: dn.GroupAverage(half, [len])(ONES, 0.5), "GroupAverage: `actions` must be linear.*got len"),
    "no action": (
        lambda: dn.GroupAverage(half, [lambda x: "a"])(ONES, 0.5),
        "GroupAverage: `what an action returns` must be real numbers; got the string 'a'",
    ),
    "network": (
        lambda: dn.GradientStepDenoiser(lambda x, sigma: None)(ONES, 0.5),
        "GradientStepDenoiser: `what the network returns` must be real numbers; got None",
    ),
    "function": (
        lambda: dn.jacobian_norm(lambda x: {"x": x}, ONES, rng_key=KEY),
        "jacobian_norm: `what the function returns` must be real numbers",
    ),
    "group": (lambda: dn.GroupAverage(half, Scaling()), "infinitely many"),
}


STATIC = {
    "matrix_norm": ("matrix", lambda v: dn.matrix_norm(v * EYE)),
    "certificate": ("layer", lambda v: dn.certificate(v * EYE)),
    "audit_denoiser": ("sigma", lambda v: dn.audit_denoiser(half, ONES, v, rng_key=KEY)),
    "GaussianDenoiser.certificates": ("sigma", GAUSSIAN.certificates),
    "of a traced one": ("covariance", lambda v: dn.GaussianDenoiser(ONES, v * EYE).certificates(0.5)),
    "LinearDenoiser.certificates": ("matrix", lambda v: dn.LinearDenoiser(v * EYE).certificates(0.5)),
    "FieldDenoiser.certificates": ("sigma", FIELD.certificates),
    "Median": ("window", dn.Median),
}
