r"""The permeability of the ground from pressures: Darcy's equation with a Matérn prior, for physics-informed inversion.

:What: :math:`-\nabla \cdot (e^m \nabla p) = f` on the unit square, p = 0 on its boundary, of two wells of width 0.15;
    the log permeability m is unknown.
:Dimension: the coefficients of m, 12; 25 data.
:Prior: m a Matérn field of range 0.5, smoothness 3.5 and scale 1, its first terms in cosines: standard normal
    coefficients.
:Data: p at 5 x 5 points.
:Likelihood: normal, standard deviation 0.02; p is of the order of 1.
:Reference posterior: none in closed form. :func:`reference` is a finite-element solver.
:Source: the equation is Darcy's; the problem is the usual one of Bayesian inversion, A. M. Stuart, Acta Numerica 19
    (2010) 451-559, section 3.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_inverse import pinn

SQUARE = pinn.Box((0.0, 0.0), (1.0, 1.0))
NOISE = 0.02
WELLS, WIDTH, STRENGTH = np.array([[0.3, 0.35], [0.7, 0.65]]), 0.15, 25.0
PLACES = np.stack(np.meshgrid(*[np.linspace(0.1, 0.9, 5)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)


def log_permeability(theta):
    """m, a function of a point, with coefficients theta."""
    basis = pinn.MaternExpansion(SQUARE, len(theta), range=0.5, smoothness=3.5, scale=1.0)
    return basis.with_coefficients(jnp.asarray(theta))


def source(x):
    """f at a point."""
    squared = jnp.sum((x - jnp.asarray(WELLS, x.dtype)) ** 2, axis=1)
    return STRENGTH * jnp.sum(jnp.exp(-0.5 * squared / WIDTH**2))


def residual(p, x, theta):
    r""":math:`-\Delta p - \nabla m \cdot \nabla p - e^{-m} f`: the equation over the permeability, so that residuals
    weigh alike wherever it is small or large."""
    m = log_permeability(theta)
    return -pinn.laplacian(p)(x) - jax.grad(m)(x) @ jax.grad(p)(x) - jnp.exp(-m(x)) * source(x)


def problem(values, num=10, num_points=16, scale=0.1):
    """The problem for :mod:`numpyro_inverse.pinn`: products of ``num`` polynomials a side that vanish on the
    boundary, and ``num_points`` collocation points a side."""
    pde = pinn.PDE(residual, SQUARE, points=SQUARE.grid(num_points), boundary=())
    trial = pinn.Enforced(pinn.ChebyshevBasis(SQUARE, num), SQUARE.distance)
    return pinn.Problem(pde, trial, pinn.Data(PLACES, values, NOISE), scale=scale)


def model(likelihood, num=12):
    """The NumPyro model: site ``theta``, and a potential, such as a reduced one, as the likelihood."""
    theta = numpyro.sample("theta", dist.Normal(0.0, 1.0).expand([num]).to_event(1))
    likelihood("likelihood", theta)


def reference(theta, points, cells=24):
    """p at points, by quadratic finite elements on ``2 cells^2`` triangles."""
    from skfem import Basis, BilinearForm, ElementTriP2, LinearForm, MeshTri, condense, solve
    from skfem.helpers import dot, grad

    m, axis = log_permeability(theta), np.linspace(0.0, 1.0, cells + 1)
    basis = Basis(MeshTri.init_tensor(axis, axis), ElementTriP2(), intorder=6)

    def at(function, x):
        return np.asarray(jax.vmap(function)(jnp.asarray(x.reshape(2, -1).T))).reshape(x.shape[1:])

    flow = BilinearForm(lambda u, v, w: np.exp(at(m, w.x)) * dot(grad(u), grad(v))).assemble(basis)
    wells = LinearForm(lambda v, w: at(source, w.x) * v).assemble(basis)
    pressure = solve(*condense(flow, wells, D=basis.get_dofs()))
    return basis.probes(np.asarray(points, float).T) @ pressure


def simulate(rng, num=12):
    """Coefficients from the prior and data of the reference solver."""
    theta = rng.normal(size=num)
    return theta, reference(theta, PLACES) + NOISE * rng.normal(size=len(PLACES))
