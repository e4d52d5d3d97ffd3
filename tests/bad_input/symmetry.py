"""Bad input of groups, symmetries and what is done with them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse import symmetry as sy
from tests.bad_input.corpus import (
    ARRAYS,
    COUNTS,
    FUNCTIONS,
    INF,
    KEYS,
    MODEL_ARGS,
    MODEL_KWARGS,
    NAN,
    POSITIVE_NUMBERS,
    REAL,
    SHAPES,
    STRANGE,
    cases,
    given,
)

KEY = jax.random.key(0)
X = np.arange(1.0, 5.0, dtype=np.float32)
FLIP, SHIFT, SCALING, PHASE = sy.SignFlip(), sy.CyclicShift((4,)), sy.Scaling(), sy.GlobalPhase()
SQUARE = sy.FiniteGroup((lambda u: u, lambda u: -u), (4,))
BOTH = sy.Symmetry(FLIP, ["u", "v"])
ONE = sy.Symmetry(FLIP, "u")
DRAWS = {"u": np.ones((3, 4), np.float32)}

GROUPS = ("a", None, 3, {}, X, object(), sy.SignFlip, ONE)
GROUPS_OR_SYMMETRIES = GROUPS[:-1]
SYMMETRIES = ("a", None, 3, {}, X, object(), FLIP, sy.Symmetry)
BY_SITE = ("a", None, 3, [], X, object(), {}, {"w": X}, {"u": "a"}, {"u": None}, {"u": np.ones(4, bool)})
INTEGERS = (*REAL, 1.0, NAN, np.ones(3), np.ones((2, 2), int))
ANGLES = (*REAL, NAN, INF, np.ones(3))


def model(y=None):
    u = numpyro.sample("u", dist.Normal().expand([4]).to_event(1))
    numpyro.sample("y", dist.Normal(u**2, 1.0).to_event(1), obs=y)


def of_group(group, x, element, elements):
    """A table of a group's methods."""
    name = type(group).__name__
    wrong = (*ARRAYS, True, np.ones(4, bool), np.ones((3, 3)), np.asarray(1.0))
    calls = {
        "compose g": ("g", lambda v: group.compose(v, element), elements),
        "compose h": ("h", lambda v: group.compose(element, v), elements),
        "inverse g": ("g", group.inverse, elements),
        "action g": ("g", lambda v: group.action(v, x), elements),
        "action x": ("x", lambda v: group.action(element, v), ARRAYS),
        "log_abs_det x": ("x", lambda v: group.log_abs_det(element, v), ARRAYS),
        "propose": ("rng_key", group.propose, KEYS),
        "invariants": ("x", group.invariants, ARRAYS),
        "canonical x": ("x", lambda v: group.canonical(v, x), wrong),
        "canonical reference": ("reference", lambda v: group.canonical(x, v), given(wrong)),
        "canonicalizer": ("x", group.canonicalizer, ARRAYS),
        "correlation x": ("x", lambda v: group.correlation(v, x), wrong),
        "correlation reference": ("reference", lambda v: group.correlation(x, v), wrong),
        "nearest u": ("u", lambda v: group.nearest(v, x), wrong),
        "nearest v": ("v", lambda v: group.nearest(x, v), wrong),
        "orbit_distance u": ("u", lambda v: group.orbit_distance(v, x), wrong),
        "orbit_distance v": ("v", lambda v: group.orbit_distance(x, v), wrong),
        "* second": ("second", lambda v: group * v, GROUPS),
    }
    if group.is_compact:
        calls["sample"] = ("rng_key", group.sample, KEYS)
    return {f"{name}.{method}": row for method, row in calls.items()}


