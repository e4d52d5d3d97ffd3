"""What every linear operator must do, in double precision; one of each kind in single precision too.

Cases are in ``operator_cases.py``; a kind is what stands before the comma in a case's name. One of each kind is in the
fast suite, in double precision, which sees every formula; what single precision alone could break there is the type.
"""

from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract.operator_cases import OPERATORS

PRECISIONS = {"float32": np.float32, "x64": np.float64}


def _mode(precision):
    return jax.enable_x64(True) if precision == "x64" else nullcontext()


@eqx.filter_jit
def _everything(operator, x, y, z, w, batch):
    """All that the tests look at, as one program with the operator as an argument."""

    def misfit(v):
        return 0.5 * jnp.sum(jnp.abs(operator(v) - y) ** 2)

    return {
        "of_z": operator @ z,
        "of_batch": jax.vmap(operator, in_axes=1, out_axes=1)(batch),  # maps one batch axis, is handed the other
        "adjoint_of_w": operator.H(w),
        "gradient": jax.grad(misfit)(x),
        "matrix": operator.as_matrix(),
        "bound": operator.norm_bound(),
    }


@cache
def _results(name, precision):
    """The operator, its inputs and everything computed from them, shared by the tests below."""
    dtype = PRECISIONS[precision]
    rng = np.random.default_rng(0)
    with _mode(precision):
        a = OPERATORS[name]()
        batch, outputs = (rng.normal(size=(2, 3, *s)).astype(dtype) for s in (a.in_shape, a.out_shape))
        x, x2, y, y2 = batch[0, 0], batch[0, 1], outputs[0, 0], outputs[0, 1]
        batch[1, 2] = 2 * x - x2
        z, w = x + 1j * x2, y + 1j * y2
        out = jax.tree.map(np.asarray, _everything(a, x, y, z, w, batch))
    eps = 4 * np.finfo(dtype).eps * np.sqrt(x.size + y.size)
    norm = np.linalg.norm(out["matrix"].astype(complex), 2)
    return SimpleNamespace(a=a, x=x, y=y, z=z, w=w, batch=batch, eps=eps, norm=norm, **out)


FIRST_OF_KIND = {name.split(",")[0]: name for name in reversed(OPERATORS)}.values()
CASES = [(name, p) for name in OPERATORS for p in PRECISIONS if p == "x64" or name in FIRST_OF_KIND]


def _cases(*fast):
    """All cases; slow are those of other precisions than these, and all but the first of a kind."""
    slow = {c: c[0] not in FIRST_OF_KIND or c[1] not in fast for c in CASES}
    return [pytest.param(c, marks=[pytest.mark.slow] * slow[c], id=", ".join(c)) for c in CASES]


@pytest.fixture(params=_cases("x64"))
def case(request):
    with _mode(request.param[1]):
        yield request.param


@pytest.fixture
def precision(case):
    return case[1]


@pytest.fixture
def r(case):
    return _results(*case)


def close(actual, expected, scale):
    error = np.max(np.abs(np.asarray(actual, complex) - expected), initial=0.0)
    assert error <= scale, f"off by {error:.3g}; rounding allows {scale:.3g}"


def test_adjoint_identity(r):
    """<A z, w> = <z, A^H w>, complex z and w; A^H is made from A^T, so this tests both."""
    scale = r.eps * r.norm * np.linalg.norm(r.z) * np.linalg.norm(r.w)
    close(np.vdot(r.of_z, r.w), np.vdot(r.z, r.adjoint_of_w), scale)


def test_matrix_agrees(r):
    """The operator and its adjoint act as the dense matrix and its conjugate transpose do, on complex arrays."""
    of_z, of_w = r.eps * r.norm * np.linalg.norm(r.z), r.eps * r.norm * np.linalg.norm(r.w)
    m = r.matrix.astype(complex)
    assert m.shape == (r.y.size, r.x.size)
    close(r.of_z.ravel(), m @ r.z.ravel(), of_z)
    close(r.adjoint_of_w.ravel(), m.conj().T @ r.w.ravel(), of_w)


def test_linear(r):
    """A (2 x - x') = 2 A x - A x'."""
    of_x, of_x2, of_sum = r.of_batch[0, 0], r.of_batch[0, 1], r.of_batch[1, 2]
    close(of_sum, 2 * of_x - of_x2, 4 * r.eps * r.norm * np.linalg.norm(r.z))


def test_leading_axes_are_batch_axes(r):
    assert r.of_batch.shape == (2, 3, *r.a.out_shape)
    expected = r.matrix.astype(complex) @ r.batch.reshape(6, -1).T
    close(r.of_batch.reshape(6, -1).T, expected, r.eps * r.norm * np.linalg.norm(r.batch))


def test_gradient_of_the_misfit(r):
    """The gradient of |A x - y|^2 / 2 is A^H (A x - y), its real part for real x."""
    m = r.matrix.astype(complex)
    assert r.gradient.shape == r.a.in_shape
    expected = m.conj().T @ (m @ r.x.ravel() - r.y.ravel())
    scale = 4 * r.eps * r.norm * (r.norm * np.linalg.norm(r.x) + np.linalg.norm(r.y))
    close(r.gradient.ravel(), expected.real, scale)


@pytest.mark.parametrize("case", _cases(*PRECISIONS), indirect=True)
def test_dtype(case, precision):
    """Single precision in, single precision out, whatever precision the operator was made in."""
    real, a = PRECISIONS[precision], OPERATORS[case[0]]()
    x, y = (jax.ShapeDtypeStruct(shape, real) for shape in (a.in_shape, a.out_shape))
    assert jax.eval_shape(a, x).dtype in (real, np.result_type(real, np.complex64))
    assert jax.eval_shape(jax.grad(lambda v: jnp.sum(jnp.abs(a(v)) ** 2)), x).dtype == real
    of_real_data, matrix = jax.eval_shape(a.H, y).dtype, jax.eval_shape(lambda: a.as_matrix()).dtype
    assert of_real_data == matrix, "the adjoint of a complex operator is complex, also of real data"
    for dtype, expected in (np.float32, np.float32), (np.complex64, np.complex64), (np.int32, real):
        out = jax.eval_shape(a, jax.ShapeDtypeStruct(a.in_shape, dtype)).dtype
        assert out in (expected, np.result_type(expected, np.complex64))


def test_pytree(r, case):
    """Flattens to arrays and back, and two operators made alike share one compiled program."""
    leaves, structure = jax.tree.flatten(r.a)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    back, same = jax.tree.flatten(jax.tree.unflatten(structure, leaves))
    assert same == structure
    assert all(
        np.array_equal(found, leaf) and found.dtype == leaf.dtype for found, leaf in zip(back, leaves, strict=True)
    )
    again = OPERATORS[case[0]]()
    assert hash(jax.tree.structure(again)) == hash(structure)
    assert jax.tree.structure(again) == structure


def test_norm_bound(r):
    """A certified bound is a bound."""
    if r.bound is not None:
        assert np.shape(r.bound) == ()
        assert r.norm * (1 - r.eps) <= r.bound < np.inf


def test_wrong_shape(r):
    longer = np.zeros((*r.a.in_shape[:-1], r.a.in_shape[-1] + 1))
    for wrong in (longer, np.zeros(r.a.in_shape[1:])):
        with pytest.raises(ValueError, match="trailing axes"):
            r.a(wrong)
