"""Bad input of models and operators outside JAX, and of the checks of derivatives."""

import jax.numpy as jnp
import numpy as np

from numpyro_inverse import operators as op
from tests.bad_input.corpus import (
    ARRAYS,
    COUNTS,
    FUNCTIONS,
    KEYS,
    NAN,
    OBJECTS,
    POSITIVE_NUMBERS,
    RAGGED,
    REAL,
    STRANGE,
    cases,
    given,
)

A = op.Mask(np.arange(3) > 0)
DOUBLE = op.external(np.square, (3,))
COUNTS_OR_0 = [value for value in COUNTS if value is False or not (type(value) in (int, float) and value == 0)]
WORDS = (None, 3, b"u", ["u"], object(), np.ones(3))
WORKERS = {
    "threads": COUNTS,
    "processes": given(COUNTS),
    "timeout": (*given(POSITIVE_NUMBERS), 1.0),  # a thread cannot be ended
    "retries": COUNTS_OR_0,
    "allowed_failures": COUNTS_OR_0,
}
SHAPES = (*STRANGE, None, True, 3, -1, 2.5, NAN, (2, -1), (True, 2), ("a", 2), (2.5, 2), (1j,), [(2,), 3], [(2,), "a"])


def served(x):
    """A model that processes can be given."""
    return np.square(x)


def pair(**wrong):
    options = {"forward": np.square, "transpose": np.square, "in_shape": (3,), "out_shape": (3,)} | wrong
    return op.ExternalLinear(**options)


CASES = (
    cases(
        op.external,
        {"function": np.square, "shape": (3,)},
        function=FUNCTIONS,
        shape=SHAPES,
        vjp=given(FUNCTIONS),
        jvp=given(FUNCTIONS),
        name=given(WORDS),
        **WORKERS,
    )
    | {
        f"external in processes {argument}": (
            argument,
            lambda v, argument=argument: op.external(
                **{"function": served, "shape": (3,), "processes": 1, argument: v}
            ),
            [*FUNCTIONS[:1], lambda x: x],
        )
        for argument in ("function", "vjp", "jvp")
    }
    | {
        "external timeout": (
            "timeout",
            lambda v: op.external(served, (3,), processes=1, timeout=v),
            given(POSITIVE_NUMBERS),
        ),
        "ExternalMap.__call__": ("argument 0", DOUBLE, REAL),
        "ExternalMap.__call__, the second": ("argument 1", lambda v: DOUBLE(np.ones(3), v), REAL),
        "ExternalMap.__call__ without any": ("args", lambda v: DOUBLE(*v), [()]),
        "operator @ x": ("x", lambda v: pair() @ v, (*ARRAYS, 1.0, np.ones(4))),
    }
    | cases(
        pair,
        {},
        forward=FUNCTIONS,
        transpose=FUNCTIONS,
        in_shape=(*SHAPES, [(3,)]),
        out_shape=(*SHAPES, [(3,)]),
        name=given(WORDS),
        **WORKERS,
    )
    | cases(
        op.umbridge,
        {"url": "http://localhost:1", "model": "forward"},
        url=(*WORDS, "", "localhost:4242", "ftp://localhost"),
        model=WORDS,
        config=("a", "", 3, 0, [], False, np.ones(3), {"a": object()}, {"a": np.ones(3)}, {(1, 2): 3}),
        timeout=given(POSITIVE_NUMBERS),
        **{argument: values for argument, values in WORKERS.items() if argument not in ("processes", "timeout")},
    )
    | cases(
        op.check_adjoint,
        {"A": A},
        A=(*OBJECTS, np.eye(3), len),
        rng_key=given(KEYS),
        num_pairs=COUNTS,
        tolerance=given(POSITIVE_NUMBERS),
    )
    | cases(
        op.check_gradient,
        {"f": jnp.sum, "x": np.ones(3)},
        f=(
            *FUNCTIONS,
            lambda x: None,
            lambda x: "a",
            lambda x: x * 1j,
            lambda x: x * NAN,
            lambda x: x[:0],
            lambda x: x > 0,
        ),
        x=(*(value for value in REAL if value is not RAGGED), np.array([1.0, NAN]), {"a": "b"}, np.ones(0)),
        rng_key=given(KEYS),
        num_directions=COUNTS,
        first_step=POSITIVE_NUMBERS,
        num_steps=(*COUNTS, 2),
    )
)
