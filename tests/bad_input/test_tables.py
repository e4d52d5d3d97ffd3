"""Tables of bad input; their objects take seconds to make, and are made in the test, not where tests are collected."""

import re
from importlib import import_module

import jax
import pytest

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
