"""Intervals of physics-informed inversion, over 200 data sets that the exact equation made.

-u'' + theta u = f with a source between clustered sensors. The reduced posterior is that of the equation as a
constraint and has uniform ranks. The joint optimum in a trial space that cannot hold the solution, with the error bar
of its curvature, has not, and the identifiability report says of that space that its confidence is its own.
"""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from models import diffusion_reaction as dr
from numpyro_inverse import pinn
from numpyro_inverse.calibration import sbc

pytestmark = pytest.mark.statistical

SENSORS = np.array([0.12, 0.15, 0.18, 0.21, 0.24, 0.28, 0.32, 0.36])
NOISE, NUM_DATASETS, ALARM = 0.005, 200, 1e-3
LOW, HIGH = 1.0, 6.0


def source(x):
    return 20 * jnp.exp(-((x - 0.3) ** 2) / 0.02)


def residual(u, x, theta):
    return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - source(x[0])


def problem(num_sines, weight):
    pde = pinn.PDE(residual, dr.DOMAIN, points=dr.DOMAIN.grid(50), boundary=())
    data = pinn.Data(SENSORS[:, None], np.zeros(8), NOISE)
    return pinn.Problem(pde, pinn.SineBasis(dr.DOMAIN, num_sines), data, scale=weight**-0.5)


def with_data(target, y):
    """The same problem or potential with other values of the data; y of shape (8,)."""
    values = lambda t: (t.problem if hasattr(t, "problem") else t).data[0].values  # noqa: E731
    return eqx.tree_at(values, target, y.reshape(values(target).shape))


def exact_solution(theta):
    """At the sensors, by 200 sines, which is independent of collocation; the source's coefficients by quadrature."""
    grid = (np.arange(4000) + 0.5) / 4000
    k = np.arange(1, 201)
    waves = np.sqrt(2) * np.sin(np.pi * k * grid[:, None])
    coefficients = jnp.asarray(waves.T @ (20 * np.exp(-((grid - 0.3) ** 2) / 0.02)) / 4000)
    return jnp.asarray(np.sqrt(2) * np.sin(np.pi * k * SENSORS[:, None])) @ (coefficients / ((k * np.pi) ** 2 + theta))


def model(y=None):
    theta = numpyro.sample("theta", dist.Uniform(LOW, HIGH))
    numpyro.sample("y", dist.Normal(exact_solution(theta), NOISE).to_event(1), obs=y)


def uniformity(u):
    """p-value of the probability integral transforms."""
    return stats.kstest(u, "uniform").pvalue


@pytest.mark.parametrize(("num_sines", "calibrated"), [(24, True), (2, False)])
def test_the_reduced_posterior(num_sines, calibrated, key, x64):
    """NUTS on the misfit where the equation is solved: right in a space that holds the solution, told in one that does
    not. False alarm 1e-3."""
    potential = pinn.PhysicsConstrainedPotential(problem(num_sines, 1e2))

    def reduced(y):
        theta = numpyro.sample("theta", dist.Uniform(LOW, HIGH))
        with_data(potential, y)("likelihood", theta)

    def inference(rng_key, y):
        mcmc = MCMC(NUTS(reduced), num_warmup=200, num_samples=300, progress_bar=False)
        mcmc.run(rng_key, y)
        return mcmc.get_samples()

    study = sbc(model, inference, num_datasets=NUM_DATASETS, rng_key=key, observed="y", progress_bar=False)
    print(study.verdict(), study.table)
    p = study.table["p_value"].min()
    assert p > ALARM if calibrated else p < 1e-6


@pytest.mark.parametrize(("num_sines", "calibrated"), [(24, True), (2, False)])
def test_joint_optimization_with_the_error_bar_of_its_curvature(num_sines, calibrated, x64):
    """The Laplace approximation at the joint optimum fails in the space of which the report warns. False alarm 1e-3."""
    rng = np.random.default_rng(0)
    empty = problem(num_sines, 1e2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pinn.IdentifiabilityWarning)
        report = pinn.identifiability_report(with_data(empty, exact_solution(3.0)), 3.0)
    assert report.rows[0].expressive == calibrated

    found = []
    for theta in rng.uniform(LOW, HIGH, NUM_DATASETS):
        y = exact_solution(theta) + NOISE * rng.normal(size=8)
        fit = pinn.joint(with_data(empty, y), 3.0, progress_bar=False)
        assert fit.converged
        information = pinn.profiled_information(empty, fit.theta, fit.phi)
        found.append(stats.norm.cdf((theta - float(fit.theta)) * np.sqrt(information[0, 0])))
    p = uniformity(found)
    print(p)
    assert p > ALARM if calibrated else p < 1e-6
