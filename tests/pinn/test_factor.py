"""The equation as a factor: its density, and the volume that separates it from the constrained posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.contrib.module import random_eqx_module
from numpyro.infer import MCMC, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.infer.util import log_density
from scipy import stats
from scipy.stats import norm

from models import bpinn
from models import diffusion_reaction as dr
from numpyro_inverse import pinn
from numpyro_inverse.infer import TemperedSGLD

GRID = np.linspace(dr.LOW, dr.HIGH, 4001)


@pytest.fixture(scope="module")
def weak():
    """Weak data: four sines of a constant source, noise 0.1; a hard equation."""
    source = np.sqrt(2) * (1 - (-1.0) ** np.arange(1, 5)) / (np.arange(1, 5) * np.pi) * 20
    solution = source / ((np.arange(1, 5) * np.pi) ** 2 + 3.0)
    return dr.Spectral(source, solution + 0.1 * np.array([0.3, -0.5, 0.1, 0.2]), 0.1, 1e8)


def joint_density(spectral, corrected):
    """The log density of the model at theta and the penalized solution, as a function of theta."""
    problem = dr.problem(spectral)
    data = problem.data[0]

    def model():
        theta = numpyro.sample("theta", dist.Uniform(dr.LOW, dr.HIGH))
        coefficients = numpyro.sample("phi", dist.ImproperUniform(dist.constraints.real_vector, (), (4,)))
        u = problem.trial.with_coefficients(coefficients)
        pinn.factor("pde", problem.pde, u, theta, problem.scale, volume_correction=corrected)
        law = dist.Normal(jax.vmap(u)(data.points)[:, None], data.scale)
        numpyro.sample("data", law.to_event(2), obs=data.values)

    def density(theta, phi):
        return log_density(model, (), {}, {"theta": theta, "phi": phi})[0]

    return jax.jit(jax.vmap(density))(jnp.asarray(GRID), jnp.asarray(spectral.penalized_solution(GRID)))


def test_the_posterior_with_and_without_its_volume(weak, x64):
    """phi is integrated exactly: the density at its maximum times the root of the determinant of h.

    Corrected, the posterior is that of the constrained problem up to 1 / w d^2 sigma^2 < 1e-7; not corrected, it has
    the factor prod 1 / d. Both by quadrature.
    """
    width = -0.5 * np.sum(np.log(weak.curvature(GRID)), axis=-1)

    def moments(log_density):
        return dr.exact_posterior(lambda _: log_density, num=len(GRID))

    exact = moments(-weak.constrained(GRID))
    squeezed = moments(-weak.constrained(GRID) - np.sum(np.log(weak.d(GRID)), axis=-1))
    corrected = moments(np.asarray(joint_density(weak, True)) + width)
    plain = moments(np.asarray(joint_density(weak, False)) + width)
    np.testing.assert_allclose(corrected, exact, rtol=1e-5)
    np.testing.assert_allclose(plain, squeezed, rtol=1e-5)
    assert exact[0] - plain[0] > 0.1 * exact[1]


@pytest.mark.slow
def test_a_network_and_conditions_in_a_model(key):
    """The factor is the sum of normal log densities, of the equation and of its conditions."""
    box = dr.DOMAIN
    pde = pinn.PDE(
        lambda u, x, theta: theta * pinn.derivative(u, 0)(x) - u(x),
        box,
        points=box.grid(5),
        boundary=pinn.dirichlet(1.0, box.boundary()),
    )
    network = pinn.MLP(box, width=3, depth=1, key=key)

    def model():
        theta = numpyro.sample("theta", dist.Normal(0, 1))
        u = random_eqx_module("u", network, dist.Normal(0, 1))
        numpyro.deterministic("rows", pde.at(u, theta)[:, 0])
        numpyro.deterministic("ends", jax.vmap(u)(box.boundary()) - 1)
        pinn.factor("pde", pde, u, theta, 0.5, boundary_scale=0.2)

    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, key)).get_trace()
    site = trace["pde"]
    expected = norm.logpdf(trace["rows"]["value"], 0, 0.5).sum() + norm.logpdf(trace["ends"]["value"], 0, 0.2).sum()
    np.testing.assert_allclose(site["fn"].log_prob(site["value"]), expected, rtol=1e-5)
    assert sum(name.startswith("u/") for name in trace) == 4


@pytest.mark.statistical
def test_variational_inference_and_langevin_take_the_factor(weak, x64, key):
    """With theta known the posterior of four coefficients is normal, its mean and precision from derivatives.

    The guide's covariance within 10 %, its mean within 0.1 standard deviations. Langevin against its own law at this
    step, by Student's t of 64 chains for four means and four mean squares (false alarm 5e-6; noise 2 % too large is
    told).
    """
    problem = dr.problem(weak)
    data = problem.data[0]

    def model():
        coefficients = numpyro.sample("phi", dist.Normal(0, 1).expand((4,)).to_event(1))
        u = problem.trial.with_coefficients(coefficients)
        pinn.factor("pde", problem.pde, u, 3.0, 20.0)
        law = dist.Normal(jax.vmap(u)(data.points)[:, None], data.scale)
        numpyro.sample("data", law.to_event(2), obs=data.values)

    def potential(phi):
        return -log_density(model, (), {}, {"phi": phi})[0]

    precision = np.asarray(jax.hessian(potential)(jnp.zeros(4)))
    covariance = np.linalg.inv(precision)
    mean, sd = -covariance @ np.asarray(jax.grad(potential)(jnp.zeros(4))), np.sqrt(np.diag(covariance))

    guide = AutoMultivariateNormal(model)
    svi = SVI(model, guide, optax.adam(optax.cosine_decay_schedule(2e-2, 5000)), Trace_ELBO(num_particles=20))
    normal = guide.get_posterior(svi.run(key, 5000, progress_bar=False).params)
    assert np.all(np.abs(normal.mean - mean) < 0.1 * sd)
    assert np.all(np.abs(normal.covariance_matrix - covariance) < 0.1 * np.outer(sd, sd))

    curvatures, modes = np.linalg.eigh(precision)
    kernel = TemperedSGLD(model, step_size=0.2 / curvatures[-1])
    mcmc = MCMC(kernel, num_warmup=2000, num_samples=8000, num_chains=64, chain_method="vectorized", progress_bar=False)
    mcmc.run(key, extra_fields=())
    off = (np.asarray(mcmc.get_samples(group_by_chain=True)["phi"]) - mean) @ modes
    for found, expected in ((off, 0.0), (off**2, kernel.gaussian_law(curvatures).variance)):
        by_chain = found.mean(axis=1)
        z = (by_chain.mean(axis=0) - expected) / (by_chain.std(axis=0, ddof=1) / np.sqrt(64))
        assert np.all(np.abs(z) < stats.t.isf(3e-7, 63)), z


def test_bad_factors():
    box, basis = dr.DOMAIN, pinn.SineBasis(dr.DOMAIN, 3)
    pde = pinn.PDE(bpinn.operator, box, points=box.grid(5), boundary=pinn.dirichlet(0.0, box.boundary()))
    with pytest.raises(ValueError, match="give `boundary_scale`"):
        pinn.factor("pde", pde, basis, 1.0, 0.1)
    free = pinn.PDE(bpinn.operator, box, points=box.grid(5), boundary=())
    with pytest.raises(ValueError, match="there are 5 and 3"):
        pinn.factor("pde", free, basis, 1.0, 0.1, volume_correction=True)
    with pytest.raises(ValueError, match="`scale` must be positive"):
        pinn.factor("pde", free, basis, 1.0, -0.1)
    with pytest.raises(TypeError, match="`name` must be"):
        pinn.factor(3, free, basis, 1.0, 0.1)
