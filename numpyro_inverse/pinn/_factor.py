"""The residuals of an equation as a factor of a NumPyro model: a Bayesian physics-informed network."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from numpyro_inverse._checks import check_callable, check_flag, check_instance, check_positive
from numpyro_inverse.distributions._energy import PotentialFactor
from numpyro_inverse.pinn._parameters import check_parameters
from numpyro_inverse.pinn._pde import PDE
from numpyro_inverse.pinn._problem import split
from numpyro_inverse.pinn.trial import Enforced


class _Given(eqx.Module):
    """The potential whose value is its argument."""

    def energy(self, x: Float[Array, ""]) -> Float[Array, ""]:
        return x


def factor(
    name: str,
    pde: PDE,
    u: Any,
    theta: Any,
    scale: Any,
    *,
    boundary_scale: Any = None,
    initial_scale: Any = None,
    volume_correction: bool = False,
) -> None:
    r"""Add :math:`\sum_j \log N(r(u, x_j, \theta) \mid 0, s^2)`, over collocation points and equations, to a model.

    u is a function whose parameters are latent sites: ``numpyro.contrib.module.random_eqx_module`` for a network,
    ``basis.with_coefficients(numpyro.sample(...))`` for a linear trial space. Data are ordinary sites. The normalizing
    constant is there, so that ``scale`` may be sampled.

    **Not the posterior of the equation as a constraint.** As :math:`s \to 0` the law of :math:`\theta` gains the
    factor :math:`|\det \partial_\phi r|^{-1}`, the volume of :math:`\phi` that a residual allows, which depends on
    :math:`\theta`; for :math:`-u'' + \theta u = f` in sines it is :math:`\sqrt\theta / \sinh \sqrt\theta`. It matters
    where the data are weak.
    ``volume_correction`` multiplies by :math:`|\det \partial_\phi r|`, r in standard deviations, which removes it where
    the residuals are as many as the parameters. A proper prior of :math:`\phi` leaves a factor of its own: its density
    at the solution.

    Args:
        name: of the site.
        pde: the equation, with its points.
        u: the trial function.
        theta: the equation's parameters.
        scale: s, a number or one an equation.
        boundary_scale: of the boundary conditions' residuals; needed if the equation has any, unless u is
            :class:`~numpyro_inverse.pinn.Enforced`.
        initial_scale: of the initial conditions' residuals.
        volume_correction: whether to remove the volume factor.

    Raises:
        TypeError: arguments of the wrong kind.
        ValueError: a scale that is not positive; conditions that nothing imposes; a volume correction where residuals
            and parameters differ in number.
    """
    here = "pinn.factor"
    if not isinstance(name, str):
        raise TypeError(f"{here}: `name` must be the name of the site; got {name!r}.")
    check_instance(here, "pde", pde, PDE, "a PDE")
    check_callable(here, "u", u, "a function of a point")
    check_parameters(here, theta)
    scales = {"scale": scale, "boundary_scale": boundary_scale, "initial_scale": initial_scale}
    for argument, value in scales.items():
        if value is not None or argument == "scale":
            scales[argument] = jnp.asarray(check_positive(here, argument, value))
    for argument, conditions in (("boundary_scale", pde.boundary), ("initial_scale", pde.initial)):
        if conditions and scales[argument] is None and not isinstance(u, Enforced):
            raise ValueError(
                f"{here}: give `{argument}`, or a trial space that satisfies the conditions (`pinn.Enforced`): nothing "
                "imposes them."
            )
    volume_correction = check_flag(here, "volume_correction", volume_correction)

    def blocks(u: Any) -> list[tuple[Array, Array]]:
        found = [("scale", pde.at(u, theta))]
        for argument, conditions in (("boundary_scale", pde.boundary), ("initial_scale", pde.initial)):
            if scales[argument] is not None:
                for c in conditions:
                    rows = jax.vmap(lambda x, c=c: jnp.atleast_1d(c.residual(u, x, theta)))(c.points)
                    found.append((argument, rows))
        for argument, rows in found:
            if jnp.shape(scales[argument]) not in ((), rows.shape[1:]):
                raise ValueError(
                    f"{here}: `{argument}` must be a number or one for each residual at a point, of shape "
                    f"{rows.shape[1:]}; got shape {jnp.shape(scales[argument])}."
                )
        return [(rows, scales[argument]) for argument, rows in found]

    def residuals(u: Any) -> Array:
        return jnp.concatenate([(rows / deviation).ravel() for rows, deviation in blocks(u)])

    energy = 0.0
    for rows, deviation in blocks(u):
        energy = energy - jnp.sum(jax.scipy.stats.norm.logpdf(rows, 0.0, deviation))
    if volume_correction:
        arrays, rest = split(u)
        vector, unravel = ravel_pytree(arrays)
        jacobian = jax.jacfwd(lambda v: residuals(eqx.combine(unravel(v), rest)))(vector)
        if jacobian.shape[0] != jacobian.shape[1]:
            raise ValueError(
                f"{here}: `volume_correction` needs as many residuals as parameters of the trial space; there are "
                f"{jacobian.shape[0]} and {jacobian.shape[1]}."
            )
        energy = energy - jnp.linalg.slogdet(jacobian)[1]
    fn = PotentialFactor(name, _Given(), jnp.asarray(energy, jnp.result_type(float)), 0)
    numpyro.sample(name, fn, obs=fn.sample(None), infer={"is_auxiliary": True})
