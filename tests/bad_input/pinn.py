"""Bad input of physics-informed networks: boxes, equations, problems, trial spaces, trainers and reports."""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from numpyro_inverse import pinn
from tests.bad_input.corpus import (
    COUNTS,
    FLAGS,
    FRACTIONS,
    FUNCTIONS,
    INF,
    KEYS,
    NAN,
    NONNEGATIVE_NUMBERS,
    OBJECTS,
    PARAMETERS,
    POSITIVE_NUMBERS,
    REAL,
    cases,
    given,
)

KEY = jax.random.key(0)
BOX = pinn.Box(0.0, 1.0)
PLANE = pinn.Box((0.0, 0.0), (1.0, 1.0))
MOVING = pinn.Box((0.0, 0.0), (1.0, 1.0), time=True)
SINES = pinn.SineBasis(BOX, 2)
ENDS = pinn.dirichlet(0.0, BOX.boundary())
START = pinn.dirichlet(0.0, MOVING.initial(2))
POINT = jnp.array([0.5])


def residual(u, x, theta):
    return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - 1.0


PDE = pinn.PDE(residual, BOX, points=BOX.grid(3), boundary=ENDS)
TIMES = pinn.PDE(residual, MOVING, points=MOVING.grid(2), boundary=(), initial=START)
DATA = pinn.Data([[0.5]], [0.1], 0.1)
PROBLEM = pinn.Problem(PDE, SINES, DATA, scale=0.1, boundary_scale=0.1)
CONSTRAINED = pinn.PhysicsConstrainedPotential(PROBLEM)

COUNTS_OR_0 = [value for value in COUNTS if value is False or not (type(value) in (int, float) and value == 0)]
AXES = (*(value for value in COUNTS_OR_0 if type(value) not in (int, float) or value != -1), 1, -2)
NUMS = (*given(COUNTS), None, (2, 2, 2), (2, "a"), (2, 0), ())
WHERE = (*REAL, 0.5, [0.5], np.ones((0, 1)), np.ones((2, 2)), [[NAN]], [[1.5]])  # points of an interval
BOXES = (*OBJECTS, pinn.Box, (0.0, 1.0))
VALUES = (*(value for value in REAL if value is not len), NAN, INF, [1.0, NAN])  # of a condition; or a function
SCALES = (*PARAMETERS, np.ones((2, 2)))
SCALES_OF_ONE = (*SCALES, np.ones(2))
NO_PARAMETERS = ("a", object(), len, b"4", [1.0, "2"], np.array(["a"]), True, 1j, np.ones(2, bool), {"a": "b"})
THETAS = (*NO_PARAMETERS, None, {}, (), NAN, INF, {"a": NAN})  # for a trainer, which needs some
TRIALS = (*OBJECTS[:-1], jnp.sin, pinn.SineBasis(BOX, 3), pinn.SineBasis)  # where SINES is wanted
PROBLEMS = (*OBJECTS, PDE, pinn.Problem)
HERE = {"problem": PROBLEMS, "theta": THETAS, "phi": given(TRIALS)}
QUIET = {"problem": PROBLEM, "theta": 1.0, "progress_bar": False}


def factor(**arguments):
    """As a statement of a model."""
    with handlers.seed(rng_seed=0), handlers.trace():
        return pinn.factor(**arguments)


def of_trial(kind, base, **values):
    found = cases(kind, {"domain": BOX} | base, domain=BOXES, **values)
    trial = kind(domain=BOX, **base)
    found[f"{kind.__name__}.__call__"] = ("x", trial, (*REAL, 0.5, np.ones(2), np.ones((3, 1))))
    if isinstance(trial, pinn.LinearBasis):
        size = len(trial.coefficients)
        found[f"{kind.__name__}.with_coefficients"] = (
            "coefficients",
            trial.with_coefficients,
            (*REAL, 1.0, np.ones(size + 1)),
        )
        found[f"{kind.__name__}.functions"] = ("x", trial.functions, (*REAL, 0.5, np.ones(2)))
    return found


NETWORK = {"width": 2, "depth": 1, "key": KEY}
OF_NETWORK = {"width": COUNTS, "depth": COUNTS, "outputs": given(COUNTS), "key": KEYS}