CASES = (
    of_group(FLIP, X, 1, (*INTEGERS, 0, 2, -3))
    | of_group(sy.Reflection(), X, 1, (*INTEGERS, -1, 2))
    | of_group(sy.Rotation90(), np.eye(2), 1, (*INTEGERS, -1, 4))
    | of_group(SQUARE, X, 1, (*INTEGERS, -1, 2))
    | of_group(SHIFT, X, np.array([1]), (*INTEGERS, 1))
    | of_group(sy.Permutation(4), X, np.arange(4), (*INTEGERS, 1, [0, 1, 2], [0, 0, 1, 2], [1, 2, 3, 4]))
    | of_group(SCALING, X, 0.5, ANGLES)
    | of_group(PHASE, X + 0j, 0.5, ANGLES)
    | of_group(FLIP * SCALING, X, (1, 0.5), ("a", None, 3, {}, X, (1,), (1, 0.5, 2), [1, "a"], ("a", 0.5), (3, 0.5)))
    | cases(sy.CyclicShift, {}, shape=(*SHAPES, (), (0,)))
    | cases(sy.Permutation, {"n": 3}, n=COUNTS, axis=(*STRANGE, None, True, NAN, INF, 0.5, -40, np.ones(2)))
    | cases(sy.Reflection, {}, axes=(*STRANGE, None, True, NAN, 0.5, -40, (), (0, "a"), (0, None), (0, 0)))
    | cases(sy.GlobalPhase, {}, axis=(*STRANGE, True, NAN, INF, 0.5, -40, np.ones(2)))
    | cases(sy.Scaling, {}, spread=POSITIVE_NUMBERS)
    | cases(
        sy.FiniteGroup,
        {"actions": [lambda u: u], "shape": (4,)},
        actions=("a", None, 3, {}, X, [], len, [3], [lambda u: u, None], [lambda u: "a"], [lambda u: None]),
        shape=(*SHAPES, (0,)),
    )
    | cases(sy.Product, {"first": FLIP, "second": SCALING}, first=GROUPS, second=GROUPS)
    | cases(
        sy.Symmetry,
        {"group": FLIP, "sites": "u"},
        group=GROUPS,
        sites=(3, None, object(), X, [], {}, (), [3], [None], {3: 1}, {"u": 0}, {"u": "a"}, {"u": None}, {"u": True}),
    )
    | {
        "Symmetry.action g": ("g", lambda v: BOTH.action(v, {"u": X, "v": X}), (*INTEGERS, 0)),
        "Symmetry.action values": ("values", lambda v: ONE.action(1, v), BY_SITE),
        "Symmetry.sample": ("rng_key", BOTH.sample, KEYS),
        "Symmetry.log_abs_det values": ("values", lambda v: ONE.log_abs_det(1, v), BY_SITE),
        "Symmetry.canonical values": ("values", ONE.canonical, BY_SITE),
        "Symmetry.canonical reference": (
            "reference",
            lambda v: ONE.canonical({"u": X}, v),
            (*given(BY_SITE), {"u": np.ones(3)}),
        ),
        "Symmetry.invariants": ("values", ONE.invariants, BY_SITE),
    }
    | {
        f"Symmetry({where}).orbit_distance {name}": (name, call, (*BY_SITE, {"u": np.ones(3), "v": X}))
        for where, symmetry in (("one site", ONE), ("two sites", BOTH))
        for name, call in {
            "u": lambda v, symmetry=symmetry: symmetry.orbit_distance(v, {"u": X, "v": X}),
            "v": lambda v, symmetry=symmetry: symmetry.orbit_distance({"u": X, "v": X}, v),
        }.items()
    }
    | cases(
        sy.check_action,
        {"group": FLIP, "example": X},
        group=GROUPS_OR_SYMMETRIES,
        example=(*ARRAYS, True, [1.0, NAN]),
        rng_key=given(KEYS),
        num_elements=COUNTS,
        tolerance=POSITIVE_NUMBERS,
    )
    | {"check_action example of sites": ("example", partial(sy.check_action, ONE), (*BY_SITE, {"u": X * NAN}))}
    | cases(
        sy.check_equivariance,
        {"f": jnp.tanh, "group_in": FLIP, "group_out": FLIP, "x": X},
        f=(*FUNCTIONS, lambda x: None, lambda x: "a", lambda x: x * NAN, lambda x: x[: 3 if x[0] > 0 else 2]),
        group_in=GROUPS_OR_SYMMETRIES,
        group_out=given(GROUPS_OR_SYMMETRIES),
        x=(*ARRAYS, True, [1.0, NAN]),
        rng_key=given(KEYS),
        num_elements=COUNTS,
        tolerance=POSITIVE_NUMBERS,
    )
    | cases(
        sy.check_invariance,
        {"model": model, "symmetry": ONE, "model_args": (X,), "num_points": 2},
        model=FUNCTIONS,
        symmetry=SYMMETRIES,
        rng_key=given(KEYS),
        model_args=(*MODEL_ARGS, None),
        model_kwargs=MODEL_KWARGS,
        values=(*given(BY_SITE), {"u": 1.0}, {"u": np.ones((2, 4)), "w": np.ones(3)}, {"u": np.ones((0, 4))}),
        num_points=COUNTS,
        tolerance=POSITIVE_NUMBERS,
    )
    | cases(
        sy.canonicalize,
        {"draws": DRAWS, "symmetry": ONE},
        draws=(*BY_SITE, {"u": 1.0}, {"u": np.ones((0, 4))}),
        symmetry=SYMMETRIES,
        reference=(*given(BY_SITE), {"u": X * NAN}),
        batch_ndims=COUNTS,
    )
    | cases(
        sy.symmetrize,
        {"draws": DRAWS, "symmetry": ONE, "rng_key": KEY},
        draws=(*BY_SITE, {"u": 1.0}, {"u": np.ones((0, 4))}),
        symmetry=SYMMETRIES,
        rng_key=KEYS,
        model=given(FUNCTIONS),
        batch_ndims=COUNTS,
    )
    | cases(
        partial(sy.symmetrize, DRAWS, ONE, rng_key=KEY, model=model),
        {"model_args": (X,)},
        model_args=(*MODEL_ARGS, None),
        model_kwargs=MODEL_KWARGS,
    )
    | {
        "draws of two numbers": (
            "draws",
            lambda v: sy.canonicalize(v, BOTH),
            [{"u": np.ones((3, 4)), "v": np.ones((2, 4))}],
        ),
        "draws of three axes": ("draws", lambda v: sy.canonicalize(v, ONE, batch_ndims=3), [DRAWS]),
        "orbit_mean draws of sites": (
            "draws",
            lambda v: sy.orbit_mean(v, ONE),
            (*BY_SITE, {"u": 1.0}, {"u": np.ones((0, 4))}, {"u": np.full((3, 4), NAN)}),
        ),
    }
    | cases(
        sy.orbit_mean,
        {"draws": DRAWS["u"], "group": FLIP},
        draws=(*ARRAYS, 1.0, np.ones((0, 4)), np.full((3, 4), NAN)),
        group=(*GROUPS_OR_SYMMETRIES, SCALING),
        num_starts=COUNTS,
        max_steps=COUNTS,
    )
    | cases(sy.outer_product_estimate, {}, draws=(*ARRAYS, 1.0, np.ones((0, 4)), np.full((3, 4), NAN)))
    | cases(sy.orbit_loss, {}, group=GROUPS_OR_SYMMETRIES)
    | cases(sy.squared_outer_product_distance, {"u": X, "v": X}, u=(*ARRAYS, np.ones(3)), v=(*ARRAYS, np.ones(3)))
)
for label, loss in (("orbit_loss", sy.orbit_loss(FLIP)), ("outer_product_loss", sy.outer_product_loss)):
    CASES |= {
        f"{label} {argument}": row
        for argument, row in cases(
            loss,
            {"module": lambda x: x, "batch": (DRAWS["u"], DRAWS["u"]), "key": KEY},
            module=FUNCTIONS,
            batch=("a", None, 3, {}, X, (X,), (X, "a"), (X, None), ("a", X), (X, np.ones(3)), (None, None), (1.0, 1.0)),
        ).items()
    }
