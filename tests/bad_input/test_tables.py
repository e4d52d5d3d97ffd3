"""Bad input by tables, and what the tables leave out: good input of unusual kinds, and input that can only become NaN.

The tables' objects take seconds to make. They are made in the tests, not where tests are collected, and once: what else
needs them is here.
"""

import re
from importlib import import_module

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse import calibration, infer, solvers, sparse
from numpyro_inverse import denoisers as dn
from numpyro_inverse import operators as op
from numpyro_inverse import symmetry as sy
from numpyro_inverse.domains import Grid
from numpyro_inverse.sbi import NLE, NPE, NRE
from tests.bad_input.corpus import check

PACKAGES = ("calibration", "denoisers", "distributions", "external", "geometry", "infer", "nn", "pinn", "prior_checks")
PACKAGES += ("sbi", "solvers", "sparse", "symmetry", "theory")


@pytest.fixture
def table(package):
    """The module of a package's tables."""
    return import_module(f"tests.bad_input.{package}")


@pytest.mark.parametrize("package", PACKAGES)
def test_bad_input_is_named(table, subtests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, case in table.CASES.items():
        with subtests.test(name):
            check(name, case)


@pytest.mark.parametrize("package", ["denoisers", "solvers"])
def test_what_functions_return_is_looked_at(table, subtests):
    for name, (call, message) in table.RETURNED.items():
        with subtests.test(name), pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.parametrize("package", ["denoisers", "geometry", "solvers"])
def test_traced_values_where_static_ones_are_needed_are_named(table, subtests):
    for name, (argument, call) in table.STATIC.items():
        with subtests.test(name), pytest.raises((TypeError, ValueError)) as error:
            jax.jit(lambda v, call=call: (call(v), 0)[1])(1.0)
        assert re.search(rf"`{argument}`.*(must be known outside `jit`|traced)", str(error.value)), name


def test_signals_may_be_lists_and_integers():
    from tests.bad_input.denoisers import EMPIRICAL, GAUSSIAN, LINEAR, half

    for denoiser in (GAUSSIAN, LINEAR, EMPIRICAL):
        for call in (denoiser, getattr(denoiser, "potential", denoiser)):
            np.testing.assert_array_equal(call([1, 3], 0.5), call(np.array([1.0, 3.0], np.float32), 0.5))
    assert dn.DeclaredPotential(half, lambda x, sigma: 0.0).potential([1, 3], 0.5) == 0


def test_what_a_server_is_given_is_checked_before_it_is_asked():
    """A good call asks, and nobody answers."""
    with pytest.raises(ConnectionError):
        op.umbridge("http://localhost:1", "forward", config={"level": 1}, timeout=1.0)


def test_negative_widths_that_are_traced_are_nan():
    """What cannot be refused within ``jit`` is NaN, not a number."""
    grid, cells = Grid((4, 6), extent=(2.0, 3.0)), np.ones((4, 6))
    blur = jax.jit(lambda w: op.Convolution.gaussian(grid, w, radius=1.0)(cells))
    assert np.all(np.isnan(blur(-0.5)))
    assert np.all(np.isfinite(blur(0.5)))


def test_draws_may_be_lists_of_numbers_and_booleans():
    found = infer.to_arviz({"hit": [[True, False], [True, True]], "x": [[1, 2], [3, 4]]}).posterior
    assert found.hit.values.tolist() == [[True, False], [True, True]]
    assert found.x.values.tolist() == [[1, 2], [3, 4]]


def test_arguments_of_data_terms_may_be_lists_and_integers():
    """Integers were once the type in which a term was evaluated: the scale became zero."""
    term = solvers.LeastSquares(op.Matrix(np.eye(2)), np.ones(2), 0.5)
    plain = solvers.SmoothDataTerm(lambda x: jnp.sum(x**2) / 2, lipschitz=1.0, strong_convexity=1.0)
    x = np.array([1.0, 3.0], np.float32)
    for call in (term.value, term.gradient, lambda x: term.prox(x, 0.5), plain.value, plain.gradient):
        np.testing.assert_array_equal(call([1, 3]), call(x))
        np.testing.assert_array_equal(call(np.array([1, 3])), call(x))


def test_values_of_other_sites_broadcast():
    from tests.bad_input.solvers import Y, model

    values = {"noise": jnp.float32(0.5), "count": np.int64(1)}
    assert solvers.model_data_term(model, "x", model_args=(Y,), values=values).has_prox


def test_values_that_are_not_finite_give_nan_as_a_matrix_that_is_not_positive_definite_does():
    """A sampler counts both as divergences."""
    from tests.bad_input.sparse import NAN, PATTERN, VALUES, B

    for bad in (NAN, -1.0):
        values = VALUES.at[0].set(bad)
        assert np.isnan(sparse.logdet(PATTERN, values))
        assert np.all(np.isnan(sparse.solve(PATTERN, values, B)))


def test_an_element_may_be_a_number():
    flip, shift, x = sy.SignFlip(), sy.CyclicShift((4,)), np.arange(1.0, 5.0, dtype=np.float32)
    np.testing.assert_allclose(flip.action(-1, x), -x)
    np.testing.assert_allclose(sy.Symmetry(flip, "u").action(-1, {"u": x})["u"], -x)
    np.testing.assert_allclose(shift.action([1], x), np.roll(x, 1))
    np.testing.assert_allclose((flip * sy.Scaling()).action((-1, 0.0), x), -x)


def test_lists_and_the_ends_of_what_is_allowed_are_good():
    """And a network of a dict of inputs."""
    from tests.bad_input.theory import KEY, network

    assert calibration.input_dropout_covariance([[1, 2]], [1, 1], 1).shape == (1, 1)
    assert calibration.hidden_dropout_covariance([[1.0]], [[1, 2]], [1, 1], 0.5) == pytest.approx(9.0)
    linear = calibration.LinearProblem([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[1.0]])
    np.testing.assert_allclose(linear.covariance, np.diag([0.5, 1.0]))
    found = calibration.mc_dropout(lambda y, key: network(y["u"], key), {"u": jnp.ones(2)}, KEY, num_draws=2)
    assert found.draws.shape == (2, 2)


def test_fits_are_loaded(tmp_path):
    """Of all three estimators."""
    from tests.bad_input import sbi

    flow = {"density": sbi.FLOW}
    for kind, fit, options in ((NPE, sbi.POSTERIOR, flow), (NLE, sbi.LIKELIHOOD, flow), (NRE, sbi.RATIO, sbi.SMALL)):
        path = tmp_path / kind.__name__
        fit.save(path)
        again = kind(sbi.model).load(path, **options)
        before, after = (jax.tree.leaves(eqx.filter(f.learned, eqx.is_array)) for f in (fit, again))
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
