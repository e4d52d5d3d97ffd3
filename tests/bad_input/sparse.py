"""Bad input of sparse factorizations, and of block-tridiagonal ones."""

import jax
import numpy as np
import scipy.sparse as sp

from numpyro_inverse import sparse
from tests.bad_input.corpus import (
    ARRAYS,
    COUNTS,
    FUNCTIONS,
    KEYS,
    NAN,
    OBJECTS,
    REAL,
    STRANGE,
    cases,
    given,
)

N = 4
CHAIN = sp.csr_array(sp.diags_array([-np.ones(N - 1), 3 * np.ones(N), -np.ones(N - 1)], offsets=(-1, 0, 1)))
PATTERN = sparse.analyze(CHAIN)
VALUES = PATTERN.values(CHAIN)
B = np.ones(N)
FACTOR = PATTERN.factor(VALUES)
BLOCKS = np.stack([3 * np.eye(2)] * 3)
BELOW, ARROW, TIP = -np.ones((2, 2, 2)) / 2, np.zeros((3, 1, 2)), np.eye(1)
TIME = sparse.BlockTridiagonal(BLOCKS, BELOW)

MATRICES = (
    *OBJECTS,
    CHAIN.toarray(),
    sp.csr_array(np.ones((2, 3))),
    sp.csr_array((0, 0)),
    CHAIN * 1j,
    CHAIN * NAN,
    sp.csr_array(np.triu(np.ones((N, N)))),
)
PATTERNS = (*OBJECTS, CHAIN, sparse.Pattern)
VECTORS = (*REAL, 1.0, np.ones(N + 1), np.ones((N, 2, 2)), np.ones((2, N)))
NUMBERS = (*REAL, 1.0, np.ones(3), np.ones((2, 7)))  # there are 7 values
ROWS, COLS = np.asarray(PATTERN.rows), np.asarray(PATTERN.cols)
PLACES = (*REAL, 1, np.ones(7), np.ones(3, int), np.ones((7, 1), int))


def of_functions(*functions):
    found = {}
    for function in functions:
        name = "z" if function is sparse.inverse_upper else "x" if function is sparse.normal_log_density else "b"
        more = {} if function is sparse.logdet else {name: VECTORS}
        if function is sparse.normal_log_density:
            more = {name: (*VECTORS, np.ones((N, 1)), np.ones((N, 2)))}
        base = {"pattern": PATTERN, "values": VALUES} | dict.fromkeys(more, B)
        found |= cases(function, base, pattern=PATTERNS, values=NUMBERS, **more)
    return found


CASES = (
    cases(
        sparse.analyze,
        {"matrix": CHAIN},
        matrix=MATRICES,
        coordinates=(*given(REAL), 1.0, B, np.ones((3, 2)), np.ones((N, 0)), np.full((N, 2), NAN)),
        leaf_size=COUNTS,
    )
    | of_functions(
        sparse.logdet, sparse.solve, sparse.solve_and_logdet, sparse.inverse_upper, sparse.normal_log_density
    )
    | cases(sparse.first_bad_pivot, {"pattern": PATTERN, "values": VALUES}, pattern=PATTERNS, values=NUMBERS)
    | cases(sparse.Cholesky, {"pattern": PATTERN, "values": VALUES}, pattern=PATTERNS, values=NUMBERS)
    | cases(PATTERN.values, {}, matrix=(*MATRICES, sp.eye_array(3), sp.csr_array(np.ones((N, N)))))
    | cases(PATTERN.matrix, {}, values=NUMBERS)
    | cases(PATTERN.factor, {}, values=NUMBERS)
    | cases(PATTERN.mv, {"values": VALUES, "x": B}, values=NUMBERS, x=VECTORS)
    | cases(PATTERN.with_solver, {}, solver=given(FUNCTIONS))
    | cases(PATTERN.with_solver(lambda rows, cols, values, b: "a").factor(VALUES).solve, {}, b=VECTORS)
    | {
        "solver's answer": (
            "solver",
            lambda v: PATTERN.with_solver(lambda *_: v).factor(VALUES).solve(B),
            (*ARRAYS, 1.0, np.ones(3)),
        )
    }
    | cases(FACTOR.solve, {}, b=VECTORS)
    | cases(FACTOR.lower, {}, z=VECTORS)
    | cases(FACTOR.upper, {}, x=VECTORS)
    | cases(FACTOR.inverse_lower, {}, x=VECTORS)
    | cases(FACTOR.inverse_upper, {}, z=VECTORS)
    | cases(
        FACTOR.sample,
        {"key": jax.random.key(0)},
        key=KEYS,
        sample_shape=(*STRANGE, None, -1, 2.5, (2, -1), ("a",), (2.5,), (True,)),
    )
    | cases(
        sparse.BlockTridiagonal,
        {"diagonal": BLOCKS, "below": BELOW, "arrow": ARROW, "tip": TIP},
        diagonal=(*REAL, 1.0, np.ones((3, 2)), np.ones((3, 2, 3)), np.ones((0, 2, 2)), np.ones((2, 3, 2, 2))),
        below=(*REAL, 1.0, np.ones((3, 2, 2)), np.ones((2, 2, 1))),
        arrow=(*REAL, 1.0, np.ones((3, 2, 2)), np.ones((2, 1, 2))),
        tip=(*REAL, 1.0, np.ones(1), np.ones((1, 2))),
    )
    | cases(TIME.mv, {}, x=(*REAL, 1.0, np.ones(5), np.ones((6, 2, 2))))
    | cases(TIME.solve, {}, b=(*REAL, 1.0, np.ones(5), np.ones((6, 2, 2))))
    | cases(
        sparse.cholmod,
        {"rows": ROWS, "cols": COLS, "values": VALUES, "b": B},
        rows=PLACES,
        cols=PLACES,
        values=NUMBERS,
        b=(*REAL, 1.0, np.ones((N, 2, 2)), np.ones(0)),
    )
)
