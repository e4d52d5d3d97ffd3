"""Operator norms against a dense SVD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse.operators import LinearOperator, Matrix, operator_norm


class Unbounded(LinearOperator):
    """Doubling, of which no bound has been proved."""

    in_shape: tuple[int, ...] = (4,)
    out_shape: tuple[int, ...] = (4,)

    def mv(self, x):
        return 2 * x


@pytest.mark.parametrize("complex_part", [0.0, 1.0])
def test_estimate_is_below_the_norm_and_close(complex_part, key):
    rng = np.random.default_rng(0)
    m = rng.normal(size=(12, 9)) + complex_part * 1j * rng.normal(size=(12, 9))
    m = m if complex_part else m.real
    norm = np.linalg.norm(m, 2)
    found = jax.jit(operator_norm)(Matrix(m, in_shape=(3, 3)), key)
    assert norm * (1 - 1e-3) <= found.estimate <= norm * (1 + 1e-5)
    assert norm <= found.upper_bound <= norm * (1 + 1e-5)
    assert found.certified
    assert found.iterations < 1000


def test_says_when_it_is_only_an_estimate(key):
    found = operator_norm(Unbounded(), key)
    assert found.estimate == pytest.approx(2.0, rel=1e-5)
    assert found.upper_bound == jnp.inf
    assert not found.certified


def test_zero_operator(key):
    assert operator_norm(Matrix(np.zeros((3, 2))), key).estimate == 0.0


def test_stops_where_told(key):
    close_pair = Matrix(np.diag([1.0, 0.999, 0.5]))
    assert operator_norm(close_pair, key, tolerance=1e-7, max_iterations=4).iterations == 4


@pytest.mark.parametrize("wrong", [{"tolerance": 0.0}, {"tolerance": float("nan")}, {"max_iterations": 0}])
def test_bad_input(wrong, key):
    with pytest.raises(ValueError, match=f"operator_norm: `{next(iter(wrong))}` must be"):
        operator_norm(Unbounded(), key, **wrong)
