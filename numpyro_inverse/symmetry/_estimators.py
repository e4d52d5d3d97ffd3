"""Point estimates that a symmetry does not average to nothing."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from numpyro_inverse._checks import check_count, check_instance
from numpyro_inverse.symmetry._group import Group, finite, stacked
from numpyro_inverse.symmetry._product import scales
from numpyro_inverse.symmetry._symmetry import Symmetry


class OrbitMean(NamedTuple):
    """What :func:`orbit_mean` found.

    Attributes:
        mean: the estimate v, one of its orbit.
        risk: the mean of :math:`\\min_g |v - g u|^2` over the draws.
        num_steps: iterations of the best start.
        converged: whether the last one did not lower the risk any more.
    """

    mean: PyTree
    risk: Float[Array, ""]
    num_steps: Int[Array, ""]
    converged: Bool[Array, ""]


def orbit_mean(draws: PyTree, group: Group | Symmetry, *, num_starts: int = 4, max_steps: int = 100) -> OrbitMean:
    r"""The Fréchet mean of orbits, the Bayes estimate under the orbit loss:

    .. math:: \min_v \frac1N \sum_i \min_g |v - g u_i|^2, \qquad v \gets \frac1N \sum_i g_i(v)\, u_i,

    :math:`g_i(v) u_i` being the member of the orbit of :math:`u_i` nearest to v. Each step lowers the risk; it may end
    in a local minimum, so it starts from several draws, and the best result is kept.

    Args:
        draws: an array, draws first, or a dictionary of them for a :class:`Symmetry`.
        group: isometries.
        num_starts: draws to start from, evenly spaced.
        max_steps: of each.

    Raises:
        TypeError: no group, no numbers.
        ValueError: no draws, or draws that are not finite; a group that scales: the mean of the
            nearest members shrinks to zero.
    """
    where = "orbit_mean"
    check_instance(where, "group", group, Group | Symmetry, "a group")
    if scales(group.group if isinstance(group, Symmetry) else group):
        raise ValueError(f"{where}: `group` scales, so that all orbits come near zero; canonicalize the draws first.")
    if isinstance(group, Symmetry):
        group.check_sites(where, draws, "draws")
        draws = {name: finite(where, draws[name], "draws") for name in group.sites}
    else:
        draws = finite(where, draws, "draws")
    number = stacked(where, "draws", draws)
    starts = np.linspace(0, number - 1, min(check_count(where, "num_starts", num_starts), number)).astype(int)
    found = _descend(group, draws, jnp.asarray(starts), check_count(where, "max_steps", max_steps))
    best = jnp.argmin(found.risk)
    return jax.tree.map(lambda x: x[best], found)


@partial(jax.jit, static_argnames="max_steps")
def _descend(group: Group | Symmetry, draws: PyTree, starts: Int[Array, " starts"], max_steps: int) -> OrbitMean:
    def aligned(v: PyTree) -> PyTree:
        return jax.vmap(lambda u: group.action(group.canonicalizer(u, v), u))(draws)

    def risk(v: PyTree) -> Float[Array, ""]:
        distances = jax.tree.map(lambda x, v: jnp.sum(jnp.abs(x - v) ** 2) / len(x), aligned(v), v)
        return sum(jax.tree.leaves(distances), jnp.zeros(()))

    def step(state: tuple) -> tuple:
        v, value, k, _ = state
        new = jax.tree.map(lambda x: jnp.mean(x, axis=0), aligned(v))
        lower = risk(new)
        better = lower < value * (1 - 4 * jnp.finfo(lower.dtype).eps)
        return jax.tree.map(partial(jnp.where, lower < value), new, v), jnp.minimum(lower, value), k + 1, ~better

    def one(start: Int[Array, ""]) -> OrbitMean:
        v = jax.tree.map(lambda x: x[start], draws)
        first = (v, risk(v), jnp.zeros((), int), jnp.zeros((), bool))
        return OrbitMean(*jax.lax.while_loop(lambda s: ~s[3] & (s[2] < max_steps), step, first))

    return jax.lax.map(one, starts)


def outer_product_estimate(draws: Inexact[Array, "draws *shape"]) -> Inexact[Array, "*shape"]:
    r"""The Bayes estimate under :math:`|u u^* - v v^*|_F^2`: :math:`\sqrt{\lambda_1}\, q_1` of the first eigenpair of
    :math:`E[u u^* \mid y]` (Eckart and Young).

    It is blind to a sign, and to the phase of complex draws, needs no start, and is a good one for :func:`orbit_mean`.

    Args:
        draws: of one array, draws first.

    Raises:
        TypeError: no numbers.
        ValueError: no draw, or draws that are not finite.
    """
    draws = finite("outer_product_estimate", draws, "draws")
    if draws.ndim < 1 or draws.size == 0:
        raise ValueError(f"outer_product_estimate: `draws` must have draws first; got shape {draws.shape}.")
    flat = draws.reshape(len(draws), -1)
    _, values, vectors = jnp.linalg.svd(flat, full_matrices=False)
    return (values[0] / np.sqrt(len(draws)) * vectors[0]).reshape(draws.shape[1:])
