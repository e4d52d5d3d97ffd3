"""Every error that a user can meet at the door of an equation, a problem, or a trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_inverse import pinn

BOX = pinn.Box(0.0, 1.0)
MOVING = pinn.Box((0.0, 0.0), (1.0, 1.0), time=True)
SINES = pinn.SineBasis(BOX, 3)
ENDS = pinn.dirichlet(0.0, BOX.boundary())


def residual(u, x, theta):
    return -pinn.derivative(u, 0, 0)(x) + theta * u(x) - 1.0


def pde(**options):
    return pinn.PDE(residual, BOX, **{"points": BOX.grid(5), "boundary": (), **options})


def problem(function=residual, **options):
    equation = pinn.PDE(function, BOX, points=BOX.grid(5), boundary=())
    return pinn.Problem(equation, SINES, pinn.Data([[0.5]], [0.1], 0.1), **{"scale": 0.1, **options})


CASES = {
    "no conditions": (ValueError, "give `boundary` or `initial`", lambda: pde(boundary=None)),
    "collocation outside": (ValueError, "`points` must lie in the domain", lambda: pde(points=[[0.5], [1.5]])),
    "points of another shape": (ValueError, "must be points, of shape", lambda: pde(points=[0.5, 0.7])),
    "conditions inside": (
        ValueError,
        "must lie on the boundary",
        lambda: pde(boundary=pinn.dirichlet(0.0, BOX.grid(2))),
    ),
    "no condition": (TypeError, "must be conditions", lambda: pde(boundary=3.0)),
    "initial without time": (ValueError, "needs a domain with time", lambda: pde(initial=ENDS)),
    "initial later": (
        ValueError,
        "must lie at the first time",
        lambda: pinn.PDE(residual, MOVING, points=MOVING.grid(3), initial=pinn.dirichlet(0.0, MOVING.grid(2))),
    ),
    "no domain": (TypeError, "`domain` must be a Box", lambda: pinn.PDE(residual, None, points=[[0.5]], boundary=())),
    "no residual": (TypeError, "`residual` must be", lambda: pinn.PDE(1, BOX, points=[[0.5]], boundary=())),
    "bounds reversed": (ValueError, "must be below", lambda: pinn.Box(1.0, 0.0)),
    "bounds of two shapes": (ValueError, "must have one shape", lambda: pinn.Box((0.0, 0.0), 1.0)),
    "no time": (ValueError, "has no time", lambda: BOX.initial(3)),
    "boundary that nothing imposes": (
        ValueError,
        "nothing imposes the boundary",
        lambda: pinn.Problem(pde(boundary=ENDS), SINES, scale=0.1),
    ),
    "scale": (ValueError, "`scale` must be positive", lambda: problem(scale=0.0)),
    "no trial function": (TypeError, "`trial` must be", lambda: pinn.Problem(pde(), 3.0, scale=0.1)),
    "nothing to fit": (ValueError, "nothing that could be fitted", lambda: pinn.Problem(pde(), jnp.sin, scale=0.1)),
    "data outside": (
        ValueError,
        "`data.points` must lie in the domain",
        lambda: pinn.Problem(pde(), SINES, pinn.Data([[2.0]], [0.1], 0.1), scale=0.1),
    ),
    "data of two lengths": (ValueError, "one row a point", lambda: pinn.Data([[0.5]], [0.1, 0.2], 0.1)),
    "data's scale": (ValueError, "must broadcast", lambda: pinn.Data([[0.5]], [0.1], [0.1, 0.2])),
    "data of NaN": (ValueError, "`values` must be finite", lambda: pinn.Data([[0.5]], [np.nan], 0.1)),
    "coefficients": (ValueError, "must have shape", lambda: SINES.with_coefficients(jnp.ones(4))),
    "expansion in the plane": (
        ValueError,
        "must be an interval",
        lambda: pinn.ExponentialExpansion(MOVING, 3, range=0.1),
    ),
    "counts of axes": (ValueError, "one count or 2", lambda: pinn.ChebyshevBasis(MOVING, (3, 3, 3))),
    "scales of equations": (
        ValueError,
        "the scale of the block 'pde'",
        lambda: problem(scale=[0.1, 0.1]).check_shapes(1.0),
    ),
    "residual of two axes": (
        ValueError,
        "must be a number or an array of shape",
        lambda: problem(lambda u, x, theta: jnp.ones((2, 2))).check_shapes(1.0),
    ),
    "data of other numbers": (
        ValueError,
        "1 number\\(s\\) at a point",
        lambda: pinn.Problem(
            pde(), pinn.SineBasis(BOX, 3, outputs=2), pinn.Data([[0.5]], [0.1], 0.1), scale=0.1
        ).check_shapes(1.0),
    ),
    "theta that moves nothing": (
        ValueError,
        "no block moves `theta`",
        lambda: pinn.joint(problem(lambda u, x, theta: u(x) - 1), 1.0, progress_bar=False),
    ),
    "a start that is not finite": (
        ValueError,
        "blocks: pde",
        lambda: pinn.joint(problem(lambda u, x, theta: jnp.log(-theta) * u(x)), 1.0, progress_bar=False),
    ),
    "theta that is none": (ValueError, "at least one number", lambda: pinn.joint(problem(), {}, progress_bar=False)),
    "theta of NaN": (ValueError, "`theta` must be finite", lambda: pinn.joint(problem(), np.nan, progress_bar=False)),
    "another trial space": (
        ValueError,
        "of the problem's trial space",
        lambda: pinn.joint(problem(), 1.0, pinn.SineBasis(BOX, 4), progress_bar=False),
    ),
    "a batch too large": (
        ValueError,
        "`batch_size` must be at most",
        lambda: pinn.spring(problem(), 1.0, key=jax.random.key(0), batch_size=6, progress_bar=False),
    ),
    "a block that is none": (
        ValueError,
        "`theta_from` must be one of data, pde",
        lambda: pinn.adam(problem(), 1.0, theta_from=("boundary",), progress_bar=False),
    ),
    "no data to reduce": (ValueError, "has no data", lambda: pinn.PenalizedPotential(problem().physics())),
    "no potential": (TypeError, "must be a ReducedPotential", lambda: pinn.reduced(problem(), 1.0)),
    "no problem": (ValueError, "must hold at least one", lambda: pinn.identifiability_report([], 1.0)),
    "information": (
        ValueError,
        "`reference_information` must have shape",
        lambda: pinn.identifiability_report(problem(), 1.0, reference_information=np.ones((2, 2))),
    ),
    "points to adapt": (
        ValueError,
        "at most `candidates`",
        lambda: pde().adapt(SINES, 1.0, 10, seed=0, candidates=4),
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_errors(case):
    kind, message, call = CASES[case]
    with pytest.raises(kind, match=message):
        call()
