"""What importing the package may and may not do."""

import subprocess
import sys
from pathlib import Path

import pytest

import numpyro_inverse as ni

CORE = "ni.distributions, ni.domains, ni.operators, ni.infer, ni.whiten, ni.to_arviz"
# Each costs a good part of a second, or starts JAX.
HEAVY = [
    "arviz",
    "arviz_base",
    "blackjax",
    "distrax",
    "matplotlib",
    "pandas",
    "tensorflow_probability",
    "xarray",
    "zarr",
]

PROGRAM = f"""
import sys
import numpyro
print(*sys.modules)
import numpyro_inverse as ni
print(*sys.modules)
{CORE}
print(*sys.modules)
[getattr(ni, name) for name in ni.__all__]
numpyro.set_host_device_count(3)
import jax
from numpyro_inverse.infer import BlackJAX
print(jax.local_device_count(), BlackJAX.__name__)
"""


@pytest.fixture(scope="module")
def printed():
    """By a fresh interpreter, line by line."""
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_importing_leaves_jax_unstarted(printed):
    """Chains in parallel on a CPU need the number of devices set before JAX starts."""
    assert printed[3] == "3 BlackJAX"


def test_the_front_door_is_light(printed):
    """Nothing but the door comes with the package, and nothing heavy with what every model uses."""
    numpyro, door, core = (set(line.split()) for line in printed[:3])
    assert door - numpyro == {"numpyro_inverse"}
    core -= numpyro
    assert {"numpyro_inverse.infer", "numpyro_inverse.distributions"} <= core
    assert core.isdisjoint({*HEAVY, "numpyro_inverse.calibration", "numpyro_inverse.nn", "numpyro_inverse.plots"})


def test_the_front_door_names_everything():
    assert set(ni.__all__) <= set(dir(ni))
    packages = {path.parent.name for path in Path(ni.__file__).parent.glob("[a-z]*/__init__.py")}
    assert packages <= set(ni.__all__)
    for name in packages:
        assert getattr(ni, name).__name__ == f"numpyro_inverse.{name}"
    for name in set(ni.__all__) - packages:
        assert getattr(ni, name) is getattr(ni.infer, name)
    assert "BlackJAX" in dir(ni.infer)


@pytest.mark.parametrize("module", [ni, ni.infer])
def test_a_name_that_does_not_exist(module):
    with pytest.raises(AttributeError, match=f"'{module.__name__}' has no attribute 'Black_Jack'"):
        module.Black_Jack  # noqa: B018
