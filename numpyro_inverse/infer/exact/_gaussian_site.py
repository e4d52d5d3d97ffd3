"""Gaussian distributions as location plus root times white noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)
from numpyro.distributions.distribution import MaskedDistribution

from numpyro_inverse.distributions._complex_normal import ComplexNormal

GAUSSIAN = (Normal, MultivariateNormal, LowRankMultivariateNormal, ComplexNormal)


class GaussianSite(NamedTuple):
    r"""The law of :math:`m + S \xi`, :math:`\xi \sim N(0, I)`, with the shape of the site's data where they are given.

    ``root`` is :math:`S`: standard deviations (``dense`` false) or lower triangular matrices that act on the last axis.
    Entries with ``mask`` false do not count in the density. A complex site has white noise in either part.
    """

    loc: Inexact[Array, "*shape"]
    root: Inexact[Array, "..."]
    dense: bool
    mask: Bool[Array, "*shape"] | None

    def from_white(self, noise: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        r""":math:`m + S \xi`."""
        if self.dense:
            return self.loc + jnp.einsum("...ij,...j->...i", self.root, noise, precision="highest")
        return self.loc + self.root * noise

    def to_white(self, value: Inexact[Array, "*shape"]) -> Inexact[Array, "..."]:
        r""":math:`S^{-1} (x - m)`, zero where masked; real and imaginary parts along a last axis if complex."""
        residual = value - self.loc
        if self.dense:
            root = jnp.broadcast_to(self.root, (*residual.shape, residual.shape[-1]))
            white = jax.lax.linalg.triangular_solve(root, residual[..., None], left_side=True, lower=True)[..., 0]
        else:
            white = residual / self.root
        white = white if self.mask is None else jnp.where(self.mask, white, 0)
        return jnp.stack([white.real, white.imag], axis=-1) if self.parts == 2 else white

    @property
    def parts(self) -> int:
        """Real numbers per entry."""
        return 2 if jnp.iscomplexobj(self.loc) else 1

    @property
    def num_counting(self) -> Inexact[Array, ""]:
        """How many real numbers count in the density."""
        return self.parts * jnp.sum(self._counting)

    @property
    def log_scale(self) -> Inexact[Array, ""]:
        r""":math:`\log |S|` over the real numbers that count."""
        scale = jnp.diagonal(self.root, axis1=-2, axis2=-1) if self.dense else self.root
        scales = jnp.log(jnp.broadcast_to(scale, self.loc.shape))
        return self.parts * jnp.sum(jnp.where(self._counting, scales, 0))

    @property
    def _counting(self) -> Bool[Array, "*shape"]:
        return jnp.ones(self.loc.shape, bool) if self.mask is None else self.mask


def is_gaussian(fn: Distribution) -> bool:
    """Whether :func:`gaussian_site` knows the distribution."""
    return isinstance(_core(fn), GAUSSIAN)


def is_masked(fn: Distribution) -> bool:
    """Whether part of the distribution's density is masked out."""
    while isinstance(fn, Independent | ExpandedDistribution):
        fn = fn.base_dist
    return isinstance(fn, MaskedDistribution)


def describe(fn: Distribution) -> str:
    """The name of the distribution inside NumPyro's wrappers."""
    return type(_core(fn)).__name__


def gaussian_site(fn: Distribution, data: Any = None) -> GaussianSite:
    """Location and root of a Gaussian distribution, however wrapped, broadcast against its ``data`` as NumPyro does."""
    core, shape, masks = _core(fn), fn.shape(), []
    wrapper = fn
    while isinstance(wrapper, Independent | ExpandedDistribution | MaskedDistribution):
        if isinstance(wrapper, MaskedDistribution):
            mask = jnp.asarray(wrapper._mask)
            masks.append(mask.reshape(mask.shape + (1,) * (len(wrapper.event_shape) if mask.ndim else 0)))
        wrapper = wrapper.base_dist
    if data is not None:
        shape = jnp.broadcast_shapes(shape, jnp.shape(data))
    mask = None
    if masks:
        mask = jnp.broadcast_to(masks[0], shape)
        for other in masks[1:]:
            mask = mask & jnp.broadcast_to(other, shape)
    dense = not isinstance(core, Normal | ComplexNormal)
    root = core.scale_tril if dense else core.scale
    return GaussianSite(jnp.broadcast_to(core.loc, shape), root, dense, mask)


def _core(fn: Distribution) -> Distribution:
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist
    return fn


def size(shapes: dict[str, tuple[int, ...]]) -> int:
    """Total number of entries."""
    return int(sum(np.prod(shape, dtype=int) for shape in shapes.values()))