CASES = (
    cases(
        pinn.Box,
        {"lower": 0.0, "upper": 1.0},
        lower=(*REAL, NAN, INF, 1.0, 2.0, [0.0, 0.0], [[0.0]], []),
        upper=(*REAL, NAN, INF, 0.0, -1.0, [1.0, 1.0], [[1.0]], []),
        time=FLAGS,
    )
    | {
        f"Box.{name}": ("num", getattr(PLANE, name), NUMS if name in ("grid", "nodes") else COUNTS)
        for name in ("grid", "nodes", "boundary")
    }
    | cases(MOVING.initial, {}, num=COUNTS)
    | cases(BOX.latin_hypercube, {"num": 2, "seed": 0}, num=COUNTS, seed=COUNTS_OR_0)
    | cases(BOX.sobol, {"num": 2, "seed": 0}, num=COUNTS, seed=COUNTS_OR_0)
    | cases(
        BOX.distance,
        {"x": POINT},
        x=(*REAL, 0.5, np.ones(2), np.ones((3, 1))),
        boundary=FLAGS,
        initial=FLAGS,
    )
    | cases(BOX.unit, {}, x=(*REAL, 0.5, np.ones(2), np.ones((3, 1))))
    | {"Box.distance of a box without time": ("initial", lambda v: BOX.distance(POINT, initial=v), [True])}
    | cases(
        BOX.check_points,
        {"where": "here", "argument": "points", "points": [[0.5]]},
        points=WHERE,
        on=("a", None, 3, ["inside"]),
    )
    | cases(
        pinn.Condition,
        {"residual": residual, "points": [[0.0]]},
        residual=FUNCTIONS,
        points=(*REAL, 0.5, [0.5], [[NAN]], np.ones((0, 1))),
    )
    | cases(
        pinn.dirichlet,
        {"value": 0.0, "points": [[0.0]]},
        value=VALUES,
        points=(*REAL, 0.5, [0.5], [[NAN]], np.ones((0, 1))),
    )
    | cases(
        pinn.neumann,
        {"value": 0.0, "axis": 0, "points": [[0.0]]},
        value=VALUES,
        axis=AXES,
        points=(*REAL, 0.5, [0.5], [[NAN]], np.ones((0, 1))),
    )
    | {
        "derivative u": ("u", lambda v: pinn.derivative(v, 0), FUNCTIONS),
        "derivative without axes": ("u", lambda v: pinn.derivative(v), FUNCTIONS),
        "derivative axes": ("axes", lambda v: pinn.derivative(SINES, 0, v)(POINT), AXES),
        "derivative x": ("x", pinn.derivative(SINES, 0), (*REAL, 0.5)),
        "laplacian u": ("u", pinn.laplacian, FUNCTIONS),
        "laplacian axes": (
            "axes",
            lambda v: pinn.laplacian(SINES, v)(POINT),
            ("a", 0, True, 1j, {}, object(), len, ["a"], [None], [0.5], [-2], [1], [True], [0, 0]),
        ),
        "laplacian x": ("x", pinn.laplacian(SINES), (*REAL, 0.5)),
    }
    | cases(
        pinn.PDE,
        {"residual": residual, "domain": BOX, "points": [[0.5]], "boundary": ()},
        residual=FUNCTIONS,
        domain=BOXES,
        points=WHERE,
        boundary=(*given(OBJECTS), [None], [3], pinn.dirichlet(0.0, [[0.5]]), pinn.dirichlet(0.0, [[0.0, 0.0]]), None),
        initial=(*given(OBJECTS), [None], ENDS),
    )
    | {
        "PDE initial": (
            "initial",
            lambda v: pinn.PDE(residual, MOVING, points=MOVING.grid(2), boundary=(), initial=v),
            [[ENDS], [pinn.dirichlet(0.0, MOVING.grid(2))]],
        )
    }
    | cases(PDE.with_points, {}, points=WHERE)
    | cases(
        PDE.at,
        {"u": SINES, "theta": 1.0},
        u=FUNCTIONS,
        points=(*given(REAL), 0.5, [0.5], np.ones((2, 2)), np.ones((0, 1))),
    )
    | cases(
        PDE.adapt,
        {"u": SINES, "theta": 1.0, "num": 1, "seed": 0, "candidates": 4},
        u=FUNCTIONS,
        theta=NO_PARAMETERS,
        num=(*COUNTS, 5),
        seed=COUNTS_OR_0,
        candidates=COUNTS,
        power=NONNEGATIVE_NUMBERS,
        floor=NONNEGATIVE_NUMBERS,
    )
    | cases(
        pinn.Data,
        {"points": [[0.5], [0.6]], "values": [0.1, 0.2], "scale": 0.1},
        points=(*REAL, 0.5, [0.5, 0.6], [[NAN], [0.1]], np.ones((2, 0))),
        values=(*REAL, 0.5, [0.5, NAN], np.ones((2, 1, 1)), np.ones(3)),
        scale=(*PARAMETERS, np.ones(3), np.ones((2, 2))),
        observe=given(FUNCTIONS),
    )
    | {"Data without points": ("points", lambda v: pinn.Data(v, np.ones(0), 0.1), [np.ones((0, 1))])}
    | cases(
        pinn.Problem,
        {"pde": PDE, "trial": SINES, "data": DATA, "scale": 0.1, "boundary_scale": 0.1},
        pde=(*OBJECTS, pinn.PDE),
        trial=(*FUNCTIONS, jnp.sin, pinn.SineBasis),
        data=("a", None, 3, {}, np.ones(3), object(), [None], [3], pinn.Data, pinn.Data([[2.0]], [0.1], 0.1)),
        scale=SCALES,
        boundary_scale=SCALES,
        initial_scale=given(SCALES),
        weight_scale=(*given(SCALES), np.ones(3)),
    )
    | cases(PROBLEM.with_trial, {}, trial=(*FUNCTIONS, jnp.sin, pinn.SineBasis))
    | cases(
        PROBLEM.with_data,
        {},
        data=("a", None, 3, {}, np.ones(3), object(), [None], [3], pinn.Data([[2.0]], [0.1], 0.1)),
    )
    | cases(PROBLEM.with_scale, {}, scale=SCALES)
    | {
        f"Problem.{method} {argument}": (
            argument,
            lambda v, method=method, argument=argument: getattr(PROBLEM, method)(
                **{"phi": SINES, "theta": 1.0, argument: v}
            ),
            values,
        )
        for method in ("residuals", "objective", "misfit", "gradients")
        for argument, values in (("phi", FUNCTIONS), ("theta", NO_PARAMETERS))
    }
    | cases(PROBLEM.check_shapes, {}, theta=NO_PARAMETERS)
    | cases(PROBLEM.row_names, {}, theta=NO_PARAMETERS)
    | {"Problem.misfit without data": ("data", lambda v: PROBLEM.physics().misfit(SINES, v), [1.0])}
    | of_trial(pinn.SineBasis, {"num": 2}, num=(*given(COUNTS), None, (2, 2), ("a",), ()), outputs=given(COUNTS))
    | of_trial(pinn.ChebyshevBasis, {"num": 2}, num=(*given(COUNTS), None, (2, 2), ("a",), ()), outputs=given(COUNTS))
    | of_trial(pinn.PolynomialBasis, {"num": 2}, num=(*given(COUNTS), None, (2, 2), ("a",), ()), outputs=given(COUNTS))
    | of_trial(
        pinn.ExponentialExpansion,
        {"num": 2, "range": 0.3},
        num=COUNTS,
        range=POSITIVE_NUMBERS,
        scale=POSITIVE_NUMBERS,
    )
    | of_trial(
        pinn.MaternExpansion,
        {"num": 2, "range": 0.3},
        num=COUNTS,
        range=POSITIVE_NUMBERS,
        smoothness=POSITIVE_NUMBERS,
        scale=POSITIVE_NUMBERS,
        padding=given(NONNEGATIVE_NUMBERS),
    )
    | of_trial(pinn.MLP, NETWORK, **OF_NETWORK)
    | of_trial(pinn.ModifiedMLP, NETWORK, **OF_NETWORK)
    | of_trial(
        pinn.FourierFeatures,
        NETWORK | {"features": 2, "bandwidth": 1.0},
        features=COUNTS,
        bandwidth=POSITIVE_NUMBERS,
        **OF_NETWORK,
    )
    | cases(
        pinn.Enforced,
        {"inner": SINES, "distance": BOX.distance},
        inner=FUNCTIONS,
        distance=FUNCTIONS,
        lift=(*(value for value in REAL if value is not len), NAN, INF),
    )
    | cases(
        factor,
        {"name": "pde", "pde": PDE, "u": SINES, "theta": 1.0, "scale": 0.1, "boundary_scale": 0.1},
        name=(3, None, b"u", ["u"], object()),
        pde=(*OBJECTS, pinn.PDE),
        u=FUNCTIONS,
        theta=NO_PARAMETERS,
        scale=SCALES_OF_ONE,
        boundary_scale=SCALES_OF_ONE,
        initial_scale=given(PARAMETERS),
        volume_correction=FLAGS,
    )
    | cases(pinn.PhysicsConstrainedPotential, {"problem": PROBLEM}, problem=(*PROBLEMS, PROBLEM.physics()))
    | cases(
        pinn.PenalizedPotential,
        {"problem": PROBLEM},
        problem=(*PROBLEMS, PROBLEM.physics()),
        tolerance=given(POSITIVE_NUMBERS),
        max_steps=COUNTS,
    )
    | cases(CONSTRAINED.started, {}, phi=(*FUNCTIONS, jnp.sin, pinn.SineBasis))
    | cases(CONSTRAINED.solve, {}, theta=THETAS)
    | cases(CONSTRAINED.energy, {}, theta=THETAS)
    | cases(CONSTRAINED.value_and_grad, {}, theta=THETAS)
    | cases(
        pinn.adam,
        QUIET,
        **HERE,
        num_steps=COUNTS,
        learning_rate=POSITIVE_NUMBERS,
        theta_from=("pde", 3, True, {}, object(), [3], [None], ["initial"], []),
        progress_bar=FLAGS,
    )
    | cases(
        pinn.levenberg_marquardt,
        QUIET,
        **HERE,
        max_steps=COUNTS,
        tolerance=NONNEGATIVE_NUMBERS,
        damping=POSITIVE_NUMBERS,
        progress_bar=FLAGS,
    )
    | cases(
        pinn.joint,
        QUIET,
        **HERE,
        warm_start=COUNTS_OR_0,
        learning_rate=POSITIVE_NUMBERS,
        max_steps=COUNTS,
        tolerance=NONNEGATIVE_NUMBERS,
        progress_bar=FLAGS,
    )
    | cases(
        pinn.spring,
        QUIET | {"key": KEY, "batch_size": 2},
        **HERE,
        key=KEYS,
        batch_size=(*COUNTS, 4),
        num_steps=COUNTS,
        momentum=FRACTIONS,
        damping=POSITIVE_NUMBERS,
        progress_bar=FLAGS,
    )
    | cases(
        pinn.reduced,
        {"potential": CONSTRAINED, "theta": 1.0, "progress_bar": False},
        potential=(*OBJECTS, PROBLEM, pinn.PenalizedPotential),
        theta=THETAS,
        max_steps=COUNTS,
        tolerance=POSITIVE_NUMBERS,
        progress_bar=FLAGS,
    )
    | cases(
        pinn.gradient_report,
        {"problem": PROBLEM, "theta": 1.0},
        **HERE | {"problem": (*PROBLEMS, PROBLEM.physics())},
        num_steps=COUNTS_OR_0,
        step_size=given(POSITIVE_NUMBERS),
        reference=given(FUNCTIONS),
        tolerance=given(POSITIVE_NUMBERS),
        max_steps=COUNTS,
    )
    | cases(pinn.profiled_information, {"problem": PROBLEM, "theta": 1.0, "phi": SINES}, **HERE | {"phi": TRIALS[2:]})
    | cases(
        pinn.identifiability_report,
        {"problems": PROBLEM, "theta": 1.0},
        problems=("a", None, 3, {}, [], np.ones(3), object(), [None], [PDE]),
        theta=THETAS,
        reference_information=(*given(REAL), NAN, np.ones((2, 2)), np.ones((1, 1, 1))),
        tail=FRACTIONS,
        max_steps=COUNTS,
        tolerance=POSITIVE_NUMBERS,
        progress_bar=FLAGS,
    )
)
