"""Coordinates fitted to data: how far each mode is centered, what is coupled to what, a Gaussian sketch."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from numpyro_inverse.infer._init_near import init_near
from numpyro_inverse.infer.whitening._directions import Directions
from numpyro_inverse.infer.whitening._reparam import LATENT

RIDGE = 0.1  # smallest curvature that is no ridge


class Coordinates(eqx.Module):
    r"""White coordinates of every field, and a Gaussian sketch of the posterior; made by :func:`fit_coordinates`.

    With :math:`\eta` the other latent sites in unconstrained space, field j has the centered coefficients

    .. math:: v_j = v'_j + C_j (\eta - \hat\eta) + \sum_{i < j} S_{ji} \odot (v_i - C_i (\eta - \hat\eta)),

    and :math:`v'_j` is what is sampled, as site ``u_latent``. Where the data are few (512 or less) it is, instead, a
    :math:`z_j` that is standard normal along the few directions they inform, whatever the noise level:

    .. math:: v_j = m_j + C_j (\eta - \hat\eta) - U_j \sum_{i < j} Q_{ji}^T (v_i - C_i (\eta - \hat\eta))
        + (I + U_j (D_j - I) U_j^T) z_j, \quad D_j = (e^{p_j} + \Lambda_j e^{g_j})^{-1/2},

    where the logarithms g and p of information and prior precision are linear in :math:`\eta - \hat\eta`, and the part
    of the mean along :math:`U_j` follows them. C has rows for the sites whose posterior is much wider than their
    posterior given the fields (an intercept, a trend, group effects), and S couples fields that the data see together;
    both are empty in most models. In :math:`(\eta, v')` or :math:`(\eta, z)` the sketch has no
    correlation between the two. Normal sites whose prior depends on other sites (group effects b) are partially
    centered like a field's coefficients, sampled as ``b_latent``, and belong to :math:`\eta`.

    It is a pytree: ``nn.save`` writes it. Dictionaries are keyed by field (``centering`` and ``reference``, which have
    group effects too, ``mode_*``, ``field_coupling``, ``directions``) or by the other latent sites (``hyper_*``,
    unconstrained; ``hyper_coupling`` by field, then site).

    Attributes:
        centering: c per coefficient.
        reference: amplitudes :math:`b_k` at the sketch's center.
        mode_location: means of what is sampled of a field.
        mode_variance: its variances.
        hyper_location: :math:`\hat\eta`.
        hyper_spread: marginal standard deviations of :math:`\eta`.
        hyper_covariance: their marginal covariance, sites in alphabetical order.
        hyper_coupling: C, of shape ``coefficients + site's``.
        field_coupling: S, by field and earlier field, of the coefficients' shape.
        directions: m, U, :math:`\Lambda`, Q, by field; empty where the data are many.
        growth_rates: of the logarithms of information, amplitude and prior precision with the other sites, by field,
            then site.
        step_size: suits NUTS in units of the sketch; NaN if none that was tried does.
        smallest_curvature: of the averaged potential in units of the sketch, whose own is 1: a value much below 1 means
            a ridge that the sketch has missed.
        downstream_sites: latent sites whose prior depends on a field; no field is coupled to them.
    """

    centering: dict[str, Float[Array, "..."]]
    reference: dict[str, Float[Array, "..."]]
    mode_location: dict[str, Float[Array, "..."]]
    mode_variance: dict[str, Float[Array, "..."]]
    hyper_location: dict[str, Float[Array, "..."]]
    hyper_spread: dict[str, Float[Array, "..."]]
    hyper_covariance: Float[Array, "p p"]
    hyper_coupling: dict[str, dict[str, Float[Array, "..."]]]
    field_coupling: dict[str, dict[str, Float[Array, "..."]]]
    directions: dict[str, Directions]
    growth_rates: dict[str, dict[str, Float[Array, "3 r ..."]]]
    step_size: Float[Array, ""]
    smallest_curvature: Float[Array, ""]
    downstream_sites: tuple[str, ...] = eqx.field(static=True)

    @property
    def has_ridge(self) -> bool:
        """Whether the posterior is more than three times wider than the sketch in some direction."""
        return not float(self.smallest_curvature) > RIDGE

    @property
    def coupled_sites(self) -> tuple[str, ...]:
        """Sites to which fields are coupled."""
        followed = [*self.hyper_coupling.values(), *self.growth_rates.values()]
        return tuple(sorted({name for sites in followed for name in sites}))

    def nuts_settings(self) -> dict[str, Any]:
        r"""Keyword arguments for NumPyro's ``NUTS`` on ``whiten(model, coordinates)``.

        The mass matrix is diagonal in the modes, from prior plus the data's expected information, and dense in the
        other sites, from their marginal covariance. In these coordinates the posterior is close to a standard normal,
        on which a NUTS trajectory doubles until it has turned by more than :math:`\pi`; the step size is the largest
        :math:`1.2 \pi / (2^j - 1)`, j = 4, ..., 7, whose acceptance in a short trial chain is 0.7 or more. Both are
        then kept: warm-up needs only to forget the starting points, which are draws of a Gaussian 1.5 times as wide as
        the sketch in the other sites, and 50 iterations do. If no such step is good enough, or the posterior has a
        ridge that the sketch does not know, warm-up adapts step size and mass matrix and needs its usual length.

        >>> coordinates = fit_coordinates(model, data=y)
        >>> kernel = NUTS(whiten(model, coordinates), **coordinates.nuts_settings())
        """
        others = tuple(sorted(self.hyper_location))
        latents = {f"{name}{LATENT}": value for name, value in self.mode_variance.items()}
        modes = tuple(sorted(latents))
        mass = {modes: jnp.concatenate([jnp.ravel(latents[name]) for name in modes])}
        if others:
            mass[others] = self.hyper_covariance
        settings: dict[str, Any] = {
            "inverse_mass_matrix": mass,
            "dense_mass": [others] if others else [],
            "adapt_mass_matrix": self.has_ridge,
            "init_strategy": init_near(
                self.hyper_location,
                self.hyper_covariance,
                {f"{k}{LATENT}": (v, self.mode_variance[k]) for k, v in self.mode_location.items()},
            ),
        }
        if self.has_ridge or not np.isfinite(self.step_size):
            return settings
        return settings | {"step_size": float(self.step_size), "adapt_step_size": False}

    def __repr__(self) -> str:
        return f"Coordinates of {', '.join(self.centering)}:\n{self}"

    def __str__(self) -> str:
        lines = []
        for name, c in self.centering.items():
            c = np.asarray(c)
            lines.append(
                f"{name}: {c.size} coefficients, centering {c.min():.2g} to {c.max():.2g} (mean {c.mean():.2g})"
            )
            if self.hyper_coupling.get(name):
                lines.append(f"  coupled to {', '.join(self.hyper_coupling[name])}")
            if name in self.directions:
                lines.append(f"  standardized along {len(self.directions[name].information)} directions")
            if self.field_coupling.get(name):
                lines.append(f"  coupled to the field {', '.join(self.field_coupling[name])}")
        for name, value in self.hyper_location.items():
            spread = np.asarray(self.hyper_spread[name])
            at = f"{float(value):.3g} +- {float(spread):.2g}" if np.ndim(value) == 0 else f"{np.size(value)} numbers"
            lines.append(f"{name}: {at} (unconstrained)")
        step = float(self.step_size)
        lines.append(f"step size {step:.3g}" if np.isfinite(step) else "no step size found: warm-up adapts it")
        if self.has_ridge:
            lines.append(f"RIDGE: smallest curvature {float(self.smallest_curvature):.2g} of the sketch's")
        return "\n".join(lines)
