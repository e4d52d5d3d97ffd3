"""Few data and many coefficients: latents that are standard normal along the few directions the data inform."""

from __future__ import annotations

from functools import partial
from typing import Any

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
    :math:`m - U \sum_i Q_i^T r_i`. If the information grows to :math:`\Lambda e^g` (a smaller noise), the spreads fall
    and the mean comes nearer to what the data say alone.

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

    def spread(self, log_growth: Float[Array, "r"] | float = 0.0) -> Float[Array, "r"]:
        r"""Posterior standard deviations along the vectors, :math:`(1 + \lambda e^g)^{-1/2}`."""
        return 1 / jnp.sqrt(1 + self.information * _growth(log_growth))

    def follow(self, mean: Float[Array, "..."], log_growth: Float[Array, "r"] | float) -> Float[Array, "..."]:
        r"""A posterior mean as the information grows: along the vectors it is :math:`\lambda / (1 + \lambda)` of what
        the data say alone."""
        growth = _growth(log_growth)
        factor = growth * (1 + self.information) / (1 + self.information * growth)
        return _scaled_along(self.vectors, factor, mean)


def _growth(log_growth: Any) -> Array:
    return jnp.exp(jnp.clip(jnp.asarray(log_growth), -STEEPEST, STEEPEST))


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
