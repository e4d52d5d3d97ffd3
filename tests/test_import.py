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

PROGRAM = """
import numpyro
import numpyro_inverse as ni
[getattr(ni, name) for name in ni.__all__]
numpyro.set_host_device_count(3)
import jax
assert jax.local_device_count() == 3, jax.local_device_count()
from numpyro_inverse.infer import BlackJAX
assert BlackJAX.__name__ == "BlackJAX"
"""


def loaded(program: str) -> set[str]:
    """The modules that a fresh interpreter has imported after ``program``."""
    command = [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_importing_leaves_jax_unstarted():
    """Chains in parallel on a CPU need the number of devices set before JAX starts."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_the_front_door_is_light():
    """Nothing but the door comes with the package, and nothing heavy with what every model uses."""
    numpyro = loaded("import numpyro")
    assert loaded("import numpyro, numpyro_inverse") - numpyro <= {"numpyro_inverse"}
    core = loaded(f"import numpyro, numpyro_inverse as ni; {CORE}") - numpyro
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
