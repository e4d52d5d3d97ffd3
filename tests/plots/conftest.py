"""Samples on a map, a line, a box, at scattered points, and in a plate."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_inverse.domains import Grid
from numpyro_inverse.infer import to_arviz
from tests.domains.test_domain import Points

SCATTER = Points(((0.2, 1.0), (2.0, 0.1), (1.1, 0.7), (0.4, 0.3)))


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="package")
def others():
    """The samples, and their tree, of fields that are not single arrays on a grid."""
    normal = np.asarray(jax.random.normal(jax.random.key(4), (2, 40, 2, 6, 4)))
    samples = {"scatter": normal[:, :, 0, 0], "batch": normal, "lines": normal[..., 0]}

    def model():
        with numpyro.plate("replicate", 2):
            numpyro.sample("batch", dist.Normal().expand([6, 4]).to_event(2))
            numpyro.sample("lines", dist.Normal().expand([6]).to_event(1))
        numpyro.sample("scatter", dist.Normal().expand([4]).to_event(1))

    domain = {"scatter": SCATTER, "batch": Grid((6, 4), extent=(3.0, 1.0)), "lines": Grid(6, extent=3.0)}
    return samples, to_arviz(samples, model, domain=domain, length_unit="km")
