"""Few data and many coefficients: latents that are standard normal along the few directions the data inform."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

INFORMED = 0.05  # information, over the prior's, below which a direction is left alone
STEEPEST = 30.0  # change of the log information, at most


class Directions(eqx.Module):
    r"""What the data say about a field's coefficients given the other sites, of low rank.

    With the coefficients in units of their prior, and the fields that come later integrated out, the posterior
    precision is :math:`I + U \Lambda U^T`. Given the earlier fields' departures :math:`r_i` the mean is
    :math:`m - U \sum_i Q_i^T r_i`. If the information grows to :math:`\Lambda e^g`, a unit of v to :math:`e^a` times
    its effect on the data and the prior precision to :math:`e^p` (another noise, another scale), spreads and mean
    follow.

    Attributes:
        mean: m, of the coefficients' shape.
        vectors: :math:`U^T`; orthonormal.
        information: the diagonal of :math:`\Lambda`.
        coupling: :math:`Q_i^T`, by earlier field.
    """

    mean: Float[Array, "..."]
    vectors: Float[Array, "r ..."]
    information: Float[Array, "r"]
    coupling: dict[str, Float[Array, "r ..."]]

    def spread(self, growth: Growth | None = None) -> Float[Array, "r"]:
        r"""Posterior standard deviations along the vectors, :math:`(e^p + \lambda e^g)^{-1/2}`."""
        prior, information = _precisions(self.information, growth)
        return 1 / jnp.sqrt(prior + information)

    def follow(self, mean: Float[Array, "..."], growth: Growth) -> Float[Array, "..."]:
        r"""A posterior mean as the precisions grow: along the vectors it is :math:`e^{g - a} / (e^p + \lambda e^g)` of
        what the data say."""
        prior, information = _precisions(self.information, growth)
        said = jnp.exp(_bounded(growth.information - growth.amplitude))
        return _scaled_along(self.vectors, said * (1 + self.information) / (prior + information), mean)


class Growth(NamedTuple):
    """Changes of logarithms along the directions, at other values of the other sites."""

    information: Float[Array, "r"]
    amplitude: Float[Array, "r"]  # of what the data see of a unit of v
    prior: Float[Array, "r"]  # precision


def _precisions(information: Array, growth: Growth | None) -> tuple[Array, Array]:
    if growth is None:
        return jnp.ones_like(information), information
    return jnp.exp(_bounded(growth.prior)), information * jnp.exp(_bounded(growth.information))


def _bounded(log_growth: Array) -> Array:
    return jnp.clip(log_growth, -STEEPEST, STEEPEST)


def _scaled_along(vectors: Array, factor: Array, x: Array) -> Array:
    """``x`` with its parts along orthonormal vectors multiplied by factors."""
    axes = jnp.ndim(vectors) - 1
    along = jnp.tensordot(x, jnp.moveaxis(vectors, 0, -1), axes=axes, precision="highest")
    return x + jnp.tensordot((factor - 1) * along, vectors, axes=1, precision="highest")


class Standardized(Transform):
    r"""From centered coefficients v to the latents :math:`z = (I + U (D^{-1} - I) U^T)(v - s)`, ``along`` being
    :math:`(U^T, D)`; by the shift s alone if there is none."""

    def __init__(self, shift: Float[Array, "..."], event_dim: int, along: tuple[Array, Array] | None = None):
        self.shift, self.event_dim, self.along = shift, event_dim, along

    @property
    def domain(self):
        """All arrays."""
        return constraints.independent(constraints.real, self.event_dim)

    codomain = domain

    def __call__(self, x):
        """The latents z."""
        centered = x - self.shift
        return centered if self.along is None else _scaled_along(self.along[0], 1 / self.along[1], centered)

    def _inverse(self, y):
        return (y if self.along is None else _scaled_along(*self.along, y)) + self.shift

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        """Minus the sum of the logarithms of D."""
        batch = jnp.shape(x)[: jnp.ndim(x) - self.event_dim]
        change = jnp.zeros(()) if self.along is None else -jnp.sum(jnp.log(self.along[1]))
        return jnp.broadcast_to(change, batch)

    def tree_flatten(self):
        """Arrays, and the number of axes of an event."""
        return (self.shift, self.along), (("shift", "along"), {"event_dim": self.event_dim})


def field_by_field(
    fields: list[str],
    mean: dict[str, Array],
    values: Float[np.ndarray, "r"],
    vectors: dict[str, Float[np.ndarray, "r n"]],
) -> dict[str, Directions]:
    r"""The information :math:`F = V \Lambda V^T` about the coefficients of all fields, taken apart.

    With :math:`G_j = \Lambda^{1/2} V_j^T` and :math:`K_j = I + \sum_{l > j} G_l G_l^T`, the information about field j
    with the later ones integrated out is :math:`H_j^T H_j`, :math:`H_j = K_j^{-1/2} G_j = W S U^T`, and its mean falls
    by :math:`U S (I + S^2)^{-1} W^T K_j^{-1/2} G_i r_i` for each earlier field.

    Args:
        fields: in the model's order.
        mean: of the coefficients.
        values: eigenvalues.
        vectors: eigenvectors, the rows' parts that belong to a field.
    """
    values = np.maximum(values, 0.0)
    factors = {name: np.sqrt(values)[:, None] * vectors[name] for name in fields}
    inner = np.eye(len(values))
    found = {}
    for k in reversed(range(len(fields))):
        name, shape = fields[k], jnp.shape(mean[fields[k]])
        eigenvalues, basis = np.linalg.eigh(inner)
        root = (basis / np.sqrt(eigenvalues)) @ basis.T
        left, singular, right = np.linalg.svd(root @ factors[name], full_matrices=False)
        kept = singular**2 > INFORMED
        kept[0] = True  # the first, however little is known of it, so that there is one
        left, singular, right = left[:, kept], singular[kept], right[kept]
        back = (singular / (1 + singular**2))[:, None] * (left.T @ root)
        coupling = {earlier: (back @ factors[earlier]).reshape(-1, *jnp.shape(mean[earlier])) for earlier in fields[:k]}
        center = np.asarray(mean[name], float)
        for earlier, factor in coupling.items():
            fall = np.tensordot(factor, np.asarray(mean[earlier], float), axes=factor.ndim - 1)
            center = center + np.tensordot(fall, right.reshape(-1, *shape), axes=1)
        as_type = partial(jnp.asarray, dtype=jnp.result_type(mean[name]))
        found[name] = Directions(
            mean=as_type(center),
            vectors=as_type(right.reshape(-1, *shape)),
            information=as_type(singular**2),
            coupling={earlier: as_type(factor) for earlier, factor in coupling.items() if np.any(factor)},
        )
        inner = inner + factors[name] @ factors[name].T
    return {name: found[name] for name in fields}
