"""What importing the package may and may not do."""

import subprocess
import sys

PROGRAM = """
import numpyro
import numpyro_inverse
numpyro.set_host_device_count(3)
import jax
assert jax.local_device_count() == 3, jax.local_device_count()
from numpyro_inverse.infer import BlackJAX
assert BlackJAX.__name__ == "BlackJAX"
"""


def test_importing_leaves_jax_unstarted():
    """Chains in parallel on a CPU need the number of devices set before JAX starts."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_a_name_that_does_not_exist():
    import numpyro_inverse.infer

    assert not hasattr(numpyro_inverse.infer, "BlackJack")
