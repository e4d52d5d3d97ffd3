"""Tables of bad input whose objects take seconds to make: they are made in the test, not where tests are collected."""

from importlib import import_module

import pytest

from tests.bad_input.corpus import check


@pytest.mark.parametrize("package", ["calibration", "nn", "sbi"])
def test_bad_input_is_named(package, subtests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, case in import_module(f"tests.bad_input.{package}").CASES.items():
        with subtests.test(name):
            check(name, case)
